"""Cohortlake keeps a data store's imaging metadata as Parquet that cohort studies can trust.

It searches AWS HealthImaging in windows of study date and of `updatedAt`, flattens the
DICOM tags into typed frames, and writes incremental Parquet snapshots.

    >>> import cohortlake
    >>> lake = cohortlake.open("var/demo/lake")  # doctest: +SKIP
    >>> studies = lake.sql("FROM studies").to_pandas()  # doctest: +SKIP
"""

import logging

from cohortlake.cohort import Lake, open
from cohortlake.errors import CohortlakeError
from cohortlake.flatten import flatten_pages, flatten_summaries, to_frame
from cohortlake.healthimaging import Axis, HealthImaging, Window
from cohortlake.hints import take_hints
from cohortlake.lake.read import read_table
from cohortlake.search import search
from cohortlake.settings import Settings
from cohortlake.sync import Sync

__all__ = [
    "Axis",
    "CohortlakeError",
    "HealthImaging",
    "Lake",
    "Settings",
    "Sync",
    "Window",
    "flatten_pages",
    "flatten_summaries",
    "open",
    "read_table",
    "search",
    "take_hints",
    "to_frame",
]

logging.getLogger(__name__).addHandler(logging.NullHandler())
