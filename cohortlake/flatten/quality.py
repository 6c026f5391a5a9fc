"""Counts per column how many values cannot be read. Returns counts, never a value."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.dicom_values import PADDING, SEPARATOR


def invalid_values(table: pa.Table) -> dict[str, int]:
    """Count what could not be parsed.

    In DICOM an empty text is a missing value (PS3.5 section 7.4), not an invalid one.

    Args:
        table: Columns of `schema.STATE`.

    Returns:
        Column -> values sent, not blank and not parsed; `extra` -> rows with members that
        the schema does not hold. Columns without any are left out.
    """
    counts = {"extra": len(table) - table["extra"].null_count}
    for column in schema.DICOM_TAGS:
        if column.vr in schema.PARSED_VRS:
            raw = table[column.raw_name]
            sent = pc.not_equal(pc.utf8_trim(raw, PADDING + SEPARATOR), "")
            invalid = pc.and_(sent, pc.is_null(table[column.name]))
            counts[column.name] = pc.sum(invalid).as_py() or 0
    return {name: count for name, count in counts.items() if count}
