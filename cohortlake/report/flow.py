"""The attrition of a cohort for the report, without small counts.

The difference of two counts is how many a step left out. If those are few, the counts of both steps
cannot be shown, so the steps are joined into one until enough are left out. See
`cohort.describe.attrition` for the counts.
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
    """A step, or several steps that are shown as one.

    Attributes:
        criteria: What they ask for, in words.
        left: How many met them; None if that is hidden.
        excluded: How many did not; None for the first step, and if that is hidden.
    """

    criteria: tuple[str, ...]
    left: Counts | None
    excluded: Counts | None = None


@dataclass(frozen=True)
class Flow:
    """The steps to a cohort.

    Attributes:
        steps: The first is the whole lake.
        parts: Part of the split -> patients in it, or None where they are hidden.
    """

    steps: tuple[FlowStep, ...]
    parts: dict[str, int | None]

    @property
    def is_shown(self) -> bool:
        """Whether the number of members may be shown."""
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
    shown = _shown_steps(selected, counts, below)
    steps = [FlowStep((words[0],), None if is_few(counts[0].patients, below) else counts[0])]
    for before, step in pairwise(shown):
        criteria = tuple(words[before + 1 : step + 1])
        steps.append(FlowStep(criteria, counts[step], counts[before] - counts[step]))
    if shown[-1] < len(words) - 1:
        steps.append(FlowStep(tuple(words[shown[-1] + 1 :]), None))
    flown = Flow(tuple(steps), {})
    return Flow(flown.steps, _parts(found, below)) if flown.is_shown else flown


def _shown_steps(selected: Selected, counts: Sequence[Counts], below: int) -> list[int]:
    """Return the steps whose counts can be shown: each leaves out nobody or enough patients."""
    last, shown = len(counts) - 1, [0]
    for step in range(1, last + 1):
        if is_few(counts[step].patients, below):
            return shown
        if _may_show(selected, counts, shown[-1], step, below):
            shown.append(step)
    while shown[-1] != last and len(shown) > 1:
        shown.pop()
        if _may_show(selected, counts, shown[-1], last, below):
            shown.append(last)
    return shown


def _may_show(selected: Selected, counts: Sequence[Counts], a: int, b: int, below: int) -> bool:
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
