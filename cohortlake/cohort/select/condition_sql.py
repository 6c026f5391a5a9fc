"""Compiles one condition of a step: finds its table, checks all that is in it, and writes SQL.

The checks run here and in no other place, so that no condition skips one. Values are parameters,
never part of the SQL.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import pyarrow as pa

from cohortlake import dicom_terms, schema
from cohortlake.cohort.define import comparisons, conditions, literals, values
from cohortlake.cohort.define.conditions import ParsedCondition
from cohortlake.cohort.define.steps import Condition, Join, Value
from cohortlake.cohort.select import withheld, withheld_conditions
from cohortlake.cohort.select.compiled_query import Parameters
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.dicom_values import SEPARATOR, canonical_text
from cohortlake.errors import BadCondition, UnknownValue, did_you_mean
from cohortlake.schema import header_columns

_CODED_OF_OURS = {
    *(column.name for column in (*schema.MEANINGS, schema.STUDY_YEAR, schema.SHIFTED_YEAR)),
    *(column.name for column in schema.STUDY_CALENDAR),
    *schema.TEXT_OF_LIST,
}
"""Columns of ours that hold few values, each with one spelling."""

_SHARED_BY = 11
"""Rows that have a value before an error suggests it: one that so many share names nobody."""

_VR_OF_TEXT = {
    column.name: column.vr
    for column in (*schema.DICOM_TAGS, *header_columns.COLUMNS)
    if column.vr and column.type == pa.string()
}
_MAY_HOLD_SEVERAL = {
    *(name for name, vr in _VR_OF_TEXT.items() if vr == "CS"),
    *(column.name for column in schema.MEANINGS),
}


@dataclass(frozen=True)
class ConditionSql:
    """A condition as SQL.

    Attributes:
        table: The table whose rows it is about.
        columns: The columns that it names.
        sql: The condition.
    """

    table: str
    columns: frozenset[str]
    sql: str


def compile_condition(
    tables: OpenedTables, joins: Iterable[Join], condition: Condition, params: Parameters
) -> ConditionSql:
    """Write a condition as SQL.

    Args:
        tables: The opened tables.
        joins: The outside tables that it may be about.
        condition: The condition.
        params: Its values are added here.

    Raises:
        BadCondition: It cannot be read, names what is not there, or compares what does not fit.
        BadOutsideTable: It uses a column of text as dates, and one value is no date.
        ColumnNotShown: The policy does not show a column.
        ValuesWithheld: The answer may depend on values that the policy withholds.
    """
    texts = [conditions.parse(tables.connection, text) for text in condition.texts]
    columns = frozenset(c for c, _ in condition.values).union(*(text.columns for text in texts))
    table = _table_of(tables, joins, columns)
    types = tables.types(table)
    types_of_condition = {name: type_ for name, type_ in types.items() if name in columns}
    for text in texts:
        _check_text(tables, table, text, types_of_condition)
    own = len(params.values)
    parts = [
        _has_one_of(column, types[column], given, types, params)
        for column, given in condition.values
    ]
    sql = " AND ".join([*parts, *(f"({text.sql(tables.connection)})" for text in texts)])
    own_params = dict(list(params.values.items())[own:])
    fields = schema.WITHHELD_FIELDS.name  # is_missing asks it
    if fields in types:
        types_of_condition[fields] = types[fields]
    literals.check(tables.connection, sql, own_params, types_of_condition)
    return ConditionSql(table, columns, sql)


def check_values(tables: OpenedTables, joins: Iterable[Join], condition: Condition) -> None:
    """Check that the coded values of a condition occur in the lake.

    Args:
        tables: The opened tables.
        joins: The outside tables that the condition may be about.
        condition: The condition.

    Raises:
        BadCondition: It names a column that is not there, or a value does not fit its column.
        UnknownValue: A coded value does not occur.
    """
    table = _table_of(tables, joins, {column for column, _ in condition.values})
    types = tables.types(table)
    for column, given in condition.values:
        for value in map(partial(_canonical, column), given):
            if value is not None:
                values.parameter(column, types[column], value)
            check_value(tables, table, column, value)


def check_value(tables: OpenedTables, table: str, column: str, value: object) -> None:
    """Check that some row has a value, if its column holds coded values (VR CS) or their meanings.

    Raises:
        UnknownColumn: The table has no such column.
        ColumnNotShown: The policy does not show it.
        UnknownValue: No row has it; the message names a similar one that several patients share.
    """
    columns = {c.name: c for c in tables.described(table)}
    tables.require_columns([column], table, columns)
    withheld_conditions.require_value(tables, table, column, value)
    is_coded = columns[column].vr == "CS" or (
        table not in tables.outside and column in _CODED_OF_OURS
    )
    if not is_coded or not isinstance(value, str):
        return
    counts = tables.value_counts(table, column)
    if value not in counts:
        shared = [known for known, rows in counts.items() if rows >= _SHARED_BY]
        term = dicom_terms.term(column, value)  # F for FEMALE
        near = f"; did you mean {term!r}?" if term in shared else did_you_mean(value, shared)
        raise UnknownValue(value, f"{table}.{column}", near)


def _table_of(tables: OpenedTables, joins: Iterable[Join], columns: Collection[str]) -> str:
    """Return the first table that has all columns of a condition, the most detailed first.

    Raises:
        BadCondition: No table has all of them.
        ColumnNotShown: The policy does not show one.
    """
    names = ("series", "studies", "patients", "series_headers", *(j.table for j in joins))
    known = {name: tables.columns(name) for name in names}
    for column in sorted({*columns} - {name for own in known.values() for name in own}):
        if error := tables.publication.not_shown(column):
            raise error
    return conditions.table_of(columns, known)


def _check_text(
    tables: OpenedTables, table: str, text: ParsedCondition, types: Mapping[str, pa.DataType]
) -> None:
    if table in tables.outside:
        _check_dates(tables, table, text, types)
    comparisons.check(text.nodes, types)
    literals.fit(text.condition, types)
    withheld_conditions.check(tables, table, text.condition, text.columns)


def _check_dates(
    tables: OpenedTables, table: str, text: ParsedCondition, types: Mapping[str, pa.DataType]
) -> None:
    for column in comparisons.used_as_dates(text.nodes, types):
        tables.require_dates(table, column)
        raise BadCondition(
            f"{table}.{column} is used as a date, and is no column of dates: attach the table "
            f"with date_formats={{{column!r}: '%Y-%m-%d'}}"
        )


def _has_one_of(
    column: str,
    type_: pa.DataType,
    given: Iterable[Value],
    known: Collection[str],
    params: Parameters,
) -> str:
    wanted = [_canonical(column, value) for value in given]
    present = [values.parameter(column, type_, v) for v in wanted if v is not None]
    listed = ", ".join(params.add(value) for value in present)
    parts = []
    if len(present) < len(wanted):
        parts.append(withheld.is_missing(column, type_, known))
    if listed and values.is_list(type_):
        parts.append(f'list_has_any("{column}", [{listed}])')
    elif listed:
        parts.append(f'"{column}" IN ({listed})')
        if column in _MAY_HOLD_SEVERAL:  # PT\CT is one text of two values
            several = f"string_split(\"{column}\", '{SEPARATOR}')"
            parts.append(
                f"contains(\"{column}\", '{SEPARATOR}') AND list_has_any({several}, [{listed}])"
            )
    return "(" + " OR ".join(parts) + ")"


def _canonical(column: str, value: Value) -> Value:
    """Return a value as a published column has it: " P1 " is P1, a blank is a missing value."""
    vr = _VR_OF_TEXT.get(column)
    return canonical_text(vr, value) if vr and isinstance(value, str) else value
