"""Compiles criteria to SQL: one relation per step, each a part of the one before it.

All relations hold series, of the table `series`, so that each step can be counted at each level.
See `condition_sql` for the conditions in them.

A series without a patient or a study belongs to nobody and is left out. A study that has two
patients anywhere in the lake is left out too, because no split could keep it in one part.
docs/how-to/cohorts.md says the same to readers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import takewhile

from cohortlake import schema
from cohortlake.cohort.define import sentences
from cohortlake.cohort.define.criteria import Criteria
from cohortlake.cohort.define.steps import (
    Condition,
    Exclude,
    Join,
    OneStudyPerPatient,
    Step,
    Where,
    WithoutStudy,
    WithStudy,
)
from cohortlake.cohort.select.compiled_query import (
    SERIES_ID,
    SERIES_ID_OF_ROW,
    STUDY,
    CompiledQuery,
    HeldOut,
    Kind,
    Parameters,
    Stage,
    part_of_split,
)
from cohortlake.cohort.select.condition_sql import ConditionSql, compile_condition
from cohortlake.cohort.select.one_study import chosen_studies
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.errors import BadCondition, NotShown

_KEYS = {
    "patient": ("patient_key",),
    "study": ("datastore_id", "StudyInstanceUID"),
    "series": ("datastore_id", "series_id"),
}
"""Level -> the columns that identify a member among the series that are left."""

_TABLES = {"patient": "patients", "study": "studies", "series": "series"}
"""Level -> the published table with a row for each."""

_HEADERS = "series_headers"
_IMAGE_SET = "datastore_id, image_set_id"
_WITHHELD = f't."{schema.WITHHELD_FIELDS.name}"'
_BOTH_WITHHELD = f"list_concat({_WITHHELD}, h.withheld_fields) AS {schema.WITHHELD_FIELDS.name}"
_EVERYTHING = "in_the_lake"
_ENTITY_OF = {"studies": STUDY, _HEADERS: _IMAGE_SET}
_ALWAYS = ("datastore_id", "StudyInstanceUID", "patient_key", "image_set_id")
_OF_ROW = {"series_id": SERIES_ID_OF_ROW}
_RELATED = WithStudy | WithoutStudy | OneStudyPerPatient
_WITH_CONDITION = Where | Exclude | WithStudy | WithoutStudy


def compile_criteria(tables: OpenedTables, criteria: Criteria) -> CompiledQuery:
    """Compile criteria to SQL.

    Args:
        tables: The opened tables.
        criteria: The cohort.

    Raises:
        BadCondition: A condition cannot be read, or names what is not there.
    """
    return _Compiler(tables, criteria).query()


@dataclass(frozen=True)
class _HeaderConditions:
    """What a stage asks of headers, together with the stages right before it that do so too.

    Attributes:
        before: The stage before these.
        conditions: What a header meets.
    """

    before: str
    conditions: tuple[str, ...]


@dataclass
class _Compiler:
    tables: OpenedTables
    criteria: Criteria
    stages: list[Stage] = field(default_factory=list)
    params: Parameters = field(default_factory=Parameters)
    conditions: dict[int, ConditionSql] = field(default_factory=dict)
    """Of each condition, by its `id`: 1 and True are equal, and are not the same in SQL."""
    those: str | None = None
    of_headers: dict[str, _HeaderConditions] = field(default_factory=dict)
    """Of each stage that asks for headers, by its name."""

    def query(self) -> CompiledQuery:
        steps, split = self.criteria.steps, self.criteria.split
        given = [step.condition for step in steps if isinstance(step, _WITH_CONDITION)]
        given += [condition for _, condition in split.held_out] if split else []
        for condition in given:
            self.conditions[id(condition)] = compile_condition(
                self.tables, self.criteria.joins, condition, self.params
            )
        # Steps after the first filters look at all studies of a patient, so from there on each
        # study must have one known patient.
        filters = len(list(takewhile(lambda step: isinstance(step, Where | Exclude), steps)))
        for step in steps[:filters]:
            self._add_step(step)
        self._add(sentences.IDENTIFIED, self._identified(), "checked")
        for step in steps[filters:]:
            self._add_step(step)
        held_out = tuple(self._held(*held) for held in split.held_out) if split else ()
        everything = Stage(_EVERYTHING, sentences.EVERYTHING, self._everything())
        is_series = self.criteria.level == "series"  # only a series has one header
        headers = self.tables.columns(_HEADERS) if is_series else ()
        return CompiledQuery(
            (everything, *self.stages),
            self.params.values,
            self._entities(),
            self._members(self._named(_HEADERS) if is_series else (), held_out),
            self._members(headers, held_out),
            held_out,
        )

    def _named(self, table: str) -> frozenset[str]:
        """Return the columns of a table that conditions name."""
        found = (each.columns for each in self.conditions.values() if each.table == table)
        return frozenset().union(*found)

    def _everything(self) -> str:
        known = {*self.tables.columns("series")}
        more = {self.tables.study_date, "StudyTime"} & known
        if named := self._named("series"):
            more |= named | (known & {schema.WITHHELD_FIELDS.name})
        columns = ", ".join(f'"{name}"' for name in sorted({*_ALWAYS, *more}))
        return f"SELECT {columns}, {SERIES_ID} AS series_id FROM series"

    @property
    def _day(self) -> str:
        """The column that holds the day of a study, shifted or not."""
        name = self.tables.study_date
        if name == schema.year_of(schema.STUDY_DATE).name:
            policy = self.tables.publication.policy
            raise NotShown("studies of one patient are distinguished by their dates", policy)
        return name

    @property
    def _before(self) -> str:
        return self.stages[-1].name if self.stages else _EVERYTHING

    @property
    def _name(self) -> str:
        return f"step_{len(self.stages) + 1}"

    def _add_step(self, step: Step) -> None:
        if isinstance(step, Where | Exclude):
            self._require_header(step.condition)
        words = sentences.sentence(self.tables.connection, step)
        self._add(words, self._step(step), "excluded" if isinstance(step, Exclude) else "kept")

    def _require_header(self, condition: Condition) -> None:
        """Leave out series without a header before the first condition about headers.

        What their header says is unknown, so the attrition counts them apart.
        """
        if not self.of_headers and self.conditions[id(condition)].table == _HEADERS:
            self._add(sentences.NO_HEADER, self._with_header(), "excluded")

    def _with_header(self, *conditions: str) -> str:
        """Return SQL for the series of the last stage whose header meets conditions.

        Conditions of steps that follow each other are asked in one: each header is looked for
        once. If nothing else is asked of a series, the table of headers has all columns.
        """
        last = self.of_headers.get(self._before) or _HeaderConditions(self._before, ())
        now = _HeaderConditions(last.before, (*last.conditions, *conditions))
        self.of_headers[self._name] = now
        headers = f"{_HEADERS} WHERE {' AND '.join(now.conditions) or 'true'}"
        are_dated = any(isinstance(step, _RELATED) for step in self.criteria.steps)
        if last.before == _EVERYTHING and not (self._named("series") or are_dated):
            return f"SELECT {', '.join(_ALWAYS)}, {SERIES_ID} AS series_id FROM {headers}"
        those = self._keep(f"SELECT {_IMAGE_SET} FROM {headers}")
        return f"FROM {last.before} SEMI JOIN {those} USING ({_IMAGE_SET})"

    def _add(self, label: str, sql: str, kind: Kind) -> None:
        self.stages.append(Stage(self._name, label, sql, self.those, kind))
        self.those = None

    def _keep(self, those: str) -> str:
        """Add ids to the next stage, and return the name of their relation."""
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
                day = "" if step.choice == "random" else self._day
                chosen = chosen_studies(
                    self.tables, self.criteria.joins, step, self._before, day, self.params
                )
                return f"""
                    FROM {self._before} SEMI JOIN {self._keep(chosen)}
                    USING (patient_key, StudyInstanceUID)
                """
            case Join(table):
                return f'FROM {self._before} SEMI JOIN "{table}" USING (patient_key)'

    def _where(self, condition: Condition) -> str:
        found = self.conditions[id(condition)]
        if found.table == _HEADERS:
            return self._with_header(f"({found.sql})")
        if found.table == "series":
            return f"FROM {self._before} WHERE {found.sql}"
        return f"FROM {self._before} SEMI JOIN {self._meeting(found)}"

    def _exclude(self, condition: Condition) -> str:
        found = self.conditions[id(condition)]
        if found.table == _HEADERS:
            return self._with_header(f"({found.sql}) IS NOT TRUE")
        if found.table == "series":
            return f"FROM {self._before} WHERE ({found.sql}) IS NOT TRUE"
        return f"FROM {self._before} ANTI JOIN {self._meeting(found)}"

    def _meeting(self, found: ConditionSql) -> str:
        entity = _ENTITY_OF.get(found.table, "patient_key")
        those = self._keep(f'SELECT {entity} FROM "{found.table}" WHERE {found.sql}')
        return f"{those} USING ({entity})"

    def _identified(self) -> str:
        # A filter may have left series of one of several patients, so the whole study counts.
        if "n_patients" in self.tables.columns("studies"):
            # Row groups in which no study has several patients are skipped: nearly all.
            studies = f"SELECT {STUDY} FROM studies WHERE n_patients > 1"
        else:  # an older release published the lake
            studies = f"""
                SELECT {STUDY} FROM series
                GROUP BY ALL HAVING min(patient_key) <> max(patient_key)
            """
        shared = self._keep(studies)
        return f"""
            FROM {self._before} ANTI JOIN {shared} USING ({STUDY})
            WHERE patient_key IS NOT NULL AND StudyInstanceUID IS NOT NULL
        """

    def _related(self, step: WithStudy | WithoutStudy, join: str) -> str:
        found = self.conditions[id(step.condition)]
        if found.table not in ("series", "studies", _HEADERS):
            raise BadCondition("another study is found by columns of series or of studies")
        day, others = self._day, f"{found.table} WHERE {found.sql}"
        if found.table == _HEADERS:
            meeting = f"SELECT {_IMAGE_SET} FROM {_HEADERS} WHERE {found.sql}"
            others = f"series SEMI JOIN ({meeting}) USING ({_IMAGE_SET})"
        near = self._keep(f"""
            SELECT DISTINCT own.datastore_id, own.StudyInstanceUID
            FROM (SELECT DISTINCT {STUDY}, patient_key, {day} FROM {self._before}) own
            JOIN (SELECT DISTINCT StudyInstanceUID, patient_key, {day}
                  FROM {others}) other USING (patient_key)
            WHERE own.StudyInstanceUID <> other.StudyInstanceUID
              AND {step.period.sql(f"other.{day}", f"own.{day}")}
        """)
        return f"""
            FROM {self._before} {join} JOIN {near} USING ({STUDY}) WHERE {day} IS NOT NULL
        """

    def _entities(self) -> str:
        level, steps = self.criteria.level, self.criteria.steps
        keys = ", ".join(dict.fromkeys((*_KEYS[level], "patient_key")))
        if level != "series" and steps and isinstance(steps[-1], OneStudyPerPatient):
            return f"SELECT {keys} FROM {self._before}_those"  # each once, and no series is read
        distinct = "" if level == "series" else "DISTINCT"  # a series has one row
        return f"SELECT {distinct} {keys} FROM {self._before}"

    def _members(self, of_headers: Collection[str], held_out: tuple[HeldOut, ...]) -> str:
        """Return a SELECT for the members.

        Args:
            of_headers: The columns of headers that a row has too. Not every series has a header.
            held_out: The parts that are held out.
        """
        level = self.criteria.level
        table = _TABLES[level]
        columns = self.tables.columns(table)
        own = [f't."{name}"' for name in columns if name != "patient_key"]
        headers = sorted({*of_headers} - {*columns})
        if headers:
            own = [_BOTH_WITHHELD if name == _WITHHELD else name for name in own]
            own += [f'h."{name}"' for name in headers]
        outside = [
            f'outside_{number}."{name}"'
            for number, join in enumerate(self.criteria.joins)
            for name in self.tables.columns(join.table)
            if name != "patient_key"
        ]
        split = self.criteria.split
        part = [part_of_split(split, held_out, self.params)] if split else []
        entity = _KEYS[level]
        same = " AND ".join(f"m.{c} = {_OF_ROW.get(c, f't.{c}')}" for c in entity)
        joins = " ".join(
            f'JOIN "{join.table}" outside_{number} ON outside_{number}.patient_key = m.patient_key'
            for number, join in enumerate(self.criteria.joins)
        )
        if headers:
            joins += f" LEFT JOIN {_HEADERS} h ON h.datastore_id = t.datastore_id"
            joins += " AND h.image_set_id = t.image_set_id"
        return f"""
            SELECT m.patient_key, {", ".join((*own, *outside, *part))}
            FROM ({self._entities()}) m JOIN {table} t ON {same} {joins}
            ORDER BY {", ".join(f"m.{c}" for c in entity)}
        """

    def _held(self, part: str, condition: Condition) -> HeldOut:
        found, series = self.conditions[id(condition)], f"FROM {self._before} l"
        if found.table == "series":
            return HeldOut(part, f"SELECT patient_key, ({found.sql}) AS meets {series}")
        entity = _ENTITY_OF.get(found.table, "patient_key")
        those = f'SELECT {entity}, ({found.sql}) AS meets FROM "{found.table}"'
        joined = f"{series} LEFT JOIN ({those}) USING ({entity})"
        return HeldOut(part, f"SELECT l.patient_key, meets {joined}")
