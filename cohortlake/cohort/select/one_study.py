"""The study of each patient that a cohort keeps, as SQL: first, last, closest or random."""

from __future__ import annotations

from collections.abc import Iterable

from cohortlake.cohort.define import conditions, values
from cohortlake.cohort.define.steps import Join, OneStudyPerPatient
from cohortlake.cohort.select.compiled_query import STUDY, Parameters
from cohortlake.cohort.select.opened_tables import OpenedTables

_MICROSECONDS_OF_DAY = 24 * 60 * 60 * 1_000_000
_NO_PLACE = 2**62


def chosen_studies(
    tables: OpenedTables,
    joins: Iterable[Join],
    step: OneStudyPerPatient,
    before: str,
    day: str,
    params: Parameters,
) -> str:
    """Return SQL for one study of each patient: patient_key, datastore_id, StudyInstanceUID.

    Two studies may be equally good: of one day, where the policy hides the time. Then the
    order of the patient's studies decides, which is made from the real times, and after it
    the ids of the image sets, which the service gives. A replaced UID may not decide, because
    it changes with the key.

    Args:
        tables: The opened tables.
        joins: The outside tables of the cohort.
        step: Which study is kept.
        before: The stage before the step.
        day: The column that holds the day of a study; not read for a random one.
        params: The values of the query are added here.
    """
    source, rank, clock, place = _ranked(tables, joins, step, before, day, params)
    if "study_ordinal" not in tables.columns("studies"):
        place = "0"
    # Reading `studies` takes longer than all the rest, so it is read for ties only. The two
    # studies of `best` are the first and the last by UID of those that are equally good.
    return f"""
        WITH ranked AS NOT MATERIALIZED (
            SELECT patient_key, {STUDY}, image_set_id, {rank} AS rank, {clock} AS clock
            FROM {source}
        ), best AS MATERIALIZED (
            SELECT patient_key, any_value(datastore_id) AS datastore_id,
                   arg_min(StudyInstanceUID, (rank, clock, StudyInstanceUID))
                   AS StudyInstanceUID,
                   arg_max(StudyInstanceUID, (-rank, -clock, StudyInstanceUID)) AS other
            FROM ranked WHERE rank IS NOT NULL GROUP BY patient_key
        ), tied AS MATERIALIZED (
            SELECT patient_key FROM best WHERE StudyInstanceUID <> other
        ), places AS (
            SELECT {STUDY}, {place} AS place FROM studies SEMI JOIN tied USING (patient_key)
        )
        SELECT patient_key, {STUDY} FROM best WHERE StudyInstanceUID = other
        UNION ALL
        SELECT patient_key, any_value(datastore_id), arg_min(
            StudyInstanceUID,
            (rank, clock, coalesce(place, {_NO_PLACE}), image_set_id, StudyInstanceUID)
        )
        FROM ranked SEMI JOIN tied USING (patient_key) LEFT JOIN places USING ({STUDY})
        WHERE rank IS NOT NULL GROUP BY patient_key
    """


def _ranked(
    tables: OpenedTables,
    joins: Iterable[Join],
    step: OneStudyPerPatient,
    before: str,
    day: str,
    params: Parameters,
) -> tuple[str, str, str, str]:
    """Return a relation and what ranks its rows, each as a number: day, time, position.

    The row with the least numbers is the best. A row without a time or a position is the last.
    """
    if step.choice == "random":
        # Each study once, so that one of many series is not more likely. Not by its UID.
        studies = f"""(
            SELECT patient_key, {STUDY}, min(image_set_id) AS image_set_id
            FROM {before} GROUP BY ALL
        )"""
        key = f"concat_ws('|', {params.add(str(step.seed))}, datastore_id, image_set_id)"
        return studies, f"(md5_number_lower({key}) >> 1)::BIGINT", "0", "0"
    has_time = "StudyTime" in tables.columns("series")
    of_day = f"date_diff('day', DATE '1970-01-01', {day})"
    clock = "epoch_us(StudyTime)" if has_time else "NULL"
    if step.choice == "last":
        return before, f"-{of_day}", f"coalesce(-{clock}, 0)", "-study_ordinal"
    clock = f"coalesce({clock}, {_MICROSECONDS_OF_DAY})"
    if step.choice == "first":
        return before, of_day, clock, "study_ordinal"
    if isinstance(step.to, str):
        outside = {j.table: tables.columns(j.table) for j in joins}
        table = conditions.table_of([step.to], outside)
        tables.require_dates(table, step.to)
        source = f'{before} JOIN "{table}" USING (patient_key)'
        to = f'"{step.to}"::DATE'
        if values.is_text(tables.types(table)[step.to]):
            to = f"""try_strptime("{step.to}", ['%Y-%m-%d', '%Y%m%d'])::DATE"""
    else:
        source, to = before, params.add(step.to)
    # Of two that are equally close, the earlier one.
    rank = f"2 * abs(date_diff('day', {to}, {day})) + ({day} > {to})::INT"
    return source, rank, clock, "study_ordinal"
