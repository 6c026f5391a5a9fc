"""Writes the members of a cohort to a file for a spreadsheet.

Decides what the file holds. See `spreadsheet` for how it is written, and `cohort.freeze` for the
files that prove a cohort.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa

from cohortlake.cohort.describe.attrition import attrition
from cohortlake.cohort.export import spreadsheet
from cohortlake.cohort.select.selected import Selected


def export(selected: Selected, path: Path) -> int:
    """Write the members; to .xlsx also the attrition, and what they were drawn from and how.

    Args:
        selected: The members.
        path: A .csv, .xlsx or .parquet file.

    Returns:
        How many members there are.

    Raises:
        ExportError: It cannot be written, or cannot hold them.
        MissingExtra: openpyxl is not installed.
    """
    spreadsheet.check(path)
    sheets = {"members": selected.members.to_arrow()}
    if path.suffix.lower() == ".xlsx":
        counts = attrition(selected).to_pandas()
        sheets["attrition"] = pa.Table.from_pandas(counts, preserve_index=False)
        sheets["provenance"] = _provenance(selected)
    spreadsheet.write(path, sheets)
    return len(sheets["members"])


def _provenance(selected: Selected) -> pa.Table:
    tables, publication = selected.tables, selected.tables.publication
    facts = {
        "cohort": selected.criteria.name,
        "drawn_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "published_at": publication.published_at,
        "image_sets_version": str(publication.image_sets_version),
        "policy": publication.policy,
        "as_of": tables.as_of.isoformat() if tables.as_of else "now",
        "written_by": f"cohortlake {version('cohortlake')}",
    }
    lines = [*facts.items(), *(("criteria", s) for s in selected.criteria.to_yaml().splitlines())]
    return pa.table({"what": [what for what, _ in lines], "value": [value for _, value in lines]})
