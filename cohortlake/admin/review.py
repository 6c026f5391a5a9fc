"""The values of free text and of typed-in codes, for a person to review.

A value that many patients share identifies none of them. A rare value may, so it is withheld here
too. The review reads the version history and the headers, so it needs the rights of those who write
the lake. See `privacy.policy` for how a reviewed value is allowed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow.compute as pc
import yaml

from cohortlake import schema
from cohortlake.headers import columns, files
from cohortlake.headers.shown_values import HeaderValues
from cohortlake.history import image_sets
from cohortlake.privacy import REVIEWABLE, Policy
from cohortlake.privacy.treatments import folded, prepare
from cohortlake.schema import header_columns
from cohortlake.storage import engine
from cohortlake.storage.root import Root


@dataclass(frozen=True)
class Reviewed:
    """The values of one column that a policy does not show.

    Attributes:
        column: The column.
        values: Value -> patients that share it, most patients first. Rare values are left out.
        rare: Number of values that too few patients share.
    """

    column: str
    values: Mapping[str, int]
    rare: int


def review(root: Root, policy: Policy, least: int, most_values: int) -> list[Reviewed]:
    """Return the values that a policy does not show, and that may be reviewed.

    Args:
        root: The lake.
        policy: The policy.
        least: Minimum number of patients that share a value.
        most_values: Maximum number of values of each column.

    Returns:
        The values to review, for each column of which the policy shows reviewed values.
    """
    with engine.connection() as con:
        prepare(con, policy)
        image_sets.register(con, root)
        found = list[Reviewed]()
        for column in schema.STATE:
            if policy.treatment(column) not in REVIEWABLE:
                continue
            query = _QUERY.format(name=column.name, folded=folded(column.name))
            rows = con.execute(query, {"column": column.name}).fetchall()
            shared = {value: patients for value, patients in rows if patients >= least}
            shown = dict(list(shared.items())[:most_values])
            found.append(Reviewed(column.name, shown, len(rows) - len(shared)))
    return [*found, *_of_headers(root, policy, least, most_values)]


def _of_headers(root: Root, policy: Policy, least: int, most_values: int) -> Iterator[Reviewed]:
    """Yield the values of the columns of headers, as `review` does."""
    reviewed = [c for c in header_columns.COLUMNS if policy.treatment(c) in REVIEWABLE]
    values = HeaderValues(policy, key=b"")
    patients: dict[str, dict[str, set[str]]] = {column.name: {} for column in reviewed}
    for path in files.paths(root):
        for stored in files.read(root, path):
            rows = stored.filter(pc.is_valid(stored["header"]))
            read = columns.read(rows.to_pylist())
            for name, of_value in patients.items():
                sent = zip(read[name].to_pylist(), rows["PatientID"].to_pylist(), strict=True)
                for value, patient in sent:
                    if value is not None and not values.shows(name, value):
                        of_value.setdefault(value, set()).add(patient)
    for name, of_value in patients.items():
        shared = {value: len(own) for value, own in of_value.items() if len(own) >= least}
        most_first = sorted(shared.items(), key=lambda item: (-item[1], item[0]))
        if of_value:
            yield Reviewed(name, dict(most_first[:most_values]), len(of_value) - len(shared))


def as_yaml(reviewed: list[Reviewed]) -> str:
    """Return the entry `allow` of a policy file. Delete from it what must not be shown."""
    allow = {one.column: list(one.values) for one in reviewed if one.values}
    return yaml.safe_dump({"allow": allow}, allow_unicode=True, sort_keys=False, width=10_000)


_QUERY = """
SELECT {name} AS value, count(DISTINCT (datastore_id, PatientID)) AS patients
FROM current
WHERE {name} IS NOT NULL AND {folded} NOT IN (
    SELECT value FROM shown_values WHERE name = $column
)
GROUP BY value ORDER BY patients DESC, value
"""
