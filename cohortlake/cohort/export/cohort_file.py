"""A cohort as a file for those who live in a spreadsheet.

Owns what such a file holds. How a file is written is `spreadsheet`'s; what proves a cohort is
`freeze`'s.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from cohortlake.cohort.describe.attrition import attrition
from cohortlake.cohort.export import spreadsheet

if TYPE_CHECKING:
    from cohortlake.cohort.cohort import Cohort


def export(cohort: Cohort, path: Path) -> int:
    """Write the members; to .xlsx also the attrition, and what they were drawn from and how.

    Args:
        cohort: Whose.
        path: A .csv, .xlsx or .parquet file.

    Returns:
        How many members there are.

    Raises:
        ExportError: It cannot be written, or cannot hold them.
        MissingExtra: openpyxl is not installed.
    """
    spreadsheet.check(path)
    sheets = {"members": cohort.to_arrow()}
    if path.suffix == ".xlsx":
        counts = attrition(cohort).to_pandas()
        sheets["attrition"] = pa.Table.from_pandas(counts, preserve_index=False)
        sheets["provenance"] = _provenance(cohort)
    spreadsheet.write(path, sheets)
    return len(sheets["members"])


def _provenance(cohort: Cohort) -> pa.Table:
    lake, opened = cohort.lake, cohort.lake.as_opened
    told = {
        "cohort": cohort.criteria.name,
        "drawn_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "published_at": opened.published_at,
        "image_sets_version": str(opened.image_sets_version),
        "policy": opened.policy,
        "as_of": lake.as_of.isoformat() if lake.as_of else "now",
        "written_by": f"cohortlake {version('cohortlake')}",
    }
    lines = [*told.items(), *(("criteria", s) for s in cohort.criteria.to_yaml().splitlines())]
    return pa.table({"what": [what for what, _ in lines], "value": [value for _, value in lines]})
