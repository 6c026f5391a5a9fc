"""SearchImageSets as fast as the quota lets; raw pages out.

The service's own names (`DICOMPatientId`, `nextToken`) stop in this package and in the
`member` column of `schema`.
"""

from cohortlake.healthimaging.client import Datastore, HealthImaging, Meter
from cohortlake.healthimaging.page import Page
from cohortlake.healthimaging.ranges import Range, Ranges
from cohortlake.healthimaging.search import search_range
from cohortlake.healthimaging.windows import EPOCH, Axis, Window

__all__ = [
    "EPOCH",
    "Axis",
    "Datastore",
    "HealthImaging",
    "Meter",
    "Page",
    "Range",
    "Ranges",
    "Window",
    "search_range",
]
