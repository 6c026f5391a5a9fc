"""A cohort of an opened lake: its criteria, step by step, and who is left.

Owns the words a notebook uses. A cohort is never changed: each step gives a new one. What a
step means is `select`'s; what can be told about members is in the modules named after it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cohortlake.cohort.define.criteria import Criteria
from cohortlake.cohort.define.period import Period
from cohortlake.cohort.define.steps import (
    Condition,
    Exclude,
    Join,
    OneStudyPerPatient,
    Split,
    Step,
    Value,
    Where,
    WithoutStudy,
    WithStudy,
)
from cohortlake.cohort.describe import counts
from cohortlake.cohort.describe.attrition import Attrition, attrition
from cohortlake.cohort.describe.plot import Plots
from cohortlake.cohort.export.cohort_file import export
from cohortlake.cohort.freeze.manifest import Manifest, freeze
from cohortlake.cohort.freeze.signature import read_key
from cohortlake.cohort.select import compile
from cohortlake.cohort.select.rows import Rows
from cohortlake.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from cohortlake.cohort.lake import Lake

Given = Value | list[Value] | tuple[Value, ...]


@dataclass(frozen=True, repr=False)
class Cohort:
    """Who meets some criteria. Make one with `Lake.cohort` or `Lake.load_cohort`.

    Attributes:
        lake: Where it is drawn from.
        criteria: What it is, as data; `criteria.to_yaml()` is a file that says the same.
    """

    lake: Lake
    criteria: Criteria

    def where(self, *conditions: str, **values: Given) -> Cohort:
        """Keep the rows that meet all of some conditions.

        They are over the first table that has all their columns: a series', else a study's
        or a patient's, else an outside table's.

        Args:
            *conditions: In SQL: "age_at_study_years between 40 and 65".
            **values: Column and value, or a list of which it has one; None is a missing value.
                A list column has a value that is in it.

        Raises:
            BadCondition: One cannot be read or names what is not there.
            UnknownValue: No row has a coded value.
        """
        return self._with(Where(_condition(conditions, values)))

    def exclude(self, *conditions: str, **values: Given) -> Cohort:
        """Leave out the rows that meet all of some conditions; the arguments are `where`'s.

        Raises:
            BadCondition: One cannot be read or names what is not there.
            UnknownValue: No row has a coded value.
        """
        return self._with(Exclude(_condition(conditions, values)))

    def with_study(self, when: str, *conditions: str, **values: Given) -> Cohort:
        """Keep the studies whose patient has another one, so far away.

        Args:
            when: "within 30 days", "6 to 18 months after", "any time before"; both ends count.
            *conditions: What the other study is; see `where`. It may be any of the lake's.
            **values: The same.

        Raises:
            BadCriteria: `when` is no period.
            BadCondition: A condition cannot be read or names what is not there.
            UnknownValue: No row has a coded value.
        """
        return self._with(WithStudy(Period.parse(when), _condition(conditions, values)))

    def without_study(self, when: str, *conditions: str, **values: Given) -> Cohort:
        """Keep the studies whose patient has no such other one; see `with_study`.

        Raises:
            BadCriteria: `when` is no period.
            BadCondition: A condition cannot be read or names what is not there.
            UnknownValue: No row has a coded value.
        """
        return self._with(WithoutStudy(Period.parse(when), _condition(conditions, values)))

    def first_study_per_patient(self) -> Cohort:
        """Keep each patient's earliest study; of one day the earliest time, then the least UID."""
        return self._with(OneStudyPerPatient("first"))

    def last_study_per_patient(self) -> Cohort:
        """Keep each patient's latest study; of one day the latest time, then the greatest UID."""
        return self._with(OneStudyPerPatient("last"))

    def closest_study_per_patient(self, to: date | str) -> Cohort:
        """Keep each patient's study closest to a day; of two as close the earlier one.

        Args:
            to: A date, also as text (2020-01-31), or the name of a date column of a table that
                was joined.

        Raises:
            BadCriteria: It is neither.
            BadCondition: No joined table has the column.
        """
        return self._with(OneStudyPerPatient("closest", to=to))

    def random_study_per_patient(self, seed: int) -> Cohort:
        """Keep one of each patient's studies at random, the same one for the same seed."""
        return self._with(OneStudyPerPatient("random", seed=seed))

    def join(self, table: str) -> Cohort:
        """Keep the patients that an outside table has a row for; its columns can then be used.

        Args:
            table: The name it was attached under; see `Lake.attach`.

        Raises:
            UnknownTable: None was attached under that name.
        """
        file = self.lake.file_of(table)
        formats = self.lake.date_formats_of(table) if file else ()
        return self._with(Join(table, file, formats))

    def split(self, *, seed: int = 0, **shares: float) -> Cohort:
        """Divide the members into parts by patient: `split(train=0.8, test=0.2)`.

        A patient's part follows from its key, the seed and the shares alone. So no patient is in
        two parts, and nobody moves when others are added. The shares are met about, not exactly.

        Args:
            seed: Another gives other parts.
            **shares: Part -> share; together 1.

        Raises:
            BadCriteria: The shares do not add up to 1.
        """
        return replace(
            self, criteria=replace(self.criteria, split=Split(tuple(shares.items()), seed))
        )

    @functools.cached_property
    def selection(self) -> compile.Selection:
        """The criteria as SQL."""
        return compile.compile_criteria(self.lake, self.criteria)

    @property
    def members(self) -> Rows:
        """The members: a row of the level's table each, with what was joined, and the part."""
        return self.ask(self.selection.members)

    def ask(self, query: str) -> Rows:
        """Ask something in SQL about what is left after each step.

        Args:
            query: A SELECT over the stages of `selection`, by name.
        """
        return self.lake.sql(*self.selection.query(query))

    def count(self, *by: str, suppress_below: int = 0) -> pd.DataFrame:
        """Count the members and their patients, by columns of theirs.

        Args:
            *by: The columns; none counts all.
            suppress_below: Cells of fewer patients are missing, and so are those that would
                give them away by a total.

        Raises:
            UnknownColumn: The members have no such column.
            BadCriteria: `suppress_below` is negative, a column is named twice, or there are too
                many small cells to see what could be worked out of their totals.
        """
        return counts.count(self, by, suppress_below)

    def attrition(self) -> Attrition:
        """Count who is left after each step: a table, and a CONSORT diagram."""
        return attrition(self)

    def table_one(self, by: str | None = None, columns: list[str] | None = None) -> Any:
        """Describe the members, as the first table of a paper does.

        Args:
            by: A column whose values become columns of the table, with standardised differences.
            columns: What to describe; by default age, sex and modalities, and what was joined.

        Returns:
            A `tableone.TableOne`, with `.tabulate()`, `.to_csv()`, `.to_latex()` and more.

        Raises:
            UnknownColumn: The members have no such column.
            MissingExtra: tableone is not installed.
        """
        from cohortlake.cohort.describe.table_one import (
            table_one,  # made of pandas, see flatten.frame
        )

        return table_one(self, by, columns)

    @property
    def plot(self) -> Plots:
        """Plots: `studies_over_time()`, `age_sex_pyramid()`, `modality_by_body_part()`."""
        return Plots(self)

    def freeze(self) -> Manifest:
        """Write down who the members are, how they were drawn and from what.

        The files lie in `cohorts/<name>/` below the lake's root: a manifest with the next number,
        and the members. Where all is as it was the last time, nothing is written. It is signed
        where COHORTLAKE_COHORT_KEY_FILE names a key.

        Raises:
            RootNotUsable: They cannot be written.
            SettingError: The key cannot be read.
        """
        return freeze(self, read_key(Settings.from_env().cohort_key_file))

    def export(self, path: str | Path) -> int:
        """Write the members to a file, for a spreadsheet.

        To .xlsx the attrition is written too, and what the members were drawn from and how. A
        text that a spreadsheet would take for a formula has an apostrophe in front in .csv.

        Args:
            path: A .csv, .xlsx or .parquet file.

        Returns:
            How many members there are.

        Raises:
            ExportError: It cannot be written, or cannot hold them.
            MissingExtra: openpyxl is not installed, which .xlsx needs.
        """
        return export(self, Path(path))

    def to_pandas(self) -> pd.DataFrame:
        """Return the members as a frame; see `members`."""
        return self.members.to_pandas()

    def to_arrow(self) -> Any:
        """Return the members as an Arrow table; see `members`."""
        return self.members.to_arrow()

    def to_polars(self) -> Any:
        """Return the members as a `polars.DataFrame`; see `members`."""
        return self.members.to_polars()

    def __repr__(self) -> str:
        return self.criteria.to_yaml()

    def _with(self, step: Step) -> Cohort:
        if isinstance(step, Where | Exclude | WithStudy | WithoutStudy):
            compile.check_values(self.lake, self.criteria.joins, step.condition)
        cohort = replace(self, criteria=replace(self.criteria, steps=(*self.criteria.steps, step)))
        _ = cohort.selection  # what is wrong with it is said where it was written
        return cohort


def drawn(lake: Lake, criteria: Criteria) -> Cohort:
    """Return the cohort of some criteria, each step checked as a notebook's would be.

    Raises:
        BadCondition: A condition cannot be read or names what is not there.
        UnknownValue: No row has a coded value.
    """
    cohort = Cohort(lake, replace(criteria, steps=()))
    for step in criteria.steps:
        cohort = cohort._with(step)
    return cohort


def _condition(conditions: tuple[str, ...], values: dict[str, Given]) -> Condition:
    listed = {c: tuple(v) if isinstance(v, list | tuple) else (v,) for c, v in values.items()}
    return Condition(tuple(listed.items()), conditions)
