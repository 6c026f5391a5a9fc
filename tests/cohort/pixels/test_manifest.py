"""What a manifest of pixels holds, and what it refuses, on small lakes made of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from cohort.freeze.test_freeze import ENDED, ROWS, changed
from cohort.tiny import DATASTORE, publish
from command import command

import cohortlake
from cohortlake import Lake
from cohortlake.errors import (
    BadCriteria,
    ColumnNotShown,
    ExportError,
    PixelsNotReachable,
    UnknownColumn,
)
from cohortlake.headers import files
from cohortlake.privacy import Policy, Treatment, built_in
from cohortlake.storage.root import Root

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def identifier(number: int) -> str:
    return f"{number:032x}"


def header(number: int, version: int = 1, sizes: tuple[int | None, ...] = (7, 8)) -> dict[str, Any]:
    """A row of `headers/`: an instance with a frame for each size."""
    frames = [
        {"ID": f"{number:016x}{version:08x}{place:08x}", "FrameSizeInBytes": size}
        for place, size in enumerate(sizes)
    ]
    return {
        "datastore_id": DATASTORE,
        "image_set_id": identifier(number),
        "version": version,
        "PatientID": "secret",
        "header": "{}",
        "instances": [{"SOPInstanceUID": f"1.4.{number}", "ImageFrames": frames}],
        "document_bytes": 1,
        "fetched_at": NOW,
        "run_id": "run",
    }


def write_headers(root: str, name: str, rows: list[dict[str, Any]]) -> None:
    files.write(Root(root), DATASTORE, "2020-01", name, [pa.Table.from_pylist(rows, files.SCHEMA)])


@pytest.fixture
def filled(root: str) -> str:
    publish(root, ROWS)
    # Two runs, of which the second read one header again, and one that failed at first.
    failed = header(3) | {"failure": "cut", "header": None, "instances": None}
    write_headers(root, "a", [header(0), header(1), failed, header(5, 9)])
    write_headers(root, "b", [header(1), header(2), header(3, sizes=(3, None)), header(4)])
    return root


@pytest.fixture
def lake(filled: str) -> Iterator[Lake]:
    with cohortlake.open(filled) as opened:
        yield opened


def ahi_files(folder: Path) -> dict[str, Any]:
    found = sorted(folder.glob("*/*.json"))
    return {path.stem: json.loads(path.read_bytes()) for path in found}


def frame_ids(document: dict[str, Any]) -> list[str]:
    (series,) = document["Study"]["Series"].values()
    return [f["ID"] for i in series["Instances"].values() for f in i["ImageFrames"]]


def test_each_image_set_has_the_frames_of_its_version(lake: Lake, tmp_path: Path) -> None:
    written = lake.cohort("all").manifest(tmp_path / "out", format="ahi-retrieve")
    found = ahi_files(tmp_path / "out")
    assert [*found] == [identifier(n) for n in range(5)]
    assert all(frame_ids(d) == [f"{n:016x}{1:08x}{p:08x}" for p in (0, 1)]
               for n, d in enumerate(found.values()))  # fmt: skip
    assert (written.series, written.patients, written.frames) == (5, 3, 10)
    assert (written.bytes, written.without_size) == (4 * 15, 1)
    assert written.left_out == {"no header fetched": 3}, "5 has a header of another version"
    assert "no header fetched 3" in repr(written)
    assert "no header fetched 3" in written._repr_html_()
    told = (tmp_path / "out/manifest.json").read_text()
    assert {row["image_set_id"] for row in json.loads(told)["cohortlake"]["left_out"]} == {
        identifier(n) for n in (5, 6, 7)
    }
    text = told + "".join(map(json.dumps, found.values()))
    assert "secret" not in text


def test_the_same_cohort_gives_the_same_bytes(lake: Lake, filled: str, tmp_path: Path) -> None:
    """Whichever run fetched a header, and however the files are called."""
    for name in ("ahi-retrieve", "croissant"):
        lake.cohort("all").manifest(tmp_path / f"one-{name}", format=name)
    for path in files.paths(Root(filled)):
        Path(filled, path).unlink()
    write_headers(filled, "z", [header(4), header(3, sizes=(3, None)), header(0)])
    write_headers(filled, "c", [header(2), header(1)])
    for name in ("ahi-retrieve", "croissant"):
        lake.cohort("all").manifest(tmp_path / f"two-{name}", format=name)
        one, two = (
            {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.*")}
            for folder in (tmp_path / f"one-{name}", tmp_path / f"two-{name}")
        )
        assert one == two
        assert len(one) >= 4


def test_a_frozen_cohort_has_the_versions_that_were_frozen(filled: str, tmp_path: Path) -> None:
    registry = {"patient_key": ["p0", "p1", "p2"], "grade": [1, 2, 3]}
    with cohortlake.open(filled) as lake:
        lake.attach("registry", registry)
        lake.cohort("some").join("registry").split(train=0.5, test=0.5).freeze()
        before = lake.cohort("some").join("registry").split(train=0.5, test=0.5).to_pandas()
    after = [
        ROWS[0] | ENDED | {"ended_by": "deleted"},
        *changed(ROWS[1], NumberOfStudyRelatedSeries=7),
        *ROWS[2:],
    ]
    publish(filled, after, 1)
    write_headers(filled, "later", [header(1, 2, (5,))])
    with cohortlake.open(filled) as lake:
        written = lake.manifest("some@1", tmp_path / "then", format="ahi-retrieve", label="grade")
        assert written.cohort == "some@1"
        assert (written.series, written.changed) == (4, 1)
        assert written.left_out == {"gone from the data store": 1, "no header fetched": 1}
        found = ahi_files(tmp_path / "then")
        assert frame_ids(found[identifier(1)]) == [f"{1:016x}{1:08x}{p:08x}" for p in (0, 1)]
        told = {i: d["cohortlake"] for i, d in found.items()}
        assert {i: t["version"] for i, t in told.items()} == dict.fromkeys(told, 1)
        studies = before.set_index("StudyInstanceUID")
        for entry in told.values():
            row = studies.loc[entry["study_instance_uid"]]
            assert (entry["label"], entry["split"]) == (row["grade"], row["split"])
        now = lake.cohort("now").manifest(tmp_path / "now", format="ahi-retrieve")
        assert (now.changed, now.left_out) == (0, {"no header fetched": 3})
        assert frame_ids(ahi_files(tmp_path / "now")[identifier(1)]) == [f"{1:016x}{2:08x}{0:08x}"]


def test_what_was_frozen_without_versions_says_so(filled: str, tmp_path: Path) -> None:
    columns = {"version": Treatment.WITHHOLD}
    publish(filled, ROWS, policy=Policy("p", "limited", Treatment.KEEP, columns))
    with cohortlake.open(filled) as lake:
        lake.cohort("all").freeze()
        with pytest.raises(ColumnNotShown, match="version"):
            lake.cohort("all").manifest(tmp_path / "out", format="monai")
    publish(filled, ROWS, 1)
    with (
        cohortlake.open(filled) as lake,
        pytest.raises(PixelsNotReachable, match="freeze the cohort again"),
    ):
        lake.manifest("all", tmp_path / "out", format="monai")


@pytest.mark.parametrize("replaced", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_a_policy_that_replaces_uids_gives_no_manifest(
    filled: str, replaced: str, tmp_path: Path
) -> None:
    policy = Policy("ours", "limited", Treatment.KEEP, {replaced: Treatment.REPLACE})
    publish(filled, ROWS, policy=policy)
    with (
        cohortlake.open(filled) as lake,
        pytest.raises(PixelsNotReachable, match=r"'ours' replaces UIDs.*`limited`"),
    ):
        lake.cohort("all").manifest(tmp_path / "out", format="monai")


def test_a_datalist_has_each_part_and_one_of_an_unsplit_cohort(lake: Lake, tmp_path: Path) -> None:
    lake.cohort("all").manifest(tmp_path / "whole.json", format="monai")
    whole = json.loads((tmp_path / "whole.json").read_bytes())
    assert (list(whole), len(whole["training"])) == (["training", "cohortlake"], 8)
    one = lake.cohort("one").where(patient_key="p0")
    one.split(train=0.5, val=0.25, test=0.25).manifest(tmp_path / "one.json", format="monai")
    parts = json.loads((tmp_path / "one.json").read_bytes())
    assert list(parts) == ["test", "training", "validation", "cohortlake"]
    assert sorted(len(parts[part]) for part in ("training", "validation", "test")) == [0, 0, 2]
    twice = lake.cohort("twice").split(train=0.5, training=0.5)
    with pytest.raises(BadCriteria, match="called training, training in a datalist"):
        twice.manifest(tmp_path / "twice.json", format="monai")
    with pytest.raises(BadCriteria, match="rename a part"):
        lake.cohort("own").split(cohortlake=1).manifest(tmp_path / "own.json", format="monai")
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "one.json", "whole.json"
    ]  # fmt: skip


def test_the_hosts_of_dicomweb(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    lake.cohort("all").manifest(tmp_path / "aws.json", format="dicomweb")
    (first, *_) = json.loads((tmp_path / "aws.json").read_bytes())["series"]
    assert first["url"] == (
        "https://dicom-medical-imaging.eu-west-1.amazonaws.com"
        f"/datastore/{DATASTORE}/studies/1.0/series/1.3.0"
    )
    assert first["metadata_url"] == f"{first['url']}/metadata?imageSetId={identifier(0)}"


def test_a_series_without_a_uid_has_no_url(root: str, tmp_path: Path) -> None:
    publish(root, [*ROWS[:2], ROWS[2] | {"SeriesInstanceUID": None}])
    with cohortlake.open(root) as lake:
        written = lake.cohort("all").manifest(tmp_path / "urls.json", format="dicomweb")
        assert (written.series, written.left_out) == (2, {"no SeriesInstanceUID": 1})


def test_pixels_that_may_show_text_are_told(root: str, tmp_path: Path) -> None:
    publish(root, [ROWS[0] | {"Modality": "US"}, ROWS[1] | {"Modality": "US"}, *ROWS[2:]])
    with cohortlake.open(root) as lake:
        written = lake.cohort("all").manifest(tmp_path / "list.json", format="monai")
    assert written.may_be_burned_in == {"US": 2}
    assert "US 2" in repr(written)


def test_what_cannot_be_written_is_refused_and_leaves_nothing(lake: Lake, tmp_path: Path) -> None:
    everybody = lake.cohort("all")
    for wrong in ("ahi_retrieve", "MONAI", "x"):
        with pytest.raises(ExportError, match=r"is no format.*formats: ahi-retrieve, monai"):
            everybody.manifest(tmp_path / "out", format=wrong)
    with pytest.raises(ExportError, match="did you mean 'ahi-retrieve'"):
        everybody.manifest(tmp_path / "out", format="ahi_retrieve")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for taken in ("file", "folder"):
        for name in ("ahi-retrieve", "monai"):
            with pytest.raises(ExportError, match="is there already"):
                everybody.manifest(tmp_path / taken, format=name)
    for name in ("ahi-retrieve", "monai"):
        with pytest.raises(ExportError, match=r"cannot write .*No such file"):
            everybody.manifest(tmp_path / "no" / "out", format=name)
        with pytest.raises(ExportError, match="has no members"):
            nobody = everybody.where("age_at_study_years > 500")
            nobody.manifest(tmp_path / "out", format=name)
    with pytest.raises(UnknownColumn, match="'grad'"):
        everybody.manifest(tmp_path / "out", format="monai", label="grad")
    lake.attach("registry", {"patient_key": ["p0", "p1", "p2"], "grade": ["a", None, None]})
    joined = everybody.join("registry")
    with pytest.raises(UnknownColumn, match="did you mean 'grade'"):
        joined.manifest(tmp_path / "out", format="monai", label="grad")
    with pytest.raises(BadCriteria, match="2 patients have no value in the column 'grade'"):
        joined.manifest(tmp_path / "out", format="monai", label="grade")
    without_header = everybody.where(f"image_set_id > '{identifier(5)}'")
    with pytest.raises(PixelsNotReachable, match=r"no header fetched: 2.*enrich"):
        without_header.manifest(tmp_path / "out", format="ahi-retrieve")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder", "lake"]
    assert (tmp_path / "file").read_text() == "mine"


def test_frames_stand_in_the_restricted_zone(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Readers of `published/` get what needs no frames; who may read the whole lake gets both."""
    readers = str(tmp_path / "readers")
    publish(readers, ROWS)
    write_headers(root, "a", [header(n) for n in range(8)])
    with cohortlake.open(readers) as lake:
        assert lake.cohort("all").manifest(tmp_path / "list.json", format="monai").series == 8
        with pytest.raises(PixelsNotReachable, match="no header fetched: 8"):
            lake.cohort("all").manifest(tmp_path / "out", format="ahi-retrieve")
        monkeypatch.setenv("COHORTLAKE_ROOT", root)
        monkeypatch.setenv("COHORTLAKE_PUBLISHED", readers)
        assert lake.cohort("all").manifest(tmp_path / "out", format="ahi-retrieve").series == 8


def test_the_command(filled: str, tmp_path: Path) -> None:
    folder = tmp_path / "cohorts"
    folder.mkdir()
    (folder / "all_of_them.yaml").write_text("cohort: all_of_them\nlevel: study\nsteps: []\n")

    def run(*arguments: str) -> Any:
        variables = {"COHORTLAKE_ROOT": filled, "COHORTLAKE_COHORTS": str(folder)}
        return command("cohort", *arguments, **variables)

    options = ("--output", str(tmp_path / "out"), "--format", "ahi-retrieve")
    done = run("manifest", "all_of_them", *options)
    assert done.exit_code == 0, done.stderr
    assert "10 requests, 0.00 hours at 1000 requests/s" in done.stdout
    assert "no header fetched 3" in done.stdout
    again = run("manifest", "all_of_them", *options)
    assert (again.exit_code, "is there already" in again.stderr) == (2, True)
    run("freeze", "all_of_them")
    options = ("--output", str(tmp_path / "list.json"), "--format", "monai", "--json")
    told = json.loads(run("manifest", "all_of_them@1", *options).stdout)
    assert (told["cohort"], told["series"], told["changed"]) == ("all_of_them@1", 8, 0)


def test_what_an_older_release_published_is_judged_by_its_policy_s_name(lake: Lake) -> None:
    publication = lake.opened.publication
    assert publication.shows_true_uids()
    for policy, shows in {"limited": True, "identified": True, "safe": False, "x": False}.items():
        older = replace(publication, policy=policy, replaced=None)
        assert older.shows_true_uids() is shows
    assert built_in("safe").replaced == ("StudyInstanceUID", "SeriesInstanceUID")
    assert built_in("limited").replaced == ()
