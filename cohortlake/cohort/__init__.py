"""Cohorts: who is in a study, how they were chosen, and proof that they were.

A lake is opened (`lake`), criteria are data (`criteria`), and they are drawn by SQL over the
published tables (`select`). Reads `published/`, writes `cohorts/`, and needs no right on the
restricted zone. See `publish` for what is published.
"""

from cohortlake.cohort.cohort import Cohort
from cohortlake.cohort.define.criteria import Criteria
from cohortlake.cohort.lake import Lake
from cohortlake.cohort.lake import open_lake as open

__all__ = ["Cohort", "Criteria", "Lake", "open"]
