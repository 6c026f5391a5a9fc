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
from cohortlake.cohort.define import conditions, sentences, values
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
    CompiledQuery,
    HeldOut,
    Kind,
    Parameters,
    Stage,
    part_of_split,
)
from cohortlake.cohort.select.condition_sql import ConditionSql, compile_condition
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
_STUDY = "datastore_id, StudyInstanceUID"
_ENTITY_OF = {"studies": _STUDY, _HEADERS: _IMAGE_SET}
_ALWAYS = ("datastore_id", "StudyInstanceUID", "patient_key", "image_set_id")
_MICROSECONDS_OF_DAY = 24 * 60 * 60 * 1_000_000
_NO_PLACE = 2**62
_OF_ROW = {"series_id": SERIES_ID_OF_ROW}


def compile_criteria(tables: OpenedTables, criteria: Criteria) -> CompiledQuery:
    """Compile criteria to SQL.

    Args:
        tables: The opened tables.
        criteria: The cohort.

    Raises:
        BadCondition: A condition cannot be read, or names what is not there.
    """
    return _Compiler(tables, criteria).query()


@dataclass
class _Compiler:
    tables: OpenedTables
    criteria: Criteria
    stages: list[Stage] = field(default_factory=list)
    params: Parameters = field(default_factory=Parameters)
    used: set[str] = field(default_factory=set)
    of_headers: set[str] = field(default_factory=set)
    those: str | None = None
    before_headers: str | None = None
    """What the last stage was made from, if all that this stage asks for is a header."""

    def query(self) -> CompiledQuery:
        steps = self.criteria.steps
        # Steps after the first filters look at all studies of a patient, so from there on each
        # study must have one known patient.
        filters = len(list(takewhile(lambda step: isinstance(step, Where | Exclude), steps)))
        for step in steps[:filters]:
            self._add_step(step)
        self._add(sentences.IDENTIFIED, self._identified(), "checked")
        for step in steps[filters:]:
            self._add_step(step)
        split = self.criteria.split
        held_out = tuple(self._held(*held) for held in split.held_out) if split else ()
        everything = Stage(_EVERYTHING, sentences.EVERYTHING, self._everything())
        is_series = self.criteria.level == "series"  # only a series has one header
        headers = self.tables.columns(_HEADERS) if is_series else ()
        return CompiledQuery(
            (everything, *self.stages),
            self.params.values,
            self._entities(),
            self._members(self.of_headers if is_series else (), held_out),
            self._members(headers, held_out),
            held_out,
        )

    def _everything(self) -> str:
        when = {self.tables.study_date, "StudyTime"} & {*self.tables.columns("series")}
        columns = ", ".join(f'"{name}"' for name in sorted({*_ALWAYS, *when, *self.used}))
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
        found = compile_condition(self.tables, self.criteria.joins, condition, Parameters())
        if found.table == _HEADERS and not self.of_headers:
            self.used.add("image_set_id")
            before = self._before
            self._add(
                sentences.NO_HEADER,
                f"FROM {self._before} SEMI JOIN {_HEADERS} USING ({_IMAGE_SET})",
                "excluded",
            )
            self.before_headers = before

    def _add(self, label: str, sql: str, kind: Kind) -> None:
        self.stages.append(Stage(self._name, label, sql, self.those, kind))
        self.those = self.before_headers = None

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
                return self._one_study(step)
            case Join(table):
                return f'FROM {self._before} SEMI JOIN "{table}" USING (patient_key)'

    def _where(self, condition: Condition) -> str:
        found = self._condition(condition)
        if found.table == "series":
            return f"FROM {self._before} WHERE {found.sql}"
        # What meets a condition about headers has one: it need not be looked for twice.
        before = (found.table == _HEADERS and self.before_headers) or self._before
        return f"FROM {before} SEMI JOIN {self._meeting(found)}"

    def _exclude(self, condition: Condition) -> str:
        found = self._condition(condition)
        if found.table == "series":
            return f"FROM {self._before} WHERE ({found.sql}) IS NOT TRUE"
        return f"FROM {self._before} ANTI JOIN {self._meeting(found)}"

    def _condition(self, condition: Condition) -> ConditionSql:
        found = compile_condition(self.tables, self.criteria.joins, condition, self.params)
        if found.table == _HEADERS:
            self.of_headers |= found.columns
        if found.table == "series":
            known = {*self.tables.columns(found.table)}
            self.used |= found.columns | (known & {schema.WITHHELD_FIELDS.name})
        return found

    def _meeting(self, found: ConditionSql) -> str:
        entity = _ENTITY_OF.get(found.table, "patient_key")
        those = self._keep(f'SELECT {entity} FROM "{found.table}" WHERE {found.sql}')
        return f"{those} USING ({entity})"

    def _identified(self) -> str:
        # A filter may have left series of one of several patients, so the whole study counts.
        if "n_patients" in self.tables.columns("studies"):
            # Row groups in which no study has several patients are skipped: nearly all.
            studies = f"SELECT {_STUDY} FROM studies WHERE n_patients > 1"
        else:  # an older release published the lake
            studies = f"""
                SELECT {_STUDY} FROM series
                GROUP BY ALL HAVING min(patient_key) <> max(patient_key)
            """
        shared = self._keep(studies)
        return f"""
            FROM {self._before} ANTI JOIN {shared} USING ({_STUDY})
            WHERE patient_key IS NOT NULL AND StudyInstanceUID IS NOT NULL
        """

    def _related(self, step: WithStudy | WithoutStudy, join: str) -> str:
        found = self._condition(step.condition)
        if found.table not in ("series", "studies", _HEADERS):
            raise BadCondition("another study is found by columns of series or of studies")
        day, others = self._day, f"{found.table} WHERE {found.sql}"
        if found.table == _HEADERS:
            meeting = f"SELECT {_IMAGE_SET} FROM {_HEADERS} WHERE {found.sql}"
            others = f"series SEMI JOIN ({meeting}) USING ({_IMAGE_SET})"
        near = self._keep(f"""
            SELECT DISTINCT own.datastore_id, own.StudyInstanceUID
            FROM (SELECT DISTINCT {_STUDY}, patient_key, {day} FROM {self._before}) own
            JOIN (SELECT DISTINCT StudyInstanceUID, patient_key, {day}
                  FROM {others}) other USING (patient_key)
            WHERE own.StudyInstanceUID <> other.StudyInstanceUID
              AND {step.period.sql(f"other.{day}", f"own.{day}")}
        """)
        return f"""
            FROM {self._before} {join} JOIN {near} USING ({_STUDY}) WHERE {day} IS NOT NULL
        """

    def _one_study(self, step: OneStudyPerPatient) -> str:
        """Return SQL for the series of one study of each patient.

        Two studies may be equally good: of one day, where the policy hides the time. Then the
        order of the patient's studies decides, which is made from the real times, and after it
        the ids of the image sets, which the service gives. A replaced UID may not decide, because
        it changes with the key.
        """
        source, rank, clock, place = self._ranked(step)
        if "study_ordinal" not in self.tables.columns("studies"):
            place = "0"
        # Reading `studies` takes longer than all the rest, so it is read for ties only. The two
        # studies of `best` are the first and the last by UID of those that are equally good.
        chosen = self._keep(f"""
            WITH ranked AS NOT MATERIALIZED (
                SELECT patient_key, {_STUDY}, image_set_id, {rank} AS rank, {clock} AS clock
                FROM {source}
            ), best AS MATERIALIZED (
                SELECT patient_key, any_value(datastore_id) AS datastore_id,
                       arg_min(StudyInstanceUID, (rank, clock, StudyInstanceUID))
                       AS StudyInstanceUID,
                       arg_max(StudyInstanceUID, (-rank, -clock, StudyInstanceUID)) AS other
                FROM ranked WHERE rank IS NOT NULL GROUP BY patient_key
            ), tied AS MATERIALIZED (
                SELECT patient_key FROM best WHERE StudyInstanceUID <> other
            ), places AS (
                SELECT {_STUDY}, {place} AS place FROM studies SEMI JOIN tied USING (patient_key)
            )
            SELECT patient_key, {_STUDY} FROM best WHERE StudyInstanceUID = other
            UNION ALL
            SELECT patient_key, any_value(datastore_id), arg_min(
                StudyInstanceUID,
                (rank, clock, coalesce(place, {_NO_PLACE}), image_set_id, StudyInstanceUID)
            )
            FROM ranked SEMI JOIN tied USING (patient_key) LEFT JOIN places USING ({_STUDY})
            WHERE rank IS NOT NULL GROUP BY patient_key
        """)
        return f"FROM {self._before} SEMI JOIN {chosen} USING (patient_key, StudyInstanceUID)"

    def _ranked(self, step: OneStudyPerPatient) -> tuple[str, str, str, str]:
        """Return a relation and what ranks its rows, each as a number: day, time, position.

        The row with the least numbers is the best. A row without a time or a position is the last.
        """
        before = self._before
        if step.choice == "random":
            # Each study once, so that one of many series is not more likely. Not by its UID.
            studies = f"""(
                SELECT patient_key, {_STUDY}, min(image_set_id) AS image_set_id
                FROM {before} GROUP BY ALL
            )"""
            key = f"concat_ws('|', {self.params.add(str(step.seed))}, datastore_id, image_set_id)"
            return studies, f"(md5_number_lower({key}) >> 1)::BIGINT", "0", "0"
        day, has_time = self._day, "StudyTime" in self.tables.columns("series")
        of_day = f"date_diff('day', DATE '1970-01-01', {day})"
        clock = "epoch_us(StudyTime)" if has_time else "NULL"
        if step.choice == "last":
            return before, f"-{of_day}", f"coalesce(-{clock}, 0)", "-study_ordinal"
        clock = f"coalesce({clock}, {_MICROSECONDS_OF_DAY})"
        if step.choice == "first":
            return before, of_day, clock, "study_ordinal"
        if isinstance(step.to, str):
            outside = {j.table: self.tables.columns(j.table) for j in self.criteria.joins}
            table = conditions.table_of([step.to], outside)
            self.tables.require_dates(table, step.to)
            source = f'{before} JOIN "{table}" USING (patient_key)'
            to = f'"{step.to}"::DATE'
            if values.is_text(self.tables.types(table)[step.to]):
                to = f"""try_strptime("{step.to}", ['%Y-%m-%d', '%Y%m%d'])::DATE"""
        else:
            source, to = before, self.params.add(step.to)
        # Of two that are equally close, the earlier one.
        rank = f"2 * abs(date_diff('day', {to}, {day})) + ({day} > {to})::INT"
        return source, rank, clock, "study_ordinal"

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
        found, series = self._condition(condition), f"FROM {self._before} l"
        if found.table == "series":
            return HeldOut(part, f"SELECT patient_key, ({found.sql}) AS meets {series}")
        entity = _ENTITY_OF.get(found.table, "patient_key")
        those = f'SELECT {entity}, ({found.sql}) AS meets FROM "{found.table}"'
        joined = f"{series} LEFT JOIN ({those}) USING ({entity})"
        return HeldOut(part, f"SELECT l.patient_key, meets {joined}")
