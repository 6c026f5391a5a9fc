"""What a policy shows of the columns of a header, value by value.

Headers are read in Python, some thousand rows at a time, so their values are treated there. See
`privacy.treatments` for the columns of the version history, which DuckDB treats.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from cohortlake import schema
from cohortlake.dicom_values import PADDING, SEPARATOR
from cohortlake.headers import terms
from cohortlake.privacy.keyed_hashes import keyed_uid
from cohortlake.privacy.policy import Policy, Treatment
from cohortlake.schema import Column, header_columns

_Treat = Callable[[Any], Any]


class HeaderValues:
    """Treats the columns of headers.

    Args:
        policy: The policy.
        key: The key that UIDs are replaced with.
    """

    def __init__(self, policy: Policy, key: bytes) -> None:
        self._shown = [c.name for c in header_columns.COLUMNS if policy.shown_as(c)]
        found = {c.name: _treatment(policy, c, key) for c in header_columns.COLUMNS}
        self._treated = {
            name: treat for name, treat in found.items() if name in self._shown and treat
        }

    def shows(self, name: str, value: object) -> bool:
        """Return whether a value of a column is shown."""
        return name in self._shown and (
            name not in self._treated or self._treated[name](value) is not None
        )

    def treat(self, headers: pa.Table) -> pa.Table:
        """Return rows as the policy shows them.

        Args:
            headers: Rows with the columns of `header_columns.COLUMNS`.

        Returns:
            The same rows without the columns that are not shown, and with `withheld_fields`.
        """
        withheld: list[list[str]] = [[] for _ in range(len(headers))]
        shown = headers.select(self._shown)
        for name, treat in self._treated.items():
            values = headers[name].to_pylist()
            treated = [None if value is None else treat(value) for value in values]
            for fields, value, now in zip(withheld, values, treated, strict=True):
                if value is not None and now is None:
                    fields.append(name)
            place = self._shown.index(name)
            shown = shown.set_column(place, name, pa.array(treated, headers[name].type))
        type_ = schema.WITHHELD_FIELDS.type
        return shown.append_column(schema.WITHHELD_FIELDS.name, pa.array(withheld, type_))


def _treatment(policy: Policy, column: Column, key: bytes) -> _Treat | None:
    match policy.treatment(column):
        case Treatment.REPLACE:
            return lambda uid: keyed_uid(key, uid)
        case Treatment.TERMS | Treatment.REVIEWED as treatment:
            shown = {_folded(value) for value in policy.allowed.get(column.name, ())}
            if treatment is Treatment.TERMS:
                shown |= terms.OF_COLUMNS[column.name]
            return lambda value: value if _is_shown(value, shown) else None
    return None


def _is_shown(value: str, shown: set[str]) -> bool:
    folded = _folded(value)
    return folded in shown or all(part in shown for part in folded.split(SEPARATOR))


def _folded(value: str) -> str:
    """Return a value in upper case if it is ASCII: libraries differ in that of other letters."""
    value = value.strip(PADDING)
    return value.upper() if value.isascii() else value
