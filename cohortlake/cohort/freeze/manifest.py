"""Frozen cohorts: who the members were, how they were drawn, and from what.

Owns the files below `cohorts/<name>/`: a numbered manifest per freezing, which is never
written again, and the members under the name of their digest. What became of members since
is `verify`'s.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from cohortlake import schema
from cohortlake.cohort.define.criteria import Criteria
from cohortlake.cohort.define.values import Parameter
from cohortlake.cohort.describe.attrition import attrition
from cohortlake.cohort.freeze import digest, signature
from cohortlake.errors import NotAsFrozen, UnknownCohort
from cohortlake.storage import damage
from cohortlake.storage.root import Root

if TYPE_CHECKING:
    from cohortlake.cohort.cohort import Cohort
    from cohortlake.cohort.lake import Lake

FOLDER = "cohorts"
CURRENT = "current/members.parquet"
"""Below a cohort's folder: its members as they were drawn last."""
_MANIFEST = re.compile(rf"{FOLDER}/([a-z][a-z0-9_]*)/(\d{{4,}})\.json")


@dataclass(frozen=True)
class Manifest:
    """What was frozen.

    Attributes:
        cohort: Its name.
        number: From 1; each freezing of a name has the next.
        frozen_at: When, on this machine's clock, UTC.
        criteria: The cohort, as YAML.
        sql: The query that gave the members.
        params: The values in it.
        image_sets_version: Version of the memory that the published tables showed.
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

    def says_the_same_as(self, other: Manifest) -> bool:
        """Return whether two manifests freeze the same, whenever and by whichever release."""
        same = ("criteria", "outside", "digest", "policy", "widened", "as_of", "format")
        return all(getattr(self, name) == getattr(other, name) for name in same)


def freeze(cohort: Cohort, key: bytes | None) -> Manifest:
    """Write down who the members are. Where nothing changed since the last time, nothing is.

    Args:
        cohort: The cohort.
        key: To sign with, or None.

    Raises:
        RootNotUsable: It cannot be written.
    """
    root = cohort.lake.root
    name, drawn = cohort.criteria.name, cohort.to_arrow()
    while True:
        last = read(root, name) if name in numbers_of(root) else None
        members = with_digests(digest.salted(drawn, _members_there(root, last) if last else None))
        manifest = _manifest(cohort, members, key, last.number + 1 if last else 1)
        if last and last.says_the_same_as(manifest) and (last.signature is None) == (key is None):
            return last
        if not root.exists(manifest.members):
            write_members(root, manifest.members, members, manifest.digest)
        root.create(manifest.path, json.dumps(asdict(manifest), indent=1).encode())
        if read(root, manifest.cohort, manifest.number) == manifest:
            return manifest  # and not that of one that was faster


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
        told = name if number is None else f"{name}@{number}"
        raise UnknownCohort(told, known, f"was frozen below {root.uri}")
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
    """Return the members that were frozen, after a look that they are as they were.

    A row that was erased stays, with its digest, the day and nothing else.

    Raises:
        NotAsFrozen: They are not.
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
    """Return members with the digest of each."""
    return members.append_column(digest.COLUMN, pa.array(digest.of_members(members), pa.string()))


def write_members(root: Root, path: str, members: pa.Table, whole: str) -> None:
    """Write members, with the digest of all in the footer.

    Raises:
        RootNotUsable: They cannot be written.
    """
    told = members.replace_schema_metadata({"cohortlake.digest": whole})
    with root.writing(path) as stream:
        pq.write_table(told, stream, compression="zstd", compression_level=3)


def _manifest(cohort: Cohort, members: pa.Table, key: bytes | None, number: int) -> Manifest:
    lake, counted = cohort.lake, attrition(cohort)
    query, params = cohort.selection.query(cohort.selection.members)
    whole = digest.of_all(members[digest.COLUMN].to_pylist())
    name = cohort.criteria.name
    manifest = Manifest(
        cohort=name,
        number=number,
        frozen_at=datetime.now(UTC).isoformat(timespec="seconds"),
        criteria=cohort.criteria.to_yaml(),
        sql=query,
        params={name: _plain(value) for name, value in params.items()},
        image_sets_version=lake.as_opened.image_sets_version,
        published_at=lake.as_opened.published_at,
        policy=lake.as_opened.policy,
        widened=list(lake.as_opened.widened),
        as_of=lake.as_of.isoformat() if lake.as_of else None,
        seen_until=_seen_until(lake),
        attrition=[{"criterion": s.criterion, **vars(s.counts)} for s in counted.steps],
        parts=counted.parts,
        outside=outside_digests(lake, cohort.criteria),
        members=f"{FOLDER}/{name}/members/{whole[:32]}.parquet",
        rows=len(members),
        digest=whole,
        format=schema.FORMAT_VERSION,
        written_by=f"cohortlake {version('cohortlake')}",
    )
    return replace(manifest, signature=signature.sign(key, manifest.signed)) if key else manifest


def outside_digests(lake: Lake, criteria: Criteria) -> dict[str, str]:
    """Return the digest of each outside table that some criteria join."""
    return {
        join.table: digest.of_all(digest.of_members(lake.outside[join.table]))
        for join in criteria.joins
    }


def _seen_until(lake: Lake) -> str | None:
    if "observed_from" not in lake.columns("history"):
        return None
    seen = lake.sql("SELECT max(greatest(observed_from, observed_to)) AS seen FROM history")
    (latest,) = seen.to_arrow()["seen"].to_pylist()
    return latest.isoformat() if latest else None


def _plain(value: Parameter) -> Any:
    return value.isoformat() if isinstance(value, date | time) else value
