"""Cohorts: who is in a study, how they were selected, and proof of it.

`lake` and `cohort` hold the objects for notebooks, and only they know all the folders. Criteria are
data (`define`), become SQL over the published tables (`select`), and the members can be described,
frozen and exported, and their pixels listed for download (`pixels`). Reads `published/`, writes
`cohorts/`, and needs no right on the restricted zone, except for the ids of frames. See `publish`
for what is published.
"""

from cohortlake.cohort.cohort import Cohort
from cohortlake.cohort.define.criteria import Criteria
from cohortlake.cohort.lake import Lake
from cohortlake.cohort.lake import open_lake as open

__all__ = ["Cohort", "Criteria", "Lake", "open"]
