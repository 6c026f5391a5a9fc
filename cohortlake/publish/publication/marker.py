"""The marker: a file that says what is published. It is written last, and read by all readers.

Imports little, because every reader of a lake imports this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cohortlake import schema
from cohortlake.dicom_terms import did_you_mean_column
from cohortlake.errors import ColumnNotShown, LakeError, UnknownColumn
from cohortlake.publish.publication.snapshots import Snapshot
from cohortlake.schema import Column, Identifies
from cohortlake.storage import damage
from cohortlake.storage.root import Root

MARKER_PATH = "published/_published.json"


@dataclass(frozen=True)
class PublishedFile:
    """A published file, as it was written.

    Attributes:
        rows: The number of its rows.
        size_bytes: Its size; None if an older release wrote the marker.
        sha256: The SHA-256 of its content in hex; None if it is not known.
    """

    rows: int
    size_bytes: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Publication:
    """What is published.

    Attributes:
        image_sets_version: The version of the version history that it shows.
        policy: The name of the privacy policy.
        policy_digest: A hash of everything that this policy does.
        widened: The columns of which it shows more than the built-in policy that it extends.
        columns: Table -> the columns that are shown.
        format: The version of the layout of the files.
        published_at: When it was published, on the publishing machine's clock, UTC.
        files: Path below the root -> the file that was written there.
        observed_since: When the first search with a row in it began, on the service's clock; None
            if nothing was ever found.
        observed_until: When the last search with a row in it began.
        written: The paths that this run wrote.
        removed: The paths of earlier publications that this run deleted after the marker was
            written.
        key_fingerprint: The fingerprint of the key of the hashes; empty if an older release wrote
            the files.
        complete_until: Data store -> the instant up to which no change of it is missing, on the
            service's clock; None if changes before the first search may be missing. Empty if an
            older release wrote the marker.
        catalogue: Path of a file beside the tables, such as the data dictionary -> the SHA-256 of
            its content in hex.
        headers: Study month -> a hash of the files of `headers/` that `series_headers` shows.
        replaced: The columns whose values are replaced under the key; None if an older release
            wrote the marker.
    """

    image_sets_version: int
    policy: str
    policy_digest: str
    widened: tuple[str, ...]
    columns: dict[str, tuple[str, ...]] = field(repr=False)
    format: int
    published_at: str
    files: dict[str, PublishedFile] = field(repr=False)
    observed_since: str | None = None
    observed_until: str | None = None
    written: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    key_fingerprint: str = ""
    complete_until: dict[str, str | None] = field(default_factory=dict)
    catalogue: dict[str, str] = field(default_factory=dict, repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    replaced: tuple[str, ...] | None = None

    def shows_true_uids(self) -> bool:
        """Return whether the UIDs are those of the data store. If it is not known, they are not."""
        if self.replaced is None:
            return self.policy in ("limited", "identified")
        return not self.replaced

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
        if table not in self.columns:  # of a release that did not have it: it is empty
            return tuple(c for c in schema.published(table) if c.identifies is Identifies.NO)
        return tuple(by_name[name] for name in self.columns[table])

    def not_shown(self, name: str) -> ColumnNotShown | None:
        """Return the error for a column that the policy hides in all tables, or None.

        Args:
            name: The column that was asked for. For a name that is not in the schema, None is
                returned.
        """
        columns = {c.name.casefold(): c for table in schema.PUBLISHED.values() for c in table}
        column = columns.get(name.casefold())
        shown = {name for names in self.columns.values() for name in names}
        if column is None or column.name in shown:
            return None
        instead = next((form.name for form in schema.forms(column) if form.name in shown), None)
        # Every built-in policy shows these, so the files may be older than the column.
        may_be_new = not instead and column.identifies in (Identifies.NO, Identifies.CALENDAR)
        return ColumnNotShown(column.name, self.policy, instead, may_be_new=may_be_new)

    def unknown(self, name: str, table: str, known: Iterable[str]) -> LakeError:
        """Return the error for a column that a table does not have.

        Args:
            name: The column.
            table: What the error calls the table.
            known: The columns that the table has.
        """
        near = did_you_mean_column(name, known)
        return self.not_shown(name) or UnknownColumn(name, table, near)

    def snapshot(self) -> Snapshot:
        """Return what the list of snapshots keeps of it."""
        rows = {table: self.rows(table) for table in schema.PUBLISHED}
        return Snapshot(
            self.published_at, self.image_sets_version, self.policy, self.observed_until, rows
        )

    def to_marker(self) -> bytes:
        """Return the content of the marker: everything but what this run wrote and removed."""
        done = ("written", "removed")
        items = {name: value for name, value in vars(self).items() if name not in done}
        # One line for each item, because json takes ten times as long to indent.
        lines = [f"{json.dumps(k)}: {json.dumps(v, default=vars)}" for k, v in items.items()]
        return ("{" + ",\n ".join(lines) + "}").encode()


def read_marker(root: Root) -> Publication | None:
    """Return what is published, or None if nothing is."""
    return read_marker_with_tag(root)[0]


def read_marker_with_tag(root: Root) -> tuple[Publication | None, str | None]:
    """Return what is published, and the tag of the marker that `write_marker` takes."""
    there = root.read_if_there(MARKER_PATH)
    if there is None:
        return None, None
    content, tag = there
    return _from_json(content), tag


def write_marker(root: Root, publication: Publication, tag: str | None) -> bool:
    """Write the marker, unless another run published since it was read.

    Two machines may publish to S3 at the same time, and each replaces files of the other. Only
    one of them can replace the marker that both read. The other one has to publish again.

    Args:
        root: The lake.
        publication: What is published now.
        tag: The tag of the marker that was read before the publication began.

    Returns:
        Whether the marker was written.

    Raises:
        RootNotUsable: The marker cannot be written.
    """
    return root.replace(MARKER_PATH, publication.to_marker(), tag)


def _from_json(content: bytes) -> Publication:
    with damage.parsed(MARKER_PATH):
        items = json.loads(content)
    # A marker of an older format: everything is published again before it is read.
    items = {"policy_digest": "", "widened": (), "columns": {}} | items
    if items.get("replaced") is not None:
        items["replaced"] = tuple(items["replaced"])
    columns = {table: tuple(names) for table, names in items["columns"].items()}
    files = {path: _file(entry) for path, entry in items["files"].items()}
    return Publication(
        **items | {"widened": tuple(items["widened"]), "columns": columns, "files": files}
    )


def _file(entry: int | dict[str, Any]) -> PublishedFile:
    # Older releases wrote the number of rows only.
    return PublishedFile(entry) if isinstance(entry, int) else PublishedFile(**entry)
