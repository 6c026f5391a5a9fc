"""One step of an attrition: how many patients, studies and series met it."""

from __future__ import annotations

from dataclasses import dataclass


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
        criterion: What the step asks for, in words.
        counts: How many met it.
    """

    criterion: str
    counts: Counts
