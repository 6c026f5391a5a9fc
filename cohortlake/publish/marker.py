"""What stands in `published/`: the marker that `publisher` writes last, and all readers read.

Imports nothing of what publishing needs: whoever opens a lake pays for what is here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from cohortlake import schema
from cohortlake.errors import ColumnNotShown, LakeError, UnknownColumn
from cohortlake.publish.snapshots import Snapshot
from cohortlake.schema import Column
from cohortlake.storage import damage
from cohortlake.storage.root import Root

MARKER_PATH = "published/_published.json"


@dataclass(frozen=True)
class PublishedFile:
    """A published file, as it was written.

    Attributes:
        rows: Its rows.
        size_bytes: Its size; None in a marker of a release that did not write sizes down.
        sha256: The SHA-256 of its content in hex; None where that is not known.
    """

    rows: int
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Publication:
    """What stands in `published/`.

    Attributes:
        image_sets_version: Version of the memory that it shows.
        policy: The name of the privacy policy that was applied.
        policy_digest: A number for all that this policy does.
        widened: What it shows more of than the built-in one that it extends.
        columns: Table -> the columns that it shows.
        format: Layout of the files.
        published_at: When, on this machine's clock, UTC.
        files: Path below the root -> what was written there.
        observed_since: When the first search began of which it knows, on the service's clock; None
            where nothing was ever found.
        observed_until: When the last one did that taught it something.
        written: Paths this run wrote.
        removed: Paths of earlier publications that this run deleted once it had written the marker.
        key_fingerprint: The fingerprint of the key that the files were made with; empty where an
            older release wrote them.
    """

    image_sets_version: int
    policy: str
    policy_digest: str
    widened: tuple[str, ...]
    columns: dict[str, tuple[str, ...]]
    format: int
    published_at: str
    files: dict[str, PublishedFile]
    observed_since: str | None = None
    observed_until: str | None = None
    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    key_fingerprint: str = ""

    def rows(self, table: str) -> int:
        """Return how many rows a table has."""
        return sum(self.files[path].rows for path in self.paths(table))

    def paths(self, table: str) -> list[str]:
        """Return the paths of a table's files."""
        return [path for path in self.files if path.startswith(f"published/{table}/")]

    def shown(self, table: str) -> tuple[Column, ...]:
        """Return the columns of a table that the policy shows.

        Raises:
            UnknownTable: There is no such table.
        """
        by_name = {form.name: form for c in schema.published(table) for form in schema.forms(c)}
        return tuple(by_name[name] for name in self.columns[table])

    def not_shown(self, name: str) -> ColumnNotShown | None:
        """Return the error for a column of the schema that no table has under the policy.

        Args:
            name: What was asked for; None is returned for what is no column of the schema.
        """
        columns = {c.name.casefold(): c for table in schema.PUBLISHED.values() for c in table}
        column = columns.get(name.casefold())
        shown = {name for names in self.columns.values() for name in names}
        if column is None or column.name in shown:
            return None
        instead = next((form.name for form in schema.forms(column) if form.name in shown), None)
        return ColumnNotShown(column.name, self.policy, instead)

    def unknown(self, name: str, table: str, known: Iterable[str]) -> LakeError:
        """Return the error for a column that a table does not have.

        Args:
            name: The column.
            table: The table, in words.
            known: The columns that it has.
        """
        return self.not_shown(name) or UnknownColumn(name, table, known)

    def snapshot(self) -> Snapshot:
        """Return what the record keeps of it."""
        rows = {table: self.rows(table) for table in schema.PUBLISHED}
        return Snapshot(
            self.published_at, self.image_sets_version, self.policy, self.observed_until, rows
        )

    def to_marker(self) -> bytes:
        """Return what the marker file says: all but what this run did."""
        done = ("written", "removed")
        items = {name: value for name, value in asdict(self).items() if name not in done}
        return json.dumps(items, indent=1).encode()


def read_marker(root: Root) -> Publication | None:
    """Return what stands in `published/`, or None where nothing was published."""
    return read_marker_with_tag(root)[0]


def read_marker_with_tag(root: Root) -> tuple[Publication | None, str | None]:
    """Return what stands in `published/`, and the tag that `write_marker` takes."""
    if not root.exists(MARKER_PATH):
        return None, None
    content, tag = root.read_with_tag(MARKER_PATH)
    return _from_json(content), tag


def write_marker(root: Root, publication: Publication, tag: str | None) -> bool:
    """Write the marker if no other run published since it was read.

    Two machines may publish to S3 at the same time, and each replaces files of the other. Only
    one of them can replace the marker that both read. The other one publishes again.

    Args:
        root: The lake.
        publication: What stands there now.
        tag: The tag of the marker that the publication began with.

    Returns:
        Whether it was written.

    Raises:
        RootNotUsable: It cannot be written.
    """
    return root.replace(MARKER_PATH, publication.to_marker(), tag)


def _from_json(content: bytes) -> Publication:
    with damage.parsed(MARKER_PATH):
        said = json.loads(content)
    # Of an older format: it is published anew before anybody reads it.
    said = {"policy_digest": "", "widened": (), "columns": {}} | said
    columns = {table: tuple(names) for table, names in said["columns"].items()}
    files = {path: _file(entry) for path, entry in said["files"].items()}
    return Publication(
        **said | {"widened": tuple(said["widened"]), "columns": columns, "files": files}
    )


def _file(entry: int | dict[str, Any]) -> PublishedFile:
    # Earlier releases wrote the rows only.
    return PublishedFile(entry) if isinstance(entry, int) else PublishedFile(**entry)
