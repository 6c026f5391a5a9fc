"""Turns pages of summaries into typed columns. Drops nothing, and counts every odd value."""

from cohortlake.flatten.frame import (
    as_dates,
    schema_with_pandas_dtypes,
    to_frame,
    to_table,
    with_pandas_dtypes,
)
from cohortlake.flatten.quality import invalid_values
from cohortlake.flatten.table import flatten_pages, flatten_summaries, read_again

__all__ = [
    "as_dates",
    "flatten_pages",
    "flatten_summaries",
    "invalid_values",
    "read_again",
    "schema_with_pandas_dtypes",
    "to_frame",
    "to_table",
    "with_pandas_dtypes",
]
