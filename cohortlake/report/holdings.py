"""What the lake holds: how many of each, and of which modalities and body parts."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from cohortlake.cohort import Lake
from cohortlake.cohort.select import withheld
from cohortlake.report.cells import PERSON, Breakdown, breakdown, is_few

_MOST_VALUES = 12


@dataclass(frozen=True)
class Holdings:
    """What the lake holds.

    Attributes:
        rows: Published table -> rows; of patients None where there are few.
        modalities: Series by modality; None where the policy does not show it.
        body_parts: Series by body part; likewise.
    """

    rows: dict[str, int | None]
    modalities: Breakdown | None
    body_parts: Breakdown | None


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
    known = lake.columns("series")
    by = {
        column: breakdown(
            lake,
            f"SELECT {withheld.told(column, pa.string(), known)} AS {column}, {PERSON} FROM series",
            column,
            "count(*)",
            below,
            _MOST_VALUES,
        )
        for column in ("Modality", "BodyPartExamined")
        if column in known
    }
    told = dict(zip(tables, rows, strict=True))
    if is_few(told["patients"], below):  # of a lake where most series have none
        told["patients"] = None
    return Holdings(told, by.get("Modality"), by.get("BodyPartExamined"))
