"""Do the two axes agree?

What updatedAt windows brought makes the memory; a sweep by study date looks at the same data
store from the other side. Where nothing changed since a study month was swept, the rows that
the memory holds true there and those that the sweep found must be the same: in number, and
in the sum of their hashes. A study also says how many series it has. Counts and months only.
"""

from __future__ import annotations

from dataclasses import dataclass

from cohortlake.lake import coverage, engine, image_sets, partitions
from cohortlake.lake.root import Root


@dataclass(frozen=True)
class Agreement:
    """How the memory compares with the last sweeps, and studies with what they say.

    Attributes:
        agreeing: Study months, over all data stores, that hold what their last sweep found.
        differing: Those that hold something else although nothing changed since, YYYY-MM.
        changed: Those that changed since their last sweep, or lost what it counted to an erasure.
        unswept: Those that hold rows and were never swept to the end.
        studies: Studies that say how many series they have.
        studies_with_fewer_series: Those of which the lake holds fewer.
        studies_with_more_series: Those of which it holds more.
    """

    agreeing: int = 0
    differing: tuple[str, ...] = ()
    changed: int = 0
    unswept: int = 0
    studies: int = 0
    studies_with_fewer_series: int = 0
    studies_with_more_series: int = 0


def agreement(root: Root) -> Agreement:
    """Compare what the memory holds with the last sweeps."""
    with engine.connection() as con:
        image_sets.register(con, root)
        con.register("ledger", coverage.read(root))
        months = con.sql(_MONTHS).fetchall()
        studies, fewer, more = con.sql(_STUDIES).fetchall()[0]
    by_verdict: dict[str, list[str]] = {}
    for month, verdict in months:
        by_verdict.setdefault(verdict, []).append(month)
    return Agreement(
        agreeing=len(by_verdict.get("agrees", ())),
        differing=tuple(sorted(by_verdict.get("differs", ()))),
        changed=len(by_verdict.get("changed", ())),
        unswept=len(by_verdict.get("unswept", ())),
        studies=studies,
        studies_with_fewer_series=fewer,
        studies_with_more_series=more,
    )


# What the sweep itself showed to be gone was closed after it began, and is no later change. One
# that failed midway leaves parts of its month; parts of a run share no day, so their lengths tell.
_MONTHS = f"""
WITH sweeps AS (
    SELECT datastore_id, "partition" AS study_month, run_id, max(searched_at) AS searched_at,
           bool_and(counted) AS counted,
           sum(rows) AS n, sum(content_hash::HUGEINT) % 9223372036854775808 AS hash
    FROM ledger WHERE axis = 'study_date' GROUP BY ALL
    HAVING sum(epoch_us("end") - epoch_us("start")) = epoch_us(
        ("partition" || '-01')::TIMESTAMP + INTERVAL 1 MONTH
    ) - epoch_us(("partition" || '-01')::TIMESTAMP)
), swept AS (
    SELECT DISTINCT ON (datastore_id, study_month) * FROM sweeps
    ORDER BY datastore_id, study_month, searched_at DESC, run_id
), closed_by_sweep AS (
    SELECT datastore_id, "partition" AS study_month, run_id, sum(rows) AS n
    FROM ledger WHERE axis = 'absence' GROUP BY ALL
), held AS (
    SELECT datastore_id, {partitions.SWEPT_MONTH_SQL} AS study_month, count(*) AS n,
           sum(state_key::HUGEINT) % 9223372036854775808 AS hash
    FROM current GROUP BY ALL
), later AS (
    SELECT datastore_id, study_month, count(*) FILTER (change = 'deleted') AS deleted,
           count(*) FILTER (change <> 'deleted') AS others
    FROM (
        SELECT datastore_id, study_month, change, observed_at FROM versions
        UNION ALL BY NAME
        SELECT datastore_id, study_month, change, observed_at FROM closures
    ) JOIN swept USING (datastore_id, study_month) WHERE observed_at > searched_at GROUP BY ALL
)
SELECT study_month, CASE
    WHEN swept.run_id IS NULL THEN 'unswept'
    WHEN NOT swept.counted OR coalesce(later.others, 0) > 0
        OR coalesce(later.deleted, 0) > coalesce(closed_by_sweep.n, 0) THEN 'changed'
    WHEN (coalesce(held.n, 0), coalesce(held.hash, 0)) = (swept.n, swept.hash) THEN 'agrees'
    ELSE 'differs' END AS verdict
FROM held FULL JOIN swept USING (datastore_id, study_month)
LEFT JOIN later USING (datastore_id, study_month)
LEFT JOIN closed_by_sweep ON closed_by_sweep.datastore_id = swept.datastore_id
    AND closed_by_sweep.study_month = swept.study_month AND closed_by_sweep.run_id = swept.run_id
WHERE held.n > 0 OR swept.n > 0
"""

_STUDIES = """
SELECT count(*), count(*) FILTER (held < said), count(*) FILTER (held > said) FROM (
    SELECT max(NumberOfStudyRelatedSeries) AS said, count(DISTINCT SeriesInstanceUID) AS held
    FROM current WHERE StudyInstanceUID IS NOT NULL
    GROUP BY datastore_id, StudyInstanceUID
) WHERE said IS NOT NULL
"""
