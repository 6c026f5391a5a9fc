"""The reconciliation check: does the version history hold what the last sweeps found?

The version history is made from the windows of updatedAt. A sweep by study date reads the same data
store along another axis. If nothing changed since a study month was swept, the current rows of
that month and the rows of the sweep must be the same, in number and in the sum of their hashes. A
study also states its number of series, which is compared too. Counts and months only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.healthimaging import Axis
from cohortlake.history import coverage, image_sets, timeline
from cohortlake.history.views import HistoryViews, current_sql, ends_sql
from cohortlake.increments import files
from cohortlake.ingest import partitions
from cohortlake.schema import STUDY_MONTH_SQL
from cohortlake.storage import engine
from cohortlake.storage.root import Root

_HASHES = 2**63
_GROUP_ROWS = 500_000


@dataclass(frozen=True)
class Reconciliation:
    """How the version history compares with the last sweeps, and studies with their own counts.

    Attributes:
        agreeing: Study months, of all data stores, that hold what their last sweep found.
            `undated` counts as a month; it is swept by creation.
        differing: Months that hold something else although nothing changed since: YYYY-MM, or
            `undated`.
        changed: Months that changed since their last sweep, or of which an erasure removed rows
            that the sweep counted.
        unswept: Months that hold rows and were never swept to the end.
        studies: Studies that state how many series they have.
        studies_with_fewer_series: Studies of which the lake holds fewer series.
        studies_with_more_series: Studies of which the lake holds more series.
    """

    agreeing: int = 0
    differing: tuple[str, ...] = ()
    changed: int = 0
    unswept: int = 0
    studies: int = 0
    studies_with_fewer_series: int = 0
    studies_with_more_series: int = 0


def reconciliation_check(root: Root) -> Reconciliation:
    """Compare the version history with the last sweeps.

    Reads the history some study months at a time, so that any lake needs the same memory, but for
    16 bytes a study.
    """
    with engine.connection() as con:
        history = image_sets.register(con, root)
        con.register("coverage", coverage.read(root))
        con.execute(_SWEPT)
        con.execute(_WITHOUT_STUDY.format(versions=history.versions))
        _add_mixed(con, root)
        studies = []
        con.execute(_NO_SUMS)
        groups = list(_groups(con, history))
        for months in groups:
            _read(con, history, months)
            con.execute(_ADD_SUMS.format(held=_by_partition("own"), changes=_by_partition("begun")))
            studies.append(con.sql(_STUDIES).to_arrow_table())
        outcomes = con.sql(_MONTHS).fetchall()
        single, several = _by_spread(pa.concat_tables(studies)) if studies else (_NONE, _NONE)
        spread = [_series_of(con, history, months, several) for months in groups if len(several)]
        con.register("single", single)
        con.register("spread", pa.concat_tables(spread) if spread else _NO_SERIES)
        ((count, fewer, more),) = con.sql(_COMPARED).fetchall()
    by_outcome: dict[str, list[str]] = {}
    for month, outcome in outcomes:
        by_outcome.setdefault(outcome, []).append(month)
    return Reconciliation(
        agreeing=len(by_outcome.get("agrees", ())),
        differing=tuple(sorted(by_outcome.get("differs", ()))),
        changed=len(by_outcome.get("changed", ())),
        unswept=len(by_outcome.get("unswept", ())),
        studies=count,
        studies_with_fewer_series=fewer,
        studies_with_more_series=more,
    )


def _groups(con: duckdb.DuckDBPyConnection, history: HistoryViews) -> Iterator[list[str]]:
    """Yield all study months, adjacent ones together."""
    counts = f"SELECT study_month, count(*) FROM {history.versions} GROUP BY 1 ORDER BY 1"
    months, size = list[str](), 0
    for month, rows in con.sql(counts).fetchall():
        if months and size + rows > _GROUP_ROWS:
            yield months
            months, size = [], 0
        months.append(month)
        size += rows
    if months:
        yield months


def _read(con: duckdb.DuckDBPyConnection, history: HistoryViews, months: Sequence[str]) -> None:
    """Make tables of the version rows and end events of some study months, and of what is current.

    An end event lies in the study month of the interval that it ends.
    """
    wanted = f"study_month IN {engine.text_list(months)}"
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE begun_versions AS
            SELECT datastore_id, study_month, StudyDate_raw, change, observed_at, state_key,
                   interval_key, NumberOfStudyRelatedSeries AS said, study_hash AS study,
                   study_hash NOT IN (FROM without_study) AS has_study, series_hash AS series
            FROM {history.versions} WHERE {wanted};
        CREATE OR REPLACE TEMP TABLE own_events AS FROM {history.end_events} WHERE {wanted};
        CREATE OR REPLACE TEMP VIEW own AS
            {current_sql("begun_versions", f"({ends_sql('own_events')})")};
        CREATE OR REPLACE TEMP VIEW begun AS
            SELECT datastore_id, study_month, StudyDate_raw, change, observed_at
            FROM begun_versions
            UNION ALL
            SELECT ends.datastore_id, ends.study_month, StudyDate_raw, ends.change,
                   ends.observed_at
            FROM own_events ends JOIN begun_versions USING (interval_key);
    """)


def _by_spread(studies: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Divide studies, as they are in each group of months, into those of one group and others."""
    order = np.sort(studies["study"].to_numpy())
    several = pa.array(np.unique(order[1:][order[1:] == order[:-1]]))
    is_spread = pc.is_in(studies["study"], value_set=several)
    return studies.filter(pc.invert(is_spread)), pa.table({"study": several})


def _series_of(
    con: duckdb.DuckDBPyConnection, history: HistoryViews, months: Sequence[str], studies: pa.Table
) -> pa.Table:
    """Return the series of some studies in some study months."""
    _read(con, history, months)
    con.register("several", studies)
    return con.sql("""
        SELECT DISTINCT study, said, series FROM own SEMI JOIN several USING (study)
        WHERE has_study
    """).to_arrow_table()


def _add_mixed(con: duckdb.DuckDBPyConnection, root: Root) -> None:
    """Add to the sweeps of `undated` their own rows in increments that also hold other rows."""
    mixed = con.sql("SELECT datastore_id, mixed FROM swept WHERE len(mixed) > 0").fetchall()
    for datastore_id, increments in mixed:
        con.register("mixed", files.read_rows(root, datastore_id, increments, _MIXED_COLUMNS))
        rows = _by_partition(f"(SELECT *, {STUDY_MONTH_SQL} AS study_month FROM mixed)")
        con.execute(_ADD_MIXED.format(rows=rows), {"datastore_id": datastore_id})


_MIXED_COLUMNS = ("datastore_id", "state_key", "StudyDate", "StudyDate_raw")

# The sweep of `undated` is the sweep by creation. It finds everything that lay in no month at that
# instant, also what is dated later. A month with its own sweep is compared with that sweep. A sweep
# that failed midway left some of its parts. The parts of a run do not overlap, so the sum of their
# lengths shows whether all are there. `n` and `hash` leave out the increments by creation that hold
# rows, because these also hold new rows of other partitions.
_SWEPT = f"""
CREATE TEMP TABLE swept AS
WITH sweeps AS (
    SELECT datastore_id, "partition" AS study_month, run_id, max(searched_at) AS searched_at,
           bool_and(counted) AS counted, coalesce(sum(rows) FILTER (NOT is_mixed), 0) AS n,
           coalesce(sum(content_hash::HUGEINT) FILTER (NOT is_mixed), 0) % {_HASHES} AS hash,
           list(increment) FILTER (is_mixed) AS mixed
    FROM (SELECT *, axis = '{Axis.CREATED_AT}' AND kept_rows > 0 AS is_mixed FROM coverage)
    WHERE axis IN ('{Axis.STUDY_DATE}', '{Axis.CREATED_AT}')
    GROUP BY datastore_id, "partition", run_id
    HAVING sum(epoch_us("end") - epoch_us("start")) = CASE "partition"
        WHEN '{schema.UNDATED}' THEN epoch_us(max(searched_at))
        ELSE epoch_us(("partition" || '-01')::TIMESTAMP + INTERVAL 1 MONTH)
             - epoch_us(("partition" || '-01')::TIMESTAMP) END
)
SELECT DISTINCT ON (datastore_id, study_month) * FROM sweeps
ORDER BY datastore_id, study_month, searched_at DESC, run_id;
CREATE TEMP TABLE own_sweeps AS SELECT datastore_id, study_month AS swept_month FROM swept;
CREATE TEMP TABLE undated_sweeps AS
SELECT datastore_id, strftime(make_timestamp(epoch_us(searched_at)), '%Y-%m') AS last_month
FROM swept WHERE study_month = '{schema.UNDATED}';
-- A later month has its own sweep since then, so `undated` no longer counts it.
UPDATE swept SET counted = false FROM undated_sweeps
WHERE study_month = '{schema.UNDATED}' AND swept.datastore_id = undated_sweeps.datastore_id
  AND EXISTS (
    SELECT 1 FROM swept own WHERE own.datastore_id = undated_sweeps.datastore_id AND own.n > 0
    AND own.study_month > last_month AND own.study_month <> '{schema.UNDATED}'
  );
"""


def _by_partition(rows: str) -> str:
    """Return SQL for rows of the history, each with the month whose last sweep counted it."""
    first = f"{partitions.FIRST_MONTH:%Y-%m}"
    return f"""
        SELECT * EXCLUDE (swept_month, last_month, has_own) REPLACE (
            CASE WHEN has_own OR swept_month BETWEEN '{first}' AND coalesce(last_month, '9999-12')
                 THEN swept_month ELSE '{schema.UNDATED}' END AS study_month
        )
        FROM (SELECT *, {partitions.SWEPT_MONTH_SQL} AS swept_month FROM {rows})
        LEFT JOIN undated_sweeps USING (datastore_id)
        LEFT JOIN (SELECT *, true AS has_own FROM own_sweeps) USING (datastore_id, swept_month)
    """


_ADD_MIXED = f"""
UPDATE swept SET n = swept.n + added.n, hash = (swept.hash + added.hash) % {_HASHES} FROM (
    SELECT count(*) AS n, coalesce(sum(state_key::HUGEINT), 0) AS hash
    FROM ({{rows}}) WHERE study_month = '{schema.UNDATED}'
) added
WHERE study_month = '{schema.UNDATED}' AND datastore_id = $datastore_id
"""

_WITHOUT_STUDY = f"""
CREATE TEMP TABLE without_study AS
SELECT study_hash FROM (
    SELECT {timeline.ENTITY_HASHES} FROM (
        SELECT DISTINCT datastore_id, NULL::TEXT AS StudyInstanceUID,
               NULL::TEXT AS SeriesInstanceUID, NULL::TEXT AS PatientID
        FROM {{versions}}
    )
);
"""

# Image sets that the sweep itself closed were closed after it began, but are not later changes.
_NO_SUMS = """
CREATE TEMP TABLE held (datastore_id TEXT, study_month TEXT, n HUGEINT, hash HUGEINT);
CREATE TEMP TABLE later (datastore_id TEXT, study_month TEXT, deleted HUGEINT, others HUGEINT);
"""

_ADD_SUMS = """
INSERT INTO held
    SELECT datastore_id, study_month, count(*), sum(state_key::HUGEINT) FROM ({held}) GROUP BY ALL;
INSERT INTO later
    SELECT datastore_id, study_month, count(*) FILTER (change = 'deleted'),
           count(*) FILTER (change <> 'deleted')
    FROM ({changes}) JOIN swept USING (datastore_id, study_month)
    WHERE observed_at > searched_at GROUP BY ALL;
"""

_MONTHS = f"""
WITH closed_by_sweep AS (
    SELECT datastore_id, "partition" AS study_month, run_id, sum(rows) AS n
    FROM coverage WHERE axis = 'absence' GROUP BY ALL
), all_held AS (
    SELECT datastore_id, study_month, sum(n) AS n, sum(hash) % {_HASHES} AS hash
    FROM held GROUP BY ALL
), all_later AS (
    SELECT datastore_id, study_month, sum(deleted) AS deleted, sum(others) AS others
    FROM later GROUP BY ALL
)
SELECT study_month, CASE
    WHEN swept.run_id IS NULL THEN 'unswept'
    WHEN NOT swept.counted OR coalesce(later.others, 0) > 0
        OR coalesce(later.deleted, 0) > coalesce(closed_by_sweep.n, 0) THEN 'changed'
    WHEN (coalesce(held.n, 0), coalesce(held.hash, 0)) = (swept.n, swept.hash) THEN 'agrees'
    ELSE 'differs' END AS outcome
FROM all_held held FULL JOIN swept USING (datastore_id, study_month)
LEFT JOIN all_later later USING (datastore_id, study_month)
LEFT JOIN closed_by_sweep ON closed_by_sweep.datastore_id = swept.datastore_id
    AND closed_by_sweep.study_month = swept.study_month AND closed_by_sweep.run_id = swept.run_id
WHERE held.n > 0 OR swept.n > 0
"""

_STUDIES = """
SELECT study, max(said)::INT AS said,
       count(DISTINCT series)::INT AS held
FROM own WHERE has_study GROUP BY study
"""
_NONE = pa.Table.from_batches(
    [], pa.schema({"study": pa.int64(), "said": pa.int32(), "held": pa.int32()})
)  # `pa.table` imports pandas
_NO_SERIES = pa.Table.from_batches(
    [], pa.schema({"study": pa.int64(), "said": pa.int32(), "series": pa.int64()})
)

_COMPARED = """
SELECT count(*), count(*) FILTER (held < said), count(*) FILTER (held > said) FROM (
    FROM single
    UNION ALL
    SELECT study, max(said), count(DISTINCT series) FROM spread GROUP BY study
) WHERE said IS NOT NULL
"""
