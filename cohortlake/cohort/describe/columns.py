"""SQL for columns of the members, with the word `withheld` in place of what is not shown."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from cohortlake.cohort.select import withheld
from cohortlake.cohort.select.selected import Selected
from cohortlake.errors import ValuesWithheld


def shown_columns(selected: Selected, names: Iterable[str]) -> list[str]:
    """Return SQL that selects each of some columns of the members.

    Args:
        selected: The members.
        names: The columns.

    Raises:
        UnknownColumn: The members have no such column.
        ColumnNotShown: The policy does not show it.
        ValuesWithheld: It is a number that the policy withholds of some members. No word can
            stand in its place.
    """
    members, whose = selected.query.described, f"members of {selected.criteria.name}"
    columns = columns_of(selected)
    wanted = list(names)
    selected.tables.require_columns(wanted, whose, columns.names)
    for name in wanted:
        is_number = pa.types.is_integer(columns.field(name).type)
        if is_number and withheld.may_be_withheld(name, columns.names):
            hidden = f"SELECT 1 FROM ({members}) WHERE {withheld.is_withheld(name)} LIMIT 1"
            if selected.ask(hidden).fetchall():
                raise ValuesWithheld(name, whose, selected.tables.publication.policy)
    return [
        f'{withheld.value_or_withheld(name, columns.field(name).type, columns.names)} AS "{name}"'
        for name in wanted
    ]


def columns_of(selected: Selected) -> pa.Schema:
    """Return the columns of the members, with their types."""
    return selected.ask(f"FROM ({selected.query.described}) LIMIT 0").to_arrow().schema
