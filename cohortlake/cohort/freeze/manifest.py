"""Writes and reads frozen cohorts: the members, the criteria that selected them, and the source.

Below `cohorts/<name>/` there is a numbered manifest for each freezing, and a file of members that
is named by their digest. Only an erasure or a new key changes them. See `verify` for how members
changed since.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, time
from importlib.metadata import version
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cohortlake import schema
from cohortlake.cohort.define.criteria import Criteria
from cohortlake.cohort.define.values import Parameter
from cohortlake.cohort.describe import short_table
from cohortlake.cohort.describe.attrition import attrition
from cohortlake.cohort.freeze import digest, signature
from cohortlake.cohort.freeze.image_sets import with_image_sets
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.cohort.select.selected import Selected
from cohortlake.errors import NotAsFrozen, UnknownCohort
from cohortlake.flatten import with_pandas_dtypes
from cohortlake.storage import damage
from cohortlake.storage.root import Root

FOLDER = "cohorts"
CURRENT = "current/members.parquet"
"""Below a cohort's folder: its members as they were drawn last."""
_MANIFEST = re.compile(rf"{FOLDER}/([a-z][a-z0-9_]*)/(\d{{4,}})\.json")


@dataclass(frozen=True, repr=False)
class Manifest:
    """What was frozen.

    Attributes:
        cohort: Its name.
        number: From 1; each freezing of a name has the next.
        frozen_at: When, on this machine's clock, UTC.
        criteria: The cohort, as YAML.
        sql: The query that gave the members.
        params: The values in it.
        image_sets_version: Version of the history that the published tables showed.
        published_at: When they were published.
        policy: The privacy policy they were under.
        as_of: The instant they were looked at, or None for what was true then.
        seen_until: The last instant at which the lake had seen anything change; None where it had
            seen nothing, or the policy does not tell.
        attrition: Who was left after each step.
        parts: Part of the split -> patients in it.
        outside: Outside table -> digest of its rows.
        members: Path of the members below the lake's root.
        rows: How many there are.
        digest: See `cohort.freeze.digest`.
        format: Layout of the files.
        written_by: The release that froze it.
        signature: HMAC-SHA-256 of all else, or None where there was no key.
        widened: What the policy shows more of than the built-in one that it extends.
    """

    cohort: str
    number: int
    frozen_at: str
    criteria: str
    sql: str
    params: dict[str, Any]
    image_sets_version: int
    published_at: str
    policy: str
    as_of: str | None
    seen_until: str | None
    attrition: list[dict[str, Any]]
    parts: dict[str, int]
    outside: dict[str, str]
    members: str
    rows: int
    digest: str
    format: int
    written_by: str
    signature: str | None = None
    widened: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """How it is asked for: `screening@2`."""
        return f"{self.cohort}@{self.number}"

    @property
    def path(self) -> str:
        """Its path below the lake's root."""
        return f"{FOLDER}/{self.cohort}/{self.number:04d}.json"

    @property
    def signed(self) -> bytes:
        """What a signature is of."""
        unsigned = {name: value for name, value in asdict(self).items() if name != "signature"}
        return json.dumps(unsigned, sort_keys=True).encode()

    def read_criteria(self) -> Criteria:
        """Return the criteria."""
        return Criteria.from_yaml(self.criteria)

    @property
    def _facts(self) -> dict[str, object]:
        return {
            "members": self.rows,
            "frozen": short_table.minute(self.frozen_at),
            "published": short_table.minute(self.published_at),
            "policy": self.policy,
            "as of": short_table.minute(self.as_of) if self.as_of else "the publication",
            "parts": self.parts,
            "joined tables": list(self.outside),
            "signed": self.signature is not None,
            "digest": self.digest,
            "file": self.path,
        }

    def __repr__(self) -> str:
        return short_table.text(f"frozen cohort {self.label}", self._facts)

    def _repr_html_(self) -> str:
        return short_table.html(f"frozen cohort {self.label}", self._facts)

    def says_the_same_as(self, other: Manifest) -> bool:
        """Return whether two manifests freeze the same, whenever and by whichever release."""
        same = ("criteria", "outside", "digest", "policy", "widened", "as_of", "format")
        return all(getattr(self, name) == getattr(other, name) for name in same)


def freeze(selected: Selected, key: bytes | None) -> Manifest:
    """Write the members and their manifest, unless nothing changed since the last freezing.

    Args:
        selected: The members.
        key: To sign with, or None.

    Raises:
        RootNotUsable: They cannot be written.
    """
    root = selected.tables.root
    name, drawn = selected.criteria.name, selected.members.to_arrow()
    while True:
        last = read(root, name) if name in numbers_of(root) else None
        salted = digest.salted(drawn, _members_there(root, last) if last else None)
        members = with_digests(with_image_sets(selected, salted))
        manifest = _manifest(selected, members, key, last.number + 1 if last else 1)
        if last and last.says_the_same_as(manifest) and (last.signature is None) == (key is None):
            return last
        if not root.exists(manifest.members):
            write_members(root, manifest.members, members, manifest.digest)
        root.create(manifest.path, json.dumps(asdict(manifest), indent=1).encode())
        if read(root, manifest.cohort, manifest.number) == manifest:
            return manifest  # no other process took this number


def read(root: Root, name: str, number: int | None = None) -> Manifest:
    """Return a manifest.

    Args:
        root: The lake.
        name: The cohort's.
        number: Which; the last by default.

    Raises:
        UnknownCohort: Nothing was frozen under that name and number.
    """
    numbers = numbers_of(root).get(name, [])
    wanted = number if number is not None else (numbers or [0])[-1]
    if wanted not in numbers:
        known = [f"{n}@{i}" for n, own in numbers_of(root).items() for i in own]
        asked = name if number is None else f"{name}@{number}"
        raise UnknownCohort(asked, known, f"was frozen below {root.uri}")
    path = f"{FOLDER}/{name}/{wanted:04d}.json"
    content = root.read(path)
    with damage.parsed(path):
        return Manifest(**json.loads(content))


def numbers_of(root: Root) -> dict[str, list[int]]:
    """Return the numbers under which each cohort was frozen, ascending."""
    found = [_MANIFEST.fullmatch(path) for path in root.files(FOLDER, ".json")]
    numbers: dict[str, list[int]] = {}
    for name, number in sorted((m[1], int(m[2])) for m in found if m):
        numbers.setdefault(name, []).append(number)
    return numbers


def read_members(root: Root, manifest: Manifest) -> pa.Table:
    """Read the members that were frozen, and check that they are unchanged.

    An erased row is still there. It holds its digest and the day, and nothing else.

    Raises:
        NotAsFrozen: They were changed, or the file is gone.
    """
    if not root.exists(manifest.members):
        raise NotAsFrozen(f"{root.uri_of(manifest.members)} is gone; restore it from a backup")
    with damage.opened(root, manifest.members) as file:
        members = pq.read_table(file)
    kept = members[digest.COLUMN].to_pylist()
    held = zip(members["patient_key"].to_pylist(), kept, digest.of_members(members), strict=True)
    is_true = all(patient is None or stored == found for patient, stored, found in held)
    if not is_true or digest.of_all(kept) != manifest.digest:
        raise NotAsFrozen(
            f"{root.uri_of(manifest.members)} is not what {manifest.path} says; restore it from "
            "a backup"
        )
    return members


def _members_there(root: Root, manifest: Manifest) -> pa.Table | None:
    """Return the members of a manifest, changed or not; None where the file is gone."""
    if not root.exists(manifest.members):
        return None
    with damage.opened(root, manifest.members) as file:
        return pq.read_table(file)


def with_digests(members: pa.Table) -> pa.Table:
    """Return members with a column of their digests."""
    return members.append_column(digest.COLUMN, pa.array(digest.of_members(members), pa.string()))


def write_members(root: Root, path: str, members: pa.Table, whole: str) -> None:
    """Write members, with the digest of all in the footer.

    Raises:
        RootNotUsable: They cannot be written.
    """
    with_digest = members.replace_schema_metadata({"cohortlake.digest": whole})
    with root.writing(path) as stream:
        pq.write_table(
            with_pandas_dtypes(with_digest), stream, compression="zstd", compression_level=3
        )


def _manifest(selected: Selected, members: pa.Table, key: bytes | None, number: int) -> Manifest:
    tables, counted = selected.tables, attrition(selected)
    query, params = selected.query.with_stages(selected.query.members)
    whole = digest.of_all(members[digest.COLUMN].to_pylist())
    name = selected.criteria.name
    manifest = Manifest(
        cohort=name,
        number=number,
        frozen_at=datetime.now(UTC).isoformat(timespec="seconds"),
        criteria=selected.criteria.to_yaml(),
        sql=query,
        params={name: _plain(value) for name, value in params.items()},
        image_sets_version=tables.publication.image_sets_version,
        published_at=tables.publication.published_at,
        policy=tables.publication.policy,
        widened=list(tables.publication.widened),
        as_of=tables.as_of.isoformat() if tables.as_of else None,
        seen_until=_seen_until(tables),
        attrition=[{"criterion": s.criterion, **vars(s.counts)} for s in counted.steps],
        parts=counted.parts,
        outside=outside_digests(tables, selected.criteria),
        members=f"{FOLDER}/{name}/members/{whole[:32]}.parquet",
        rows=len(members),
        digest=whole,
        format=schema.FORMAT_VERSION,
        written_by=f"cohortlake {version('cohortlake')}",
    )
    return replace(manifest, signature=signature.sign(key, manifest.signed)) if key else manifest


def outside_digests(tables: OpenedTables, criteria: Criteria) -> dict[str, str]:
    """Return the digest of each outside table that some criteria join."""
    return {
        join.table: digest.of_all(digest.of_members(tables.outside[join.table].table))
        for join in criteria.joins
    }


def _seen_until(tables: OpenedTables) -> str | None:
    if "observed_from" not in tables.columns("history"):
        return None
    seen = tables.sql("SELECT max(greatest(observed_from, observed_to)) AS seen FROM history")
    (latest,) = seen.to_arrow()["seen"].to_pylist()
    return latest.isoformat() if latest else None


def _plain(value: Parameter) -> Any:
    return value.isoformat() if isinstance(value, date | time) else value
