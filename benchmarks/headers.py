"""Claim: headers are fetched at the quota, and read, published and asked in bounded memory.

    python -m benchmarks.headers                          # 1,500 documents at 50 requests/s
    python -m benchmarks.headers --image-sets 3000 --tps 50
    python -m benchmarks.headers --rows 1000000           # half an hour

Measured are the fetch of all headers of a synthetic hospital, which this process serves, their
publication, and the reading of one document of 100 instances and of one of 200 MB. With `--rows`
only: a lake of so many image sets and as many headers is written directly, published without the
headers and then with them, and a cohort by slice thickness and maker is counted, five times. The
bars: 500 MB and 0.3 s. Each part runs in a process of its own. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.process import Deadline, Measured, measure, run_part

_PARTS: dict[str, Callable[..., object]] = {}


def _part(work: Callable[..., object]) -> Callable[..., object]:
    _PARTS[work.__name__] = work
    return work


@_part
def fetch(root: str, datastore_id: str, tps: str) -> None:
    """Fetch all headers, and publish them."""
    from cohortlake import Settings, Sync
    from cohortlake.ingest.headers.choice import HeaderChoice

    settings = Settings((datastore_id,), root, metadata_tps=float(tps), privacy="safe")
    Sync(settings).fetch_headers(HeaderChoice(include_archived=True))


@_part
def publish(root: str, datastore_id: str, _: str) -> None:
    """Publish the headers."""
    from cohortlake import Settings, Sync

    Sync(Settings((datastore_id,), root, privacy="safe")).publish()


@_part
def instances(count: str, size: str, times: str) -> None:
    """Read a document of so many instances, of so many bytes each, so many times."""
    from cohortlake.headers.compact import Reader
    from cohortlake.healthimaging import document

    body = gzip.compress(b"".join(_document(int(count), int(size))), 1)
    for _ in range(int(times)):
        reader = Reader.of(document.read(io.BytesIO(body)))
        reader.header()
        reader.slices.volume()


@_part
def make(root: str, rows: str) -> None:
    """Write a version history of so many image sets."""
    from benchmarks.publish import make_history
    from cohortlake.storage.root import Root

    lake = Root(root)
    lake.prepare()
    make_history(lake, int(rows))


@_part
def write(root: str, datastore_id: str) -> None:
    """Write a header of 20 slices for each image set, a file for each study month."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from cohortlake.headers import files
    from cohortlake.ingest.headers.choice import HeaderChoice, find_due
    from cohortlake.storage.root import Root

    lake = Root(root)
    headers = pa.Table.from_pylist([_header(number) for number in range(60)], files.SCHEMA)
    for due in find_due(lake, datastore_id, HeaderChoice()):
        for month in sorted({*due.states["study_month"].to_pylist()}):
            states = due.states.filter(pc.equal(due.states["study_month"], month))
            ids = states["image_set_id"].to_pylist()
            table = headers.take([int(one[:6], 16) % len(headers) for one in ids])
            for name, values in (
                ("image_set_id", states["image_set_id"]),
                ("version", states["version"]),
                ("datastore_id", pa.repeat(datastore_id, len(ids))),
                ("run_id", pa.repeat("bulk", len(ids))),
            ):
                place = files.SCHEMA.get_field_index(name)
                table = table.set_column(place, files.SCHEMA.field(name), values)
            files.write(lake, datastore_id, month, "bulk", [table])


def _header(number: int) -> dict[str, Any]:
    """Return the row of a header: makers, kernels and thicknesses differ from number to number."""
    from cohortlake.headers.compact import Reader
    from cohortlake.healthimaging import document
    from cohortlake.ingest.headers.fetch import row_of

    body = json.loads(b"".join(_document(20, 0)))
    for instance in body["Study"]["Series"]["1.2"]["Instances"].values():
        instance["DICOM"] |= {
            "Manufacturer": ("SIEMENS", "GE MEDICAL SYSTEMS", "TOSHIBA")[number % 3],
            "ManufacturerModelName": f"Model {number % 12}",
            "ConvolutionKernel": ("B30f", "B70f", "STANDARD", "LUNG", "FC07")[number % 5],
            "SliceThickness": str((0.6, 1, 1.25, 2, 5)[number % 5]),
            "KVP": str(80 + 20 * (number % 4)),
            "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
            "XRayTubeCurrent": "200",
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
        }
    packed = io.BytesIO(gzip.compress(json.dumps(body).encode()))
    return row_of(Reader.of(document.read(packed)))


@_part
def count(root: str, times: str) -> None:
    """Count a cohort by slice thickness and maker some times, and print how long each takes."""
    from time import perf_counter

    import cohortlake

    seconds = []
    with cohortlake.open(root) as lake:
        for number in range(int(times)):
            began = perf_counter()
            thin = lake.cohort(f"thin{number}", level="series").where(Manufacturer="SIEMENS")
            found = thin.where(f"SliceThickness <= {1.5 + number / 100}").count()
            seconds.append(perf_counter() - began)
    members = int(found["members"].sum())
    print(
        f"| {members:,} members, s each | {', '.join(f'{s:.2f}' for s in seconds)} |",
        file=sys.stderr,
    )


def _document(count: int, size: int) -> Iterator[bytes]:
    """Yield a document, instance by instance."""
    shared: dict[str, Any] = {f"Attribute{n}": "x" * 10 for n in range(60)}
    head = {"ImageSetID": "i" * 32, "Patient": {"DICOM": {"PatientID": "P"}}}
    yield json.dumps(head).encode()[:-1]
    yield b', "Study": {"DICOM": {}, "Series": {"1.2": {"DICOM": {}, "Instances": {'
    for number in range(count):
        own = shared | {
            "InstanceNumber": str(number),
            "ImagePositionPatient": ["0", "0", str(number)],
            "ImageOrientationPatient": list("100010"),
            "PixelSpacing": ["0.7", "0.7"],
            "Rows": 512,
            "Columns": 512,
        }
        own["Padding"] = "p" * max(0, size - len(json.dumps(own)))
        frames = [{"ID": f"{number:032x}", "FrameSizeInBytes": 200_000}]
        text = json.dumps({f"1.2.{number}": {"DICOM": own, "ImageFrames": frames}})
        yield (b"," if number else b"") + text[1:-1].encode()
    yield b"}}}}}"


def main() -> None:
    """Run the parts, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--image-sets", type=int, default=1500)
    arguments.add_argument("--tps", type=float, default=50)
    arguments.add_argument("--rows", type=int, default=0)
    arguments.add_argument("--part", nargs="+", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.part:
        name, *rest = given.part
        measure(lambda: _PARTS[name](*rest))
        return
    print("| what | s / CPU s / peak MB |\n|---|---|")
    if given.rows:
        _with_rows(given.rows)
        return
    _with_hospital(given.image_sets, given.tps)
    _row("document of 100 instances, 200 times", "instances", "100", "2000", "200")
    _row("document of 200 MB, 40,000 instances", "instances", "40000", "5000", "1")


def _with_hospital(image_sets: int, tps: float) -> None:
    from cohortlake import Settings, Sync
    from emulator import running

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        os.environ[name] = "none"
    os.environ["AWS_REGION"] = "us-east-1"
    quotas = f"GetImageSetMetadata={tps:g}"
    with (
        running(synthetic=image_sets, seed=1, quotas=quotas) as emulator,
        tempfile.TemporaryDirectory() as folder,
    ):
        os.environ["AWS_ENDPOINT_URL_MEDICAL_IMAGING"] = emulator.endpoint
        root, (datastore_id,) = str(Path(folder, "lake")), emulator.datastores
        Sync(Settings(emulator.datastores, root, tps=1000, privacy="safe")).run()
        took = _row(f"fetch {image_sets:,} headers", "fetch", root, datastore_id, f"{tps:g}")
        sent = emulator.admin.stats()["requests"]["GetImageSetMetadata"]
        share = sent / (took.seconds * tps + tps)
        print(f"| share of the quota: {sent:,} requests | {share:.1%} |")
        _row("publish them under `safe`", "publish", root, datastore_id, "")


def _with_rows(rows: int) -> None:
    from benchmarks.publish import DATASTORE

    with tempfile.TemporaryDirectory() as folder:
        root = str(Path(folder, "lake"))
        _row(f"write {rows:,} image sets", "make", root, str(rows))
        _row("publish them under `safe`", "publish", root, DATASTORE, "")
        _row("write their headers", "write", root, DATASTORE)
        _row("publish these too", "publish", root, DATASTORE, "")
        _row("count a cohort by header, 5 times", "count", root, "5")


def _row(what: str, *part: str) -> Measured:
    command = (sys.executable, "-m", "benchmarks.headers", "--part", *part)
    done = run_part(command, {}, Deadline())
    print(f"| {what} | {done} |", flush=True)
    return done


if __name__ == "__main__":
    main()
