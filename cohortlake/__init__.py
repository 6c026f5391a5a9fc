"""Cohortlake keeps a data store's imaging metadata as Parquet that cohort studies can trust.

It searches AWS HealthImaging in windows of study date and of `updatedAt`, flattens the
DICOM tags into typed frames, and writes incremental Parquet snapshots.

    >>> import cohortlake
    >>> lake = cohortlake.open("var/demo/lake")
    >>> studies = lake.sql("FROM studies").to_pandas()
"""

import importlib
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cohortlake.cli.process import protect_process
    from cohortlake.cohort import Lake, open
    from cohortlake.errors import CohortlakeError
    from cohortlake.flatten import flatten_pages, flatten_summaries, to_frame
    from cohortlake.healthimaging import Axis, HealthImaging, Window
    from cohortlake.hints import take_hints
    from cohortlake.ingest.search_frame import search_image_sets
    from cohortlake.published.read import read_table
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
    "protect_process",
    "read_table",
    "search_image_sets",
    "take_hints",
    "to_frame",
]

_MODULES = {
    "Axis": "cohortlake.healthimaging",
    "CohortlakeError": "cohortlake.errors",
    "HealthImaging": "cohortlake.healthimaging",
    "Lake": "cohortlake.cohort",
    "Settings": "cohortlake.settings",
    "Sync": "cohortlake.sync",
    "Window": "cohortlake.healthimaging",
    "flatten_pages": "cohortlake.flatten",
    "flatten_summaries": "cohortlake.flatten",
    "open": "cohortlake.cohort",
    "protect_process": "cohortlake.cli.process",
    "read_table": "cohortlake.published.read",
    "search_image_sets": "cohortlake.ingest.search_frame",
    "take_hints": "cohortlake.hints",
    "to_frame": "cohortlake.flatten",
}
"""Name -> where it is, imported when it is first asked for: a reader of a lake needs neither boto3
nor deltalake, and they take 60 MB."""


if not TYPE_CHECKING:  # a type checker would take any name for one that there is

    def __getattr__(name: str) -> object:
        if name not in _MODULES:
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}; cohortlake.open(root) opens a lake"
            )
        return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


logging.getLogger(__name__).addHandler(logging.NullHandler())
