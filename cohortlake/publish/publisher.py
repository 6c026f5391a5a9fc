"""Publishes the version history as plain Parquet, each row once, under a privacy policy.

Only files in which something changed are written. The steps of a publication, in order: `plan` says
what is written, `patients`, `period_tables` and `series_headers` write the tables, and `marker`
names the files that readers read.
"""

from __future__ import annotations

import functools
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cohortlake import schema
from cohortlake.errors import DamagedFile
from cohortlake.headers import files as header_files
from cohortlake.headers.shown_values import HeaderValues
from cohortlake.healthimaging import EPOCH
from cohortlake.history import coverage, image_sets
from cohortlake.history.history_index import HistoryIndex
from cohortlake.privacy import Policy, fingerprint
from cohortlake.privacy.key_store import IN_LAKE
from cohortlake.privacy.keyed_hashes import create_macros
from cohortlake.privacy.treatments import prepare
from cohortlake.publish import patients, period_tables, series_headers
from cohortlake.publish.export import catalogue
from cohortlake.publish.plan import make_plan
from cohortlake.publish.publication import intact, snapshots
from cohortlake.publish.publication.marker import (
    Publication,
    read_marker,
    read_marker_with_tag,
    write_marker,
)
from cohortlake.publish.publication.published_key import key_to_publish_with
from cohortlake.publish.writer import Writer
from cohortlake.settings import Settings
from cohortlake.storage import engine
from cohortlake.storage.root import Root

_YEAR_ALONE = re.compile(r"=\d{4}/")
"""The folder of a year in earlier releases. See `schema.YEAR_FORMAT` for its name now."""
_REQUEST_PATH = "published/full_publish_requested"
_MEMORY_OF_MANY = "400MB"
_FEW_ROWS = 20_000  # so many changed rows need no more memory than `engine` gives
_MOST_CHANGED_ROWS = 1_500_000  # more of them need too much memory: everything is published
_MEMORY_OF_HEADERS = "150MB"  # more rows of 200 columns are spilled


def publish(
    root: Root,
    policy: Policy,
    key_source: str = IN_LAKE,
    *,
    settle: timedelta = Settings.settle,
    verify: bool = False,
    with_new_key: bool = False,
    may_replace: Callable[[Publication | None], None] = lambda _: None,
) -> Publication | None:
    """Bring `published/` up to date.

    Files that are missing, or are not as they were written, are written again. If no row changed
    and only the coverage did, the marker alone is written: its `complete_until` is what readers
    know of the coverage.

    Args:
        root: The lake.
        policy: The privacy policy. Under another policy than before, every file is written.
        key_source: Where the key of the hashes is. See `privacy.key_store`.
        settle: How long the search index may lag. See `coverage.covered_intervals`.
        verify: Whether to read all files and compare their content. By default only their sizes
            are compared.
        with_new_key: Whether a rotation of the key asks for this publication. Only then may the
            key differ from that of the published files, and a full publish must be requested.
        may_replace: Gets what is published, before anything is written, and raises to refuse.

    Returns:
        What is published now, or None if nothing was ever applied.

    Raises:
        MissingKey: The lake was published before, and its key is missing.
        WrongKey: The lake was published with another key.
    """
    publish_now = functools.partial(
        _publish,
        root,
        policy,
        key_source,
        settle=settle,
        with_new_key=with_new_key,
        may_replace=may_replace,
    )
    try:
        return publish_now(verify=verify)
    except DamagedFile as error:
        is_published = error.path.startswith("published/") and error.path.endswith(".parquet")
        if verify or not is_published:
            raise
        # A file that is read to write others has other content under its size.
        marker = read_marker(root)
        if marker and error.path not in marker.files:
            root.delete(error.path)  # it is not published, and nobody can read it
        return publish_now(verify=True)


def _publish(
    root: Root,
    policy: Policy,
    key_source: str,
    *,
    settle: timedelta,
    verify: bool,
    with_new_key: bool,
    may_replace: Callable[[Publication | None], None],
) -> Publication | None:
    before, tag = read_marker_with_tag(root)
    may_replace(before)
    latest = before
    while True:
        # Before the version: a run records its coverage after its rows, so this version has them.
        complete_until = _complete_until(root, settle)
        version = image_sets.version(root)
        sizes = intact.sizes(root)
        request = _full_request(root) if _REQUEST_PATH in sizes else None
        altered = intact.altered(root, before, sizes, verify=verify) if before else {}
        # The file of `patients` must hold the patients that are not counted again.
        must_be_full = request or any(map(patients.is_file, altered))
        since = None if must_be_full else _version_to_continue(before, policy)
        header_sizes = header_files.sizes(root)
        headers = header_files.digests(header_sizes)
        is_up_to_date = before is not None and (
            (since, before.policy, before.headers) == (version, policy.name, headers)
        )
        if version is None or (is_up_to_date and not altered):
            if before is None:
                return None
            # The folder may have been moved.
            digests = catalogue.bring_up_to_date(root, before, policy, _described(before, sizes))
            moved_on = replace(before, complete_until=complete_until, catalogue=digests)
            if moved_on == before:
                return before
            # If another run published meanwhile, its marker says how far it is complete.
            return moved_on if write_marker(root, moved_on, tag) else read_marker(root)
        key = key_to_publish_with(root, key_source, latest, with_new_key=with_new_key)
        if since is None and not request:
            # A run that is killed leaves files that the next run has to replace or remove.
            request = request_full_publish(root)
        if before:
            before = replace(before, files=intact.with_sizes(before.files, sizes))
        rewrite = frozenset(period for path in altered if (period := _period(path)))
        publication = _publish_since(
            root, policy, key, before, since, version, rewrite, headers, header_sizes
        )
        digests = catalogue.bring_up_to_date(root, publication, policy, _described(before, sizes))
        publication = replace(
            publication, complete_until=complete_until, catalogue=digests, headers=headers
        )
        snapshots.record(root, publication.snapshot())
        # Write the marker after all new files, so that a run that is killed before it leaves its
        # months due. Remove files after it, so that readers of the marker find all that it names.
        if write_marker(root, publication, tag):
            _remove(root, publication.removed)
            if request and request == _full_request(root):  # and not requested again meanwhile
                root.delete(_REQUEST_PATH)
            return publication
        # Another run published meanwhile, and may have replaced our files by older ones. Write
        # what changed since `before` again.
        latest, tag = read_marker_with_tag(root)
        if latest is None or _made_by(latest) != _made_by(publication):
            request_full_publish(root)


def request_full_publish(root: Root) -> bytes:
    """Ask the next publication to write every file and to remove all others.

    Returns:
        The id of this request.
    """
    request = uuid.uuid4().hex.encode()
    root.write(_REQUEST_PATH, request)
    return request


def _described(before: Publication | None, there: Collection[str]) -> dict[str, str]:
    """Return the files of the catalogue that are there, and the hashes of their content."""
    known = before.catalogue if before else {}
    return {path: digest for path, digest in known.items() if path in there}


def _complete_until(root: Root, settle: timedelta) -> dict[str, str | None]:
    """Return up to when each data store is complete, for the marker."""
    rows = coverage.read(root, coverage.INTERVAL_COLUMNS)
    found: dict[str, str | None] = {}
    for datastore_id in sorted(rows["datastore_id"].unique().to_pylist()):
        until = coverage.complete_until(coverage.covered_intervals(rows, datastore_id, settle))
        found[datastore_id] = until.isoformat() if until > EPOCH else None
    return found


def _full_request(root: Root) -> bytes | None:
    """Return the id of the request for a full publication that is not done yet, or None."""
    there = root.read_if_there(_REQUEST_PATH)
    return None if there is None else there[0] or b"of an older release"


def _version_to_continue(before: Publication | None, policy: Policy) -> int | None:
    """Return the version that was published, or None if all its files must be written again."""
    if before is None or not before.key_fingerprint:
        # Without a fingerprint, some files may have been made with another key.
        return None
    is_same = (before.policy_digest, before.format) == (policy.digest, schema.FORMAT_VERSION)
    # Two releases may publish different columns under one policy.
    is_same = is_same and before.columns == policy.tables
    is_same = is_same and not any(map(_YEAR_ALONE.search, before.files))
    return before.image_sets_version if is_same else None


def _made_by(publication: Publication) -> tuple[str, int, str]:
    return publication.policy_digest, publication.format, publication.key_fingerprint


def _period(path: str) -> str:
    """Return the period of a published file; empty if its table has none."""
    return path.split("/")[-2].partition("=")[2]


def _publish_since(
    root: Root,
    policy: Policy,
    key: bytes,
    before: Publication | None,
    since: int | None,
    version: int,
    rewrite: frozenset[str],
    headers: Mapping[str, str],
    header_paths: Collection[str],
) -> Publication:
    """Write what changed in the version history between two versions of it.

    Args:
        root: The lake.
        policy: The privacy policy.
        key: The key of the hashes.
        before: What was published, if anything was.
        since: The version that it shows; None to write everything.
        version: The version to show.
        rewrite: Periods to write although nothing in them changed.
        headers: The hashes of the files of `headers/`. See `headers.files.digests`.
        header_paths: These files.
    """
    writer = Writer(root, policy, before.files if before else {})
    index = HistoryIndex(root, version)
    index.bring_up_to_date()
    appended_files = None if since is None else image_sets.appended_files(root, since, version)
    count = sum((appended_files or {}).values()) + _rows_of(before, rewrite)
    if count > _MOST_CHANGED_ROWS:
        appended_files = None
    are_few = appended_files is not None and count <= _FEW_ROWS
    memory = engine.MEMORY if are_few else _MEMORY_OF_MANY
    with engine.bounded_connection(memory) as con, engine.shared_schema(con) as shared:
        create_macros(con, key)
        prepare(con, policy)
        history = image_sets.register(con, root, version)
        appended = None
        if appended_files is not None:
            appended = image_sets.register_appended(con, root, appended_files)
        plan = make_plan(con, history, index, appended, policy, rewrite)
        study_order = patients.write(con, history, index, plan, policy, writer, shared)
        period_tables.write(con, plan, study_order, policy, writer, shared)
        writer.finish()
        # When a full publication is due, the marker may be one of another history.
        seen_before = before if before and not plan.is_full else None
        seen = image_sets.observed(con, appended or history.stored)
    shown = before.headers if before and not plan.is_full else {}
    changed = {month for month in {*shown, *headers} if shown.get(month) != headers.get(month)}
    values, by_month = HeaderValues(policy, key), header_files.by_month(header_paths)
    with engine.connection(memory_limit=_MEMORY_OF_HEADERS, threads="1") as con:
        series_headers.write(con, root, version, policy, values, writer, by_month, changed, plan)
    removed = set(writer.retire_others() if plan.is_full else ())
    files = {path: file for path, file in sorted(writer.files.items()) if path not in removed}
    return Publication(
        version,
        policy.name,
        policy.digest,
        policy.widened,
        policy.tables,
        schema.FORMAT_VERSION,
        datetime.now(UTC).isoformat(timespec="seconds"),
        files,
        *_joined(seen, seen_before),
        tuple(writer.written),
        tuple(sorted(removed)),
        fingerprint(key),
        replaced=policy.replaced,
    )


def _rows_of(before: Publication | None, periods: Collection[str]) -> int:
    """Return about how many rows of the version history some published periods are made of."""
    files = before.files.items() if before else ()
    of_periods = (file.rows for path, file in files if _period(path) in periods)
    return 2 * max(of_periods, default=0) * len(periods)  # a shifted year is made of two years


def _joined(
    seen: tuple[datetime | None, datetime | None], before: Publication | None
) -> tuple[str | None, str | None]:
    """Return when the first and the last search began of which rows are published."""
    instants = [instant for instant in seen if instant]
    if before:
        known = (before.observed_since, before.observed_until)
        instants += [datetime.fromisoformat(text) for text in known if text]
    if not instants:
        return None, None
    return min(instants).isoformat(), max(instants).isoformat()


def _remove(root: Root, paths: Iterable[str]) -> None:
    """Delete files of earlier publications, unless the marker names them."""
    latest = read_marker(root)
    # On S3 another run may have published meanwhile, and have written one of them again.
    for path in paths:
        if latest is None or path not in latest.files:
            root.delete(path)
