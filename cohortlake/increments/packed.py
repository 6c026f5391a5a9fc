"""Packed increments: old increments of one data store and axis, together in one file.

A packed file has the rows of its increments one after another, as they were, and their records in
its footer. It lies in the folder `packed` of the axis. Its name holds the name of its newest
increment and the number of increments, so that a listing shows whether it is applied. See
`history.packing` for which increments are packed, and when.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from cohortlake import schema
from cohortlake.errors import DamagedFile
from cohortlake.increments.record import Record

FOLDER = "packed"
_NAME = re.compile(r"(?P<partition>[^~/]+)~(?P<newest>[^~/]+)~(?P<count>\d+)\.parquet")


@dataclass(frozen=True)
class Member:
    """An increment of a file.

    Attributes:
        record: Its record.
        rows: How many rows of the file it has.
    """

    record: Record
    rows: int


def is_packed(path: str) -> bool:
    """Return whether a path is that of a packed file."""
    return path.split("/")[3] == FOLDER


def path_of(increments: Sequence[str]) -> str:
    """Return the path of the packed file of some increments, given by their paths in order."""
    _, datastore_id, axis, partition, name = increments[-1].split("/")
    newest = name.removesuffix(".parquet")
    packed = f"{partition}~{newest}~{len(increments)}.parquet"
    return "/".join(("increments", datastore_id, axis, FOLDER, packed))


def newest_in(path: str) -> str:
    """Return the path that the last increment of a packed file had as a file of its own.

    Raises:
        DamagedFile: The file has a name that no packed file has.
    """
    parts, (_, datastore_id, axis, *_) = _parts_of(path), path.split("/")
    newest = f"{parts['newest']}.parquet"
    return "/".join(("increments", datastore_id, axis, parts["partition"], newest))


def count_in(path: str) -> int:
    """Return how many increments a packed file has, by its name. See `newest_in`."""
    return int(_parts_of(path)["count"])


def to_footer(members: Iterable[Member]) -> bytes:
    """Return the records of a packed file as JSON for the footer."""
    increments = [{"rows_in_file": member.rows, **asdict(member.record)} for member in members]
    items = {"format": schema.FORMAT_VERSION, "increments": increments}
    return json.dumps(items, default=datetime.isoformat).encode()


def from_footer(text: bytes) -> list[Member]:
    """Parse the JSON of a packed file's footer."""
    return [
        Member(rows=items.pop("rows_in_file"), record=Record.from_items(items))
        for items in json.loads(text)["increments"]
    ]


def _parts_of(path: str) -> re.Match[str]:
    parts = _NAME.fullmatch(path.rsplit("/", 1)[1])
    if parts is None:
        raise DamagedFile(path)
    return parts
