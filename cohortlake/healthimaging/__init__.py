"""SearchImageSets as fast as the quota lets; raw pages out.

The service's own names (`DICOMPatientId`, `nextToken`) stop in this package and in the
`member` column of `schema`.
"""

from cohortlake.healthimaging.client import Datastore, HealthImaging, Meter
from cohortlake.healthimaging.document import NotMetadata
from cohortlake.healthimaging.metadata import Version, summary_tags
from cohortlake.healthimaging.page import BrokenAnswer, Page
from cohortlake.healthimaging.ranges import Range
from cohortlake.healthimaging.window_search import Arrival, SearchProgress, WindowSearch
from cohortlake.healthimaging.windows import EPOCH, Axis, Window

__all__ = [
    "EPOCH",
    "Arrival",
    "Axis",
    "BrokenAnswer",
    "Datastore",
    "HealthImaging",
    "Meter",
    "NotMetadata",
    "Page",
    "Range",
    "SearchProgress",
    "Version",
    "Window",
    "WindowSearch",
    "summary_tags",
]
