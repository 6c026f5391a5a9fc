"""Criteria as SQL: a stage for each step, and the values in it as parameters."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal

from cohortlake.cohort.define.steps import Split
from cohortlake.cohort.define.values import Parameter

Kind = Literal["kept", "excluded", "checked"]

STUDY = "datastore_id, StudyInstanceUID"
"""SQL for what tells one study from another."""

SERIES_ID = "coalesce(SeriesInstanceUID, image_set_id)"
SERIES_ID_OF_ROW = "coalesce(t.SeriesInstanceUID, t.image_set_id)"
"""The same, for a row of the table `t`."""

_PARAMETER = re.compile(r"\$(value_\d+)\b")


@dataclass(frozen=True)
class Stage:
    """What is left after a step.

    Attributes:
        name: Of the relation.
        label: What the step asks for, in words; where `kind` is not `kept`, why series are left
            out.
        sql: The relation, a filter on the one before.
        those: A SELECT for the ids that it keeps or leaves out, or None. `sql` names it `name`
            with `_those` after it.
        kind: `kept` where the step keeps what meets it; `excluded` where it leaves that out;
            `checked` for the exclusion that each cohort has.
    """

    name: str
    label: str
    sql: str
    those: str | None = None
    kind: Kind = "kept"

    @property
    def parts(self) -> list[str]:
        """The parts of a WITH clause.

        `those` is materialized: it is small, as it holds the ids of one level. What is left is
        not: to read ten million series again takes less time than to copy them.
        """
        kept = [f"{self.name}_those AS MATERIALIZED ({self.those})"] if self.those else []
        return [*kept, f"{self.name} AS NOT MATERIALIZED ({self.sql})"]


@dataclass(frozen=True)
class HeldOut:
    """A part of a split that is held out.

    Attributes:
        part: Its name.
        sql: A SELECT over the last stage: patient_key and meets, a row for each series. `meets` is
            null where it is not known.
    """

    part: str
    sql: str


@dataclass(frozen=True)
class CompiledQuery:
    """Criteria as SQL.

    Attributes:
        stages: What is left after each step; the first is the whole lake.
        params: The values in it.
        entities: A SELECT for what identifies the members, over the last stage.
        members: A SELECT for their whole rows, over the last stage. Members that are series have
            the columns of headers that conditions name.
        described: The same with all columns of headers.
        held_out: The parts of the split that are held out.
    """

    stages: tuple[Stage, ...]
    params: Mapping[str, Parameter]
    entities: str
    members: str
    described: str
    held_out: tuple[HeldOut, ...] = ()

    def with_stages(self, select: str) -> tuple[str, dict[str, Parameter]]:
        """Return a query that can run, and the values for it.

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
        same = f"l.datastore_id = t.datastore_id AND l.series_id = {SERIES_ID_OF_ROW}"
        return f"SELECT t.* FROM series t SEMI JOIN {self.last} l ON {same}"


@dataclass
class Parameters:
    """The values in a query that is being compiled."""

    values: dict[str, Parameter] = field(default_factory=dict)

    def add(self, value: Parameter) -> str:
        """Add a value, and return what stands for it in SQL."""
        name = f"value_{len(self.values) + 1}"
        self.values[name] = value
        return f"${name}"


def part_of_split(split: Split, held_out: Iterable[HeldOut], params: Parameters) -> str:
    """Return SQL for the part of the patient of a row of `m`, as the column `split`.

    A patient is in one part only, whatever its series are: see `held_out` for the check that its
    series agree.

    Args:
        split: The split.
        held_out: Its parts that are held out, compiled.
        params: Its values are added here.
    """
    whens = [
        f"WHEN m.patient_key IN (SELECT patient_key FROM ({held.sql}) WHERE meets) "
        f"THEN {params.add(held.part)}"
        for held in held_out
    ]
    # A number from 0 to 1 that depends on the patient and the seed alone.
    seed = params.add(str(split.seed))
    number = f"(md5_number_lower(concat_ws('|', {seed}, m.patient_key)) >> 11) / {2**53}.0"
    names = [params.add(name) for name, _ in split.shares]
    ends = list(accumulate(share for _, share in split.shares))[:-1]
    whens += [
        f"WHEN {number} < {end!r} THEN {name}" for name, end in zip(names, ends, strict=False)
    ]
    return f"CASE {' '.join(whens)} WHEN true THEN {names[-1]} END AS split"
