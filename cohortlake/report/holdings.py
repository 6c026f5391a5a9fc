"""What the lake holds: how many of each, and of which modalities and body parts."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from cohortlake.cohort.select import withheld
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.report.cells import PERSON, Breakdown, breakdown, is_few

_MOST_VALUES = 12


@dataclass(frozen=True)
class Holdings:
    """What the lake holds.

    Attributes:
        rows: Published table -> rows. None for patients if there are few.
        modalities: Series by modality; None if the policy does not show it.
        body_parts: Series by body part; None if the policy does not show it.
    """

    rows: dict[str, int | None]
    modalities: Breakdown | None
    body_parts: Breakdown | None


def persons(tables: OpenedTables) -> int:
    """Return how many patients there are, as cells count them."""
    ((number,),) = tables.sql(
        f"SELECT count(DISTINCT person) FROM (SELECT {PERSON} FROM image_sets)"
    ).fetchall()
    return int(number)


def holdings(tables: OpenedTables, below: int) -> Holdings:
    """Count what the lake holds.

    Args:
        tables: The opened tables.
        below: The least number of patients that may be shown.
    """
    names = ("patients", "studies", "series", "image_sets", "history")
    counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in names)
    (rows,) = tables.sql(f"SELECT {counts}").fetchall()
    known = tables.columns("series")
    shown = {c: withheld.value_or_withheld(c, pa.string(), known) for c in known}
    by = {
        column: breakdown(
            tables,
            f"SELECT {shown[column]} AS {column}, {PERSON} FROM series",
            column,
            "count(*)",
            below,
            _MOST_VALUES,
        )
        for column in ("Modality", "BodyPartExamined")
        if column in known
    }
    n_rows = dict(zip(names, rows, strict=True))
    if is_few(n_rows["patients"], below):  # most series may have no patient
        n_rows["patients"] = None
    return Holdings(n_rows, by.get("Modality"), by.get("BodyPartExamined"))
