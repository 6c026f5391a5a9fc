"""The way from the whole lake to a selected, with small counts left out.

A step's count less the one before says how many it left out, so both cannot be told where those are
few: steps are then told as one, over as many as it takes. See `cohort.describe.attrition` for the
counting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cohortlake.cohort.describe.attrition import Attrition, attrition
from cohortlake.cohort.describe.attrition_step import Counts
from cohortlake.cohort.describe.suppress import Cell, hidden
from cohortlake.cohort.select.selected import Selected
from cohortlake.report.cells import is_few


@dataclass(frozen=True)
class FlowStep:
    """A step, or several that are told as one.

    Attributes:
        criteria: What they asked for, in words.
        left: How many met them; None where that is hidden, as for all of a lake of few.
        excluded: How many did not; None for the first step, and where that is hidden.
    """

    criteria: tuple[str, ...]
    left: Counts | None
    excluded: Counts | None = None


@dataclass(frozen=True)
class Flow:
    """The way to a cohort.

    Attributes:
        steps: The first is the whole lake.
        parts: Part of the split -> patients in it, or None where they are hidden.
    """

    steps: tuple[FlowStep, ...]
    parts: dict[str, int | None]

    @property
    def is_told(self) -> bool:
        """Whether the number of members may be told."""
        return self.steps[-1].left is not None


def flow(selected: Selected, below: int) -> Flow:
    """Count who is left after each step.

    Args:
        selected: The members of a cohort.
        below: The least number of patients that may be shown.
    """
    found = attrition(selected)
    words = [step.criterion for step in found.steps]
    counts = [step.counts for step in found.steps]
    told = _told(selected, counts, below)
    steps = [FlowStep((words[0],), None if is_few(counts[0].patients, below) else counts[0])]
    for before, step in pairwise(told):
        criteria = tuple(words[before + 1 : step + 1])
        steps.append(FlowStep(criteria, counts[step], counts[before] - counts[step]))
    if told[-1] < len(words) - 1:
        steps.append(FlowStep(tuple(words[told[-1] + 1 :]), None))
    flown = Flow(tuple(steps), {})
    return Flow(flown.steps, _parts(found, below)) if flown.is_told else flown


def _told(selected: Selected, counts: Sequence[Counts], below: int) -> list[int]:
    """Return the steps whose counts can be told: between two of them nobody or enough are lost."""
    last, told = len(counts) - 1, [0]
    for step in range(1, last + 1):
        if is_few(counts[step].patients, below):
            return told
        if _may_tell(selected, counts, told[-1], step, below):
            told.append(step)
    while told[-1] != last and len(told) > 1:
        told.pop()
        if _may_tell(selected, counts, told[-1], last, below):
            told.append(last)
    return told


def _may_tell(selected: Selected, counts: Sequence[Counts], a: int, b: int, below: int) -> bool:
    lost = counts[a] - counts[b]
    if is_few(lost.patients, below):
        return False
    before, after = (selected.query.stages[i].name for i in (a, b))
    person = "count(DISTINCT coalesce(a.patient_key, a.StudyInstanceUID))"
    ((of_studies, of_series),) = selected.ask(f"""
        SELECT (SELECT {person} FROM {before} a ANTI JOIN {after} b
                ON a.datastore_id = b.datastore_id
                AND coalesce(a.StudyInstanceUID, a.series_id)
                  = coalesce(b.StudyInstanceUID, b.series_id)),
               (SELECT {person} FROM {before} a ANTI JOIN {after} b
                ON a.datastore_id = b.datastore_id AND a.series_id = b.series_id)
    """).fetchall()
    return not (lost.studies and of_studies < below) and not (lost.series and of_series < below)


def _parts(found: Attrition, below: int) -> dict[str, int | None]:
    cells = [Cell((name,), n, n) for name, n in found.parts.items() if n]
    out = {cells[i].key[0] for i in hidden(cells, below)}
    return {name: None if name in out else n for name, n in found.parts.items()}
