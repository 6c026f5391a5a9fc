"""Frozen cohorts: proof that they are what they were, and why they are not."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import date, time, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from cohort.tiny import BEGAN, DATASTORE, image_set, publish
from hypothesis import given
from hypothesis import strategies as st

import cohortlake
from cohortlake import Lake
from cohortlake.cohort import cohort_files
from cohortlake.cohort.cohort import Cohort
from cohortlake.cohort.freeze import digest
from cohortlake.cohort.freeze import manifest as freeze
from cohortlake.cohort.freeze.erase_members import erase_members
from cohortlake.errors import NotAsFrozen, SettingError, UnknownCohort, UnknownTable
from cohortlake.storage.root import Root

DAY = timedelta(days=1)
LATER = {"valid_from": BEGAN + DAY, "observed_from": BEGAN + DAY, "version": 2}
ENDED = {"valid_to": BEGAN + DAY, "observed_to": BEGAN + DAY}
ROWS = [
    image_set(n, f"p{n // 2}", f"1.{n}", Modality="CT", PatientSex="F",
              StudyDate=date(2020, 1, 1) + n * DAY)
    for n in range(8)
]  # fmt: skip


def first_cts(lake: Lake) -> Cohort:
    return lake.cohort("ct").where(Modality="CT", PatientSex="F").first_study_per_patient()


def changed(row: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """The two states of an image set whose fields changed."""
    new = {"change": "updated", "changed_fields": list(fields), **fields}
    return [row | ENDED | {"ended_by": "superseded"}, row | LATER | new]


def a_day_later() -> list[dict[str, Any]]:
    """One study deleted, one patient's sex corrected, one study moved, and a new patient."""
    return [
        ROWS[0] | ENDED | {"ended_by": "deleted"},
        ROWS[1],
        *changed(ROWS[2], PatientSex="M"),
        ROWS[3],
        *changed(ROWS[4], StudyTime=time(9)),
        *ROWS[5:],
        image_set(50, "new", "1.50", Modality="CT", PatientSex="F", StudyDate=date(2020, 1, 1))
        | LATER,
    ]


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A lake with a frozen cohort; each test works on a copy."""
    root = str(tmp_path_factory.mktemp("frozen") / "lake")
    publish(root, ROWS)
    with cohortlake.open(root) as lake:
        first_cts(lake).freeze()
    return root


@pytest.fixture
def frozen(pristine: str, root: str) -> str:
    shutil.copytree(pristine, root)
    return root


def test_a_frozen_cohort_says_all_there_is_to_say(frozen: str) -> None:
    manifest = json.loads((Path(frozen) / "cohorts/ct/0001.json").read_text())
    assert (manifest["cohort"], manifest["number"], manifest["rows"]) == ("ct", 1, 4)
    assert manifest["seen_until"] == (BEGAN + timedelta(minutes=7)).isoformat()
    assert manifest["attrition"][-1]["studies"] == 4
    members = pd.read_parquet(Path(frozen) / manifest["members"])
    assert sorted(members["StudyInstanceUID"]) == ["1.0", "1.2", "1.4", "1.6"]
    with cohortlake.open(frozen) as lake:
        again = lake.sql(manifest["sql"], manifest["params"]).to_pandas()
        assert list(again["StudyInstanceUID"]) == list(members["StudyInstanceUID"])
        assert lake.frozen("ct").read_criteria() == first_cts(lake).criteria


def test_freezing_again_writes_only_what_changed(frozen: str) -> None:
    def files() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in (Path(frozen) / "cohorts").rglob("*")}

    before = files()
    with cohortlake.open(frozen) as lake:
        assert first_cts(lake).freeze().label == "ct@1"
        assert files() == before
        assert first_cts(lake).split(a=0.5, b=0.5).freeze().label == "ct@2"
        assert first_cts(lake).split(a=0.5, b=0.5).freeze().label == "ct@2"
        assert first_cts(lake).freeze().label == "ct@3"
    assert before.items() - files().items() <= {(p, t) for p, t in before.items() if p.is_dir()}


def test_the_same_members_are_identical(frozen: str) -> None:
    # Another file, the other way round, with an image set that is in no cohort.
    publish(frozen, [*reversed(ROWS), image_set(90, "p9", "1.90", Modality="MR") | LATER], 1)
    with cohortlake.open(frozen) as lake:
        found = lake.verify("ct")
    assert found.is_identical
    assert found.counts == {}
    assert found.signature == "unsigned"


def test_it_says_who_joined_left_and_changed_and_why(frozen: str) -> None:
    publish(frozen, a_day_later(), 1)
    with cohortlake.open(frozen) as lake:
        found = lake.verify("ct")
    assert not found.is_identical
    assert found.counts == {"joined": 3, "left": 2, "changed": 1}
    why = {r.StudyInstanceUID: (r.what, r.why, r.when) for r in found.differences.itertuples()}
    at = pd.Timestamp(BEGAN + DAY)
    assert why == {
        "1.0": ("left", "image sets deleted", at),
        "1.1": ("joined", "other studies of the patient: image sets deleted", at),
        "1.2": ("left", "changed PatientSex", at),
        "1.3": ("joined", "other studies of the patient: changed PatientSex", at),
        "1.4": ("changed", "changed StudyTime", at),
        "1.50": ("joined", "image sets created", at),
    }
    row = found.differences.set_index("StudyInstanceUID").loc["1.4"]
    assert list(row["changed_columns"]) == ["StudyTime"]
    assert found.reasons["members"].sum() == 6
    assert set(found.reasons["day"]) == {"2026-01-02"}


@pytest.mark.parametrize("level", ["patient", "series"])
def test_it_says_so_at_each_level(root: str, level: str) -> None:
    publish(root, ROWS)
    with cohortlake.open(root) as lake:
        lake.cohort("women", level=level).where(PatientSex="F").freeze()
        assert lake.verify("women").is_identical
    publish(root, a_day_later(), 1)
    with cohortlake.open(root) as lake:
        found = lake.verify("women").differences
    whys = set(zip(found["what"], found["why"], strict=True))
    assert ("joined", "image sets created") in whys
    if level == "series":
        assert ("left", "changed PatientSex") in whys
        assert ("left", "image sets deleted") in whys
    else:  # both patients have another study
        assert ("changed", "image sets deleted") in whys


def test_patients_erased_by_policy_left_for_that_reason(frozen: str) -> None:
    with cohortlake.open(frozen) as lake:
        cohort_files.run(lake.cohort("ct").where(Modality="CT"), "cohorts")
        theirs = pq.read_table(Path(frozen) / lake.frozen("ct").members)["patient_key"].to_pylist()
    assert erase_members(Root(frozen), ["p1", "p9"], date(2026, 5, 1)) == theirs.count("p1") > 0
    publish(frozen, [row for row in ROWS if row["patient_key"] != "p1"], 1)
    files = [p for p in (Path(frozen) / "cohorts").rglob("*.parquet")]
    assert len(files) == 2, "the frozen members and those drawn last"
    assert all("p1" not in pq.read_table(path)["patient_key"].to_pylist() for path in files)
    with cohortlake.open(frozen) as lake:
        found = lake.verify("ct")
        assert found.counts == {"erased": theirs.count("p1")}
        (reason,) = found.reasons.to_dict("records")
        assert (reason["why"], reason["day"]) == ("erased by policy", "2026-05-01")
        assert lake.cohort("ct").where("patient_key <> 'p0'").freeze().label == "ct@2"
        compared = lake.compare("ct@1", "ct@2")  # the erased row of the first is nobody of these
        both = [key for key in theirs if key not in ("p0", "p1")]
        assert compared.counts == {"joined": len(both), "left": theirs.count("p0")}
        assert compared.differences["patient_key"].notna().all()
    assert erase_members(Root(frozen), ["p1"], date(2026, 6, 1)) == 0, "done already"


def test_what_is_left_of_an_erased_member_confirms_nothing(frozen: str) -> None:
    """Not even to somebody who has a copy of the row, and so knows its every value."""
    with cohortlake.open(frozen) as lake:
        path = Path(frozen) / lake.frozen("ct").members
        assert first_cts(lake).freeze().label == "ct@1", "the salts stay where nothing changed"
    before = pq.read_table(path)
    assert len(set(before[digest.SALT].to_pylist())) == len(before)
    assert not {*digest.of_members(digest.own_values(before))} & {
        *before[digest.COLUMN].to_pylist()
    }
    erase_members(Root(frozen), ["p1"], date(2026, 5, 1))
    (row, *_) = pq.read_table(path).filter(pc.is_null(pc.field("patient_key"))).to_pylist()
    left = {name for name, value in row.items() if value is not None}
    assert left == {digest.COLUMN, digest.ERASED_ON}
    with cohortlake.open(frozen) as lake:
        assert lake.verify("ct").counts["erased"] > 0


def test_members_that_were_frozen_without_salts_are_read(frozen: str) -> None:
    with cohortlake.open(frozen) as lake:
        manifest = lake.frozen("ct")
        path = Path(frozen) / manifest.members
        plain = freeze.with_digests(digest.own_values(pq.read_table(path)))
        whole = digest.of_all(plain[digest.COLUMN].to_pylist())
        freeze.write_members(lake.root, manifest.members, plain, whole)
        older = json.dumps(asdict(replace(manifest, digest=whole))).encode()
        lake.root.write(manifest.path, older)
        assert lake.verify("ct").is_identical
        assert first_cts(lake).freeze().label == "ct@2", "now with salts"
        assert lake.compare("ct@1", "ct@2").counts == {}


def test_what_joins_an_empty_lake_was_created_since(root: str) -> None:
    publish(root, [])
    with cohortlake.open(root) as lake:
        assert lake.cohort("all").freeze().seen_until is None
    publish(root, ROWS, 1)
    with cohortlake.open(root) as lake:
        found = lake.verify("all")
    assert found.counts == {"joined": len(ROWS)}
    assert set(found.reasons["why"]) == {"image sets created"}
    assert set(found.reasons["day"]) == {"2026-01-01"}


def test_what_was_frozen_without_instants_tells_what_happened_last(
    frozen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = Path(frozen) / "cohorts/ct/0001.json"
    told = json.loads(manifest.read_text()) | {"seen_until": None}  # as under `safe`
    manifest.write_text(json.dumps(told))
    publish(frozen, a_day_later(), 1)
    with cohortlake.open(frozen) as lake:
        found = lake.verify("ct").differences.set_index("StudyInstanceUID")
    assert found.loc["1.0", "why"] == "image sets deleted"
    assert found.loc["1.2", "why"] == "changed PatientSex"
    assert found["when"].isna().all()


def test_a_table_that_gained_a_column_changes_nobody(frozen: str) -> None:
    path = next((Path(frozen) / "cohorts/ct/members").glob("*.parquet"))
    members = pq.read_table(path).drop_columns(["n_series", digest.COLUMN])
    digests = digest.of_members(members)
    pq.write_table(members.append_column(digest.COLUMN, pa.array(digests)), path)
    manifest = Path(frozen) / "cohorts/ct/0001.json"
    told = json.loads(manifest.read_text()) | {"digest": digest.of_all(digests)}
    manifest.write_text(json.dumps(told))
    with cohortlake.open(frozen) as lake:
        assert lake.verify("ct").is_identical


def test_an_outside_table_that_changed_is_the_reason(root: str) -> None:
    publish(root, ROWS)
    registry = pd.DataFrame({"patient_key": ["p0", "p1"], "grade": [1, 2]})
    with cohortlake.open(root) as lake:
        lake.attach("registry", registry)
        lake.cohort("ct").join("registry").where(grade=1).freeze()
    with cohortlake.open(root) as lake:
        with pytest.raises(UnknownTable, match=r"attach it with lake\.attach\('registry'"):
            lake.verify("ct")
        lake.attach("registry", registry.assign(grade=[2, 1]))
        found = lake.verify("ct")
    assert found.outside_changed == ("registry",)
    assert set(found.differences["why"]) == {"changed outside the lake: registry"}


def test_a_run_verifies_what_was_frozen_from_its_own_tables(root: str, tmp_path: Path) -> None:
    publish(root, ROWS)
    pd.DataFrame({"patient_key": ["p0", "p1"]}).to_csv(tmp_path / "then.csv", index=False)
    pd.DataFrame({"patient_key": ["p0"]}).to_csv(tmp_path / "now.csv", index=False)
    yaml = "cohort: ct\nsteps: [join: {table: registry, file: %s}]\n"
    (tmp_path / "ct.yaml").write_text(yaml % "then.csv")
    with cohortlake.open(root) as lake:
        cohort_files.load(lake, tmp_path, "ct").freeze()
        for steps in ("[where: {Modality: CT}]", "[join: {table: registry, file: now.csv}]"):
            (tmp_path / "ct.yaml").write_text(f"cohort: ct\nsteps: {steps}\n")
            with cohortlake.open(root) as other:
                cohort = cohort_files.load(other, tmp_path, "ct")
                members = len(cohort.to_arrow())
                ran = cohort_files.run(cohort, tmp_path)
                assert ran.verification and ran.verification.is_identical
                assert (ran.frozen, ran.unverified) == ("ct@1", None)
                assert ran.members == members == len(cohort.to_arrow())
        (tmp_path / "then.csv").unlink()
        ran = cohort_files.run(cohort_files.load(lake, tmp_path, "ct"), tmp_path)
        assert (ran.members, ran.verification) == (2, None)
        assert ran.unverified and "then.csv is not there" in ran.unverified

        # From a frame it is verified where the frame is attached, and else told how.
        lake.attach("registry", pd.DataFrame({"patient_key": ["p0"]}))
        lake.cohort("ct").join("registry").freeze()
        ran = cohort_files.run(lake.cohort("ct"), tmp_path)
        assert ran.verification and ran.verification.is_identical
    with cohortlake.open(root) as lake:
        ran = cohort_files.run(lake.cohort("ct"), tmp_path)
        assert (ran.frozen, ran.verification) == ("ct@2", None)
        assert ran.unverified and "lake.attach('registry'" in ran.unverified


def test_a_cohort_of_an_instant_is_verified_as_of_it(root: str) -> None:
    publish(root, a_day_later())
    with cohortlake.open(root, as_of=BEGAN + DAY / 2) as then:
        assert first_cts(then).freeze().rows == 4
    with cohortlake.open(root) as now:
        assert now.verify("ct").is_identical
        assert first_cts(now).freeze().label == "ct@2"
        found = now.compare("ct@1", "ct@2")
    assert found.counts == {"joined": 3, "left": 2, "changed": 1}
    assert found.criteria == ""


def test_diff_shows_criteria_and_members(frozen: str) -> None:
    with cohortlake.open(frozen) as lake:
        lake.cohort("ct", level="patient").where(Modality="CT").freeze()
        found = lake.compare("ct@1", "ct")
    assert "-level: study" in found.criteria
    assert "+level: patient" in found.criteria
    assert found.counts == {}  # the same patients


def test_what_was_tampered_with_is_told(
    frozen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = tmp_path / "key"
    key.write_text("k" * 32)
    monkeypatch.setenv("COHORTLAKE_COHORT_KEY_FILE", str(key))
    with cohortlake.open(frozen) as lake:
        assert first_cts(lake).freeze().label == "ct@2"  # the first was not signed
        assert lake.verify("ct").signature == "valid"
        assert lake.verify("ct@1").signature == "unsigned"
        monkeypatch.delenv("COHORTLAKE_COHORT_KEY_FILE")
        assert lake.verify("ct").signature == "unchecked"
        monkeypatch.setenv("COHORTLAKE_COHORT_KEY_FILE", str(key))
        manifest = Path(frozen) / "cohorts/ct/0002.json"
        honest = manifest.read_text()
        manifest.write_text(honest.replace('"rows": 4', '"rows": 3'))
        with pytest.raises(NotAsFrozen, match="changed after it was signed"):
            lake.verify("ct")
        manifest.write_text(honest)

        path = Path(frozen) / lake.frozen("ct").members
        members = pq.read_table(path)
        pq.write_table(members.slice(1), path)
        with pytest.raises(NotAsFrozen, match=r"is not what cohorts/ct/0002\.json says"):
            lake.verify("ct")
        sexes = pa.array(["M"] * len(members))
        at = members.column_names.index("PatientSex")
        pq.write_table(members.set_column(at, "PatientSex", sexes), path)
        with pytest.raises(NotAsFrozen, match="is not what"):
            lake.verify("ct")
        path.unlink()
        with pytest.raises(NotAsFrozen, match="is gone"):
            lake.verify("ct")
        key.write_text("short")
        with pytest.raises(SettingError, match="openssl rand"):
            first_cts(lake).freeze()
        key.unlink()
        with pytest.raises(SettingError, match="No such file"):
            lake.verify("ct")


def test_what_was_never_frozen_is_told(frozen: str) -> None:
    with cohortlake.open(frozen) as lake:
        for name in ("cts", "ct@7", "ct@x"):
            with pytest.raises(UnknownCohort, match="ct"):
                lake.verify(name)


def test_freezings_at_once_each_get_a_number(root: str) -> None:
    publish(root, ROWS)

    def freeze(n: int) -> str:
        with cohortlake.open(root) as lake:
            return first_cts(lake).where(f"StudyDate <> DATE '1999-01-{n + 1:02d}'").freeze().label

    with ThreadPoolExecutor(4) as pool:
        labels = list(pool.map(freeze, range(4)))
    assert sorted(labels) == ["ct@1", "ct@2", "ct@3", "ct@4"]


@given(st.lists(st.fixed_dictionaries({"a": st.none() | st.integers(-9, 9), "b": st.text()})))
def test_a_digest_knows_every_value_and_no_order(rows: list[dict[str, Any]]) -> None:
    columns = pa.schema([("a", pa.int64()), ("b", pa.string())])
    own = digest.of_members(pa.Table.from_pylist(rows, columns))
    assert digest.of_all(own) == digest.of_all(list(reversed(own)))
    assert len(set(own)) == len({(row["a"], row["b"]) for row in rows})
    if rows:
        assert digest.of_all(own) != digest.of_all(own[1:])


def test_digests_are_the_same_in_every_release() -> None:
    # Frozen cohorts are proven by these for years: a change here breaks each of them.
    row = image_set(1, "p", "1.1", StudyDate=date(2020, 1, 2), StudyTime=time(8, 30))
    wanted = ("datastore_id", "StudyDate", "StudyTime", "updated_at", "is_primary", "version")
    table = pa.Table.from_pylist([{name: row[name] for name in wanted} | {"m": ["CT"], "n": None}])
    assert row["datastore_id"] == DATASTORE
    assert digest.of_members(table) == [
        "8bfdde7cb72b2514d62a06dc9c232eb736dcfddd547248f31f041f490802ea59"
    ]
