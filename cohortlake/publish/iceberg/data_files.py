"""The files of an Iceberg table: versions of published files, each under a name of its own."""

from __future__ import annotations

import contextlib
import os
import re
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from cohortlake import schema
from cohortlake.optional_dependencies import module
from cohortlake.publish.export.tables import Table
from cohortlake.publish.publication import intact
from cohortlake.publish.publication.marker import PublishedFile
from cohortlake.storage.root import Root

_NAME = re.compile(r"(.+)-[0-9a-f]{8}\.parquet")
"""The path of a file below `data/`: the version, and what no other file has in its name."""


@dataclass(frozen=True)
class Registered:
    """The files that a table shows.

    Attributes:
        by_version: Version of a published file -> the file that holds it.
        foreign: Files that are not as a registration left them.
    """

    by_version: dict[str, Any]
    foreign: tuple[Any, ...]

    def others(self, wanted: Collection[str]) -> list[Any]:
        """Return the files that hold none of the wanted versions."""
        old = [file for version, file in self.by_version.items() if version not in wanted]
        return [*old, *self.foreign]


def version_of(path: str, written: PublishedFile) -> str:
    """Return a name for a published file with its present content."""
    _, _, below = path.removeprefix("published/").partition("/")
    content = written.sha256 or f"{written.size_bytes}_{written.rows}"
    return f"{below.removesuffix('.parquet')}-{content}"


def registered(root: Root, folder: str, held: Any, *, verify: bool) -> Registered:
    """Return the files of a table's current snapshot.

    Args:
        root: The lake.
        folder: The folder of the table.
        held: The table.
        verify: Whether to take files that are not there for foreign ones.
    """
    snapshot = held.current_snapshot()
    by_version, foreign = {}, []
    place = f"{root.uri_of(folder)}/data/"
    there = root.sizes(f"{folder}/data", ".parquet") if verify and snapshot else {}
    for file in files_of(held, snapshot) if snapshot else ():
        below = file.file_path.removeprefix(place)
        match = _NAME.fullmatch(below)
        is_intact = not verify or there.get(f"{folder}/data/{below}") == file.file_size_in_bytes
        if match and is_intact and match[1] not in by_version:
            by_version[match[1]] = file
        else:
            foreign.append(file)
    return Registered(by_version, tuple(foreign))


def files_of(held: Any, snapshot: Any) -> list[Any]:
    """Return the files that a snapshot of a table shows."""
    manifests = snapshot.manifests(held.io)
    return [
        entry.data_file
        for manifest in manifests
        for entry in manifest.fetch_manifest_entry(held.io, discard_deleted=True)
    ]


def add(
    root: Root, folder: str, metadata: Any, table: Table, path: str, written: PublishedFile
) -> Any | None:
    """Give a published file a name that stays, and return it as a data file of Iceberg.

    Args:
        root: The lake.
        folder: The folder of the table.
        metadata: The metadata of the table.
        table: The published table.
        path: The published file.
        written: What was written there.

    Returns:
        The data file; None if the published file does not hold what was written.
    """
    name = f"{folder}/data/{version_of(path, written)}-{uuid.uuid4().hex[:8]}.parquet"
    _link_or_copy(root, path, name)
    with intact.checked(root, name, written) as file:
        size = file.size() if file is not None else 0
        parquet = pq.read_metadata(file) if file is not None else None
    if parquet is None:
        root.delete(name)
        return None
    manifest = module("pyiceberg.manifest")
    period = path.split("/")[-2].partition("=")[2] if table.partition else None
    values = [None if period == schema.UNDATED else period] if table.partition else []
    return manifest.DataFile.from_args(
        content=manifest.DataFileContent.DATA,
        file_path=root.uri_of(name),
        file_format=manifest.FileFormat.PARQUET,
        partition=module("pyiceberg.typedef").Record(*values),
        file_size_in_bytes=size,
        sort_order_id=None,
        spec_id=metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **_statistics(metadata, parquet),
    )


def _link_or_copy(root: Root, path: str, name: str) -> None:
    """Give the content of a published file a second name. On S3, S3 makes a copy."""
    location = root.location_of(name)
    root.make_folder(name.rpartition("/")[0])
    with location.explained():
        if location.is_local:
            with contextlib.suppress(OSError):  # a file system without links
                os.link(root.path(path), root.path(name))
                return
        location.filesystem.copy_file(root.path(path), root.path(name))


def _statistics(metadata: Any, parquet: pq.FileMetaData) -> dict[str, Any]:
    """Return counts, sizes and bounds of the columns, by which engines skip files."""
    arrow = module("pyiceberg.io.pyarrow")
    plan = arrow.compute_statistics_plan(metadata.schema(), metadata.properties)
    ids = arrow.parquet_path_to_id_mapping(metadata.schema())
    # Columns that the table leaves out get an id without statistics.
    left_out = 1 + max(plan)
    none = arrow.MetricsMode(arrow.MetricModeTypes.NONE)
    plan[left_out] = arrow.StatisticsCollector(left_out, None, none, "")
    for number in range(len(parquet.schema)):
        ids.setdefault(parquet.schema.column(number).path, left_out)
    found = arrow.data_file_statistics_from_parquet_metadata(parquet, plan, ids)
    values: dict[str, Any] = found.to_serialized_dict()
    values["column_sizes"].pop(left_out, None)
    return values
