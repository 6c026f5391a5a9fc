"""The plan of a publication: what it names, and that each step reads only what it is given."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import duckdb
import pytest
from changing import Hospital

from cohortlake.history import image_sets
from cohortlake.history.history_index import HistoryIndex
from cohortlake.history.views import HistoryViews
from cohortlake.privacy import built_in
from cohortlake.privacy.keyed_hashes import create_macros
from cohortlake.privacy.treatments import prepare
from cohortlake.publish import patients, rows
from cohortlake.publish.plan import PublishPlan, make_plan
from cohortlake.publish.writer import Writer
from cohortlake.storage import engine
from cohortlake.storage.root import Root

POLICY = built_in("identified")


def _image_set(number: int, patient: str, study: str, day: str) -> dict[str, Any]:
    return {
        "number": number,
        "isPrimary": True,
        "DICOMPatientId": patient,
        "DICOMStudyInstanceUID": study,
        "DICOMSeriesInstanceUID": f"2.{number}",
        "DICOMStudyDate": day,
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A lake of two versions.

    The second has a late study of patient P1 in January, before that patient's study in April, and
    another image set of study 1.2 in February, which has one in March as well.
    """
    root = Root(str(tmp_path_factory.mktemp("lake")))
    root.prepare()
    hospital = Hospital(root)
    hospital.step(
        [
            _image_set(0, "P1", "1.1", "20240405"),
            _image_set(1, "P2", "1.2", "20240205"),
            _image_set(2, "P2", "1.2", "20240305"),
            _image_set(3, "P3", "1.3", "20240505"),
        ],
        [],
    )
    late = [_image_set(4, "P1", "1.4", "20240105"), _image_set(5, "P2", "1.2", "20240205")]
    hospital.step(late, [])
    return root


def _months(*numbers: int) -> frozenset[str]:
    return frozenset(f"2024-{number:02}" for number in numbers)


def _registered(con: duckdb.DuckDBPyConnection, root: Root) -> tuple[HistoryViews, str | None]:
    create_macros(con, b"k" * 32)
    prepare(con, POLICY)
    version = image_sets.version(root)
    assert version is not None
    history = image_sets.register(con, root, version)
    appended = image_sets.appended_files(root, version - 1, version)
    assert appended is not None
    return history, image_sets.register_appended(con, root, appended)


def _index(root: Root) -> HistoryIndex:
    return HistoryIndex(root, image_sets.version(root) or 0)


def _studies(con: duckdb.DuckDBPyConnection, rows: str) -> list[str]:
    found = con.sql(f"SELECT DISTINCT StudyInstanceUID FROM {rows} ORDER BY ALL").fetchall()
    return [uid for (uid,) in found]


def _patients(con: duckdb.DuckDBPyConnection, plan: PublishPlan) -> list[str]:
    found = con.sql(f"SELECT PatientID FROM {plan.patients} ORDER BY ALL").fetchall()
    return [patient for (patient,) in found]


def test_a_plan_names_what_the_last_commit_affects(root: Root) -> None:
    with engine.connection() as con:
        history, appended = _registered(con, root)
        plan = make_plan(con, history, _index(root), appended, POLICY)
        assert _studies(con, plan.linked_rows) == ["1.2"]
        assert _studies(con, plan.rows) == ["1.1", "1.2", "1.4"]
        assert _patients(con, plan) == ["P1", "P2"]
    assert not plan.is_full
    assert plan.rewrite == frozenset()
    assert plan.periods == {
        "image_sets": _months(1, 2),
        "series": _months(1, 2, 3),
        "studies": _months(1, 2, 3, 4),
        "history": _months(1, 2, 3),
    }
    assert [batch.periods for batch in plan.batches] == [_months(1, 2, 3, 4)]


def test_periods_to_rewrite_are_read_and_written_too(root: Root) -> None:
    with engine.connection() as con:
        history, appended = _registered(con, root)
        plan = make_plan(con, history, _index(root), appended, POLICY, _months(5))
        assert _studies(con, plan.rows) == ["1.1", "1.2", "1.3", "1.4"]
        assert _patients(con, plan) == ["P1", "P2", "P3"]
    assert plan.rewrite == _months(5)
    assert plan.periods == {
        "image_sets": _months(1, 2, 5),
        "series": _months(1, 2, 3, 5),
        "studies": _months(1, 2, 3, 4, 5),
        "history": _months(1, 2, 3, 5),
    }
    assert [batch.months for batch in plan.batches] == [_months(1, 2, 3, 4, 5)]


def test_a_full_plan_names_everything(root: Root) -> None:
    with engine.connection() as con:
        history, _ = _registered(con, root)
        plan = make_plan(con, history, _index(root), None, POLICY)
    assert plan.is_full
    assert plan.patients is None
    assert plan.rewrite == _months(1, 2, 3, 4, 5)
    assert set(plan.periods.values()) == {plan.rewrite}


def _renamed(con: duckdb.DuckDBPyConnection, name: str) -> str:
    """Give a relation another name."""
    con.execute(f"CREATE TEMP TABLE given_{name} AS FROM {name}")
    return f"given_{name}"


@pytest.mark.parametrize("is_full", [True, False])
def test_each_step_reads_only_the_relations_that_it_is_given(
    root: Root, tmp_path: Path, *, is_full: bool
) -> None:
    with engine.connection() as con, engine.shared_schema(con) as shared:
        given, given_appended = _registered(con, root)
        names = [*asdict(given).values(), str(given_appended)]
        *of_history, appended = (_renamed(con, name) for name in names)
        history = HistoryViews(*of_history)
        for name in names:
            con.execute(f"DROP VIEW {name}")
        plan = make_plan(con, history, _index(root), None if is_full else appended, POLICY)
        loaded = rows.load(con, plan, plan.batches[0], POLICY, shared)
        count = 6 if is_full else 5
        assert engine.count(con, f"SELECT count(*) FROM {loaded.current}") == count
        assert engine.count(con, f"SELECT count(*) FROM {loaded.states}") == count
        if is_full:
            writer = Writer(Root(str(tmp_path)), POLICY, {})
            order = patients.write(con, history, _index(root), plan, POLICY, writer, shared)
            assert engine.count(con, f"SELECT count(*) FROM {order}") == 4
