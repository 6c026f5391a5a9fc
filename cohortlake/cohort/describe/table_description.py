"""Describes a table: its columns, and how many rows lack a value of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cohortlake.cohort.select import withheld
from cohortlake.cohort.select.opened_tables import OpenedTables

if TYPE_CHECKING:
    import pandas as pd


def describe(tables: OpenedTables, table: str) -> pd.DataFrame:
    """Describe the columns of a table; see `Lake.describe`.

    Raises:
        UnknownTable: There is no such table.
    """
    import pandas as pd  # here and not above: see flatten.frame

    columns = tables.described(table)
    names = [column.name for column in columns]
    by_value = [name for name in names if withheld.may_be_withheld(name, names)]
    counts = [f"count(*) FILTER ({withheld.is_missing(c.name, c.type, names)})" for c in columns]
    counts += [f"count(*) FILTER ({withheld.is_withheld(name)})" for name in by_value]
    ((rows, *found),) = tables.sql(
        f'SELECT count(*), {", ".join(counts)} FROM "{table}"'
    ).fetchall()
    missing = dict(zip(names, found, strict=False))
    hidden = dict(zip(by_value, found[len(names) :], strict=True))
    return pd.DataFrame(
        [
            {
                "column": column.name,
                "tag": column.tag,
                "VR": column.vr,
                "type": str(column.type),
                "missing": round(missing[column.name] / rows, 4) if rows else None,
                "withheld": round(hidden.get(column.name, 0) / rows, 4) if rows else None,
                "meaning": column.description,
            }
            for column in columns
        ]
    ).astype({"tag": "string", "VR": "string"})
