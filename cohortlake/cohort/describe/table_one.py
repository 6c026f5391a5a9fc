"""Table 1: what the members are like, by the library `tableone`, which journals know.

Owns which columns are told by default, and what of a frame tableone can read.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from cohortlake.cohort.select import withheld
from cohortlake.errors import BadCriteria
from cohortlake.optional_dependencies import module

if TYPE_CHECKING:
    from cohortlake.cohort.cohort import Cohort

_COLUMNS = {
    "patient": ("sex", "n_studies", "n_series", "modalities"),
    "study": ("age_at_study_years", "sex", "modalities", "n_series"),
    "series": ("age_at_study_years", "sex", "Modality", "BodyPartExamined"),
}
_MISSING, _BLANK = "missing", "blank"
_MOST_VALUES = 20


def table_one(cohort: Cohort, by: str | None, columns: Sequence[str] | None) -> Any:
    """Describe the members.

    Args:
        cohort: Whose.
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
    known = cohort.members.columns
    told = list(columns or told_columns(cohort))
    wanted = dict.fromkeys((*told, *([by] if by else [])))
    for name in wanted:
        if name not in known:
            whose = f"members of {cohort.criteria.name}"
            raise cohort.lake.as_opened.unknown(name, whose, known)
    kinds = withheld.kinds(cohort, wanted)
    names = ", ".join(f'{withheld.told(name, kinds[name], known)} AS "{name}"' for name in wanted)
    members = cohort.ask(f"SELECT {names} FROM ({cohort.selection.members})").to_pandas()
    if members.empty:
        raise BadCriteria(
            f"{cohort.criteria.name} has no members to describe; its attrition says which step "
            "left them out"
        )
    frame = pd.DataFrame({name: _readable(members[name]) for name in told if name != by})
    if by:
        frame[by] = [_text(value) for value in members[by].astype(object)]
    told = [name for name in told if name != by]
    numbers = [name for name in told if frame[name].dtype == float]
    with warnings.catch_warnings():
        # tableone 0.9.6 sets a row in a way that pandas 3 still takes, and warns of.
        warnings.simplefilter("ignore", pd.errors.Pandas4Warning)
        return library.TableOne(
            frame,
            columns=told,
            categorical=[name for name in told if name not in numbers],
            continuous=numbers,
            groupby=by,
            smd=by is not None and frame[by].nunique() > 1,
        )


def told_columns(cohort: Cohort) -> dict[str, pa.DataType]:
    """Return what is described by default: column of the members -> its type."""
    members = cohort.ask(f"FROM ({cohort.selection.members}) LIMIT 0").to_arrow().schema
    joined = [
        name
        for join in cohort.criteria.joins
        for name in cohort.lake.columns(join.table)
        if name != "patient_key" and _is_told(cohort, members.field(name))
    ]
    names = (*(n for n in _COLUMNS[cohort.criteria.level] if n in members.names), *joined)
    return {name: members.field(name).type for name in names}


def is_number(kind: pa.DataType) -> bool:
    """Return whether values of a type have a mean."""
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    )


def _is_told(cohort: Cohort, column: pa.Field) -> bool:
    # A table tells no dates, and not what has nearly as many values as rows.
    if pa.types.is_temporal(column.type):
        return False
    distinct = f'SELECT count(DISTINCT "{column.name}") FROM ({cohort.selection.members})'
    return is_number(column.type) or cohort.ask(distinct).fetchall()[0][0] <= _MOST_VALUES


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
