"""Lakes that earlier releases wrote: this one says `rebuild`, and then holds what was sent.

`tests/fixtures/format_3_*.tar.gz` are whole lakes of format 3, in which `P1`, `P1 ` and ` P1` were
three patients. `format_3.json` has what was sent, image set by image set; `GONE` was erased.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import cohortlake
from cohortlake import Settings, Sync
from cohortlake.dicom_values import canonical_text
from cohortlake.errors import OldFormat
from cohortlake.flatten import flatten_summaries

FIXTURES = Path(__file__).parents[2] / "fixtures"
SENT = json.loads((FIXTURES / "format_3.json").read_text())
DATASTORE = "0123456789abcdef0123456789abcdef"
ERASED = f"{10:032x}"


@pytest.fixture(scope="module", params=["limited", "safe"])
def settings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp(request.param)
    with tarfile.open(FIXTURES / f"format_3_{request.param}.tar.gz") as packed:
        packed.extractall(root, filter="data")
    asked = Settings(datastores=(DATASTORE,), root=str(root), privacy=request.param)
    with pytest.raises(OldFormat, match="cohortlake rebuild"):
        cohortlake.open(asked.root)
    Sync(asked).rebuild()
    return asked


def test_every_state_is_what_this_release_would_have_read(settings: Settings) -> None:
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for path in Path(settings.root, "increments").rglob("*.parquet"):
        if "absence" not in path.parts:
            for row in pq.read_table(path).to_pylist():
                found[row["image_set_id"], row["version"]] = row
    expected = flatten_summaries(SENT, DATASTORE).to_pylist()
    assert len(found) == len(SENT)  # one was erased, and one has two versions
    for row in expected:
        if row["image_set_id"] != ERASED:
            kept = found[row["image_set_id"], row["version"]]
            assert {name: kept[name] for name in row} == row


def test_one_patient_has_one_key(settings: Settings) -> None:
    with cohortlake.open(settings.root) as lake:
        told = lake.sql("SELECT n_studies FROM patients ORDER BY n_studies").fetchall()
    assert told == [(1,), (1,), (2,), (5,)]


def test_frozen_members_are_known_again(settings: Settings) -> None:
    with cohortlake.open(settings.root) as lake:
        for level in ("patient", "study", "series"):
            became = lake.verify(f"every_{level}").differences
            assert set(became["what"]) == {"changed", "erased"}
        became = lake.verify("unpadded_men").differences
        (own,) = became.loc[["sex_status" in names for names in became["changed_columns"]], "why"]
        assert own.startswith("changed version")
        if settings.privacy == "limited":
            others = became.loc[became["why"] != own, "why"]
            assert others.str.contains("a release that reads values otherwise").all()


def test_a_change_of_spelling_alone_corrected_nobody(settings: Settings) -> None:
    with cohortlake.open(settings.root) as lake:
        kinds = dict(lake.sql("SELECT kind, count(*) FROM history GROUP BY 1").fetchall())
    assert kinds == {"created": 11, "updated": 1}


def test_who_was_erased_stays_so(settings: Settings) -> None:
    gone = canonical_text("LO", "GONE ")
    for path in Path(settings.root).rglob("*"):
        assert not path.is_file() or f"{gone}".encode() not in path.read_bytes()
    erased = Sync(settings).erase("GONE\\GONE", DATASTORE)
    assert erased.erased_at


def test_it_may_be_rebuilt_again(settings: Settings) -> None:
    before = cohortlake.read_table(settings.root, "series")
    Sync(settings).rebuild()
    assert cohortlake.read_table(settings.root, "series").equals(before)
