"""Verifies a frozen cohort: which members joined, left or changed since, and why.

The criteria select again from what is published now. See `compare` for how two sets of members
differ, and `image_sets` for the image sets whose version changed. The reason comes from the
published history: what happened since the freezing to the image sets of a member, or to other
studies of the same patient. `diff` compares two freezings.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from html import escape
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.cohort.describe import short_table
from cohortlake.cohort.freeze import compare, digest, image_sets, signature
from cohortlake.cohort.freeze import manifest as freeze
from cohortlake.cohort.freeze.manifest import Manifest
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.cohort.select.selected import select
from cohortlake.flatten import to_frame

if TYPE_CHECKING:
    import pandas as pd

ERASED = "erased"
_BY_POLICY = "erased by policy"


@dataclass(frozen=True, repr=False)
class Verification:
    """How a frozen cohort compares with the same criteria today.

    Attributes:
        manifest: What was frozen.
        differences: One row per member that differs: what (joined, left, changed or erased), its
            keys, patient_key, changed_columns, why and when. Where the policy shows no instants,
            or showed none then, why is what happened last to its image sets, and when is missing.
        signature: valid, unchecked (there is no key here) or unsigned.
        image_sets: One row per frozen image set that has another version now, or is gone: what,
            datastore_id, image_set_id, frozen_version and version. Its pixels may not be the same.
            None if an older release froze the members, or the policy hid versions.
        outside_changed: Outside tables that are not what they were.
    """

    manifest: Manifest
    differences: pd.DataFrame
    signature: str
    image_sets: pd.DataFrame | None = None
    outside_changed: tuple[str, ...] = ()

    @property
    def is_identical(self) -> bool:
        """Whether the criteria give the same members and values, of image sets unchanged since."""
        return self.differences.empty and (self.image_sets is None or self.image_sets.empty)

    @property
    def counts(self) -> dict[str, int]:
        """How many joined, left, changed or were erased; only what there is."""
        return _counts(self.differences)

    @property
    def reasons(self) -> pd.DataFrame:
        """How many of each, by why and on which day."""
        import pandas as pd  # here and not above: see flatten.frame

        day = pd.to_datetime(self.differences["when"], utc=True).dt.strftime("%Y-%m-%d")
        reasons = self.differences.assign(day=day)[["what", "why", "day"]].astype("string")
        return reasons.value_counts(dropna=False).rename("members").reset_index()

    @property
    def _title(self) -> str:
        return f"verification of {self.manifest.label}"

    @property
    def _facts(self) -> dict[str, object]:
        return {
            "identical": self.is_identical,
            "members frozen": self.manifest.rows,
            **self.counts,
            "image sets that changed or are gone": (
                "not recorded" if self.image_sets is None else len(self.image_sets)
            ),
            "signature": self.signature,
            "joined tables that changed": self.outside_changed,
        }

    def __repr__(self) -> str:
        return short_table.text(self._title, self._facts)

    def _repr_html_(self) -> str:
        reasons = "" if self.differences.empty else self.reasons.to_html(index=False)
        return short_table.html(self._title, self._facts) + reasons


@dataclass(frozen=True, repr=False)
class Difference:
    """How two frozen cohorts differ.

    Attributes:
        before: The one.
        after: The other.
        criteria: A unified diff of their YAML; empty where it is the same.
        differences: One row per member that differs: what (joined, left or changed), its keys,
            patient_key and changed_columns; empty columns where their levels differ. Members that
            were erased from either are in neither.
    """

    before: Manifest
    after: Manifest
    criteria: str
    differences: pd.DataFrame

    @property
    def counts(self) -> dict[str, int]:
        """How many joined, left or changed; only what there is."""
        return _counts(self.differences)

    @property
    def _title(self) -> str:
        return f"{self.before.label} and {self.after.label}"

    @property
    def _facts(self) -> dict[str, object]:
        return {
            "members before": self.before.rows,
            "members after": self.after.rows,
            **self.counts,
            "criteria": "changed" if self.criteria else "the same",
        }

    def __repr__(self) -> str:
        return f"{short_table.text(self._title, self._facts)}\n{self.criteria}".rstrip()

    def _repr_html_(self) -> str:
        criteria = f"<pre>{escape(self.criteria)}</pre>" if self.criteria else ""
        return short_table.html(self._title, self._facts) + criteria


def _counts(differences: pd.DataFrame) -> dict[str, int]:
    return {str(what): int(n) for what, n in differences["what"].value_counts().items()}


def verify(tables: OpenedTables, manifest: Manifest, key: bytes | None) -> Verification:
    """Select the members of a frozen cohort again, and compare.

    Args:
        tables: The opened tables, as of the instant of the freezing, with its outside tables.
        manifest: What was frozen.
        key: To check its signature with, or None.

    Raises:
        NotAsFrozen: The frozen files themselves were changed.
        UnknownTable: An outside table is not attached.
    """
    signed = _signature(manifest, key)
    before = freeze.read_members(tables.root, manifest)
    criteria = manifest.read_criteria()
    for join in criteria.joins:
        tables.outside_table(join.table)  # it must be attached
    outside = freeze.outside_digests(tables, criteria)
    erased = before.filter(pc.is_null(before["patient_key"]))
    after = select(tables, criteria).members.to_arrow()
    found = compare.differences(tables.connection, criteria.level, _kept(before), after)
    differing = _with_reasons(tables, criteria.level, found, manifest)
    changed = tuple(sorted(t for t, d in outside.items() if manifest.outside.get(t) != d))
    is_older = manifest.format < schema.FORMAT_VERSION
    frame = _as_frame(differing, _days(erased), changed, is_older=is_older)
    other = None
    if digest.IMAGE_SETS in before.column_names:
        other = to_frame(image_sets.differing(tables, before))
    return Verification(manifest, frame, signed, other, changed)


def diff(tables: OpenedTables, before: Manifest, after: Manifest) -> Difference:
    """Compare two frozen cohorts.

    Args:
        tables: The opened tables of the lake in which they were frozen.
        before: The one.
        after: The other.

    Raises:
        NotAsFrozen: The frozen files themselves were changed.
    """
    criteria = "".join(
        difflib.unified_diff(
            before.criteria.splitlines(keepends=True),
            after.criteria.splitlines(keepends=True),
            before.label,
            after.label,
        )
    )
    one, other = before.read_criteria().level, after.read_criteria().level
    sets = [_kept(freeze.read_members(tables.root, manifest)) for manifest in (before, after)]
    level = one if one == other else "patient"
    if one != other:  # what they have in common are patients
        sets = [m.group_by("patient_key").aggregate([]) for m in sets]
    return Difference(
        before, after, criteria, to_frame(compare.differences(tables.connection, level, *sets))
    )


def _kept(members: pa.Table) -> pa.Table:
    """Return the members that were not erased, with their values and digests."""
    kept = members.filter(pc.is_valid(members["patient_key"]))
    return kept.drop_columns([name for name in (digest.ERASED_ON,) if name in kept.column_names])


def _signature(manifest: Manifest, key: bytes | None) -> str:
    if manifest.signature is None:
        return "unsigned"
    if key is None:
        return "unchecked"
    signature.check(key, manifest.signed, manifest.signature, manifest.path)
    return "valid"


# If the policy shows no instants, or showed none at the freezing, the last event of each image set
# is the best guess.
_EVENTS = """
SELECT datastore_id, image_set_id, {began} AS happened_at,
       CASE change WHEN 'updated' THEN 'changed ' || array_to_string(changed_fields, ', ')
                   ELSE 'image sets ' || change END AS event
FROM history WHERE {is_new}
UNION ALL
SELECT datastore_id, image_set_id, {ended}, 'image sets deleted'
FROM history WHERE {has_ended} AND ended_by = 'deleted'
"""
_SINCE = {
    "began": "valid_from",
    "is_new": "($seen IS NULL OR observed_from > $seen)",
    "ended": "valid_to",
    "has_ended": "($seen IS NULL OR observed_to > $seen)",
}
_LAST = {
    "began": "NULL::TIMESTAMPTZ",
    "is_new": "ended_by IS NULL",
    "ended": "NULL::TIMESTAMPTZ",
    "has_ended": "true",
}

# The image sets of a member are all that ever belonged to it. Their events are the first reason,
# the events of other image sets of the patient are the second.
_REASONS = """
WITH events AS ({events}), happened AS (
    SELECT DISTINCT datastore_id, image_set_id, patient_key, StudyInstanceUID,
           coalesce(SeriesInstanceUID, image_set_id) AS series_id, event, happened_at
    FROM history JOIN events USING (datastore_id, image_set_id)
), own AS (
    SELECT number, string_agg(DISTINCT event, '; ' ORDER BY event) AS why,
           max(happened_at) AS happened_at
    FROM differing JOIN happened USING ({keys}) GROUP BY number
), of_patient AS (
    SELECT number, string_agg(DISTINCT event, '; ' ORDER BY event) AS why,
           max(happened_at) AS happened_at
    FROM differing JOIN happened USING (patient_key) GROUP BY number
)
SELECT differing.* EXCLUDE (number),
       coalesce(own.why, 'other studies of the patient: ' || of_patient.why) AS why,
       coalesce(own.happened_at, of_patient.happened_at) AS "when"
FROM differing LEFT JOIN own USING (number) LEFT JOIN of_patient USING (number)
ORDER BY number
"""


def _with_reasons(
    tables: OpenedTables, level: str, found: pa.Table, manifest: Manifest
) -> pa.Table:
    seen = datetime.fromisoformat(manifest.seen_until) if manifest.seen_until else None
    numbers = pa.array(range(len(found)), pa.int64())
    # An empty lake had seen nothing, so every event came later. Otherwise None means that the
    # policy did not show when.
    is_known = seen is not None or not manifest.attrition[0]["series"]
    has_instants = is_known and "observed_from" in tables.columns("history")
    events = _EVENTS.format_map(_SINCE if has_instants else _LAST)
    tables.connection.register("differing", found.append_column("number", numbers))
    try:
        query = _REASONS.format(events=events, keys=", ".join(compare.KEYS[level]))
        return tables.sql(query, {"seen": seen} if has_instants else None).to_arrow()
    finally:
        tables.connection.unregister("differing")


_DERIVED = "how the tables are derived did"


def _as_frame(
    found: pa.Table,
    erased: Sequence[date | None],
    outside_changed: tuple[str, ...],
    *,
    is_older: bool,
) -> pd.DataFrame:
    """Return the differences as a frame, with those that were erased."""
    cause = "it was frozen by a release that reads values otherwise"
    elsewhere = f"nothing of it changed in the lake; {cause if is_older else _DERIVED}"
    if outside_changed:
        elsewhere = f"changed outside the lake: {', '.join(outside_changed)}"
    rows = [row | {"why": row["why"] or elsewhere} for row in found.to_pylist()]
    nothing = dict.fromkeys(found.column_names) | {"changed_columns": []}
    for day in erased:
        at = datetime.combine(day, time(), UTC) if day else None
        rows.append(nothing | {"what": ERASED, "why": _BY_POLICY, "when": at})
    return to_frame(pa.Table.from_pylist(rows, found.schema))


def _days(erased: pa.Table) -> list[date | None]:
    """Return the days on which members were erased; None if somebody emptied the rows by hand."""
    if digest.ERASED_ON not in erased.column_names:
        return [None] * len(erased)
    days: list[date | None] = erased[digest.ERASED_ON].to_pylist()
    return days
