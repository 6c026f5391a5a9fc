"""SQL that makes rows safe: what a policy does with each value before it is published.

Dates are shifted and UIDs replaced in the rows themselves, under their own names. So everything
that is derived from them, such as the order of studies, stays the same. `published_sql` gives each
column the name under which it is published. See `privacy.policy` for the treatment of each column.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date

import duckdb
import pyarrow as pa

from cohortlake import dicom_terms, schema
from cohortlake.dicom_values import SEPARATOR
from cohortlake.privacy.policy import REVIEWABLE, Policy, Treatment
from cohortlake.schema import Column

_COLUMNS = {column.name: column for column in schema.STATE}
FIRST_SHIFTED = date(2, 1, 2)
"""The first date that is shifted; earlier dates mean that there is none."""


def prepare(con: duckdb.DuckDBPyConnection, policy: Policy) -> None:
    """Create the table `shown_values` (name, value): the values of each column that are shown."""
    rows = [
        (name, value)
        for name, column in _COLUMNS.items()
        if policy.treatment(column) in REVIEWABLE
        for value in sorted(_shown_values(policy, column))
    ]
    names, values = zip(*rows, strict=True) if rows else ((), ())
    table = pa.table({"name": pa.array(names, pa.string()), "value": pa.array(values, pa.string())})
    con.register("given_values", table)
    con.execute(
        "CREATE OR REPLACE TEMP TABLE shown_values AS "
        f"SELECT name, {folded('value')} AS value FROM given_values"
    )
    con.unregister("given_values")


def rows_sql(relation: str, columns: Collection[str], policy: Policy) -> str:
    """Return SQL for rows of the version history made safe.

    Args:
        relation: Rows with `shift_days`, see `publish.rows`.
        columns: Which of its columns the policy is applied to.
        policy: The policy.

    Returns:
        SQL for the same rows, and `withheld_fields`: the columns whose value is not shown.
    """
    treated = {
        name: sql
        for name in columns
        if name in _COLUMNS and (sql := _value_sql(_COLUMNS[name], policy))
    }
    by_value = [name for name in policy.by_value if name in treated]
    shown = "".join(f", {treated[name]} AS shown_{name}" for name in by_value)
    withheld = (
        f"CASE WHEN {name} IS NOT NULL AND shown_{name} IS NULL THEN '{name}' END"
        for name in by_value
    )
    fields = f"list_filter([{', '.join(withheld)}]::VARCHAR[], lambda name: name IS NOT NULL)"
    treated |= {name: f"shown_{name}" for name in by_value}
    replaced = ", ".join(f"{sql} AS {name}" for name, sql in treated.items())
    no_more = ", ".join(f"shown_{name}" for name in by_value)
    return f"""
        SELECT *{f" EXCLUDE ({no_more})" if no_more else ""}
                {f" REPLACE ({replaced})" if replaced else ""},
               {fields} AS {schema.WITHHELD_FIELDS.name}
        FROM (SELECT *{shown} FROM ({relation}))
    """


def published_sql(columns: Collection[Column], policy: Policy) -> dict[str, str]:
    """Return published name -> SQL of each column, over rows made safe."""
    found = {}
    for column in columns:
        shown = policy.shown_as(column)
        if shown is None:
            continue
        if column == schema.STUDY_MONTH:
            found[shown.name] = partition_sql(policy)
        elif policy.treatment(column) is Treatment.YEAR:
            found[shown.name] = f"year({column.name})::SMALLINT"
        else:
            found[shown.name] = column.name
    return found


def partition_sql(policy: Policy) -> str:
    """Return SQL for the value of the partition column, over rows made safe."""
    form = "%Y-%m" if policy.dates is Treatment.KEEP else schema.YEAR_FORMAT
    return schema.period_sql(form)


def folded(value: str) -> str:
    """Return SQL that folds a value to compare it with the values that may be shown.

    Only DuckDB folds values: libraries differ in the upper case of some letters.
    """
    return f"upper(trim({value}))"


def _value_sql(column: Column, policy: Policy) -> str | None:
    name = column.name
    match policy.treatment(column):
        case Treatment.REPLACE:
            return f"keyed_uid({name})"
        case Treatment.SHIFT:
            # Some systems send 00010101 for no date, and no reader knows dates before it.
            return f"CASE WHEN {name} >= DATE '{FIRST_SHIFTED}' THEN {name} - shift_days END"
        case Treatment.SHORT:
            return f"CASE WHEN {name} BETWEEN 0 AND 99999 THEN {name} END"
        case Treatment.TERMS | Treatment.REVIEWED:
            shown = f"FROM shown_values WHERE name = '{name}'"
            return f"""
                CASE WHEN {folded(name)} IN (SELECT value {shown}) THEN {name}
                     WHEN contains({name}, '{SEPARATOR}') AND list_has_all(
                         (SELECT list(value) {shown}), string_split({folded(name)}, '{SEPARATOR}')
                     ) THEN {name} END
            """
    return None


def _shown_values(policy: Policy, column: Column) -> set[str]:
    values = set(policy.allowed.get(column.name, ()))
    if policy.treatment(column) is Treatment.TERMS:
        values |= dicom_terms.OF_COLUMNS[column.name]
    return values
