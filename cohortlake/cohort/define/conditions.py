"""Parses conditions that people write in SQL, and refuses everything that is no condition.

DuckDB parses the text. Its tree may hold columns of one table, constants, comparisons and an
allow-list of functions, but no subquery, no parameter and nothing that reads a file. The query
runs the tree, written out as SQL again, and never the text of the person. Values given by keyword
are parameters, and never part of the SQL.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import duckdb

from cohortlake.cohort.define.literals import nodes
from cohortlake.cohort.define.unrepeatable import refusal
from cohortlake.dicom_terms import did_you_mean_column
from cohortlake.errors import BadCondition, did_you_mean

_HEAD = "SELECT 1 FROM t WHERE "
_CLASSES = frozenset(
    ("BETWEEN", "CASE", "CAST", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION",
     "OPERATOR", "TYPE")
)  # fmt: skip
_OPERATORS = frozenset(
    ("ARRAY_EXTRACT", "COMPARE_IN", "COMPARE_NOT_IN", "OPERATOR_CAST", "OPERATOR_COALESCE",
     "OPERATOR_IS_NOT_NULL", "OPERATOR_IS_NULL", "OPERATOR_NOT", "OPERATOR_NULLIF",
     "OPERATOR_TRY_CAST")
)  # fmt: skip
_OPERATORS_OF_PANDAS = {"&": "AND", "|": "OR", "~": "NOT"}
_NULLS = frozenset(("na", "nan", "nat", "none"))
_NEVER_TRUE_OF_NULL = frozenset(
    ("COMPARE_BETWEEN", "COMPARE_EQUAL", "COMPARE_GREATERTHAN", "COMPARE_GREATERTHANOREQUALTO",
     "COMPARE_IN", "COMPARE_LESSTHAN", "COMPARE_LESSTHANOREQUALTO", "COMPARE_NOTEQUAL",
     "COMPARE_NOT_IN")
)  # fmt: skip
FUNCTIONS = frozenset(
    ("+", "-", "*", "/", "//", "%", "~~", "!~~", "~~*", "!~~*", "&&", "@>", "<@",
     "abs", "array_length", "ceil", "contains", "date_diff", "date_part", "date_trunc", "datediff",
     "day", "ends_with", "floor", "greatest", "least", "len", "length", "list_contains",
     "list_has", "list_has_all", "list_has_any", "list_value", "lower", "month", "prefix",
     "quarter", "regexp_full_match", "regexp_matches", "round", "starts_with", "suffix", "to_days",
     "to_months", "to_weeks", "to_years", "trim", "trunc", "upper", "week", "year")
)  # fmt: skip
"""The functions that may stand in a condition. None aggregates, and none reads anything."""


@dataclass(frozen=True)
class ParsedCondition:
    """A condition, as DuckDB parsed it.

    Attributes:
        tree: What DuckDB's parser made of a query with the condition.
        columns: The columns it names.
    """

    tree: dict[str, Any]
    columns: frozenset[str]

    @property
    def condition(self) -> dict[str, Any]:
        """The part of the tree that is the condition."""
        where: dict[str, Any] = self.tree["statements"][0]["node"]["where_clause"]
        return where

    @property
    def nodes(self) -> tuple[dict[str, Any], ...]:
        """All nodes of the condition."""
        return tuple(nodes(self.condition))

    def sql(self, con: duckdb.DuckDBPyConnection) -> str:
        """Return the tree as SQL, written out by DuckDB."""
        query = "SELECT json_deserialize_sql($tree::JSON)"
        ((sql,),) = con.execute(query, {"tree": json.dumps(self.tree)}).fetchall()
        return str(sql).removeprefix(_HEAD)


def parse(con: duckdb.DuckDBPyConnection, text: str) -> ParsedCondition:
    """Parse a condition.

    Args:
        con: Any connection. Only its parser runs.
        text: The condition.

    Raises:
        BadCondition: The text is no condition, or holds what a condition may not hold.
    """
    tree = _tree(con, text)
    parsed = ParsedCondition(tree, frozenset())
    columns = frozenset(_column(node) for node in parsed.nodes if node["class"] == "COLUMN_REF")
    for node in parsed.nodes:
        _check(node)
    return ParsedCondition(tree, columns)


def table_of(columns: Iterable[str], tables: Mapping[str, Iterable[str]]) -> str:
    """Return the first table that has all columns of a condition.

    Args:
        columns: What the condition names.
        tables: Table -> its columns, in the order of preference.

    Raises:
        BadCondition: No table has all of them; the message says what is near.
    """
    wanted = set(columns)
    for table, names in tables.items():
        if wanted <= set(names):
            return table
    known = {name for names in tables.values() for name in names}
    for column in sorted(wanted - known):
        raise refusal(column) or BadCondition(
            f"no table has a column {column!r}{_instead(column, known)}"
        )
    raise BadCondition(
        f"no one table has all of {', '.join(sorted(wanted))}; write a step for each table"
    )


def _instead(column: str, known: Collection[str]) -> str:
    """Return what to write for a column that is not there."""
    if column.casefold() in _NULLS:
        return "; write IS NULL or IS NOT NULL for a missing value"
    name, _, comparison = column.partition("__")
    if comparison:
        return f'{did_you_mean_column(name, known)}; compare it in SQL, as in where("{name} >= 50")'
    return did_you_mean_column(column, known) or "; write a text in single quotes, as 'CT'"


def _tree(con: duckdb.DuckDBPyConnection, text: str) -> dict[str, Any]:
    # The line break ends a comment that would hide the bracket.
    query = f"{_HEAD}({text}\n)"
    answer = con.execute("SELECT json_serialize_sql($query)", {"query": query}).fetchall()
    tree: dict[str, Any] = json.loads(answer[0][0])
    if tree["error"]:
        at = int(tree.get("position") or 0) - len(_HEAD)
        raise BadCondition(
            f"the condition cannot be read, from character {max(at, 1)} on; write it as in "
            "\"age_at_study_years >= 50 AND list_contains(modalities, 'CT')\""
        )
    plain = json.loads(con.execute(f"SELECT json_serialize_sql('{_HEAD}true')").fetchall()[0][0])
    if _around(tree) != _around(plain):
        raise BadCondition("a condition must be one expression that is true or false")
    return tree


def _around(tree: dict[str, Any]) -> Any:
    """Return a statement without its condition, to compare."""
    shape = json.loads(json.dumps(tree), object_hook=_without_place)
    for statement in shape["statements"]:
        statement["node"].pop("where_clause", None)
    return shape


def _without_place(node: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if "location" not in name}


def _column(node: dict[str, Any]) -> str:
    names = node["column_names"]
    if len(names) != 1:
        raise BadCondition(f"{'.'.join(names)}: name a column alone, without its table")
    return str(names[0])


def _check(node: dict[str, Any]) -> None:
    kind, typ = node["class"], node["type"]
    if kind == "FUNCTION" and node["function_name"] not in FUNCTIONS:
        name = node["function_name"]
        word = _OPERATORS_OF_PANDAS.get(name)
        near = f"; write {word}" if word else did_you_mean(name, FUNCTIONS)
        raise refusal(name) or BadCondition(
            f"the function {name!r} may not stand in a condition{near}"
        )
    if typ in _NEVER_TRUE_OF_NULL and any(map(_is_null, _compared(node))):
        raise BadCondition(
            "a comparison with NULL is never true: write IS NULL or IS NOT NULL, as in "
            "\"PatientSex IS NULL OR PatientSex = 'F'\""
        )
    if kind not in _CLASSES or (kind == "OPERATOR" and typ not in _OPERATORS):
        raise BadCondition(
            f"a condition may not hold a {typ.lower().replace('_', ' ')}: compare the columns of "
            "one table with values"
        )


def _compared(node: dict[str, Any]) -> list[dict[str, Any]]:
    sides = (node.get(name) for name in ("left", "right", "lower", "upper"))
    return [*(side for side in sides if side), *node.get("children", ())]


def _is_null(node: dict[str, Any]) -> bool:
    return bool(node["class"] == "CONSTANT" and node["literal"]["kind"] == "NULL_LITERAL")
