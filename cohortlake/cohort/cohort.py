"""A cohort of an opened lake: the object that people build step by step in a notebook.

A cohort never changes: each step gives a new one. The work is done below: see `select` for what a
step means, `describe`, `freeze` and `export` for what can be done with the members.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cohortlake.cohort import guesses
from cohortlake.cohort.define import given
from cohortlake.cohort.define.criteria import Criteria
from cohortlake.cohort.define.period import Period
from cohortlake.cohort.define.steps import (
    Exclude,
    Join,
    OneStudyPerPatient,
    Step,
    Where,
    WithoutStudy,
    WithStudy,
)
from cohortlake.cohort.describe import counts, short_table
from cohortlake.cohort.describe.attrition import Attrition, attrition
from cohortlake.cohort.describe.members_as_table import MembersAsTable
from cohortlake.cohort.describe.plot import Plots
from cohortlake.cohort.export.cohort_file import export
from cohortlake.cohort.freeze.manifest import Manifest, freeze
from cohortlake.cohort.freeze.signature import read_key
from cohortlake.cohort.pixels.summary import PixelManifest
from cohortlake.cohort.pixels.write import write as write_manifest
from cohortlake.cohort.select import held_out
from cohortlake.cohort.select.condition_sql import check_values
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.cohort.select.rows import Rows
from cohortlake.cohort.select.selected import Selected, select
from cohortlake.cohort.select.study_windows import with_dates
from cohortlake.errors import LakeError
from cohortlake.settings import Settings

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, repr=False)
class Cohort(MembersAsTable):
    """The patients, studies or series that meet some criteria.

    Make one with `Lake.cohort` or `Lake.load_cohort`.

    Attributes:
        selected: The members, as a query over the tables of the lake.
    """

    selected: Selected

    @property
    def criteria(self) -> Criteria:
        """The criteria, as data; `criteria.to_yaml()` is the same as a file."""
        return self.selected.criteria

    def where(self, *conditions: str, label: str = "", **values: object) -> Cohort:
        """Keep the rows that meet all of some conditions.

        They are about the first table that has all of their columns: series, studies, patients,
        then the outside tables.

        Args:
            *conditions: In SQL: "age_at_study_years between 40 and 65".
            **values: Column and value, or several values of which it has one: a list, a set, a
                range, a Series. None is a missing value, as is pandas' NA. A column of lists has a
                value if one of its items is that value.
                `study_date_in` takes a window in words, as "last 24 months of data", "2024" or
                "2023-Q4 to 2024-Q3". The criteria keep the dates that it means in this lake.
            label: What the step asks for, in your words: for flow diagrams and tables. Without
                one, a sentence is made of the step.

        Raises:
            BadCondition: One cannot be read, or names what is not there.
            BadCriteria: A window of study dates cannot be read.
            UnknownValue: No row has a coded value.
        """
        return self._with(Where(given.condition(conditions, values), label=self._label(label)))

    def exclude(self, *conditions: str, label: str = "", **values: object) -> Cohort:
        """Leave out the rows that meet all of some conditions; see `where` for the arguments.

        A label says who is left out: "prior mastectomy".

        Raises:
            BadCondition: One cannot be read, or names what is not there.
            UnknownValue: No row has a coded value.
        """
        return self._with(Exclude(given.condition(conditions, values), label=self._label(label)))

    def with_study(self, when: str, *conditions: str, label: str = "", **values: object) -> Cohort:
        """Keep the studies whose patient has another study at some distance in time.

        Args:
            when: "within 30 days", "within 12 months before", "6 to 18 months after",
                "any time before"; both ends count.
            *conditions: What the other study must meet; see `where`. It may be outside the cohort.
            label: The same.
            **values: The same.

        Raises:
            BadCriteria: `when` is no period.
            BadCondition: A condition cannot be read or names what is not there.
            UnknownValue: No row has a coded value.
        """
        condition = given.condition(conditions, values)
        return self._with(WithStudy(Period.parse(when), condition, label=self._label(label)))

    def without_study(
        self, when: str, *conditions: str, label: str = "", **values: object
    ) -> Cohort:
        """Keep the studies whose patient has no such other study; see `with_study`.

        Raises:
            BadCriteria: `when` is no period.
            BadCondition: A condition cannot be read or names what is not there.
            UnknownValue: No row has a coded value.
        """
        condition = given.condition(conditions, values)
        return self._with(WithoutStudy(Period.parse(when), condition, label=self._label(label)))

    def first_study_per_patient(self, label: str = "") -> Cohort:
        """Keep the earliest study of each patient; on one day by time, then by UID."""
        return self._with(OneStudyPerPatient("first", label=label))

    def last_study_per_patient(self, label: str = "") -> Cohort:
        """Keep the latest study of each patient; on one day by time, then by UID."""
        return self._with(OneStudyPerPatient("last", label=label))

    def closest_study_per_patient(self, to: object, label: str = "") -> Cohort:
        """Keep the study of each patient that is closest to a day; of two, the earlier one.

        Args:
            to: A date, also as text (2020-01-31) or a Timestamp at midnight, or the name of a date
                column of a table that was joined.
            label: See `where`.

        Raises:
            BadCriteria: It is neither.
            BadCondition: No joined table has the column.
        """
        day_or_column: Any = given.plain("to", to)  # the step checks its type
        return self._with(OneStudyPerPatient("closest", to=day_or_column, label=label))

    def random_study_per_patient(self, seed: int, label: str = "") -> Cohort:
        """Keep one study of each patient at random. The same seed keeps the same study."""
        number: Any = given.plain("seed", seed)  # the step checks its type
        return self._with(OneStudyPerPatient("random", seed=number, label=label))

    def join(self, table: object, label: str = "", *, name: str = "") -> Cohort:
        """Keep the patients with a row in an outside table; later steps can use its columns.

        Args:
            table: The name it was attached under, or the table itself: see `Lake.attach`.
            label: See `where`.
            name: The name to attach a table under. A table of that name is replaced. By default a
                file gets its own name, and other tables are called `joined`, `joined_2` and so on.

        Raises:
            BadCriteria: The table cannot be called so.
            BadOutsideTable: It cannot be joined.
            UnknownTable: None was attached under that name.
        """
        tables = self.selected.tables
        if isinstance(table, str) and not table.endswith((".csv", ".parquet")):
            name = table
        elif name:
            tables.attach(name, table)
        else:
            name = tables.attach_unnamed(table, [join.table for join in self.criteria.joins])
        outside = tables.outside_table(name)
        formats = outside.date_formats if outside.path else ()
        return self._with(Join(name, outside.path, formats, label=label))

    def split(self, *, seed: int = 0, **parts: object) -> Cohort:
        """Divide the members into parts by patient: `split(train=0.8, test=0.2)`.

        The part of a patient depends on its key, the seed and the shares alone. So no patient is in
        two parts, and nobody moves when others are added. The shares are met approximately. A part
        with a condition is held out: `split(train=0.8, val=0.2, test={"Manufacturer": "GE"})`.

        Args:
            seed: Another gives other parts.
            **parts: Part -> share, together 1; or what the series of its patients meet: a value
                for each column, or a condition in SQL.

        Raises:
            BadCriteria: The shares do not add up to 1, or the series of a patient do not agree.
            BadCondition: A condition cannot be read, or names what is not there.
            UnknownValue: No row has a coded value.
        """
        tables, joins = self.selected.tables, self.criteria.joins
        split = given.split(seed, parts)
        for _, condition in split.held_out:
            check_values(tables, joins, condition)
        divided = select(tables, replace(self.criteria, split=split))
        held_out.check(divided)
        return Cohort(divided)

    @property
    def members(self) -> Rows:
        """The members: a row of the level's table each, with what was joined, and the part."""
        return self.selected.members

    def ask(self, query: str) -> Rows:
        """Ask something in SQL about what is left after each step.

        Args:
            query: A SELECT over the stages of `selected.query`, by name.
        """
        return self.selected.ask(query)

    def count(self, *by: str, suppress_below: int = 0) -> pd.DataFrame:
        """Count the members and their patients, by columns of the members.

        Args:
            *by: The columns; none counts all.
            suppress_below: Cells of fewer patients are missing, and so are others from which they
                could be computed.

        Raises:
            UnknownColumn: The members have no such column.
            BadCriteria: `suppress_below` is negative, a column is named twice, or there are too
                many small cells to check what could be computed from their totals.
        """
        return counts.count(self.selected, by, suppress_below)

    def attrition(self) -> Attrition:
        """Count who is left after each step: a table, and a CONSORT diagram."""
        return attrition(self.selected)

    def table_one(self, by: str | None = None, columns: list[str] | None = None) -> Any:
        """Describe the members, as Table 1 of a paper does.

        Args:
            by: A column whose values become columns of the table, with standardised differences.
            columns: What to describe; by default age, sex and modalities, and what was joined.

        Returns:
            A `tableone.TableOne`, with `.tabulate()`, `.to_csv()`, `.to_latex()` and more.

        Raises:
            UnknownColumn: The members have no such column.
            MissingExtra: tableone is not installed.
        """
        # It imports pandas: see flatten.frame.
        from cohortlake.cohort.describe.table_one import table_one

        return table_one(self.selected, by, columns)

    @property
    def plot(self) -> Plots:
        """Plots: `studies_over_time()`, `age_sex_pyramid()`, `modality_by_body_part()`."""
        return Plots(self.selected)

    def freeze(self) -> Manifest:
        """Write the members, the criteria and the source of the data, as proof.

        The files are in `cohorts/<name>/` below the root of the lake: a manifest with the next
        number, and the members. If nothing changed since the last freezing, nothing is written. The
        manifest is signed if COHORTLAKE_COHORT_KEY_FILE names a key.

        Raises:
            RootNotUsable: They cannot be written.
            SettingError: The key cannot be read.
        """
        return freeze(self.selected, read_key(Settings.from_env().cohort_key_file))

    def export(self, path: str | Path) -> int:
        """Write the members to a file, for a spreadsheet.

        An .xlsx file also holds the attrition, the criteria and the source of the data. In .csv, a
        text that a spreadsheet would read as a formula gets an apostrophe in front.

        Args:
            path: A .csv, .xlsx or .parquet file.

        Returns:
            How many members there are.

        Raises:
            ExportError: It cannot be written, or cannot hold them.
            MissingExtra: openpyxl is not installed, which .xlsx needs.
        """
        return export(self.selected, Path(path))

    def manifest(self, path: str | Path, *, format: str, label: str = "") -> PixelManifest:
        """Write what tools fetch the pixels of the cohort's series by; see docs/how-to/pixels.md.

        Args:
            path: The file to write; a folder for `ahi-retrieve` and `croissant`.
            format: `ahi-retrieve`, `monai`, `croissant` or `dicomweb`.
            label: The column of the members that holds the labels, as one that was joined.

        Returns:
            What was written, what was left out, and what the download costs.

        Raises:
            ExportError: The format is unknown, the path is taken, or nothing can be written.
            UnknownColumn: The members have no such column.
            BadCriteria: A member has no label.
            PixelsNotReachable: What pixels are fetched by is not shown, not there or not readable.
        """
        return write_manifest(self.selected, Path(path), format, label or None)

    def __len__(self) -> int:
        return counts.size(self.selected)[1]

    def __bool__(self) -> bool:
        # As for any object with a length. One member is enough to know.
        return bool(self.ask(f"SELECT 1 FROM ({self.selected.query.entities}) LIMIT 1").fetchall())

    if not TYPE_CHECKING:  # a type checker would take any name for one that there is

        def __getattr__(self, name: str) -> NoReturn:
            columns: list[str] = []
            if "selected" in vars(self) and name[0] != "_":
                with contextlib.suppress(LakeError):  # a closed lake tells no columns
                    columns = self.columns
            raise guesses.answer("cohort", name, guesses.COHORTS, dir(type(self)), columns)

    def __str__(self) -> str:
        return self.criteria.to_yaml()

    def __repr__(self) -> str:
        return f"{self}# {counts.in_words(self.selected)}"

    def _repr_html_(self) -> str:
        counted = counts.in_words(self.selected)
        table = short_table.html(f"cohort {self.criteria.name}", {"members": counted})
        return f'{table}<pre style="max-height:30em;overflow:auto">{escape(str(self))}</pre>'

    def _label(self, label: str) -> str:
        joined = (self.selected.tables.columns(join.table) for join in self.criteria.joins)
        return given.label(label, joined)

    def _with(self, step: Step) -> Cohort:
        if isinstance(step, Where | Exclude | WithStudy | WithoutStudy):
            tables, joins = self.selected.tables, self.criteria.joins
            step = replace(step, condition=with_dates(tables, joins, step.condition))
            check_values(tables, joins, step.condition)
        criteria = replace(self.criteria, steps=(*self.criteria.steps, step))
        return Cohort(select(self.selected.tables, criteria))


def draw(tables: OpenedTables, criteria: Criteria) -> Cohort:
    """Make the cohort of some criteria. Each step is checked as in a notebook.

    Raises:
        BadCondition: A condition cannot be read or names what is not there.
        UnknownValue: No row has a coded value.
    """
    cohort = Cohort(select(tables, replace(criteria, steps=())))
    for step in criteria.steps:
        cohort = cohort._with(step)
    held_out.check(cohort.selected)
    return cohort
