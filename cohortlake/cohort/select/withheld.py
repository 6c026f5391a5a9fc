"""Values that the policy withholds, told apart from values that were never sent.

The published column `withheld_fields` names, in each row, the columns of which a value was sent
that the policy does not show. Such a value is null, and so would a condition, a count or a plot
take it for missing. A condition is refused where the answer may depend on it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cohortlake import dicom_terms, schema
from cohortlake.cohort.define.literals import nodes
from cohortlake.errors import ValuesWithheld

if TYPE_CHECKING:
    from cohortlake.cohort.cohort import Cohort
    from cohortlake.cohort.lake import Lake

WITHHELD = "withheld"
"""What stands in a count or a table in the place of a value that is not shown."""

_FIELDS = schema.WITHHELD_FIELDS.name
_LARGEST = 99_999
_TERMS = dicom_terms.OF_COLUMNS | {
    "modalities": dicom_terms.MODALITIES,
    "body_parts_examined": dicom_terms.BODY_PARTS,
}
_CONTAINS = frozenset(("list_contains", "list_has", "list_has_any", "contains", "&&"))


def is_missing(column: str, kind: pa.DataType, known: Collection[str]) -> str:
    """Return SQL for whether no value was sent.

    Args:
        column: The column.
        kind: Its type; a list without a value has none.
        known: The columns of its table.
    """
    is_null = f'"{column}" IS NULL'
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        is_null = f'coalesce(len("{column}"), 0) = 0'
    return f"({is_null} AND NOT {is_withheld(column)})" if _may_be(column, known) else is_null


def is_withheld(column: str) -> str:
    """Return SQL for whether a row's value of a column is not shown."""
    return f"coalesce(list_contains({_FIELDS}, '{column}'), false)"


def told(column: str, kind: pa.DataType, known: Collection[str]) -> str:
    """Return SQL for a column's value, with a word for one that is not shown.

    Args:
        column: The column.
        kind: Its type. A number stays as it is: see `kinds`.
        known: The columns of its relation.
    """
    value = f'"{column}"'
    if not _may_be(column, known):
        return value
    if pa.types.is_list(kind):
        shown = f"list_append({value}, '{WITHHELD}')"
    elif pa.types.is_string(kind):
        shown = f"'{WITHHELD}'"
    else:
        return value
    return f"CASE WHEN {is_withheld(column)} THEN {shown} ELSE {value} END"


def kinds(cohort: Cohort, columns: Iterable[str]) -> dict[str, pa.DataType]:
    """Return the types of some columns of the members.

    Raises:
        ValuesWithheld: One is a number that the policy withholds of some of them: no word can
            stand in its place.
    """
    members = cohort.ask(f"FROM ({cohort.selection.members}) LIMIT 0").to_arrow().schema
    found = {name: members.field(name).type for name in columns}
    for name, kind in found.items():
        if pa.types.is_integer(kind) and _may_be(name, members.names):
            hidden = f"SELECT 1 FROM ({cohort.selection.members}) WHERE {is_withheld(name)} LIMIT 1"
            if cohort.ask(hidden).fetchall():
                whose = f"members of {cohort.criteria.name}"
                raise ValuesWithheld(name, whose, cohort.lake.as_opened.policy)
    return found


def check(lake: Lake, table: str, condition: Mapping[str, Any], columns: Iterable[str]) -> None:
    """Refuse a condition in SQL whose answer may depend on a value that is not shown.

    Where a column has such values, it may be compared with values that are shown, by `=`, IN and
    list_contains, in parts that are joined by AND and OR. Anything else may be true of others.

    Args:
        lake: The lake.
        table: The table that the condition is over.
        condition: Its tree.
        columns: The columns that it names.

    Raises:
        ValuesWithheld: It may.
    """
    for column in columns:
        if _may_be(column, lake.columns(table)) and not _is_told(lake, table, condition, column):
            require_shown(lake, table, column)


def require_shown(lake: Lake, table: str, column: str) -> None:
    """Refuse a column of which some values are not shown.

    Raises:
        ValuesWithheld: Some are not.
    """
    if _may_be(column, lake.columns(table)) and lake.has_withheld(table, column):
        raise ValuesWithheld(column, table, lake.as_opened.policy)


def require_value(lake: Lake, table: str, column: str, value: object) -> None:
    """Refuse a value that rows may have of which the policy does not show it.

    Raises:
        ValuesWithheld: Some may.
    """
    is_by_value = value is not None and _may_be(column, lake.columns(table))
    if is_by_value and not _is_shown(lake, table, column, value):
        require_shown(lake, table, column)


def _is_shown(lake: Lake, table: str, column: str, value: object) -> bool:
    if isinstance(value, int):
        return 0 <= value <= _LARGEST
    if isinstance(value, str) and value.strip().upper() in _TERMS.get(column, ()):
        return True
    return lake.occurs(table, column, value)


def _may_be(column: str, known: Collection[str]) -> bool:
    return column in schema.MAY_BE_WITHHELD and _FIELDS in known


def _is_told(lake: Lake, table: str, node: Mapping[str, Any], column: str) -> bool:
    if not any(part.get("column_names") == [column] for part in nodes(node)):
        return True
    if node["class"] == "CONJUNCTION":
        return all(_is_told(lake, table, child, column) for child in node["children"])
    wanted = _values(node, column)
    return wanted is not None and all(_is_shown(lake, table, column, v) for v in wanted)


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
