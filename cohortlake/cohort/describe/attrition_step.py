"""One step of an attrition: how many patients, studies and series met it."""

from __future__ import annotations

from dataclasses import dataclass

from cohortlake.cohort.select.compiled_query import Kind


@dataclass(frozen=True)
class Counts:
    """How many there are at each level."""

    patients: int
    studies: int
    series: int

    def __sub__(self, other: Counts) -> Counts:
        return Counts(
            self.patients - other.patients,
            self.studies - other.studies,
            self.series - other.series,
        )


@dataclass(frozen=True)
class AttritionStep:
    """Who is left after a step.

    Attributes:
        words: What the step asks for; where `kind` is not `kept`, why others were left out.
        counts: How many are left.
        kind: See `cohort.select.compiled_query.Stage`.
    """

    words: str
    counts: Counts
    kind: Kind = "kept"

    @property
    def criterion(self) -> str:
        """What the step asks for, in words that tell an exclusion from what is kept."""
        return self.words if self.kind == "kept" else f"Excluded: {self.words}"
