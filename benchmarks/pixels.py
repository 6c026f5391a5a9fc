"""Claim: the manifest of a cohort of 100,000 series takes bounded memory in each format.

    python -m benchmarks.pixels                                 # 100,000 series of 100 frames
    python -m benchmarks.pixels --series 20000 --frames 500

Writes a version history and headers directly, publishes them under `limited`, and writes a manifest
of the whole lake in each format, each in a process of its own. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

import cohortlake
from benchmarks.process import Deadline, measure, run_part
from benchmarks.publish import DATASTORE, NOW, full, make_history
from cohortlake.cohort.pixels.write import FORMATS
from cohortlake.headers import files
from cohortlake.storage.root import Root

_GROUP_ROWS = 1_000  # as many as files that were merged have
_FRAME_BYTES = 200_000
_HEADER = '{"instances": {"StoredTransferSyntaxUID": "1.2.840.10008.1.2.4.202"}}'


def make_headers(root: Root, frames: int) -> None:
    """Write a header with so many frames, an instance each, for each published image set."""
    with cohortlake.open(root.uri) as lake:
        rows = lake.sql("""
            SELECT coalesce(study_month, 'undated') AS month, image_set_id, version FROM image_sets
            ORDER BY month, image_set_id
        """).fetchall()
    months: dict[str, list[tuple[str, int]]] = {}
    for month, *version in rows:
        months.setdefault(month, []).append(tuple(version))
    for month, versions in months.items():
        files.write(root, DATASTORE, month, "bulk", _headers(versions, frames))


def _headers(versions: list[tuple[str, int]], frames: int) -> Iterator[pa.Table]:
    uids = [f"1.2.826.0.1.3680043.8.498.{number}" for number in range(frames)]
    for start in range(0, len(versions), _GROUP_ROWS):
        some = versions[start : start + _GROUP_ROWS]
        count = len(some) * frames
        frame = pa.StructArray.from_arrays(
            [[secrets.token_hex(16) for _ in range(count)], [_FRAME_BYTES] * count],
            ["ID", "FrameSizeInBytes"],
        )
        of_instance = pa.ListArray.from_arrays(range(count + 1), frame)
        instance = pa.StructArray.from_arrays(
            [uids * len(some), of_instance], ["SOPInstanceUID", "ImageFrames"]
        )
        offsets = range(0, count + 1, frames)
        columns = {
            "datastore_id": [DATASTORE] * len(some),
            "image_set_id": [image_set_id for image_set_id, _ in some],
            "version": [version for _, version in some],
            "header": [_HEADER] * len(some),
            "instances": pa.ListArray.from_arrays(offsets, instance),
            "document_bytes": [1] * len(some),
            "fetched_at": [NOW] * len(some),
            "run_id": ["bulk"] * len(some),
        }
        nothing = pa.nulls(len(some))
        yield pa.table(
            [columns.get(n, nothing) for n in files.SCHEMA.names], files.SCHEMA.names
        ).cast(files.SCHEMA)


def write(root: str, format_: str, path: str) -> None:
    """Write the manifest of everybody."""
    with cohortlake.open(root) as lake:
        written = lake.cohort("all", level="series").manifest(path, format=format_)
    print(f"{written.series:,} series, {written.frames:,} frames")


def main() -> None:
    """Make the lake, run the parts, and print the table."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--series", type=int, default=100_000)
    arguments.add_argument("--frames", type=int, default=100)
    arguments.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.part:
        measure(lambda: write(*given.part))
        return
    os.environ.setdefault("AWS_REGION", "us-east-1")  # a part of the URLs of DICOMweb
    with tempfile.TemporaryDirectory() as folder:
        root = Root(str(Path(folder, "lake")))
        root.prepare()
        make_history(root, given.series)
        full(root, "limited")
        make_headers(root, given.frames)
        full(root, "limited")
        print("| format | s / CPU s / peak MB | size, MB |\n|---|---|---|")
        for number, name in enumerate(FORMATS):
            path = Path(folder, f"manifest-{number}")
            part = ("--part", root.uri, name, str(path))
            done = run_part((sys.executable, "-m", "benchmarks.pixels", *part), {}, Deadline())
            written = [path] if path.is_file() else path.rglob("*.*")
            size = sum(file.stat().st_size for file in written) / 1e6
            print(f"| {name} | {done} | {size:,.0f} |", flush=True)


if __name__ == "__main__":
    main()
