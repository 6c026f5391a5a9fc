"""The crosswalk from ids to published keys: for those who may, without a trace of an id."""

from __future__ import annotations

import csv
import io
import json
import stat
from pathlib import Path

import looks
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import command
from privacy.people import DATASTORE, SEEN, copy_of, lake_of, summaries
from typer.testing import Result

import cohortlake
from cohortlake.admin.lookup_keys import lookup
from cohortlake.history import image_sets
from cohortlake.privacy import built_in, key_store, keyed_hashes
from cohortlake.publish.publisher import publish
from cohortlake.settings import Settings
from cohortlake.storage.root import Root

OTHER = "e" * 32


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A lake under `safe`, which only tests that write copy."""
    root = lake_of(str(tmp_path_factory.mktemp("lookup") / "lake"), summaries(6, days=30))
    publish(root, built_in("safe"))
    return root


def run(root: Root, *arguments: str, **settings: str) -> Result:
    done = command("key", "lookup", *arguments, COHORTLAKE_ROOT=root.uri, **settings)
    assert "MRN" not in done.stderr
    assert "00123" not in done.stderr
    return done


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def records(root: Root) -> list[str]:
    return [root.read(path).decode() for path in root.files("keys/lookups", ".json")]


def test_ids_in_any_spelling_get_the_published_keys(published: Root, tmp_path: Path) -> None:
    ids = ["MRN-00000", " MRN-00000 ", "MRN-00001", "", "00123", "MRN-00001", "\\MRN-00002\0", " "]
    (tmp_path / "ids.csv").write_text("mrn;arm\n" + "".join(f'"{one}";a\n' for one in ids))
    before = len(records(published))
    done = run(published, "--ids", str(tmp_path / "ids.csv"), "--column", "mrn")
    assert done.exit_code == 0, done.stderr
    rows = rows_of(done.stdout)
    key = key_store.read_key(published, "lake", may_create=False)
    canonical = ["MRN-00000", "MRN-00000", "MRN-00001", "00123", "MRN-00002"]
    assert [row["PatientID"] for row in rows] == [ids[0], ids[1], ids[2], ids[4], ids[6]]
    assert [row["patient_key"] for row in rows] == keyed_hashes(
        key, "PatientID", [(DATASTORE, one) for one in canonical]
    )
    assert [row["in_lake"] for row in rows] == ["true", "true", "true", "false", "true"]
    keys = set(cohortlake.read_table(published.uri, "patients")["patient_key"])
    assert {row["patient_key"] for row in rows if row["in_lake"] == "true"} <= keys
    assert "4 ids, 3 of them in the lake; 2 values repeat" in done.stderr
    assert "2 blank values" in done.stderr

    (*_, record) = sorted(records(published), key=lambda text: json.loads(text)["looked_up_at"])
    assert len(records(published)) == before + 1
    said = json.loads(record)
    assert (said["attribute"], said["ids"], said["in_lake"]) == ("PatientID", 4, 3)
    assert said["by"]
    assert not any(one.strip(" \\\0") in record for one in ids if one.strip())
    paths = published.files("keys/lookups", ".json")
    assert all(stat.S_IMODE(Path(published.path(path)).stat().st_mode) == 0o600 for path in paths)


@pytest.mark.parametrize(
    ("attribute", "table", "column"),
    [
        ("AccessionNumber", "studies", "accession_key"),
        ("StudyInstanceUID", "studies", "StudyInstanceUID"),
        ("SeriesInstanceUID", "series", "SeriesInstanceUID"),
    ],
)
def test_accession_numbers_and_uids(
    published: Root, attribute: str, table: str, column: str
) -> None:
    sent = [one["DICOMTags"][f"DICOM{attribute}"] for one in summaries(6, days=30)]
    found = lookup(published, Settings(), built_in("safe"), [*sent, "1.2.3"], attribute)
    (key_column,) = {"accession_key", "published_uid"} & {*found.table.column_names}
    keys = dict(
        zip(found.table[attribute].to_pylist(), found.table[key_column].to_pylist(), strict=True)
    )
    shown = set(cohortlake.read_table(published.uri, table)[column].dropna())
    assert {keys[one] for one in sent} == shown
    assert keys["1.2.3"] not in {*shown, "1.2.3"}
    assert found.in_lake == len(set(sent)) == found.ids - 1


def test_uids_that_the_policy_shows_are_their_own_keys(published: Root, tmp_path: Path) -> None:
    root = copy_of(published, tmp_path)
    with pytest.raises(cohortlake.CohortlakeError, match="is published under the policy 'safe'"):
        lookup(root, Settings(), built_in("limited"), ["1.2"], "StudyInstanceUID")
    publish(root, built_in("limited"))
    found = lookup(root, Settings(), built_in("limited"), ["1.2"], "StudyInstanceUID")
    assert found.table["published_uid"].to_pylist() == ["1.2"]


def test_an_id_of_two_data_stores_has_a_key_in_each(
    published: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copy_of(published, tmp_path)
    monkeypatch.setattr(looks, "DATASTORE", OTHER)
    seen = looks.Looked(SEEN, summaries(1, days=30)[:1])
    image_sets.apply(root, looks.write(root, [seen]))
    publish(root, built_in("safe"))
    ids = ["MRN-00000", "MRN-00001", "none"]
    found = lookup(root, Settings(), built_in("safe"), ids).table.to_pylist()
    told = [(row["PatientID"], row["datastore_id"], row["in_lake"]) for row in found]
    assert told == [
        ("MRN-00000", DATASTORE, True),
        ("MRN-00000", OTHER, True),
        ("MRN-00001", DATASTORE, True),
        ("none", DATASTORE, False),
        ("none", OTHER, False),
    ]
    assert len({row["patient_key"] for row in found}) == 5
    one = lookup(root, Settings(), built_in("safe"), ids, "PatientID", [OTHER]).table.to_pylist()
    assert [row["in_lake"] for row in one] == [True, False, False]


def test_a_file_is_for_its_owner_and_keeps_ids_as_text(published: Root, tmp_path: Path) -> None:
    ids = ["00123", "=1+1", "1e5"]
    pq.write_table(pa.table({"PatientID": ids}), tmp_path / "ids.parquet")
    for name in ("keys.csv", "keys.parquet"):
        path = tmp_path / name
        path.touch(0o644)
        done = run(published, "--ids", f"{tmp_path}/ids.parquet", "--output", str(path))
        assert (done.exit_code, done.stdout) == (0, "")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    read = [row["PatientID"] for row in rows_of((tmp_path / "keys.csv").read_text())]
    assert read == pq.read_table(tmp_path / "keys.parquet")["PatientID"].to_pylist() == ids
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["ids.parquet", "keys.csv", "keys.parquet"]


@pytest.mark.parametrize(
    ("content", "arguments", "says"),
    [
        ("MRN-00000\nMRN-00001\n", [], "does not have one column of that name"),
        ("PatientID,PatientID\nMRN-1,MRN-2\n", [], "does not have one column"),
        ("PatientID\nMRN-00000,MRN-1\n", [], "more or fewer values"),
        ("PatientID\nMRN-0\n", ["--attribute", "PatientId"], "did you mean 'PatientID'"),
        ("PatientID\nMRN-0\n", ["--column", "MRN-0"], "does not have one column"),
        ("PatientID\nMRN-0\n", ["--datastore", OTHER], "no image set of the data store"),
        ("PatientID\nMRN-0\n", ["--output", "keys.xlsx"], "must end in .csv or .parquet"),
        ("PatientID\nMRN-0\n", ["--output", "/none/keys.csv"], "cannot write /none/keys.csv"),
        ("", [], "is empty"),
    ],
)
def test_what_cannot_be_looked_up_says_why_without_a_value(
    published: Root, tmp_path: Path, content: str, arguments: list[str], says: str
) -> None:
    (tmp_path / "ids.csv").write_text(content)
    done = run(published, "--ids", str(tmp_path / "ids.csv"), *arguments)
    assert done.exit_code == 2, done.stderr
    assert says in done.stderr
    assert done.stdout == ""


def test_numbers_and_lakes_without_keys_are_refused(published: Root, tmp_path: Path) -> None:
    pq.write_table(pa.table({"PatientID": [123]}), tmp_path / "ids.parquet")
    done = run(published, "--ids", f"{tmp_path}/ids.parquet")
    assert "the column is not text" in done.stderr
    pq.write_table(pa.table({"PatientID": ["123"]}), tmp_path / "ids.parquet")
    root = copy_of(published, tmp_path)
    root.write(key_store.KEY_PATH, bytes(32))
    done = run(root, "--ids", f"{tmp_path}/ids.parquet")
    assert done.exit_code != 0
    assert "is not the key that" in done.stderr
    assert records(root) == records(published)
    empty = Root(str(tmp_path / "empty"))
    empty.prepare()
    done = run(empty, "--ids", f"{tmp_path}/ids.parquet")
    assert "nothing is published" in done.stderr
    assert empty.files("keys", "") == []
