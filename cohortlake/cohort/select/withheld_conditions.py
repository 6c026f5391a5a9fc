"""Refuses conditions whose answer may depend on values that the policy withholds.

See `withheld` for how such a value is told from a missing one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cohortlake import dicom_terms
from cohortlake.cohort.define.literals import nodes
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.cohort.select.withheld import may_be_withheld
from cohortlake.errors import ValuesWithheld
from cohortlake.headers import terms

_LARGEST = 99_999
_TERMS = (
    dicom_terms.OF_COLUMNS
    | terms.OF_COLUMNS
    | {
        "modalities": dicom_terms.MODALITIES,
        "body_parts_examined": dicom_terms.BODY_PARTS,
    }
)
_CONTAINS = frozenset(("list_contains", "list_has", "list_has_any", "contains", "&&"))


def check(
    tables: OpenedTables, table: str, condition: Mapping[str, Any], columns: Iterable[str]
) -> None:
    """Refuse a condition in SQL whose answer may depend on a value that is not shown.

    A column with such values may be compared with values that are shown, by `=`, IN and
    list_contains, in parts that are joined by AND and OR. Anything else may be true of rows whose
    value is not shown.

    Args:
        tables: The opened tables.
        table: The table that the condition is over.
        condition: Its tree.
        columns: The columns that it names.

    Raises:
        ValuesWithheld: It may depend on one.
    """
    for column in columns:
        if may_be_withheld(column, tables.columns(table)) and not _is_answerable(
            tables, table, condition, column
        ):
            require_shown(tables, table, column)


def require_shown(tables: OpenedTables, table: str, column: str) -> None:
    """Refuse a column of which some values are not shown.

    Raises:
        ValuesWithheld: Some are not.
    """
    if may_be_withheld(column, tables.columns(table)) and tables.has_withheld(table, column):
        raise ValuesWithheld(column, table, tables.publication.policy)


def require_value(tables: OpenedTables, table: str, column: str, value: object) -> None:
    """Refuse a value that the policy may withhold in some rows.

    Raises:
        ValuesWithheld: It may.
    """
    is_by_value = value is not None and may_be_withheld(column, tables.columns(table))
    if is_by_value and not _is_shown(tables, table, column, value):
        require_shown(tables, table, column)


def _is_shown(tables: OpenedTables, table: str, column: str, value: object) -> bool:
    if isinstance(value, int):
        return 0 <= value <= _LARGEST
    if isinstance(value, str) and value.strip().upper() in _TERMS.get(column, ()):
        return True
    return tables.occurs(table, column, value)


def _is_answerable(tables: OpenedTables, table: str, node: Mapping[str, Any], column: str) -> bool:
    if not any(part.get("column_names") == [column] for part in nodes(node)):
        return True
    if node["class"] == "CONJUNCTION":
        return all(_is_answerable(tables, table, child, column) for child in node["children"])
    wanted = _values(node, column)
    return wanted is not None and all(_is_shown(tables, table, column, v) for v in wanted)


def _values(node: Mapping[str, Any], column: str) -> list[object] | None:
    """Return the values that a part compares a column with; None where it does not do so."""
    if node["type"] == "COMPARE_EQUAL":
        parts = [node["left"], node["right"]]
    elif node["type"] == "COMPARE_IN":
        parts = list(node["children"])
    elif node.get("function_name") in _CONTAINS:
        parts = [argument["expression"] for argument in node["arguments"]]
    else:
        return None
    others = [part for part in parts if part.get("column_names") != [column]]
    if len(others) == len(parts):
        return None
    found = [_constants(part) for part in others]
    return [value for values in found for value in values or ()] if None not in found else None


def _constants(part: Mapping[str, Any]) -> list[object] | None:
    if part["class"] == "CONSTANT":
        literal = part["literal"]
        return [int(literal["text"]) if literal["kind"] == "INTEGER" else literal.get("text")]
    if part.get("function_name") == "list_value":
        found = [_constants(argument["expression"]) for argument in part["arguments"]]
        return [v for values in found for v in values or ()] if None not in found else None
    return None
