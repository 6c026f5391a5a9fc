"""All publications so far, and the tags that people gave them.

`published/_snapshots.jsonl` has one line for each publication. `published/_tags/NAME.json` holds
the publication that a tag names. A tag never moves. Maintenance keeps the versions of the version
history that `tagged_versions` returns. Delete the file to remove the tag.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from cohortlake import schema
from cohortlake.errors import TagError, UnknownTag
from cohortlake.instants import is_instant
from cohortlake.storage import damage
from cohortlake.storage.root import Root

_RECORD_PATH = "published/_snapshots.jsonl"
_TAGS = "published/_tags"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
NOW = "now"


@dataclass(frozen=True)
class Snapshot:
    """A publication, as the list of snapshots keeps it.

    Attributes:
        published_at: When it was published, on the publishing machine's clock, UTC.
        image_sets_version: The version of the version history that it shows.
        policy: The name of the privacy policy.
        observed_until: When the last search with a row in it began, on the service's clock; None
            if nothing was ever found.
        rows: Table -> the number of its rows.
    """

    published_at: str
    image_sets_version: int
    policy: str
    observed_until: str | None
    rows: dict[str, int]

    @property
    def knew_until(self) -> datetime:
        """The last instant that it can show; the earliest possible instant if it shows nothing."""
        until = self.observed_until
        return datetime.fromisoformat(until) if until else datetime.min.replace(tzinfo=UTC)

    def to_json(self) -> bytes:
        """Return it as one line."""
        return json.dumps(asdict(self)).encode() + b"\n"


def record(root: Root, snapshot: Snapshot) -> None:
    """Add a publication to the list of snapshots."""
    line = snapshot.to_json()
    before, tag = root.read_if_there(_RECORD_PATH) or (b"", None)
    while not root.replace(_RECORD_PATH, before + line, tag):
        # Two machines publish to S3 at once. Another line may follow ours already.
        before, tag = root.read_if_there(_RECORD_PATH) or (b"", None)
        if line in before.splitlines(keepends=True):
            return


def table(root: Root) -> pa.Table:
    """Return all publications, oldest first, with the columns of `schema.SNAPSHOTS`."""
    content, _ = root.read_if_there(_RECORD_PATH) or (b"", "")
    lines = content.splitlines()
    names: dict[tuple[str, int], list[str]] = defaultdict(list)
    for name, tagged in _tags(root).items():
        names[tagged.published_at, tagged.image_sets_version].append(name)
    rows = [_row(_from_json(line, _RECORD_PATH), names) for line in lines]
    return pa.Table.from_pylist(rows, schema.arrow_schema(schema.SNAPSHOTS))


def tag(root: Root, name: str, snapshot: Snapshot) -> None:
    """Give a publication a name. Giving it the same name again changes nothing.

    Args:
        root: The lake.
        name: The tag.
        snapshot: The publication.

    Raises:
        TagError: The name cannot be used, or names another publication.
    """
    if not _NAME.fullmatch(name) or name == NOW or is_instant(name):
        raise TagError(
            f"{name!r} cannot be a tag; use up to 64 letters, digits and ._- that are no date "
            f"and not {NOW!r}"
        )
    path = f"{_TAGS}/{name}.json"
    root.create(path, snapshot.to_json())
    held = _from_json(root.read(path), path)
    if held.image_sets_version != snapshot.image_sets_version:
        raise TagError(
            f"{name!r} names version {held.image_sets_version} of image_sets, and a tag never "
            f"moves; use another name, or delete {root.uri_of(path)} to remove the tag"
        )


def tagged(root: Root, name: str) -> Snapshot:
    """Return the publication that a tag names.

    Raises:
        UnknownTag: There is no such tag.
    """
    tags = _tags(root)
    if name not in tags:
        raise UnknownTag(name, tags)
    return tags[name]


def tagged_versions(root: Root) -> set[int]:
    """Return the versions of the version history that tags name."""
    return {snapshot.image_sets_version for snapshot in _tags(root).values()}


def _tags(root: Root) -> dict[str, Snapshot]:
    paths = root.files(_TAGS, ".json")
    return {
        path.removeprefix(f"{_TAGS}/").removesuffix(".json"): _from_json(root.read(path), path)
        for path in paths
    }


def _from_json(line: bytes, path: str) -> Snapshot:
    with damage.parsed(path):
        return Snapshot(**json.loads(line))


def _row(snapshot: Snapshot, names: dict[tuple[str, int], list[str]]) -> dict[str, Any]:
    rows = {f"n_{name}": snapshot.rows.get(name) for name in schema.PUBLISHED}
    return {
        **asdict(snapshot),
        "published_at": datetime.fromisoformat(snapshot.published_at),
        "observed_until": snapshot.observed_until and snapshot.knew_until,
        "tags": sorted(names[snapshot.published_at, snapshot.image_sets_version]),
        **rows,
    }
