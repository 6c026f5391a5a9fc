"""Table 1 describes the members, by the library `tableone`, which journals know.

Chooses the columns that are described by default, and gives tableone a frame that it can read.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pandas as pd
import pyarrow as pa

from cohortlake.cohort.describe.columns import columns_of, shown_columns
from cohortlake.cohort.select.selected import Selected
from cohortlake.errors import BadCriteria
from cohortlake.optional_dependencies import module

_COLUMNS = {
    "patient": ("sex", "n_studies", "n_series", "modalities"),
    "study": ("age_at_study_years", "sex", "modalities", "n_series"),
    "series": ("age_at_study_years", "sex", "Modality", "BodyPartExamined"),
}
_MISSING, _BLANK = "missing", "blank"
_MOST_VALUES = 20


def table_one(selected: Selected, by: str | None, columns: Sequence[str] | None) -> Any:
    """Describe the members.

    Args:
        selected: The members.
        by: A column whose values become columns of the table, with standardised differences.
        columns: What to describe; by default age, sex and modalities, and what was joined.

    Returns:
        A `tableone.TableOne`: numbers as mean and deviation, all else as counts and shares.

    Raises:
        UnknownColumn: The members have no such column.
        ColumnNotShown: The policy does not show it.
        ValuesWithheld: It is a number that the policy withholds of some members.
        BadCriteria: There are no members.
        MissingExtra: tableone is not installed.
    """
    library = module("tableone")
    described = list(columns or default_columns(selected))
    wanted = shown_columns(selected, dict.fromkeys((*described, *([by] if by else []))))
    members = selected.ask(
        f"SELECT {', '.join(wanted)} FROM ({selected.query.members})"
    ).to_pandas()
    if members.empty:
        raise BadCriteria(
            f"{selected.criteria.name} has no members to describe; its attrition says which step "
            "left them out"
        )
    frame = pd.DataFrame({name: _readable(members[name]) for name in described if name != by})
    if by:
        frame[by] = [_text(value) for value in members[by].astype(object)]
    described = [name for name in described if name != by]
    numbers = [name for name in described if frame[name].dtype == float]
    with warnings.catch_warnings():
        # tableone 0.9.6 sets a row in a way that pandas 3 deprecates.
        warnings.simplefilter("ignore", pd.errors.Pandas4Warning)
        return library.TableOne(
            frame,
            columns=described,
            categorical=[name for name in described if name not in numbers],
            continuous=numbers,
            groupby=by,
            smd=by is not None and frame[by].nunique() > 1,
        )


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


def _readable(column: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column in pandas' own dtypes: numbers as floats, all else as text."""
    if _is_number(column):
        return column.astype("Float64").astype(float)
    texts = [_text(value) for value in column.astype(object)]
    return pd.Series(texts, index=column.index, dtype=object)


def _text(value: Any) -> str:
    if hasattr(value, "__len__") and not isinstance(value, str):
        return " + ".join(map(str, value)) or _MISSING
    return _MISSING if pd.isna(value) else str(value).strip() or _BLANK


def _is_number(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)
