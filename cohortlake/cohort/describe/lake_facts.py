"""Says what a lake holds, in a few facts: what a notebook shows of it."""

from __future__ import annotations

from cohortlake import schema
from cohortlake.cohort.describe import short_table
from cohortlake.cohort.select.opened_tables import OpenedTables


def facts(tables: OpenedTables) -> dict[str, object]:
    """Return the facts of an opened lake."""
    publication, as_of = tables.publication, tables.as_of
    counted = ("history",) if as_of else schema.PUBLISHED  # others are worked out when asked
    rows = {table: f"{publication.rows(table):,} rows" for table in counted}
    outside = {
        name: f"{len(other.table):,} rows, attached" for name, other in tables.outside.items()
    }
    return {
        **rows,
        **outside,
        "policy": publication.policy,
        "published": short_table.minute(publication.published_at),
        "complete until": _complete_until(tables),
        "as of": short_table.minute(as_of.isoformat()) if as_of else "now",
    }


def _complete_until(tables: OpenedTables) -> str:
    """Return up to when no change of any data store is missing, in words."""
    instants = tables.publication.complete_until.values()
    if not instants:
        return "not known; the next publication by this release says it"
    known = [instant for instant in instants if instant]
    if len(known) < len(instants):
        return "not complete yet"
    return short_table.minute(min(known))
