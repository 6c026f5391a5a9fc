"""From criteria to SQL: one relation per step, each a part of the one before it.

All relations hold series, of the series' own table, so that every step can be counted at
each level. Values are parameters, never part of the SQL. What SQL a person may write is
`conditions`'; what is done with who is left is for those who ask (`cohort`, `attrition`).

What a step does to a study that cannot be placed is decided here, and said in
docs/how-to/cohorts.md: a series without a patient or a study belongs to nobody and is left
out, and so is a study that stands under two patients anywhere in the lake, for no split could
keep it apart.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, takewhile
from typing import TYPE_CHECKING

from cohortlake import schema
from cohortlake.cohort.define import comparisons, conditions, literals, values
from cohortlake.cohort.define.criteria import Criteria
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
from cohortlake.cohort.define.values import Parameter
from cohortlake.cohort.select import withheld
from cohortlake.dicom_values import SEPARATOR, canonical_text
from cohortlake.errors import BadCondition, NotShown

if TYPE_CHECKING:
    import pyarrow as pa

    from cohortlake.cohort.lake import Lake

ENTITIES = {
    "patient": ("patient_key",),
    "study": ("datastore_id", "StudyInstanceUID"),
    "series": ("datastore_id", "series_id"),
}
"""Level -> what identifies one among the series that are left."""

TABLES = {"patient": "patients", "study": "studies", "series": "series"}
"""Level -> the published table with a row for each."""

SERIES_ID = "coalesce(SeriesInstanceUID, image_set_id)"

_EVERYTHING = "in_the_lake"
_STUDY = "datastore_id, StudyInstanceUID"
_PARAMETER = re.compile(r"\$(value_\d+)\b")
_OWN = ("datastore_id", "StudyInstanceUID", "patient_key")


@dataclass(frozen=True)
class Stage:
    """What is left after a step.

    Attributes:
        name: Of the relation.
        label: What the step asked for, in words.
        sql: The relation, a filter on the one before.
        those: Whom it keeps or leaves out, or None; `sql` calls them by `name` and `_those`.
    """

    name: str
    label: str
    sql: str
    those: str | None = None

    @property
    def parts(self) -> list[str]:
        """The parts of a WITH that it takes.

        Whom a step is about is worked out once and kept, which is small: ids of one level. Who is
        left is not kept: ten million series are read again sooner than they are copied.
        """
        kept = [f"{self.name}_those AS MATERIALIZED ({self.those})"] if self.those else []
        return [*kept, f"{self.name} AS NOT MATERIALIZED ({self.sql})"]


@dataclass(frozen=True)
class Selection:
    """Criteria as SQL.

    Attributes:
        stages: What is left after each step; the first is the whole lake.
        params: The values in it.
        entities: A SELECT for what identifies the members, over the last stage.
        members: A SELECT for their whole rows, over the last stage.
    """

    stages: tuple[Stage, ...]
    params: Mapping[str, Parameter]
    entities: str
    members: str

    def query(self, select: str) -> tuple[str, dict[str, Parameter]]:
        """Return a whole query, and the values for it.

        Args:
            select: A SELECT over the stages, by their names.
        """
        parts = [part for stage in self.stages for part in stage.parts]
        query = "WITH " + ",\n".join(parts) + f"\n{select}"
        named = set(_PARAMETER.findall(query))
        return query, {name: value for name, value in self.params.items() if name in named}

    @property
    def last(self) -> str:
        """The name of the last stage."""
        return self.stages[-1].name

    @property
    def series(self) -> str:
        """A SELECT for the whole rows of the series that are left, over the last stage."""
        same = f"l.datastore_id = t.datastore_id AND l.series_id = {_OF_TABLE['series_id']}"
        return f"SELECT t.* FROM series t SEMI JOIN {self.last} l ON {same}"


def compile_criteria(lake: Lake, criteria: Criteria) -> Selection:
    """Turn criteria into SQL.

    Args:
        lake: Whose tables and columns there are.
        criteria: The cohort.

    Raises:
        BadCondition: A condition cannot be read, or names what is not there.
    """
    return _Compiler(lake, criteria).selection()


def check_values(lake: Lake, joins: Iterable[Join], condition: Condition) -> None:
    """Look whether the coded values of a condition occur at all.

    Args:
        lake: Where to look.
        joins: The outside tables that the condition may be over.
        condition: The condition.

    Raises:
        BadCondition: It names a column that is not there.
        UnknownValue: One does not occur.
    """
    table = _table_of(lake, joins, {column for column, _ in condition.values})
    types = lake.types(table)
    for column, given in condition.values:
        for value in map(partial(canonical, column), given):
            if value is not None:
                values.parameter(column, types[column], value)
            lake.check_value(table, column, value)


def _table_of(lake: Lake, joins: Iterable[Join], named: Collection[str]) -> str:
    """Return the first table that has all columns of a condition.

    Raises:
        BadCondition: No table has all of them.
        ColumnNotShown: The policy does not show one.
    """
    tables = _tables(lake, joins)
    known = {name for names in tables.values() for name in names}
    for name in sorted({*named} - known):
        if error := lake.as_opened.not_shown(name):
            raise error
    return conditions.table_of(named, tables)


def _tables(lake: Lake, joins: Iterable[Join]) -> dict[str, tuple[str, ...]]:
    """Return the tables that a condition may be over, the most detailed first."""
    names = ("series", "studies", "patients", *(join.table for join in joins))
    return {name: lake.columns(name) for name in names}


@dataclass
class _Compiler:
    lake: Lake
    criteria: Criteria
    stages: list[Stage] = field(default_factory=list)
    params: dict[str, Parameter] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    those: str | None = None

    def selection(self) -> Selection:
        steps = self.criteria.steps
        # Who is whose matters from the first step on that looks at a patient's studies.
        filters = len(list(takewhile(lambda step: isinstance(step, Where | Exclude), steps)))
        for step in steps[:filters]:
            self._add(str(step), self._step(step))
        self._add("of one known patient and study", self._identified())
        for step in steps[filters:]:
            self._add(str(step), self._step(step))
        everything = Stage(_EVERYTHING, "in the lake", self._everything())
        members = self._members()
        return Selection((everything, *self.stages), self.params, self._entities(), members)

    def _everything(self) -> str:
        when = {self.lake.study_date, "StudyTime"} & {*self.lake.columns("series")}
        columns = ", ".join(f'"{name}"' for name in sorted({*_OWN, *when, *self.used}))
        return f"SELECT {columns}, {SERIES_ID} AS series_id FROM series"

    @property
    def _day(self) -> str:
        """The column that holds the day of a study, shifted or not."""
        name = self.lake.study_date
        if name == schema.year_of(schema.STUDY_DATE).name:
            policy = self.lake.as_opened.policy
            raise NotShown("studies of one patient are told apart by their days", policy)
        return name

    @property
    def _before(self) -> str:
        return self.stages[-1].name if self.stages else _EVERYTHING

    @property
    def _name(self) -> str:
        return f"step_{len(self.stages) + 1}"

    def _add(self, label: str, sql: str) -> None:
        self.stages.append(Stage(self._name, label, sql, self.those))
        self.those = None

    def _keep(self, those: str) -> str:
        """Have the next stage keep who it is about, and return what it calls them."""
        self.those = those
        return f"{self._name}_those"

    def _step(self, step: Step) -> str:
        match step:
            case Where(condition):
                return self._where(condition)
            case Exclude(condition):
                return self._exclude(condition)
            case WithStudy():
                return self._related(step, "SEMI")
            case WithoutStudy():
                return self._related(step, "ANTI")
            case OneStudyPerPatient():
                return self._one_study(step)
            case Join(table):
                return f'FROM {self._before} SEMI JOIN "{table}" USING (patient_key)'

    def _where(self, condition: Condition) -> str:
        table, sql = self._condition(condition)
        if table == "series":
            return f"FROM {self._before} WHERE {sql}"
        return f"FROM {self._before} SEMI JOIN {self._meeting(table, sql)}"

    def _exclude(self, condition: Condition) -> str:
        table, sql = self._condition(condition)
        if table == "series":
            return f"FROM {self._before} WHERE ({sql}) IS NOT TRUE"
        return f"FROM {self._before} ANTI JOIN {self._meeting(table, sql)}"

    def _meeting(self, table: str, sql: str) -> str:
        entity = _STUDY if table == "studies" else "patient_key"
        those = self._keep(f'SELECT {entity} FROM "{table}" WHERE {sql}')
        return f"{those} USING ({entity})"

    def _identified(self) -> str:
        # Nearly no study has two patients: hashes tell which may have, in a tenth of the memory. A
        # filter may have left series of one of the two only, so all of a study's are looked at.
        left = f"AND hash({_STUDY}) IN (SELECT hash({_STUDY}) FROM {self._before})"
        shared = self._keep(f"""
            SELECT {_STUDY} FROM {_EVERYTHING}
            WHERE StudyInstanceUID IS NOT NULL AND hash({_STUDY}) IN (
                SELECT study FROM (
                    SELECT hash({_STUDY}) AS study, hash(patient_key) AS patient
                    FROM {_EVERYTHING}
                    WHERE StudyInstanceUID IS NOT NULL AND patient_key IS NOT NULL
                    {left if self.stages else ""}
                ) GROUP BY study HAVING min(patient) <> max(patient)
            )
            GROUP BY ALL HAVING min(patient_key) <> max(patient_key)
        """)
        return f"""
            FROM {self._before} ANTI JOIN {shared} USING ({_STUDY})
            WHERE patient_key IS NOT NULL AND StudyInstanceUID IS NOT NULL
        """

    def _related(self, step: WithStudy | WithoutStudy, join: str) -> str:
        table, sql = self._condition(step.condition)
        if table not in ("series", "studies"):
            raise BadCondition("another study is told by columns of series or of studies")
        day = self._day
        near = self._keep(f"""
            SELECT DISTINCT own.datastore_id, own.StudyInstanceUID
            FROM (SELECT DISTINCT {_STUDY}, patient_key, {day} FROM {self._before}) own
            JOIN (SELECT DISTINCT StudyInstanceUID, patient_key, {day}
                  FROM {table} WHERE {sql}) other USING (patient_key)
            WHERE own.StudyInstanceUID <> other.StudyInstanceUID
              AND {step.period.sql(f"other.{day}", f"own.{day}")}
        """)
        return f"""
            FROM {self._before} {join} JOIN {near} USING ({_STUDY}) WHERE {day} IS NOT NULL
        """

    def _one_study(self, step: OneStudyPerPatient) -> str:
        source, rank, best = self._ranked(step)
        time = "TIME '{}'".format("00:00" if best == "arg_max" else "24:00")
        if "StudyTime" in self.lake.columns("series"):
            time = f"coalesce(StudyTime, {time})"
        chosen = self._keep(f"""
            SELECT patient_key, any_value(datastore_id) AS datastore_id,
                   {best}(StudyInstanceUID, (rank, clock, StudyInstanceUID)) AS StudyInstanceUID
            FROM (SELECT patient_key, {_STUDY}, {rank} AS rank, {time} AS clock FROM {source})
            WHERE rank IS NOT NULL GROUP BY patient_key
        """)
        return f"FROM {self._before} SEMI JOIN {chosen} USING (patient_key, StudyInstanceUID)"

    def _ranked(self, step: OneStudyPerPatient) -> tuple[str, str, str]:
        """Return a relation, what ranks its rows, and how the best is found."""
        before = self._before
        if step.choice == "first":
            return before, self._day, "arg_min"
        if step.choice == "last":
            return before, self._day, "arg_max"
        if step.choice == "random":
            seed = self._param(str(step.seed))
            key = f"concat_ws('|', {seed}, datastore_id, StudyInstanceUID)"
            return before, f"md5_number_lower({key})", "arg_min"
        if isinstance(step.to, str):
            outside = {j.table: self.lake.columns(j.table) for j in self.criteria.joins}
            table = conditions.table_of([step.to], outside)
            self.lake.require_dates(table, step.to)
            source = f'{before} JOIN "{table}" USING (patient_key)'
            to = f'"{step.to}"::DATE'
            if values.is_text(self.lake.types(table)[step.to]):
                to = f"""try_strptime("{step.to}", ['%Y-%m-%d', '%Y%m%d'])::DATE"""
        else:
            source, to = before, self._param(step.to)
        # Of two as near, the earlier one.
        day = self._day
        rank = f"2 * abs(date_diff('day', {to}, {day})) + ({day} > {to})::INT"
        return source, rank, "arg_min"

    def _condition(self, condition: Condition) -> tuple[str, str]:
        """Return a condition as SQL, and the table it is over."""
        con = self.lake.connection
        read = [conditions.read(con, text) for text in condition.texts]
        named = {column for column, _ in condition.values}.union(*(r.columns for r in read))
        table = _table_of(self.lake, self.criteria.joins, named)
        if table == "series":
            self.used |= named | ({*self.lake.columns(table)} & {schema.WITHHELD_FIELDS.name})
        kinds = {name: kind for name, kind in self.lake.types(table).items() if name in named}
        for one in read:
            if table in self.lake.outside:
                for column in comparisons.used_as_dates(one.nodes, kinds):
                    self.lake.require_dates(table, column)
                    raise BadCondition(
                        f"{table}.{column} is no date column, and stands where a date is meant: "
                        f"attach the table with date_formats={{{column!r}: '%Y-%m-%d'}}"
                    )
            comparisons.check(one.nodes, kinds)
            literals.fit(one.condition, kinds)
            withheld.check(self.lake, table, one.condition, one.columns)
        before = set(self.params)
        known_columns = self.lake.columns(table)
        parts = [
            self._has_one_of(column, kinds[column], own, known_columns)
            for column, own in condition.values
        ]
        sql = " AND ".join([*parts, *(f"({one.sql(con)})" for one in read)])
        own = {name: value for name, value in self.params.items() if name not in before}
        kinds |= {name: kind for name, kind in self.lake.types(table).items() if name in _ASIDE}
        literals.check(con, sql, own, kinds)
        return table, sql

    def _has_one_of(
        self, column: str, type_: pa.DataType, given: Iterable[Value], columns: Collection[str]
    ) -> str:
        wanted = [canonical(column, value) for value in given]
        known = [values.parameter(column, type_, v) for v in wanted if v is not None]
        params = [self._param(value) for value in known]
        is_missing = withheld.is_missing(column, type_, columns)
        parts = [is_missing] if len(known) < len(wanted) else []
        if params and values.is_list(type_):
            parts.append(f'list_has_any("{column}", [{", ".join(params)}])')
        elif params:
            listed = ", ".join(params)
            parts.append(f'"{column}" IN ({listed})')
            if column in _CODED:  # PT\CT is one text of two values
                several = f"string_split(\"{column}\", '{SEPARATOR}')"
                parts.append(
                    f"contains(\"{column}\", '{SEPARATOR}') AND list_has_any({several}, [{listed}])"
                )
        return "(" + " OR ".join(parts) + ")"

    def _param(self, value: Parameter) -> str:
        name = f"value_{len(self.params) + 1}"
        self.params[name] = value
        return f"${name}"

    def _entities(self) -> str:
        level, steps = self.criteria.level, self.criteria.steps
        keys = ", ".join(dict.fromkeys((*ENTITIES[level], "patient_key")))
        if level != "series" and steps and isinstance(steps[-1], OneStudyPerPatient):
            return f"SELECT {keys} FROM {self._before}_those"  # each once, and no series is read
        return f"SELECT DISTINCT {keys} FROM {self._before}"

    def _members(self) -> str:
        level = self.criteria.level
        table = TABLES[level]
        own = [f't."{name}"' for name in self.lake.columns(table) if name != "patient_key"]
        outside = [
            f'outside_{number}."{name}"'
            for number, join in enumerate(self.criteria.joins)
            for name in self.lake.columns(join.table)
            if name != "patient_key"
        ]
        split = [self._split(self.criteria.split)] if self.criteria.split else []
        entity = ENTITIES[level]
        same = " AND ".join(f"m.{c} = {_OF_TABLE.get(c, f't.{c}')}" for c in entity)
        joins = " ".join(
            f'JOIN "{join.table}" outside_{number} ON outside_{number}.patient_key = m.patient_key'
            for number, join in enumerate(self.criteria.joins)
        )
        return f"""
            SELECT m.patient_key, {", ".join((*own, *outside, *split))}
            FROM ({self._entities()}) m JOIN {table} t ON {same} {joins}
            ORDER BY {", ".join(f"m.{c}" for c in entity)}
        """

    def _split(self, split: Split) -> str:
        # A number from 0 to 1 that follows from the patient and the seed alone.
        seed = self._param(str(split.seed))
        number = f"(md5_number_lower(concat_ws('|', {seed}, m.patient_key)) >> 11) / {2**53}.0"
        names = [self._param(name) for name, _ in split.shares]
        ends = list(accumulate(share for _, share in split.shares))
        whens = [
            f"WHEN {number} < {end!r} THEN {name}" for name, end in zip(names, ends, strict=True)
        ]
        return f"CASE {' '.join(whens[:-1])} ELSE {names[-1]} END AS split"


_ASIDE = (schema.WITHHELD_FIELDS.name,)
"""What a condition's SQL names of its own."""

_OF_TABLE = {"series_id": "coalesce(t.SeriesInstanceUID, t.image_set_id)"}


_TEXTS = {tag.name: tag.vr for tag in schema.DICOM_TAGS if tag.is_text}
_CODED = {
    *(name for name, vr in _TEXTS.items() if vr == "CS"),
    *(column.name for column in schema.MEANINGS),
}


def canonical(column: str, value: Value) -> Value:
    """Return a value as a published column has it: " P1 " is P1, a blank is a missing value."""
    vr = _TEXTS.get(column)
    return canonical_text(vr, value) if vr and isinstance(value, str) else value
