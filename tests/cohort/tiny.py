"""Small published lakes made of rows: what publishing writes, without a data store behind it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import cohortlake
from cohortlake import Lake, dicom_terms, schema
from cohortlake.privacy import Policy, built_in
from cohortlake.publish import marts, study_order
from cohortlake.publish.publication.marker import MARKER_PATH, Publication, PublishedFile

DATASTORE = "d" * 32
POLICY = built_in("limited")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
_QUERIES = {
    "image_sets": "FROM now",
    "series": marts.series("present"),
    "studies": marts.studies("present", "study_order"),
    "patients": f"FROM ({marts.patients('present')}) WHERE patient_key IS NOT NULL",
    "history": "FROM states",
    "series_headers": "FROM now WHERE instance_count IS NOT NULL",
}
_MONTH = schema.STUDY_MONTH_SQL


def image_set(number: int, patient: str | None, study: str | None, **more: Any) -> dict[str, Any]:
    """A row of `history`: one series of one image set, true since BEGAN.

    With `instance_count` it has a header too.
    """
    day, sex = more.get("StudyDate"), dicom_terms.sex(more.get("PatientSex"))
    body_part = dicom_terms.body_part(more.get("BodyPartExamined"))
    return {
        "datastore_id": DATASTORE,
        "image_set_id": f"{number:032x}",
        "version": 1,
        "created_at": BEGAN,
        "updated_at": BEGAN,
        "is_primary": True,
        "patient_key": patient,
        "sex": sex.value,
        "sex_status": sex.status,
        "body_part": body_part.value,
        "body_part_status": body_part.status,
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"1.3.{number}",
        "valid_from": BEGAN,
        "observed_from": BEGAN + timedelta(minutes=number),
        "change": "created",
        "study_month": f"{day:%Y-%m}" if isinstance(day, date) else schema.UNDATED,
        **more,
    }


def publish(
    root: str, states: Iterable[Mapping[str, Any]], version: int = 0, policy: Policy = POLICY
) -> None:
    """Write `published/` from states, as `history` has them."""
    rows = [dict(state) for state in states]
    key = repr((rows, version, policy))
    if key not in _PUBLISHED:
        written = _write(root, rows, version, policy)
        _PUBLISHED[key] = {path: Path(root, path).read_bytes() for path in written}
    for path, content in _PUBLISHED[key].items():
        Path(root, path).parent.mkdir(parents=True, exist_ok=True)
        Path(root, path).write_bytes(content)


_PUBLISHED: dict[str, dict[str, bytes]] = {}
"""What was published of -> the files. Many tests publish the same, and it takes 0.2 s."""


def _write(root: str, states: list[dict[str, Any]], version: int, policy: Policy) -> list[str]:
    """Write them, and return the paths."""
    every = {c.name: c for table in schema.PUBLISHED.values() for c in table}
    columns = schema.arrow_schema(every.values())
    files: dict[str, PublishedFile] = {}
    with duckdb.connect(config={"threads": 1}) as con:
        con.register("states", pa.Table.from_pylist(states, columns))
        con.execute("CREATE VIEW now AS SELECT * FROM states WHERE valid_to IS NULL")
        con.execute(
            f"CREATE TEMP TABLE present AS SELECT *, image_set_id AS interval_key, "
            f"hash({marts.STUDY}) AS entity_hash FROM now"
        )
        con.execute(f"CREATE TEMP TABLE study_order AS {study_order.of('present')}")
        for table, query in _QUERIES.items():
            shown = schema.arrow_schema(
                c for c in policy.shown(schema.published(table)) if c != schema.STUDY_MONTH
            )
            folder = "''" if table == "patients" else f"'/study_month=' || {_MONTH}"
            columns_sql = ", ".join([*shown.names, f"{folder} AS folder"])
            rows = con.sql(f"SELECT {columns_sql} FROM ({query})").to_arrow_table()
            folders = {""} if table == "patients" else {*rows["folder"].to_pylist()}
            for folder in sorted(folders):
                own = rows.filter(pc.equal(rows["folder"], folder)).select(shown.names)
                path = f"published/{table}{folder}/{table}.parquet"
                (Path(root) / path).parent.mkdir(parents=True, exist_ok=True)
                pq.write_table(own.cast(shown), Path(root) / path)
                files[path] = PublishedFile(len(own))
    (Path(root) / MARKER_PATH).write_bytes(marker(policy, version, files).to_marker())
    return [*files, MARKER_PATH]


@contextmanager
def opened(rows: list[dict[str, Any]]) -> Iterator[Lake]:
    """A small lake of these rows, opened."""
    with tempfile.TemporaryDirectory() as folder:
        publish(folder, rows)
        with cohortlake.open(folder) as lake:
            yield lake


def marker(policy: Policy, version: int, files: dict[str, PublishedFile]) -> Publication:
    """What publishing writes of a publication."""
    return Publication(
        version, policy.name, policy.digest, policy.widened, policy.tables,
        schema.FORMAT_VERSION, "2026-01-01T00:00:00+00:00", files, BEGAN.isoformat(),
        replaced=policy.replaced,
    )  # fmt: skip


def _days(*days: int) -> list[date]:
    return [date(2020, 1, 1) + timedelta(days=day) for day in days]


_JANUARY, _FEBRUARY, _MARCH = _days(0, 40, 80)
FIRST_ROWS = [
    image_set(0, "p", "1.1", Modality="CT", PatientSex="F", BodyPartExamined="CHEST",
              StudyDate=_JANUARY, age_at_study_years=50),
    image_set(1, "p", "1.1", Modality="MR", PatientSex="F", BodyPartExamined="HEAD",
              StudyDate=_FEBRUARY, age_at_study_years=50),
    image_set(2, "q", "1.2", Modality="CT", PatientSex="M", StudyDate=_MARCH,
              age_at_study_years=70),
]  # fmt: skip
"""Two patients, two studies, three series; the first study's series disagree on its day."""
