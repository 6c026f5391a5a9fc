"""SQL that separates values that the policy withholds from values that were never sent.

The published column `withheld_fields` names, in each row, the columns of which a value was sent
that the policy does not show. Such a value is null, so a condition, a count or a plot would take it
for missing. See `withheld_conditions` for the conditions that this makes impossible to answer.
"""

from __future__ import annotations

from collections.abc import Collection

import pyarrow as pa

from cohortlake import schema

WITHHELD = "withheld"
"""The word in a count or a table in place of a value that is not shown."""

_FIELDS = schema.WITHHELD_FIELDS.name


def may_be_withheld(column: str, known: Collection[str]) -> bool:
    """Return whether the policy may withhold values of a column.

    Args:
        column: The column.
        known: The columns of its table.
    """
    return column in schema.MAY_BE_WITHHELD and _FIELDS in known


def is_missing(column: str, type_: pa.DataType, known: Collection[str]) -> str:
    """Return SQL for whether no value was sent.

    Args:
        column: The column.
        type_: Its type; a list without a value has none.
        known: The columns of its table.
    """
    is_null = f'"{column}" IS NULL'
    if pa.types.is_list(type_) or pa.types.is_large_list(type_):
        is_null = f'coalesce(len("{column}"), 0) = 0'
    return (
        f"({is_null} AND NOT {is_withheld(column)})" if may_be_withheld(column, known) else is_null
    )


def is_withheld(column: str) -> str:
    """Return SQL for whether a row's value of a column is not shown."""
    return f"coalesce(list_contains({_FIELDS}, '{column}'), false)"


def value_or_withheld(column: str, type_: pa.DataType, known: Collection[str]) -> str:
    """Return SQL for the value of a column, or for `withheld` where it is not shown.

    Args:
        column: The column.
        type_: Its type. A number stays as it is.
        known: The columns of its relation.
    """
    value = f'"{column}"'
    if not may_be_withheld(column, known):
        return value
    if pa.types.is_list(type_):
        shown = f"list_append({value}, '{WITHHELD}')"
    elif pa.types.is_string(type_):
        shown = f"'{WITHHELD}'"
    else:
        return value
    return f"CASE WHEN {is_withheld(column)} THEN {shown} ELSE {value} END"
