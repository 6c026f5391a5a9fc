"""Checks that a condition in SQL compares values of one type.

DuckDB would cast a text column to the type of a number beside it, so that `PatientID = 123` finds
`0123` too. See `conditions` for which parts a condition may have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from cohortlake.cohort.define import values
from cohortlake.errors import BadCondition

_TEXT_FUNCTIONS = ("lower", "trim", "upper")
_TEXT_TYPES = ("BPCHAR", "CHAR", "STRING", "TEXT", "VARCHAR")
_OTHER_CONSTANTS = ("BOOLEAN", "INTEGER", "NUMERIC")
_ORDERS = (
    "COMPARE_BETWEEN", "COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO", "COMPARE_LESSTHAN",
    "COMPARE_LESSTHANOREQUALTO",
)  # fmt: skip
_OF_DATES = (
    "date_diff", "date_part", "date_trunc", "datediff", "day", "month", "quarter", "week", "year",
)  # fmt: skip
_TEXT, _OTHER = "text", "other"


def used_as_dates(
    nodes: Iterable[Mapping[str, Any]], types: Mapping[str, pa.DataType]
) -> Iterator[str]:
    """Yield the columns that are used as dates, and hold none.

    Args:
        nodes: Of a condition, see `conditions.ParsedCondition`.
        types: Column -> its type.
    """
    for node in nodes:
        operands = _operands(node)
        dates = [operand for operand in operands if values.read_day(_literal(operand))]
        is_meant = node["type"] in _ORDERS or any(date["class"] == "CAST" for date in dates)
        if dates and is_meant:
            yield from _no_dates(operands, types)
        if node["class"] == "FUNCTION" and node["function_name"] in _OF_DATES:
            arguments = [argument["expression"] for argument in node["arguments"]]
            yield from _no_dates(arguments, types)


def _no_dates(
    parts: Iterable[Mapping[str, Any]], types: Mapping[str, pa.DataType]
) -> Iterator[str]:
    for part in parts:
        column = _column(part)
        if column and not (pa.types.is_date(types[column]) or pa.types.is_timestamp(types[column])):
            yield column


def check(nodes: Iterable[Mapping[str, Any]], types: Mapping[str, pa.DataType]) -> None:
    """Refuse to compare text with anything else than text.

    Args:
        nodes: Of a condition, see `conditions.ParsedCondition`.
        types: Column -> its type.

    Raises:
        BadCondition: A text column is compared with a number, a date or the like.
    """
    for node in nodes:
        operands = _operands(node)
        if {_kind(operand, types) for operand in operands} >= {_TEXT, _OTHER}:
            named = [column for operand in operands for column in _columns(operand)]
            text = [c for c in named if values.is_text(values.value_type(types[c]))]
            raise BadCondition(
                f"{(text or named or ['a text'])[0]} holds text, and is compared with something "
                "else: quote the value, as in '0123', or write TRY_CAST to say what it is read as"
            )


def _operands(node: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return what a node compares with each other; nothing where it compares nothing."""
    if node["class"] == "COMPARISON":
        return [node["left"], node["right"]]
    if node["class"] == "BETWEEN":
        return [node["input"], node["lower"], node["upper"]]
    if node["type"] in ("COMPARE_IN", "COMPARE_NOT_IN"):
        return list(node["children"])
    return []


def _kind(operand: Mapping[str, Any], types: Mapping[str, pa.DataType]) -> str | None:
    """Return whether a part is text or something else; None where DuckDB decides by the other."""
    match operand["class"]:
        case "COLUMN_REF":
            type_ = types[operand["column_names"][0]]
            return _TEXT if values.is_text(values.value_type(type_)) else _OTHER
        case "CONSTANT":
            return _OTHER if operand["literal"]["kind"] in _OTHER_CONSTANTS else None
        case "CAST":
            return _TEXT if operand["type_expr"]["type_name"] in _TEXT_TYPES else _OTHER
        case "FUNCTION" if operand["function_name"] in _TEXT_FUNCTIONS:
            return _TEXT
        case "FUNCTION" if operand["function_name"] == "list_value":
            items = (_kind(argument["expression"], types) for argument in operand["arguments"])
            return next(filter(None, items), None)
        case "OPERATOR" if operand["type"] == "ARRAY_EXTRACT":
            return _kind(operand["children"][0], types)
    return None


def _columns(operand: Mapping[str, Any]) -> list[str]:
    if column := _column(operand):
        return [column]
    inner = [argument["expression"] for argument in operand.get("arguments", ())]
    inner += operand.get("children", ())
    return [column for part in inner for column in _columns(part)]


def _column(operand: Mapping[str, Any]) -> str | None:
    return str(operand["column_names"][0]) if operand["class"] == "COLUMN_REF" else None


def _literal(operand: Mapping[str, Any]) -> str:
    if operand["class"] == "CAST":
        return _literal(operand["child"])
    return str(operand["literal"]["text"]) if operand["class"] == "CONSTANT" else ""
