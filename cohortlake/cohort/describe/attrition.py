"""How many are left after each step, as patients, studies and series.

These are the counts of a flow diagram. See `consort` for how it is drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cohortlake.cohort import guesses
from cohortlake.cohort.describe import consort
from cohortlake.cohort.describe.attrition_step import AttritionStep, Counts
from cohortlake.cohort.select.compiled_query import Stage
from cohortlake.cohort.select.selected import Selected

if TYPE_CHECKING:
    import pandas as pd

COUNTED = """
count(DISTINCT patient_key) AS patients,
count(DISTINCT (datastore_id, coalesce(StudyInstanceUID, series_id))) AS studies,
count(*) AS series
"""
"""SQL that counts the rows of a stage at each level. Series without a study count one each."""


@dataclass(frozen=True, repr=False)
class Attrition:
    """How many are left after each step, from the whole lake to the cohort.

    Attributes:
        cohort: The cohort's name.
        steps: Who was left after each step; the first is the whole lake.
        parts: Part of the split -> patients in it.
    """

    cohort: str
    steps: tuple[AttritionStep, ...]
    parts: dict[str, int]

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per step: how many met it, and how many it left out."""
        import pandas as pd  # here and not above: see flatten.frame

        earlier = (self.steps[0], *self.steps)
        return pd.DataFrame(
            [
                {
                    "criterion": step.criterion,
                    **vars(step.counts),
                    **{f"excluded_{k}": n for k, n in vars(before.counts - step.counts).items()},
                }
                for before, step in zip(earlier, self.steps, strict=False)
            ]
        )

    def figure(self) -> Any:
        """Return the CONSORT diagram as a `matplotlib.figure.Figure`.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        return consort.figure(self.steps, self.parts)

    def save(self, path: str | Path) -> None:
        """Write the CONSORT diagram.

        Args:
            path: An .svg, a .png or a .pdf file.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        consort.save(self.steps, self.parts, Path(path), seed=self.cohort)

    if not TYPE_CHECKING:  # a type checker would take any name for one that there is

        def __getattr__(self, name: str) -> NoReturn:
            raise guesses.answer("attrition", name, guesses.ATTRITIONS, dir(type(self)))

    def __repr__(self) -> str:
        import pandas as pd  # which opening a lake does not need

        with pd.option_context("display.max_colwidth", None, "display.width", None):
            return f"attrition of {self.cohort}\n{self.to_pandas().to_string(index=False)}"

    def _repr_html_(self) -> str:
        import pandas as pd  # which opening a lake does not need

        with pd.option_context("display.max_colwidth", None):  # show each criterion in full
            return self.to_pandas().to_html(index=False)


def attrition(selected: Selected) -> Attrition:
    """Count who is left after each step of a cohort."""
    stages = selected.query.stages
    counted = selected.ask(
        " UNION ALL ".join(map(_count, range(len(stages)), stages)) + " ORDER BY 1"
    )
    steps = tuple(
        AttritionStep(stage.label, Counts(*counts), stage.kind)
        for stage, (_, *counts) in zip(stages, counted.fetchall(), strict=True)
    )
    return Attrition(selected.criteria.name, steps, _parts(selected))


def _count(number: int, stage: Stage) -> str:
    return f"SELECT {number} AS step, {COUNTED} FROM {stage.name}"


def _parts(selected: Selected) -> dict[str, int]:
    if selected.criteria.split is None:
        return {}
    query = f"SELECT split, count(DISTINCT patient_key) FROM ({selected.query.members}) GROUP BY 1"
    counts = dict(selected.ask(query).fetchall())
    return {name: counts.get(name, 0) for name in selected.criteria.split.parts}
