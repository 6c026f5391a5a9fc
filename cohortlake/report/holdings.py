"""What the lake holds: how many of each, and of which modalities and body parts."""

from __future__ import annotations

from dataclasses import dataclass

from cohortlake.cohort import Lake
from cohortlake.report.cells import PERSON, Breakdown, breakdown

_MOST_VALUES = 12


@dataclass(frozen=True)
class Holdings:
    """What the lake holds.

    Attributes:
        rows: Published table -> rows.
        modalities: Series by modality.
        body_parts: Series by body part.
    """

    rows: dict[str, int]
    modalities: Breakdown
    body_parts: Breakdown


def persons(lake: Lake) -> int:
    """Return how many patients there are, as cells count them."""
    ((number,),) = lake.sql(
        f"SELECT count(DISTINCT person) FROM (SELECT {PERSON} FROM image_sets)"
    ).fetchall()
    return int(number)


def holdings(lake: Lake, below: int) -> Holdings:
    """Count what the lake holds.

    Args:
        lake: The lake.
        below: The least number of patients that may be shown.
    """
    tables = ("patients", "studies", "series", "image_sets", "history")
    counts = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables)
    (rows,) = lake.sql(f"SELECT {counts}").fetchall()
    by = {
        column: breakdown(
            lake,
            f"SELECT {column}, {PERSON} FROM series",
            column,
            "count(*)",
            below,
            _MOST_VALUES,
        )
        for column in ("Modality", "BodyPartExamined")
    }
    return Holdings(dict(zip(tables, rows, strict=True)), by["Modality"], by["BodyPartExamined"])
