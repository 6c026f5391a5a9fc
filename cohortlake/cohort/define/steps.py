"""The steps of a cohort: frozen dataclasses that check themselves.

See `criteria` for their words in YAML, `sentences` for their sentences in a flow diagram, and
`cohort.select` for their SQL. Nothing here knows which columns and values exist.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TypeAlias

from cohortlake.cohort.define.period import Period
from cohortlake.errors import BadCriteria, did_you_mean

Value: TypeAlias = str | int | float | bool | date | datetime | None

CHOICES = ("first", "last", "closest", "random")
_VALUE_TYPES = frozenset((str, int, float, bool, date, datetime, type(None)))
"""Without subclasses: YAML could not write them. See `given` for what people give in Python."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True)
class Condition:
    """What a row must meet: all values and all texts.

    Attributes:
        values: Column -> the values of which it has one; None is a missing value.
        texts: Conditions in SQL.
    """

    values: tuple[tuple[str, tuple[Value, ...]], ...] = ()
    texts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.values or self.texts):
            raise BadCriteria("a condition is empty; give a column's value or a condition in SQL")
        for column, values in self.values:
            if not values:
                raise BadCriteria(f"{column}: give at least one value")
            for value in values:
                _check_value(column, value)


@dataclass(frozen=True)
class _Labelled:
    """What all steps have.

    Attributes:
        label: What the step asks for, in a person's words, for flow diagrams and tables. Where it
            is empty, `sentences` makes a sentence of the step.
    """

    label: str = field(default="", kw_only=True)

    def __post_init__(self) -> None:
        if not isinstance(self.label, str):
            raise BadCriteria(
                "a label is the text of a step; for a column of that name write a condition in "
                'SQL, as "label = 1"'
            )
        if self.label and not (self.label.isprintable() and self.label.strip()):
            raise BadCriteria("a label is one line of text, without control characters")


@dataclass(frozen=True)
class Where(_Labelled):
    """Keep the rows that meet a condition."""

    condition: Condition


@dataclass(frozen=True)
class Exclude(_Labelled):
    """Leave out the rows that meet a condition."""

    condition: Condition


@dataclass(frozen=True)
class WithStudy(_Labelled):
    """Keep the studies whose patient has another study that meets a condition, so far away.

    The other study may be any of the lake's. A study without a date is left out.
    """

    period: Period
    condition: Condition


@dataclass(frozen=True)
class WithoutStudy(_Labelled):
    """Keep the studies whose patient has no such other study; see `WithStudy`."""

    period: Period
    condition: Condition


@dataclass(frozen=True)
class OneStudyPerPatient(_Labelled):
    """Keep one study of each patient, the same one whatever the order of the rows.

    Attributes:
        choice: first, last, closest or random. All but random leave out studies without a date.
        to: For closest: a date, also as text (2020-01-31), or the name of a date column of a
            joined table.
        seed: For random.
    """

    choice: str
    to: date | str | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.choice not in CHOICES:
            raise BadCriteria(
                f"{self.choice!r} is none of {', '.join(CHOICES)}"
                f"{did_you_mean(self.choice, CHOICES)}"
            )
        if (self.choice == "closest") != (self.to is not None):
            raise BadCriteria("closest, and only closest, takes a date or a joined table's column")
        if isinstance(self.to, str) and _DATE.fullmatch(self.to):
            object.__setattr__(self, "to", _date(self.to))  # as YAML reads it without quotes
        if isinstance(self.to, datetime) or not isinstance(self.to, date | str | None):
            raise BadCriteria("closest takes a date without a time, as 2020-01-31, or a column")
        if (self.choice == "random") != _is_int(self.seed):
            raise BadCriteria("random, and only random, takes a seed, a whole number")


@dataclass(frozen=True)
class Join(_Labelled):
    """Keep the patients that an outside table has a row for; later steps may use its columns.

    Attributes:
        table: The name it was attached under.
        file: Where a YAML file finds it: Parquet or CSV, relative to the YAML file.
        date_formats: Column of text -> how its dates are written, as `%d/%m/%Y`.
    """

    table: str
    file: str | None = None
    date_formats: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.table, "a table's name")
        if self.date_formats and not self.file:
            raise BadCriteria("date_formats are for the columns of a file")
        if not all(isinstance(form, str) for _, form in self.date_formats):
            raise BadCriteria("a date format is text, as '%d/%m/%Y'")


Step: TypeAlias = Where | Exclude | WithStudy | WithoutStudy | OneStudyPerPatient | Join


@dataclass(frozen=True)
class Split:
    """Parts of a cohort, by patient.

    A patient's part depends on its key and on this only, except in parts that are held out.

    Attributes:
        shares: Part -> about which share of the patients it has who are not held out; together 1.
        seed: Another gives other parts.
        held_out: Part -> what the series of its patients meet. All series of a patient must meet
            it, or none.
    """

    shares: tuple[tuple[str, float], ...]
    seed: int = 0
    held_out: tuple[tuple[str, Condition], ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of all parts."""
        return tuple(name for name, _ in (*self.shares, *self.held_out))

    def __post_init__(self) -> None:
        for name in self.parts:
            check_name(name, "the name of a part")
        for name, share in self.shares:
            if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
                raise BadCriteria(f"{name}: a part's share is a number above 0 and up to 1")
        if not math.isclose(sum(share for _, share in self.shares), 1):
            raise BadCriteria(
                "the shares of a split must add up to 1; parts that are held out are not among them"
            )
        if len({*self.parts}) < len(self.parts):
            raise BadCriteria("two parts of a split have one name")
        if not _is_int(self.seed):
            raise BadCriteria("a split's seed is a whole number")


def check_name(name: str, what: str) -> None:
    """Refuse what may not be a name.

    Raises:
        BadCriteria: It holds something else than lower case letters, digits and underscores.
    """
    if not NAME.fullmatch(name):
        raise BadCriteria(
            f"{name!r} cannot be {what}: use lower case letters, digits and underscores, a "
            "letter first"
        )


def _check_value(column: str, value: object) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise BadCriteria(f"{column}: a value must be finite")
    if type(value) not in _VALUE_TYPES:
        raise BadCriteria(
            f"{column}: a value is text, a number, true, false, a date, an instant or null; quote "
            "it where it is text"
        )


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BadCriteria(f"closest: {text} is not in the calendar") from None


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
