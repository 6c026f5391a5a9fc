"""The published tables that are cut into periods: image_sets, series, studies and history.

The rows of a publication are read in batches. For each batch, `rows` loads the rows and applies
the policy, `marts` makes the tables from them, and `writer` writes the periods that are complete.
The next batch is loaded meanwhile, so that all cores have work.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import duckdb

from cohortlake.privacy import Policy
from cohortlake.publish import marts, rows
from cohortlake.publish.carried_rows import CarriedRows
from cohortlake.publish.parquet_file import Entities
from cohortlake.publish.periods import Batch
from cohortlake.publish.plan import PublishPlan
from cohortlake.publish.rows import PublishedRows
from cohortlake.publish.writer import Writer

_PLACE = ("study_month", "study_hash")
"""The columns that say in which batch a row is."""


def write(
    con: duckdb.DuckDBPyConnection,
    plan: PublishPlan,
    study_order: str,
    policy: Policy,
    writer: Writer,
    shared: str,
) -> None:
    """Write the tables.

    Args:
        con: The connection of the plan's relations, with the macros of `keyed_hashes`.
        plan: What is published.
        study_order: The order of the studies of each patient: the name of a table in `shared`.
        policy: The privacy policy.
        writer: Writes the files. The caller calls `Writer.finish`.
        shared: A schema for the rows that are read. See `engine.shared_schema`.

    Raises:
        DamagedFile: A file does not hold what was written, so its rows cannot be kept.
    """
    with con.cursor() as writing, closing(_load(con, plan, policy, shared)) as loaded:
        _write_tables(writing, loaded, plan, study_order, policy, writer)


def _load(
    con: duckdb.DuckDBPyConnection, plan: PublishPlan, policy: Policy, shared: str
) -> Generator[tuple[Batch, PublishedRows]]:
    """Yield the rows of each batch. A thread loads those of the next one meanwhile."""

    def load(batch: Batch) -> PublishedRows:
        return rows.load(con, plan, batch, policy, shared)

    with ThreadPoolExecutor(1) as thread:
        started = ((batch, thread.submit(load, batch)) for batch in plan.batches)
        next_one = next(started, None)
        while next_one:
            (batch, loading), next_one = next_one, next(started, None)
            yield batch, loading.result()


def _write_tables(
    con: duckdb.DuckDBPyConnection,
    loaded_rows: Iterable[tuple[Batch, PublishedRows]],
    plan: PublishPlan,
    study_order: str,
    policy: Policy,
    writer: Writer,
) -> None:
    con.execute("CREATE TEMP TABLE replaced (datastore_id VARCHAR, StudyInstanceUID VARCHAR)")
    with CarriedRows() as carried:
        for batch, loaded in loaded_rows:
            if not plan.is_full:
                con.execute(f"INSERT INTO replaced FROM {loaded.studies}")
            queries = {
                "image_sets": f"FROM {loaded.current}",
                "series": marts.series(loaded.current, *_PLACE),
                "studies": marts.studies(loaded.current, study_order, *_PLACE),
                "history": f"FROM {loaded.states}",
            }
            replaced = Entities(con.sql("FROM replaced").to_arrow_table())
            for table, query in queries.items():
                # A study of several batches is published with its representative row.
                once = f"FROM ({query}) WHERE {batch.sql}"
                of_batch = plan.periods[table] & (batch.periods | batch.unfinished)
                for periods in filter(None, (of_batch & plan.rewrite, of_batch - plan.rewrite)):
                    complete = periods & batch.periods
                    rows = writer.read_periods(con, table, writer.in_periods(table, once, periods))
                    rows = carried.complete(table, writer.order(table), rows, complete)
                    if periods <= plan.rewrite:
                        writer.write(table, rows, complete)
                    else:
                        writer.replace(table, rows, complete, replaced)
            con.execute(f"DROP TABLE {loaded.states}")
