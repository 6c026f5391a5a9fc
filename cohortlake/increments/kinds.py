"""The kinds of increment, and the columns of each.

The kind is the axis in the file's path and record. Searches and sweeps write the axes of
`healthimaging.Axis`; this module has the others.
"""

from __future__ import annotations

import pyarrow as pa

from cohortlake import schema
from cohortlake.increments.record import Record

ABSENCE_AXIS = "absence"
"""Image sets that are confirmed deleted."""
UNREAD_AXIS = "unread"
"""Image sets with versions that the service does not give."""
VERSIONS_AXIS = "versions"
"""Older versions that were read one by one."""

STATELESS_AXES = (ABSENCE_AXIS, UNREAD_AXIS)
"""Increments of these axes name image sets and hold no states."""

_RUN_COLUMNS = 2  # the last two columns of each schema: `observed_at` and `run_id`

FOUND_SCHEMA = schema.arrow_schema(schema.FOUND)
ABSENCE_SCHEMA = schema.arrow_schema(schema.ABSENCE)
UNREAD_SCHEMA = schema.arrow_schema(schema.UNREAD)
ABSENCE_WITHOUT_RUN = schema.arrow_schema(schema.ABSENCE[:-_RUN_COLUMNS])
"""Absences before `with_run_columns` adds the two columns of the run."""
UNREAD_WITHOUT_RUN = schema.arrow_schema(schema.UNREAD[:-_RUN_COLUMNS])
"""Unread versions before `with_run_columns` adds the two columns of the run."""


def schema_of(axis: str) -> pa.Schema:
    """Return the schema of the increments of an axis."""
    return {ABSENCE_AXIS: ABSENCE_SCHEMA, UNREAD_AXIS: UNREAD_SCHEMA}.get(axis, FOUND_SCHEMA)


def with_run_columns(rows: pa.Table, record: Record) -> pa.Table:
    """Add `observed_at` and `run_id`, which have one value in all rows of an increment."""
    observed = pa.repeat(pa.scalar(record.searched_at, schema.INSTANT), len(rows))
    run = pa.repeat(pa.scalar(record.run_id), len(rows))
    return rows.append_column("observed_at", observed).append_column("run_id", run)
