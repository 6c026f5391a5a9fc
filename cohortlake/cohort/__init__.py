"""Cohorts: who is in a study, how they were chosen, and proof that they were.

A lake is opened (`lake`), criteria are data (`criteria`), and they are drawn by SQL over the
published tables (`select`). Reads `published/`, writes `cohorts/`, and needs no right on the
restricted zone. What is published is `cohortlake.lake`'s.
"""

from cohortlake.cohort.cohort import Cohort
from cohortlake.cohort.criteria import Criteria
from cohortlake.cohort.lake import Lake
from cohortlake.cohort.lake import open_lake as open

__all__ = ["Cohort", "Criteria", "Lake", "open"]
