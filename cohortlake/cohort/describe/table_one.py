"""Table 1 describes the members, by the library `tableone`, which journals know.

Chooses the columns that are described by default, and gives tableone a frame that it can read.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from cohortlake import schema
from cohortlake.cohort.describe.columns import columns_of, shown_columns
from cohortlake.cohort.describe.differences import MOST_GROUPS, differences
from cohortlake.cohort.select.selected import Selected
from cohortlake.errors import BadCriteria
from cohortlake.optional_dependencies import module

_COLUMNS = {
    "patient": ("sex", "n_studies", "n_series", "modalities"),
    "study": ("age_at_study_years", "sex", "modalities", "n_series"),
    "series": ("age_at_study_years", "sex", "Modality", "BodyPartExamined"),
}
_CALENDAR = tuple(column.name for column in schema.STUDY_CALENDAR)
_MISSING, _BLANK = "missing", "blank"
_MOST_VALUES = 20
_MOST_GROUPS = 60

# tableone gives these names to columns and rows of its own.
_NAMES_OF_TABLEONE = (
    *("n", "variable", "value", "index", "level_0", "level_1", "freq", "percent"),
    *("Overall", "Missing", "P-Value", "P-Value (adjusted)", "Test"),
)


def table_one(selected: Selected, by: str | None, columns: Sequence[str] | str | None) -> Any:
    """Describe the members.

    Args:
        selected: The members.
        by: A column whose values become columns of the table. Up to three groups get standardised
            differences, where these are defined; see `differences`.
        columns: What to describe; by default age, sex and modalities, and what was joined.

    Returns:
        A `tableone.TableOne`: numbers as mean and deviation, all else as counts and shares.

    Raises:
        UnknownColumn: The members have no such column.
        ColumnNotShown: The policy does not show it.
        ValuesWithheld: It is a number that the policy withholds of some members.
        BadCriteria: There are no members, no column, one column twice, or too many groups.
        MissingExtra: tableone is not installed.
    """
    library = module("tableone")
    asked = [columns] if isinstance(columns, str) else list(columns or default_columns(selected))
    if twice := [name for name, times in Counter(asked).items() if times > 1]:
        raise BadCriteria(f"Table 1 describes a column once; {twice[0]!r} stands twice in columns")
    described = [name for name in asked if name != by]
    named = (*described, *([by] if by else []))
    wanted = shown_columns(selected, named)
    if not described:
        raise BadCriteria(f"Table 1 by {by} describes other columns; name some in columns=[...]")
    members = selected.ask(
        f"SELECT {', '.join(wanted)} FROM ({selected.query.described})"
    ).to_pandas()
    if members.empty:
        raise BadCriteria(
            f"{selected.criteria.name} has no members to describe; its attrition says which step "
            "left them out"
        )
    # A name of tableone's own gets a blank, and its real name as the label.
    inner = {name: f"{name} " if name in _NAMES_OF_TABLEONE else name for name in named}
    frame = pd.DataFrame({inner[name]: _readable(members[name], name) for name in described})
    groups: list[str] = []
    if by:
        frame[inner[by]] = _texts(members[by], also=_NAMES_OF_TABLEONE)
        groups = sorted(frame[inner[by]].unique())
        if len(groups) > _MOST_GROUPS:
            raise BadCriteria(
                f"Table 1 has a column for each value of {by}, and these are {len(groups):,}; "
                f"{_MOST_GROUPS} is the most. Take a coarser column, such as study_year or age_band"
            )
    variables = {inner[name]: frame[inner[name]].dtype == float for name in described}
    with warnings.catch_warnings():
        # tableone 0.9.6 sets a row in a way that pandas 3 deprecates, and takes means of nothing.
        warnings.simplefilter("ignore", pd.errors.Pandas4Warning)
        warnings.simplefilter("ignore", RuntimeWarning)
        table = library.TableOne(
            frame,
            columns=list(variables),
            categorical=[name for name, is_number in variables.items() if not is_number],
            continuous=[name for name, is_number in variables.items() if is_number],
            groupby=inner[by] if by else None,
            rename={own: name for name, own in inner.items() if own != name},
        )
    table.tableone = table.tableone.replace({"nan (nan)": ""})
    if by and 1 < len(groups) <= MOST_GROUPS:
        _add_differences(table, differences(frame, inner[by], groups, variables))
    return table


def _add_differences(table: Any, found: pd.DataFrame) -> None:
    """Add columns to a table, in the first row of each variable, as tableone formats them."""
    shown = table.tableone
    (head,) = {group for group, _ in shown.columns}
    _, *labels = dict.fromkeys(shown.index.get_level_values(0))
    rows = shown.index.get_level_values(0)
    for name, values in found.items():
        of_label = pd.Series(map(_difference, values), index=labels)
        shown[head, name] = rows.map(of_label).where(~rows.duplicated(), "").fillna("")
    table.smd_table = found


def _difference(value: float) -> str:
    if np.isnan(value):
        return ""
    return f"{value:.3f}" if abs(value) >= 0.0005 else "<0.001"


def default_columns(selected: Selected) -> dict[str, pa.DataType]:
    """Return the columns that are described by default, with their types."""
    members = columns_of(selected)
    joined = [
        name
        for join in selected.criteria.joins
        for name in selected.tables.columns(join.table)
        if name != "patient_key" and _is_described(selected, members.field(name))
    ]
    names = (*(n for n in _COLUMNS[selected.criteria.level] if n in members.names), *joined)
    return {name: members.field(name).type for name in names}


def is_number(kind: pa.DataType) -> bool:
    """Return whether values of a type have a mean."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _is_described(selected: Selected, column: pa.Field) -> bool:
    # Table 1 has no use for dates, nor for a column with nearly as many values as rows.
    if pa.types.is_temporal(column.type):
        return False
    distinct = f'SELECT count(DISTINCT "{column.name}") FROM ({selected.query.members})'
    return is_number(column.type) or selected.ask(distinct).fetchall()[0][0] <= _MOST_VALUES


def _readable(column: pd.Series[Any], name: str) -> pd.Series[Any]:
    """Return a column in pandas' own dtypes: numbers as floats, all else as text."""
    if _is_number(column) and name not in _CALENDAR:
        return column.astype("Float64").astype(float)
    return pd.Series(_texts(column), index=column.index, dtype=object)


def _texts(column: pd.Series[Any], also: Collection[str] = ()) -> list[str]:
    """Return a word for each value; a value that is one of our words stands in quotes.

    Args:
        column: The values.
        also: More words that no value can have.
    """
    if column.dtype == "datetime64[us]":
        column = column.dt.date
    ours = {_MISSING, _BLANK, *also}
    return [_text(value, ours) for value in column.astype(object)]


def _text(value: Any, ours: Collection[str]) -> str:
    if hasattr(value, "__len__") and not isinstance(value, str):
        text = " + ".join(map(str, value))
        is_missing = not text
    else:
        is_missing = bool(pd.isna(value))
        text = "" if is_missing else str(value).strip()
    if not text:
        return _MISSING if is_missing else _BLANK
    return f"'{text}'" if text in ours else text


def _is_number(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
