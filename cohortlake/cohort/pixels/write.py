"""Writes the manifest of a cohort's pixels, whole or not at all, some entries at a time.

What pixels are fetched by is either published, or stands in `headers/` of the restricted zone: the
ids of frames. These are read only for image sets that the published tables show with their true
UIDs. So a manifest never shows more than the policy does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from cohortlake.bill import DICOMWEB_PER_SECOND, FRAMES_PER_SECOND
from cohortlake.cohort.freeze.manifest import Manifest
from cohortlake.cohort.pixels import ahi_retrieve, croissant, dicomweb, entries, monai
from cohortlake.cohort.pixels.about import About
from cohortlake.cohort.pixels.entries import Entry
from cohortlake.cohort.pixels.summary import (
    GONE,
    NO_HEADER,
    NO_SERIES_UID,
    Counts,
    PixelManifest,
)
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.cohort.select.selected import Selected
from cohortlake.errors import ExportError, PixelsNotReachable, did_you_mean
from cohortlake.settings import Settings
from cohortlake.storage.disk import whole_file, whole_folder
from cohortlake.storage.root import Root

if TYPE_CHECKING:
    from cohortlake.headers.frames import FrameIndex

_FRAMES_OF_A_SERIES = 300  # where they are not known


@dataclass(frozen=True)
class Format:
    """A format of manifests.

    Attributes:
        write: Writes the entries to the path.
        needs_frames: Whether entries need the ids of their frames.
        place: Gives the path to write to.
        tps: The quota of the requests that fetch the pixels.
        requests: How many these are.
        needs_series_uid: Whether entries need a SeriesInstanceUID.
    """

    write: Callable[[Path, Iterator[Entry], About], None]
    needs_frames: bool
    place: Callable[[Path], AbstractContextManager[Path]]
    tps: float
    requests: Callable[[Counts], int]
    needs_series_uid: bool = False


def _each_frame(counts: Counts) -> int:
    return counts.frames


def _each_series_and_instance(counts: Counts) -> int:
    return counts.series + counts.instances


FORMATS = {
    "ahi-retrieve": Format(
        ahi_retrieve.write, True, whole_folder, FRAMES_PER_SECOND, _each_frame
    ),
    "monai": Format(monai.write, False, whole_file, FRAMES_PER_SECOND, _each_frame),
    "croissant": Format(croissant.write, True, whole_folder, FRAMES_PER_SECOND, _each_frame),
    "dicomweb": Format(
        dicomweb.write, False, whole_file, DICOMWEB_PER_SECOND, _each_series_and_instance, True
    ),
}  # fmt: skip


def write(selected: Selected, path: Path, name: str, label: str | None) -> PixelManifest:
    """Write the manifest of a cohort, with the versions that the lake shows.

    Args:
        selected: The cohort.
        path: The file or folder, which must not be there.
        name: The format.
        label: The column of the members that holds the labels, or None.

    Raises:
        ExportError: The format is unknown, the path is taken, or nothing can be written.
        UnknownColumn: The members have no such column.
        BadCriteria: A member has no label, or parts of the split cannot be named in the format.
        PixelsNotReachable: What pixels are fetched by is not shown, not there or not readable.
    """
    _check(path, name)
    criteria = selected.criteria
    parts = criteria.split.parts if criteria.split else ()
    table = entries.of_cohort(selected, label)
    return _write(selected.tables, table, path, name, criteria.name, criteria.about, parts, label)


def write_frozen(
    tables: OpenedTables, frozen: Manifest, path: Path, name: str, label: str | None
) -> PixelManifest:
    """Write the manifest of a frozen cohort, with the versions that were frozen; see `write`.

    Raises:
        NotAsFrozen: The frozen files were changed.
    """
    _check(path, name)
    criteria = frozen.read_criteria()
    parts = criteria.split.parts if criteria.split else ()
    table = entries.of_frozen(tables, frozen, label)
    return _write(tables, table, path, name, frozen.label, criteria.about, parts, label)


def _check(path: Path, name: str) -> None:
    if name not in FORMATS:
        raise ExportError(
            f"{name!r} is no format of a manifest{did_you_mean(name, FORMATS)} "
            f"(formats: {', '.join(FORMATS)})"
        )
    if path.exists() or path.is_symlink():
        raise ExportError(
            f"{path} is there already, and a manifest replaces nothing: delete it, or name "
            "another path"
        )
    if not path.name:
        raise ExportError(f"{path} is no name of a file; name one")


def _write(
    tables: OpenedTables,
    table: pa.Table,
    path: Path,
    name: str,
    cohort: str,
    description: str,
    parts: tuple[str, ...],
    label: str | None,
) -> PixelManifest:
    format_, publication = FORMATS[name], tables.publication
    if not len(table):
        raise ExportError(
            f"the cohort {cohort} has no members, so there are no pixels to fetch; its "
            "attrition shows which step left nobody"
        )
    about = About(
        cohort, description, publication.policy, publication.published_at, parts, label,
        table.schema.field("label").type,
    )  # fmt: skip
    index = _index(tables, table) if format_.needs_frames else None
    try:
        with format_.place(path) as draft:
            format_.write(draft, _counted(table, index, format_, about), about)
            if not about.counts.series:
                raise PixelsNotReachable(_nothing_left(about.counts))
    except OSError as error:
        raise ExportError(
            f"cannot write {path}: {error.strerror}; name a path in a folder that is there and "
            "that this user may write, with room left"
        ) from None
    return PixelManifest(
        path=str(path),
        format=name,
        cohort=cohort,
        policy=publication.policy,
        published_at=publication.published_at,
        requests=format_.requests(about.counts),
        tps=format_.tps,
        **about.counts.to_dict(),
    )


def _index(tables: OpenedTables, table: pa.Table) -> FrameIndex:
    from cohortlake.headers.frames import FrameIndex  # here and not above: it imports boto3

    root = _whole_root(tables.root)
    keys = zip(table["image_set_id"].to_pylist(), table["version"].to_pylist(), strict=True)
    index = FrameIndex(root, keys)
    if not len(index) and any(table["has_header"].to_pylist()):
        raise PixelsNotReachable(
            f"the ids of frames stand in {root.uri_of('headers')}, where there are none: set "
            "COHORTLAKE_ROOT to the whole lake, which needs the right to read its restricted zone"
        )
    return index


def _whole_root(root: Root) -> Root:
    """Return the root of the whole lake, where readers opened the other place of `published/`."""
    settings = Settings.from_env()
    if settings.published and Root(settings.published).uri == root.uri:
        return Root(settings.root, settings.published)
    return root


def _counted(
    table: pa.Table, index: FrameIndex | None, format_: Format, about: About
) -> Iterator[Entry]:
    """Yield the entries that can be fetched, with their frames; note the others."""
    kept = _kept(table, index, format_, about)
    if index is None:
        for entry in kept:
            about.counts.add(entry)
            yield entry
        return
    waiting = deque[Entry]()

    def wanted() -> Iterator[tuple[tuple[str, int], int]]:
        for entry in kept:
            waiting.append(entry)
            yield entry.key, entry.frame_count or _FRAMES_OF_A_SERIES

    for instances in index.read(wanted()):
        entry = waiting.popleft()
        entry.take(instances)
        about.counts.add(entry)
        yield entry


def _kept(
    table: pa.Table, index: FrameIndex | None, format_: Format, about: About
) -> Iterator[Entry]:
    for entry in entries.read(table):
        if entry.version_now is None:
            about.leave_out(entry, GONE)
        elif index is not None and entry.key not in index:
            about.leave_out(entry, NO_HEADER)
        elif format_.needs_series_uid and entry.SeriesInstanceUID is None:
            about.leave_out(entry, NO_SERIES_UID)
        else:
            yield entry


def _nothing_left(counts: Counts) -> str:
    listed = ", ".join(f"{reason}: {n:,}" for reason, n in counts.left_out.items())
    return (
        f"no series of the cohort can be fetched ({listed}); `cohortlake enrich --cohort` fetches "
        "headers"
    )
