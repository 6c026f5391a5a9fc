"""Checks the values of a condition: dates and instants, and whether each fits its column.

A date is written as 2024-01-31, or as in DICOM, 20240131. Other texts are refused when the
condition is written, because DuckDB would read some of them as dates, and would fail on others
when it reads the rows. No message holds the value: it may be a birth date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime
from typing import Any

import duckdb
import pyarrow as pa

from cohortlake import schema
from cohortlake.cohort.define.values import read_day
from cohortlake.errors import BadCondition

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}|\d{8}")
_INSTANT = re.compile(
    r"(\d{4}-\d{2}-\d{2}|\d{8})[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}(:?\d{2})?)?"
)
_AS_DATE = "write a date as 2024-01-31 or 20240131"
_AS_INSTANT = (
    "write an instant as 2024-01-31T13:30:00Z, or a date for the midnight UTC at which it begins"
)
_ONE_OF = frozenset(("greatest", "least"))
_BETWEEN_DAYS = frozenset(("date_diff", "datediff"))
_ONE_ROW = "one_row_of_nulls"


def fit(condition: dict[str, Any], types: Mapping[str, pa.DataType]) -> None:
    """Rewrite each text that is compared with a date or an instant in one form.

    Args:
        condition: The tree of the condition. It is changed.
        types: Column -> its type.

    Raises:
        BadCondition: A text is no date or no instant, or a date is compared with an instant.
    """
    for node in nodes(condition):
        parts = [node["child"]] if node["class"] == "CAST" else _side_by_side(node)
        about = _dated(node, types) if node["class"] == "CAST" else _first_dated(parts, types)
        if about is None:
            continue
        name, type_ = about
        for part in parts:
            if pa.types.is_date(type_):
                _fit_date(name, part)
            else:
                _fit_instant(name, part)


def check(
    con: duckdb.DuckDBPyConnection,
    sql: str,
    params: Mapping[str, Any],
    types: Mapping[str, pa.DataType],
) -> None:
    """Run a condition on one row of nulls, to see whether its values fit its columns.

    Args:
        con: A connection.
        sql: The condition.
        params: The values in it.
        types: The columns it names -> their types.

    Raises:
        BadCondition: Its values and columns cannot be compared.
    """
    row = pa.table({name: pa.nulls(1, type_) for name, type_ in {"_": pa.int8(), **types}.items()})
    con.register(_ONE_ROW, row)
    try:
        # As a column: a filter would skip what comes after a part that is not true.
        con.execute(f"SELECT ({sql}) FROM {_ONE_ROW}", dict(params) or None).fetchall()
    except duckdb.Error as error:
        error.args = ()  # it becomes `__context__`, and its text may hold a value
        columns = ", ".join(f"{name} ({type_})" for name, type_ in types.items()) or "no column"
        raise BadCondition(
            f"a value does not fit its column, among {columns}: {_AS_DATE}, {_AS_INSTANT}, a time "
            "as 13:30:00, a number without quotes, and ask a list with list_contains"
        ) from None
    finally:
        con.unregister(_ONE_ROW)


def nodes(part: Any) -> Iterator[dict[str, Any]]:
    """Yield all nodes of a tree."""
    if isinstance(part, dict):
        if "class" in part:
            yield part
        for value in part.values():
            yield from nodes(value)
    elif isinstance(part, list):
        for value in part:
            yield from nodes(value)


def _side_by_side(node: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parts of a node that DuckDB brings to one type."""
    match node["class"]:
        case "COMPARISON":
            return [node["left"], node["right"]]
        case "BETWEEN":
            return [node["input"], node["lower"], node["upper"]]
        case "OPERATOR":
            return list(node["children"])
        case "FUNCTION":
            parts = [argument["expression"] for argument in node["arguments"]]
            if node["function_name"] in _BETWEEN_DAYS:
                return parts[1:]
            return parts if node["function_name"] in {*_ONE_OF, "+", "-"} else []
    return []


def _first_dated(
    parts: Iterable[dict[str, Any]], types: Mapping[str, pa.DataType]
) -> tuple[str, pa.DataType] | None:
    """Return the name and type of a date or an instant among some parts: a column first."""
    found = [dated for part in parts if (dated := _dated(part, types))]
    return min(found, key=lambda dated: dated[0] not in types, default=None)


def _dated(
    part: dict[str, Any], types: Mapping[str, pa.DataType]
) -> tuple[str, pa.DataType] | None:
    """Return the name and type of a part; None if it is no date and no instant."""
    if part["class"] == "COLUMN_REF":
        (name,) = part["column_names"]
        type_ = types[name]
        return (name, type_) if pa.types.is_date(type_) or pa.types.is_timestamp(type_) else None
    if part["class"] == "CAST":
        if _type_name(part) == "DATE":
            return "a value cast to DATE", pa.date32()
        return ("a value cast to an instant", schema.INSTANT) if _is_instant(part) else None
    is_one_of_its_parts = (
        part.get("function_name") in _ONE_OF or part.get("type") == "OPERATOR_COALESCE"
    )
    return _first_dated(_side_by_side(part), types) if is_one_of_its_parts else None


def _fit_date(column: str, part: dict[str, Any]) -> None:
    if part["class"] == "CAST" and _is_instant(part):
        raise BadCondition(f"{column} is a date, and is compared with an instant: {_AS_DATE}")
    if (text := _text(part)) is not None:
        part["literal"]["text"] = _date(column, text).isoformat()


def _fit_instant(column: str, part: dict[str, Any]) -> None:
    if (text := _text(part)) is not None:
        part["literal"]["text"] = _instant(column, text)


def _type_name(cast: dict[str, Any]) -> str:
    return str(cast["type_expr"].get("type_name", "")).upper()


def _is_instant(cast: dict[str, Any]) -> bool:
    return _type_name(cast).startswith(("TIMESTAMP", "DATETIME"))


def _text(part: dict[str, Any]) -> str | None:
    literal = part.get("literal", {})
    return str(literal["text"]) if literal.get("kind") == "STRING" else None


def _date(column: str, text: str) -> date:
    if day := read_day(text):
        return day
    raise BadCondition(
        f"{column}: a text beside it is no date in the calendar; {_AS_DATE}"
        + ("; what is missing is null, not an empty text" if not text.strip() else "")
    )


def _instant(column: str, text: str) -> str:
    try:
        if _DATE.fullmatch(text) or _INSTANT.fullmatch(text):
            at = datetime.fromisoformat(text)
            at = at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
            return f"{at:%Y-%m-%d %H:%M:%S.%f}+00:00"
    except (ValueError, OverflowError):
        pass
    raise BadCondition(f"{column}: a text beside it is no instant; {_AS_INSTANT}") from None
