"""Says in a sentence what a step of a cohort asks for, as a flow diagram prints it.

A label that a person gave stands as it is. Otherwise the sentence is made of the step: columns in
words, conditions in SQL as DuckDB's parser reads them. A part that has no words here stays in SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import duckdb

from cohortlake.cohort.define import conditions
from cohortlake.cohort.define.steps import (
    Condition,
    Exclude,
    Join,
    OneStudyPerPatient,
    Step,
    Value,
    Where,
    WithoutStudy,
    WithStudy,
)

EVERYTHING = "All series in the lake"
IDENTIFIED = "patient or study unknown, or a study of two patients"
"""Why the step that each cohort has leaves series out."""
NO_HEADER = "no header fetched"
"""Why the step before the first condition about headers leaves series out."""

_COMPARISONS = {
    "COMPARE_EQUAL": "is",
    "COMPARE_NOTEQUAL": "is not",
    "COMPARE_LESSTHAN": "is below",
    "COMPARE_LESSTHANOREQUALTO": "is at most",
    "COMPARE_GREATERTHAN": "is above",
    "COMPARE_GREATERTHANOREQUALTO": "is at least",
}
_FUNCTIONS = {
    "contains": "{} contains {}",
    "ends_with": "{} ends with {}",
    "list_contains": "{} include {}",
    "list_has": "{} include {}",
    "prefix": "{} begins with {}",
    "starts_with": "{} begins with {}",
    "suffix": "{} ends with {}",
    "~~": "{} is like {}",
    "!~~": "{} is not like {}",
    "~~*": "{} is like {}",
    "!~~*": "{} is not like {}",
    "day": "day of {}",
    "month": "month of {}",
    "quarter": "quarter of {}",
    "year": "year of {}",
    "lower": "{}",
    "upper": "{}",
    "trim": "{}",
}
_UNITS = ("days", "years")
_CAPITALS = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[^\W\dA-Z_]+|\d+")


class _NoWords(Exception):
    """A part of a condition has no words."""


def sentence(con: duckdb.DuckDBPyConnection, step: Step) -> str:
    """Return the label of a step, or a sentence for it.

    Args:
        con: Any connection. Only its parser runs.
        step: The step.

    Returns:
        What those who are left meet; for `Exclude`, why others were left out.
    """
    if step.label:
        return step.label
    words = _words(con, step)
    first = words.partition(" ")[0]
    is_word = first.isalpha() and first.islower()
    return words[0].upper() + words[1:] if is_word else words


def column_words(name: str) -> str:
    """Return the name of a column in words.

    >>> column_words("StudyInstanceUID")
    'study instance UID'
    >>> column_words("age_at_study_years")
    'age at study in years'
    """
    words = [
        word if word.isupper() and len(word) > 1 else word.lower()
        for part in name.split("_")
        for word in _CAPITALS.findall(part) or [part]
    ]
    if words[0] == "n" and len(words) > 1:
        words[0] = "number of"
    if words[-1] in _UNITS and len(words) > 1:
        words.insert(-1, "in")
    return " ".join(filter(None, words)) or name


def _words(con: duckdb.DuckDBPyConnection, step: Step) -> str:
    match step:
        case Where(condition) | Exclude(condition):
            return _condition(con, condition)
        case WithStudy(period, condition):
            return f"another study {period}, where {_condition(con, condition)}"
        case WithoutStudy(period, condition):
            return f"no other study {period}, where {_condition(con, condition)}"
        case OneStudyPerPatient("closest", to):
            day = column_words(to) if isinstance(to, str) else str(to)
            return f"study of each patient closest to {day}"
        case OneStudyPerPatient("random", _, seed):
            return f"one study of each patient, drawn at random (seed {seed})"
        case OneStudyPerPatient(choice):
            return f"{choice} study of each patient"
        case Join(table):
            return f"patient is in the table {table}"


def _condition(con: duckdb.DuckDBPyConnection, condition: Condition) -> str:
    parts = [
        f"{column_words(column)} is {_listed(map(_value, values))}"
        for column, values in condition.values
    ]
    is_only = len(parts) + len(condition.texts) == 1
    texts = [_of_text(con, text, is_only=is_only) for text in condition.texts]
    return " and ".join([*parts, *texts])


def _of_text(con: duckdb.DuckDBPyConnection, text: str, *, is_only: bool) -> str:
    tree = conditions.parse(con, text).condition
    try:
        words = _tree(tree)
    except _NoWords:
        words = " ".join(text.split())
    return words if is_only or tree["class"] != "CONJUNCTION" else f"({words})"


def _tree(node: Mapping[str, Any]) -> str:
    kind, type_ = node["class"], node["type"]
    if kind == "COLUMN_REF":
        return column_words(node["column_names"][0])
    if kind == "CONSTANT":
        return str(node["literal"]["text"])
    if kind == "CAST":
        return _tree(node["child"])
    if kind == "BETWEEN":
        return " ".join((_tree(node["input"]), "is from", _tree(node["lower"]), "to",
                         _tree(node["upper"])))  # fmt: skip
    if kind == "COMPARISON" and type_ in _COMPARISONS:
        return f"{_tree(node['left'])} {_COMPARISONS[type_]} {_tree(node['right'])}"
    if kind == "CONJUNCTION":
        return _conjunction(node)
    if kind == "OPERATOR":
        return _operator(type_, node["children"])
    if kind == "FUNCTION" and node["function_name"] in _FUNCTIONS:
        arguments = [_tree(argument["expression"]) for argument in node["arguments"]]
        form = _FUNCTIONS[node["function_name"]]
        if form.count("{}") == len(arguments):
            return form.format(*arguments)
    raise _NoWords


def _conjunction(node: Mapping[str, Any]) -> str:
    parts = []
    for child in node["children"]:
        is_other = child["class"] == "CONJUNCTION" and child["type"] != node["type"]
        parts.append(f"({_tree(child)})" if is_other else _tree(child))
    word = node["type"].removeprefix("CONJUNCTION_").lower()
    return f" {word} ".join(parts)


def _operator(type_: str, children: list[Mapping[str, Any]]) -> str:
    first, *others = map(_tree, children)
    if type_ == "OPERATOR_IS_NULL":
        return f"{first} is missing"
    if type_ == "OPERATOR_IS_NOT_NULL":
        return f"{first} is not missing"
    if type_ == "COMPARE_IN":
        return f"{first} is {_listed(others)}"
    if type_ == "OPERATOR_NOT":
        return f"not ({first})"
    raise _NoWords


def _listed(values: Iterable[str]) -> str:
    *first, last = values
    return f"{', '.join(first)} or {last}" if first else last


def _value(value: Value) -> str:
    return "missing" if value is None else str(value)
