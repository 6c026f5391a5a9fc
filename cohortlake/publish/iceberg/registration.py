"""Registers what is published in an Iceberg catalogue: one snapshot a table and publication.

The names of published files stay constant, and their content changes (docs/adr/0022). An Iceberg
table needs files that never change. So each version of a published file gets a name of its own
below `iceberg/TABLE/data/`: a link to the same bytes on a disk, a copy that S3 makes on S3. An old
snapshot reads these files until it expires. See `expiry` for when that is.

A table carries in its current snapshot which files of the marker it shows. So a registration that
was killed, or that never ran, is done by the next one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from cohortlake import schema
from cohortlake.errors import CohortlakeError, NotRegistered, SettingError, without_text
from cohortlake.privacy import erasures
from cohortlake.publish.export.tables import Table, tables
from cohortlake.publish.iceberg import commit, data_files, definition, expiry
from cohortlake.publish.iceberg.catalogue import Target, open_catalogue
from cohortlake.publish.publication.marker import Publication, read_marker
from cohortlake.storage.root import Root

FOLDER = "iceberg"
_RECORD_PATH = f"{FOLDER}/catalogue.json"
_SHOWS = "cohortlake.shows"

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Registration:
    """What all tables of a registration have in common.

    Attributes:
        root: The lake.
        target: Where the tables are registered.
        catalogue: The open catalogue.
        publication: What is published.
        lineage: See `expiry.LINEAGE`.
        verify: Whether to look if each registered file is there.
    """

    root: Root
    target: Target
    catalogue: Any
    publication: Publication
    lineage: str
    verify: bool


def register(root: Root, setting: str, *, verify: bool = False) -> tuple[str, ...]:
    """Bring the Iceberg tables up to date with what is published.

    The caller holds the lock of `Root.publishing`.

    Args:
        root: The lake.
        setting: COHORTLAKE_ICEBERG. If it is empty, nothing is done.
        verify: Whether to look if each registered file is there. Missing ones are added again.

    Returns:
        The tables that got a new snapshot.

    Raises:
        MissingExtra: PyIceberg is not installed.
        NotRegistered: The catalogue or a file cannot be read or written.
        SettingError: The setting cannot be used, or the lake is registered elsewhere.
    """
    publication = read_marker(root) if setting else None
    if publication is None:
        return ()

    def work(target: Target) -> tuple[str, ...]:
        catalogue = open_catalogue(target)
        _note_catalogue(root, setting)
        lineage = _lineage(root, publication)
        run = _Registration(root, target, catalogue, publication, lineage, verify)
        return tuple(t.name for t in tables(publication) if _bring_up_to_date(run, t))

    return _explained(setting, work)


def expire(root: Root, setting: str, retention: timedelta) -> None:
    """Expire the snapshots that are older than the retention, and delete what nobody reads then.

    A snapshot that a tag or a branch of the table names stays. The caller holds the lock of
    `Root.publishing`.

    Args:
        root: The lake.
        setting: COHORTLAKE_ICEBERG. If it is empty, nothing is done.
        retention: COHORTLAKE_RETENTION_DAYS.

    Raises:
        NotRegistered: See `register`.
    """
    if not setting:
        return

    def work(target: Target) -> None:
        catalogue = open_catalogue(target)
        for name in schema.PUBLISHED:
            if (held := definition.load(catalogue, target, name)) is not None:
                instant = datetime.now(UTC) - retention
                expiry.expire_older(root, f"{FOLDER}/{name}", held, instant)

    _explained(setting, work)


def require_setting(root: Root, setting: str) -> None:
    """Refuse to remove rows from what is published if old snapshots would keep them.

    Args:
        root: The lake.
        setting: COHORTLAKE_ICEBERG.

    Raises:
        SettingError: The lake is registered in a catalogue, and the setting does not name it.
    """
    there = root.read_if_there(_RECORD_PATH)
    registered = json.loads(there[0])["catalogue"] if there else setting
    if registered != setting:
        raise SettingError(
            f"{root.uri_of(FOLDER)} holds snapshots of the Iceberg tables {registered}, which "
            f"would keep what is removed now; set COHORTLAKE_ICEBERG={registered}, or drop these "
            "tables and delete that folder"
        )


def _note_catalogue(root: Root, setting: str) -> None:
    """Note where the lake is registered, and refuse a second place: it would share the files."""
    require_setting(root, setting)
    if not root.exists(_RECORD_PATH):
        root.write(_RECORD_PATH, json.dumps({"catalogue": setting}).encode())


def _lineage(root: Root, publication: Publication) -> str:
    """Return a hash of what decides whether an old snapshot may still be read beside a new one."""
    erased = [asdict(each) for each in erasures.read(root)]
    made_by = (publication.policy_digest, publication.format, publication.key_fingerprint)
    return _digest([made_by, erased])


def _bring_up_to_date(registration: _Registration, table: Table) -> bool:
    """Commit what changed in a table. Returns whether anything did."""
    root, publication = registration.root, registration.publication
    folder = f"{FOLDER}/{table.name}"
    held = definition.load_or_create(
        registration.catalogue, registration.target, table, root, folder
    )
    wanted = {
        data_files.version_of(path, written): path
        for path in publication.paths(table.name)
        if (written := publication.files[path]).rows
    }
    shows = _digest(sorted(wanted))
    current = held.current_snapshot()
    is_shown = current is not None and current.summary[_SHOWS] == shows
    has_changed = False
    if registration.verify or not is_shown:
        registered = data_files.registered(root, folder, held, verify=registration.verify)
        new = [path for version, path in wanted.items() if version not in registered.by_version]
        gone = registered.others(wanted)
        if new or gone or (wanted and not is_shown):
            with commit.transaction(held) as transaction:
                metadata = transaction.table_metadata
                added = [_added(registration, folder, metadata, table, path) for path in new]
                properties = {_SHOWS: shows, expiry.LINEAGE: registration.lineage}
                properties["cohortlake.published-at"] = publication.published_at
                commit.replace_files(held, transaction, properties, added, gone)
            has_changed = True
    expiry.expire_other_lineages(root, folder, held, registration.lineage)
    return has_changed


def _added(registration: _Registration, folder: str, metadata: Any, table: Table, path: str) -> Any:
    written = registration.publication.files[path]
    file = data_files.add(registration.root, folder, metadata, table, path, written)
    if file is None:
        raise NotRegistered(
            str(registration.target),
            f"{path} does not hold what was published; either another run publishes now, or the "
            "file was altered, and `cohortlake publish --verify` writes it again",
        )
    return file


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _explained(setting: str, work: Callable[[Target], _Result]) -> _Result:
    """Do some work, and turn errors of the catalogue into ours.

    Their text may hold a password, or the value of a tag.
    """
    try:
        return work(Target.of(setting))
    except CohortlakeError:
        raise
    except Exception as error:
        what = without_text(error)
    # Raised outside `except`, so that `__context__` cannot expose the other message.
    raise NotRegistered(setting, what)
