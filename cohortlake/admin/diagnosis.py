"""The diagnosis of a lake: what is wrong, and which command repairs it.

Reads the lake and the settings, and changes nothing. Does not call the service: `cohortlake sync`
finds what is new in a data store. By default the diagnosis lists files and compares their sizes;
with `verify` it reads their content.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from cohortlake import schema
from cohortlake.admin.policy_change import policy_change
from cohortlake.admin.status import DatastoreStatus, Status, status
from cohortlake.errors import (
    CohortlakeError,
    DamagedFile,
    MissingKey,
    NoCredentials,
    OldFormat,
    RootNotUsable,
    SettingError,
    WrongKey,
)
from cohortlake.history import coverage, image_sets
from cohortlake.privacy import key_store, policy_of
from cohortlake.publish.publication import intact
from cohortlake.publish.publication.marker import MARKER_PATH, Publication, read_marker
from cohortlake.settings import Settings
from cohortlake.storage.root import Root

_MOST_NAMED = 3


class Verdict(StrEnum):
    """The state of a lake. The most severe comes last; it is the verdict on several findings."""

    HEALTHY = "healthy"
    BEHIND = "behind"
    INCOMPLETE = "incomplete"
    DAMAGED = "damaged"
    MISCONFIGURED = "misconfigured"

    @property
    def exit_code(self) -> int:
        """Exit code of `cohortlake status`."""
        return _EXIT_CODES[self]


# 2 and 5 are also the exit codes of other commands for such errors.
_EXIT_CODES = {
    Verdict.HEALTHY: 0,
    Verdict.BEHIND: 1,
    Verdict.INCOMPLETE: 6,
    Verdict.DAMAGED: 5,
    Verdict.MISCONFIGURED: 2,
}


class Kind(StrEnum):
    """The kinds of findings. docs/how-to/runbook.md has a part for each."""

    SETTINGS = "settings"
    KEY = "key"
    POLICY = "policy"
    OTHER_RELEASE = "other-release"
    BEING_PUBLISHED = "being-published"
    NOT_PUBLISHED = "not-published"
    PUBLISHED_DAMAGED = "published-damaged"
    TABLES_DAMAGED = "tables-damaged"
    INCREMENTS_LOST = "increments-lost"
    INCREMENTS_DAMAGED = "increments-damaged"
    NOT_APPLIED = "not-applied"
    NEVER_SEARCHED = "never-searched"
    SEARCH_STOPPED = "search-stopped"
    COVERAGE_GAP = "coverage-gap"
    COVERAGE_BEHIND = "coverage-behind"
    SWEEP_DIFFERS = "sweep-differs"
    ERASURE_UNFINISHED = "erasure-unfinished"


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        kind: Its kind.
        verdict: The state of a lake with this finding.
        what: What is wrong.
        remedy: What to do; commands stand between backticks.
    """

    kind: Kind
    verdict: Verdict
    what: str
    remedy: str


@dataclass(frozen=True)
class Diagnosis:
    """All that is wrong with a lake.

    Attributes:
        findings: What is wrong, the most severe first.
        status: The figures; None if the lake cannot be read.
    """

    findings: tuple[Finding, ...]
    status: Status | None = None

    @property
    def verdict(self) -> Verdict:
        """The verdict of the most severe finding; healthy if there is none."""
        return self.findings[0].verdict if self.findings else Verdict.HEALTHY


def diagnose(
    root: Root, settings: Settings, *, since: datetime | None = None, verify: bool = False
) -> Diagnosis:
    """Find out what is wrong with a lake.

    Args:
        root: The lake.
        settings: The settings.
        since: The instant up to which coverage must be proven, if any.
        verify: Whether to read the content of the files.

    Raises:
        RootUnreachable: S3 gave no answer, or asked to try again.
        NoCredentials: There are none.
    """
    found = list(_in_settings(settings))
    try:
        at_root = list(_at_root(root, settings))
        if not at_root:
            marker, in_marker = _marker(root)
            found += [*in_marker, *_in_key(root, settings, marker), *_in_policy(settings, marker)]
            found += _in_published(root, marker, verify=verify)
            in_tables = list(_in_tables(root, verify=verify))
            found += in_tables
            if not in_tables and not in_marker:
                figures = status(root, settings.datastores, settings.settle)
                found += _in_progress(figures)
                for store in figures.datastores:
                    found += _in_datastore(store, since)
                found += _in_reconciliation(figures)
                return Diagnosis(_most_severe_first(found), figures)
    except RootNotUsable as error:
        if error.transient:
            raise
        at_root = [misconfigured(error)]
    except OldFormat as error:
        at_root = [_of_error(Kind.OTHER_RELEASE, Verdict.BEHIND, error)]
    except DamagedFile as error:
        what, _, remedy = str(error).partition("; ")
        at_root = [Finding(_kind_of(error.path), Verdict.DAMAGED, what, remedy)]
    return Diagnosis(_most_severe_first([*found, *at_root]))


def misconfigured(error: CohortlakeError) -> Finding:
    """Return the finding for an error in the settings or at the root."""
    return _of_error(Kind.SETTINGS, Verdict.MISCONFIGURED, error)


def _kind_of(path: str) -> Kind:
    """Return the kind of finding for a damaged file."""
    folder = path.partition("/")[0]
    of_folders = {"increments": Kind.INCREMENTS_DAMAGED, "published": Kind.PUBLISHED_DAMAGED}
    return of_folders.get(folder, Kind.TABLES_DAMAGED)


def _of_error(kind: Kind, verdict: Verdict, error: CohortlakeError) -> Finding:
    remedy = error.remedy
    return Finding(kind, verdict, str(error), remedy[:1].lower() + remedy[1:].rstrip("."))


def _most_severe_first(findings: list[Finding]) -> tuple[Finding, ...]:
    order = list(Verdict)
    return tuple(sorted(findings, key=lambda finding: -order.index(finding.verdict)))


def _in_settings(settings: Settings) -> Iterator[Finding]:
    try:
        settings.require_datastores()
    except SettingError as error:
        yield misconfigured(error)
    try:
        policy_of(settings)
    except SettingError as error:
        yield misconfigured(error)


def _at_root(root: Root, settings: Settings) -> Iterator[Finding]:
    """Yield why there is no lake at the root, if there is none."""
    if _is_file(root):
        yield Finding(
            Kind.SETTINGS,
            Verdict.MISCONFIGURED,
            f"{root.uri} is a file, and a lake is a folder",
            "set COHORTLAKE_ROOT, or --root, to the folder of the lake",
        )
    elif not (root.exists(MARKER_PATH) or _has_history(root) or _has_increments(root)):
        default = " (COHORTLAKE_ROOT is not set)" if settings.root == Settings.root else ""
        yield Finding(
            Kind.SETTINGS,
            Verdict.MISCONFIGURED,
            f"there is no lake at {root.uri}{default}",
            "run `cohortlake sync` to begin one there, or set COHORTLAKE_ROOT to where the lake is",
        )


def _is_file(root: Root) -> bool:
    location = root.location_of("increments")
    return location.is_local and Path(location.uri).is_file()


def _has_history(root: Root) -> bool:
    return bool(root.files(f"{image_sets.TABLE}/_delta_log", ".json"))


def _has_increments(root: Root) -> bool:
    return bool(root.files("increments", ".parquet"))


def _marker(root: Root) -> tuple[Publication | None, list[Finding]]:
    try:
        return read_marker(root), []
    except (DamagedFile, TypeError, KeyError, AttributeError):
        return None, [
            Finding(
                Kind.PUBLISHED_DAMAGED,
                Verdict.DAMAGED,
                f"{root.uri_of(MARKER_PATH)}, which says what is published, cannot be read",
                "delete that file, and run `cohortlake publish`, which publishes everything again",
            )
        ]


def _in_key(root: Root, settings: Settings, marker: Publication | None) -> Iterator[Finding]:
    """Yield what is wrong with the key of a published lake."""
    if marker is None:
        return
    try:
        key_store.require_own_keys(root, settings.patient_key, marker.key_fingerprint)
    except (NoCredentials, SettingError, WrongKey) as error:
        yield _of_error(Kind.KEY, Verdict.MISCONFIGURED, error)
    except MissingKey as error:
        is_file_of_lake = settings.patient_key == key_store.IN_LAKE
        verdict = Verdict.DAMAGED if is_file_of_lake else Verdict.MISCONFIGURED
        yield _of_error(Kind.KEY, verdict, error)


def _in_policy(settings: Settings, marker: Publication | None) -> Iterator[Finding]:
    try:
        change = policy_change(settings, policy_of(settings), marker)
    except SettingError:  # `_in_settings` has yielded it
        return
    if change is None:
        return
    if change.before == change.after:
        what = f"the policy {change.after!r} shows something else than when the lake was published"
    else:
        what = (
            f"the settings give the policy {change.after!r}, and the lake is published under "
            f"{change.before!r}"
        )
    if not change.is_asked_for:
        remedy = f"set {change.to_keep} to go on, or {change.to_change} to change it, and then "
    elif change.before != change.after:
        remedy = f"set {change.to_keep} to go on as before, or "
    else:
        remedy = ""
    yield Finding(
        Kind.POLICY,
        Verdict.MISCONFIGURED,
        what,
        f"{remedy}run `cohortlake publish`, which publishes everything again",
    )


def _in_published(root: Root, marker: Publication | None, *, verify: bool) -> Iterator[Finding]:
    if marker is None:
        return
    if marker.format != schema.FORMAT_VERSION:
        yield Finding(
            Kind.OTHER_RELEASE,
            Verdict.BEHIND,
            "the tables were published by another release",
            "run `cohortlake publish`, which publishes them again",
        )
    altered = intact.altered(root, marker, intact.sizes(root), verify=verify)
    if altered and (root.is_publishing() or read_marker(root) != marker):
        yield Finding(
            Kind.BEING_PUBLISHED,
            Verdict.BEHIND,
            "the tables are being published at this moment",
            "run `cohortlake status` again when that has ended",
        )
    elif altered:
        option = " --verify" if verify else ""
        yield Finding(
            Kind.PUBLISHED_DAMAGED,
            Verdict.DAMAGED,
            f"published files are not as they were written: {_listed(altered)}",
            f"run `cohortlake publish{option}` to write them again",
        )


def _in_tables(root: Root, *, verify: bool) -> Iterator[Finding]:
    """Yield what is wrong with the version history, the coverage and the increments."""
    rebuild = "run `cohortlake rebuild`, which rebuilds them from the increments"
    if not _has_history(root) and not _has_increments(root):
        yield Finding(
            Kind.INCREMENTS_LOST,
            Verdict.DAMAGED,
            f"there is something published, but neither {root.uri_of('increments')} nor "
            f"{root.uri_of(image_sets.TABLE)}",
            "set COHORTLAKE_ROOT to the lake that it was published from, or restore these folders "
            "from a backup",
        )
        return
    altered = intact.altered_in_table(root, image_sets.TABLE, verify=verify)
    altered |= intact.altered_in_table(root, coverage.TABLE, verify=verify)
    if altered:
        yield Finding(
            Kind.TABLES_DAMAGED,
            Verdict.DAMAGED,
            f"files of the version history or the coverage are damaged: {_listed(altered)}",
            rebuild,
        )
        return
    searched = coverage.read(root)
    if len(searched) and not _has_history(root):
        yield Finding(
            Kind.TABLES_DAMAGED,
            Verdict.DAMAGED,
            f"{root.uri_of(image_sets.TABLE)} is not there, and increments were applied to it",
            rebuild,
        )
        return
    lost = intact.altered_increments(root, searched, verify=verify)
    gone = {path: why for path, why in lost.items() if why == intact.IS_MISSING}
    if gone:
        yield Finding(
            Kind.INCREMENTS_LOST,
            Verdict.DAMAGED,
            f"increments that were applied are lost: {_listed(gone)}",
            "restore them from a backup; or run `cohortlake rebuild`, and then `cohortlake sync`, "
            "which searches their windows again",
        )
    if unreadable := {path: why for path, why in lost.items() if path not in gone}:
        yield Finding(
            Kind.INCREMENTS_DAMAGED,
            Verdict.DAMAGED,
            f"increments are damaged: {_listed(unreadable)}",
            f"restore them from a backup; or run `cohortlake set-aside {min(unreadable)}`"
            f"{', the same for the others,' * (len(unreadable) > 1)} and then `cohortlake sync`, "
            "which searches their windows again",
        )


def _in_progress(figures: Status) -> Iterator[Finding]:
    if figures.pending:
        yield Finding(
            Kind.NOT_APPLIED,
            Verdict.BEHIND,
            f"{figures.pending:,} increments were found and not applied yet",
            "run `cohortlake sync`",
        )
    if figures.image_sets_version != figures.published_version:
        published = (
            "nothing is published"
            if figures.published_version is None
            else f"the published tables show version {figures.published_version} of the history"
        )
        yield Finding(
            Kind.NOT_PUBLISHED,
            Verdict.BEHIND,
            f"{published}, and the history is at version {figures.image_sets_version}",
            "run `cohortlake publish`",
        )


def _in_datastore(store: DatastoreStatus, since: datetime | None) -> Iterator[Finding]:
    name = f"data store {store.datastore_id}"
    search = "run `cohortlake sync`, which searches what is missing"
    if not store.windows:
        yield Finding(Kind.NEVER_SEARCHED, Verdict.INCOMPLETE, f"{name} was never searched", search)
        return
    if store.stopped_at is not None:
        yield Finding(
            Kind.SEARCH_STOPPED,
            Verdict.INCOMPLETE,
            f"the last search of {name} did not come to its end: it stopped at "
            f"{_instant(store.stopped_at)}",
            search,
        )
    for gap in store.gaps:
        yield Finding(
            Kind.COVERAGE_GAP,
            Verdict.INCOMPLETE,
            f"{name} was not searched from {_instant(gap.start)} to {_instant(gap.end)}",
            search,
        )
    if since is not None and store.complete_until < since:
        yield Finding(
            Kind.COVERAGE_BEHIND,
            Verdict.BEHIND,
            f"{name} is proven complete until {_instant(store.complete_until)}, and not until "
            f"{_instant(since)}",
            "run `cohortlake sync`, and see why it did not run",
        )


def _in_reconciliation(figures: Status) -> Iterator[Finding]:
    if months := figures.agreement.differing:
        yield Finding(
            Kind.SWEEP_DIFFERS,
            Verdict.INCOMPLETE,
            f"{len(months):,} study months do not hold what their last sweep found: "
            f"{', '.join(months)}",
            "run `cohortlake reconcile`, which sweeps them again",
        )
    if figures.erasures_under_way:
        yield Finding(
            Kind.ERASURE_UNFINISHED,
            Verdict.INCOMPLETE,
            f"{figures.erasures_under_way:,} erasures did not come to their end",
            "run `cohortlake erase` again, as it was given",
        )


def _listed(found: Mapping[str, str]) -> str:
    named = [f"{path} {why}" for path, why in list(found.items())[:_MOST_NAMED]]
    if more := len(found) - len(named):
        named.append(f"and {more:,} more")
    return "; ".join(named)


def _instant(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"
