"""Every error that Cohortlake raises on purpose. Each class says what happened, and the fix.

    CohortlakeError
    ├── SettingError
    │   └── PolicyError
    │       └── PolicyNotAskedFor
    ├── WindowError
    ├── Stopped
    ├── NotNotified (transient)
    ├── SeveralFailed
    ├── ServiceError
    │   ├── NoCredentials
    │   ├── AccessDenied
    │   ├── NoSuchDatastore
    │   ├── NoSuchQueue
    │   ├── DatastoreNotActive
    │   ├── RequestRefused
    │   ├── TokenRefused
    │   └── ServiceUnavailable (transient)
    │       └── ImageSetBusy (transient)
    └── LakeError
        ├── RootNotUsable
        │   └── RootUnreachable (transient)
        ├── DamagedFile
        ├── LakeClosed
        ├── NotALake
        ├── OldFormat
        ├── CommitConflict (transient)
        ├── NotRegistered (transient)
        ├── LakeInUse (transient)
        ├── SearchedByOthers (transient)
        ├── NoSuchPatient
        ├── DeletionsRefused
        ├── MissingKey
        ├── WrongKey
        ├── NotShown
        │   ├── ColumnNotShown
        │   └── ValuesWithheld
        ├── UnknownTable
        ├── UnknownColumn
        ├── InstantError
        ├── TagError
        ├── UnknownTag
        ├── BadQuery
        ├── ExportError
        ├── MissingExtra
        └── CohortError
            ├── BadCondition
            ├── UnknownValue
            ├── BadCriteria
            ├── BadOutsideTable
            ├── UnknownCohort
            ├── PixelsNotReachable
            └── NotAsFrozen

SettingError and WindowError are about what was given; ServiceError about AWS; LakeError about the
files; CohortError about cohorts. A transient error may not occur again if the same is done later:
schedulers retry it. All others are terminal: a person must change something first. SeveralFailed
is transient if all errors that it holds are.

A message names settings, columns, windows and image sets, and says what to do. It never
holds the value of a DICOM tag: these are protected health information.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches


class CohortlakeError(Exception):
    """The base of all errors.

    Attributes:
        transient: Whether the same call may succeed later without any change. Schedulers
            retry transient errors and leave the others for a person.
        exit_code: The exit code of the command line.
    """

    transient = False
    exit_code = 1

    @property
    def remedy(self) -> str:
        """What to do: the fix in the description of the class."""
        return (type(self).__doc__ or "").partition("Fix: ")[2].partition(".\n")[0]


def is_panic(error: BaseException) -> bool:
    """Return whether Rust code of a library panicked: such an error is not an `Exception`."""
    return type(error).__name__ == "PanicException"


def without_text(error: BaseException) -> str:
    """Describe an error that is not one of ours by its class and where it was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"{type(error).__name__} in {frame.filename}, line {frame.lineno} ({frame.name}); "
        "its text is left out, because it may hold the value of a tag: do the same from Python "
        "on the machine itself to see it"
    )


class SettingError(CohortlakeError):
    """A setting or an option is missing or cannot be used.

    Fix: Correct the environment variable or option that the message names.
    """

    exit_code = 2


class PolicyError(SettingError):
    """A policy file cannot be used, or it widens a policy under that policy's name.

    Fix: Correct the policy file, or name the policy that it makes in COHORTLAKE_PRIVACY.
    """


class PolicyNotAskedFor(PolicyError):
    """A publication would change the policy, and no setting names the new one.

    Fix: Set the policy that the lake is published under, or give --policy to change it.
    """

    def __init__(self, change: object) -> None:
        super().__init__(
            f"nothing was published, because no setting says under which policy: {change}. What "
            "was found is kept, and the next publication shows it"
        )


class WindowError(CohortlakeError):
    """A window holds no instant, or its bounds are not UTC or not midnights.

    Fix: Give a window whose start is before its end.
    """

    exit_code = 2


_NOTHING_LOST = "what is complete stays, and nothing else can be read; run it again"


class Stopped(CohortlakeError):
    """Somebody asked the work to end before it was done.

    Fix: Run it again: it goes on from what was kept, which the message names.
    """

    def __init__(self, kept: str = _NOTHING_LOST) -> None:
        super().__init__(kept)


class NotNotified(CohortlakeError):
    """An alert did not reach all of its targets.

    Fix: Check the URLs in COHORTLAKE_NOTIFY, and whether this machine reaches the services.
    """

    transient = True
    exit_code = 4

    def __init__(self, numbers: Sequence[int], count: int) -> None:
        named = ", ".join(map(str, numbers))
        super().__init__(
            f"the alert did not reach number {named} of the {count:,} targets in COHORTLAKE_NOTIFY"
        )


class SeveralFailed(CohortlakeError):
    """Several data stores failed, each for its own reason; all others were done.

    Fix: Mend what the message says of each data store.

    Attributes:
        errors: What went wrong, in order.
    """

    def __init__(self, errors: Sequence[CohortlakeError]) -> None:
        """Take what went wrong: transient where all of it is, else with the first other code."""
        self.errors = tuple(errors)
        self.transient = all(error.transient for error in errors)
        final = [error for error in errors if error.transient == self.transient]
        self.exit_code = final[0].exit_code
        listed = "".join(f"\n- {error}" for error in errors)
        super().__init__(f"{len(errors)} things went wrong, and the rest was done:{listed}")


class ServiceError(CohortlakeError):
    """AWS did not answer as asked.

    Fix: See the subclass; the message holds the error code of the service.
    """

    exit_code = 3


class NoCredentials(ServiceError):
    """There are no AWS credentials, or the service does not accept them.

    Fix: Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a role.
    """


class AccessDenied(ServiceError):
    """The caller has no right to do something.

    Fix: Grant the action that the message names.
    """

    def __init__(self, action: str, resource: str) -> None:
        self.action = action
        super().__init__(
            f"access denied: the caller may not do {action} on {resource}; "
            f"add {action} to its IAM policy (docs/how-to/aws.md has the policy in full)"
        )


class NoSuchDatastore(ServiceError):
    """The account and region have no such data store.

    Fix: Correct COHORTLAKE_DATASTORES or the region.
    """

    def __init__(self, datastore_id: str, region: str) -> None:
        super().__init__(
            f"no data store {datastore_id} in region {region}; `aws medical-imaging "
            "list-datastores` shows those there are; set COHORTLAKE_DATASTORES and AWS_REGION"
        )


class NoSuchQueue(ServiceError):
    """The account and region have no such queue.

    Fix: Correct COHORTLAKE_EVENTS_QUEUE or the region.
    """

    def __init__(self, url: str, region: str) -> None:
        super().__init__(
            f"no queue {url} in region {region}; `aws sqs list-queues` shows those there are; "
            "set COHORTLAKE_EVENTS_QUEUE and AWS_REGION"
        )


class DatastoreNotActive(ServiceError):
    """The data store cannot be searched now.

    Fix: Wait until the data store is ACTIVE, or leave it out of COHORTLAKE_DATASTORES.
    """

    def __init__(self, datastore_id: str, status: str) -> None:
        super().__init__(
            f"data store {datastore_id} is {status}, and only an ACTIVE one can be searched; "
            "wait, or leave it out of COHORTLAKE_DATASTORES"
        )


class RequestRefused(ServiceError):
    """The service calls the request invalid; the same request will not succeed later.

    Fix: Correct the criteria.
    """


class TokenRefused(ServiceError):
    """The service does not accept a nextToken any more.

    Fix: Search on from the last row seen; `WindowSearch` does so by itself.
    """


class ServiceUnavailable(ServiceError):
    """The service throttles, fails, cannot be reached, or its answer was cut.

    Fix: Try again later; lower COHORTLAKE_TPS if it throttles.
    """

    transient = True
    exit_code = 4


class ImageSetBusy(ServiceUnavailable):
    """Another request changes the image set.

    Fix: Ask again when the change is done; `--fill-versions` does so next time.
    """


class LakeError(CohortlakeError):
    """The lake cannot be read or written as asked.

    Fix: See the subclass.
    """

    exit_code = 5


class RootNotUsable(LakeError):
    """The root cannot be read or written.

    Fix: Point COHORTLAKE_ROOT at a folder or s3:// prefix that may be written.
    """


class RootUnreachable(RootNotUsable):
    """S3 gave no answer, or one that asks to try again.

    Fix: Run it again; if it stays so, check the network, AWS_REGION and AWS_ENDPOINT_URL_S3.
    """

    transient = True
    exit_code = 4


class DamagedFile(LakeError):
    """A file of the lake is damaged, cut off or missing.

    Fix: Do what the message says; it depends on the folder that the file lies in.

    Attributes:
        path: The file, below the root.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        super().__init__(f"{path} is damaged, cut off or gone; {_repair_of(path)}")


def _repair_of(path: str) -> str:
    folder, _, rest = path.partition("/")
    if folder == "increments":
        return (
            f"restore it from a backup, or run `cohortlake set-aside {path}`, which moves it away "
            "and has its window searched again"
        )
    if folder in ("image_sets", "coverage"):
        return "run `cohortlake rebuild`, which rebuilds this folder from the increments"
    if folder == "history_index":
        return "run `cohortlake publish`, which writes it again"
    if folder == "published" and rest.endswith(".parquet"):
        return "run `cohortlake publish --verify`, which writes it again"
    if path == "published/_published.json":
        return "delete it and run `cohortlake publish`, which writes all files again"
    return "restore it from a backup"


class LakeClosed(LakeError):
    """An opened lake was closed, or published completely since.

    Fix: Open the lake again with `cohortlake.open`.
    """


class NotALake(LakeError):
    """Nothing was ever published or applied there.

    Fix: Run `cohortlake sync` first, or correct COHORTLAKE_ROOT.
    """


class OldFormat(LakeError):
    """An earlier release wrote the tables, with other columns.

    Fix: Run `cohortlake rebuild`: the increments hold all that the tables are made from.
    """

    def __init__(self, where: str) -> None:
        super().__init__(
            f"an older release wrote {where}, with other columns than this release has; run "
            "`cohortlake rebuild`, which makes it again from the increments"
        )


class CommitConflict(LakeError):
    """Another writer committed first, each time that this one tried.

    Fix: Run it again.
    """

    transient = True
    exit_code = 4


class NotRegistered(LakeError):
    """What is published could not be registered in the Iceberg catalogue.

    Fix: Correct what the message names. The next publication registers what is missing.
    """

    transient = True

    def __init__(self, setting: str, what: str) -> None:
        super().__init__(
            f"published/ is up to date, but its Iceberg tables {setting} are not: {what}. The next "
            "publication registers them, and so does `cohortlake publish`"
        )


class LakeInUse(LakeError):
    """Another run is at work, and this one must be alone.

    Fix: Wait until the other runs have ended, and run it again.
    """

    transient = True
    exit_code = 4

    def __init__(self, root: str) -> None:
        super().__init__(
            f"another run is at work below {root}, or a notebook holds it open; run it again when "
            "it has ended"
        )


class SearchedByOthers(LakeError):
    """One run searches the data store, and another one waits to do so.

    Fix: Nothing needs to be done: the run that waits finds what this one would have found.
    """

    transient = True
    exit_code = 4

    def __init__(self, datastore_id: str) -> None:
        super().__init__(
            f"one run searches data store {datastore_id}, and another one waits for it to end; "
            "this one would find nothing that they do not. Run it again when they have ended"
        )


class NoSuchPatient(LakeError):
    """The lake holds no such patient to erase.

    Fix: Correct the id or the data store; erase a patient that a search has yet to bring after it.
    """

    exit_code = 2

    def __init__(self, datastore_id: str) -> None:
        super().__init__(
            f"the lake holds no such patient of data store {datastore_id}; give the PatientID as "
            "the modality sent it, and the data store with --datastore. One that the next "
            "`cohortlake sync` brings can be erased after it"
        )


class DeletionsRefused(LakeError):
    """A sweep missed too many image sets to close them without a person's consent.

    Fix: Check whether they were deleted on purpose; accept the deletions if so.
    """

    def __init__(self, refused: Mapping[str, Mapping[str, int]]) -> None:
        """Name the study months of each data store: they are mapped to how many are gone."""
        total = sum(sum(months.values()) for months in refused.values())
        places = "; ".join(
            f"{', '.join(sorted(months))} of data store {datastore_id}"
            for datastore_id, months in refused.items()
        )
        super().__init__(
            f"{total} image sets are gone from {places}: more of what the lake holds there "
            "than COHORTLAKE_MAX_DELETED_SHARE. Nothing was closed there. If they were deleted on "
            "purpose, run `cohortlake reconcile --accept-deletions`, with --datastore where that "
            "is so of one data store only"
        )


class MissingKey(LakeError):
    """A lake that was published has no key to make its hashes with.

    Fix: Restore the key file from its backup; a new key would break every published hash.
    """


class WrongKey(LakeError):
    """The key is not the one that the published hashes were made with.

    Fix: Give the key that the lake was published with; `cohortlake key rotate` changes it.
    """


class NotShown(LakeError):
    """The privacy policy does not show what a question needs.

    Fix: Ask for what the policy shows, or publish under another one: see docs/how-to/privacy.md.
    """

    exit_code = 2

    def __init__(self, what: str, policy: str) -> None:
        super().__init__(
            f"{what}, and the privacy policy {policy!r} does not show them; `limited` does "
            "(COHORTLAKE_PRIVACY, for those who publish the lake)"
        )


class ColumnNotShown(NotShown):
    """The privacy policy leaves a column out, or shows another one in its place.

    Fix: Ask for what the policy shows, or have those who publish the lake show the column.
    """

    def __init__(
        self, column: str, policy: str, instead: str | None = None, *, may_be_new: bool = False
    ) -> None:
        if may_be_new:
            # Not `publish`: the version history may be older than the column too.
            text = (
                f"the published tables have no {column}: if an older release published them, run "
                f"`cohortlake rebuild`; otherwise the privacy policy {policy!r} leaves it out"
            )
        elif instead:
            text = (
                f"the privacy policy {policy!r} does not show {column} but {instead} in its place: "
                f"ask for {instead}"
            )
        else:
            text = (
                f"the privacy policy {policy!r} does not show {column}: ask those who publish the "
                "lake for a policy that shows it, or for reviewed values"
            )
        LakeError.__init__(self, f"{text} (docs/how-to/privacy.md)")


class ValuesWithheld(NotShown):
    """The privacy policy withholds some values of a column that a question needs.

    Fix: Ask for values that the policy shows, or leave the others out by `withheld_fields`.
    """

    def __init__(self, column: str, table: str, policy: str) -> None:
        LakeError.__init__(
            self,
            f"the privacy policy {policy!r} withholds values of {column} in some rows of {table}, "
            f"and the answer may depend on them. Ask for values that it shows, as {column}='...', "
            f"for {column}=None where none was sent, or for withheld_fields={column!r} where one "
            "is withheld (docs/how-to/privacy.md)",
        )


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """Return `"; did you mean 'X'?"`, or nothing where no known name is near."""
    folded = {name.casefold(): name for name in known}
    near = get_close_matches(wrong.casefold(), folded, n=1)
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


class UnknownTable(LakeError):
    """There is no table of that name.

    Fix: Use one of the names that the message lists.
    """

    exit_code = 2

    def __init__(self, table: str, known: Iterable[str], remedy: str = "") -> None:
        names = sorted(known)
        there = f" (tables: {', '.join(names)})" if names else ""
        super().__init__(f"{table!r} is not a table{did_you_mean(table, names)}{there}{remedy}")


class UnknownColumn(LakeError):
    """The table has no column of that name.

    Fix: Use a column of the table; `docs/reference/data-dictionary.md` lists them.
    """

    exit_code = 2

    def __init__(self, column: str, table: str, near: str) -> None:
        """Take what `column_words.did_you_mean_column` suggests."""
        super().__init__(f"{column!r} is not in {table!r}{near}")


class InstantError(LakeError):
    """A text is no instant, or the lake knows nothing about that instant.

    Fix: Give an instant at which the lake was already searched; the message says which.
    """

    exit_code = 2


class TagError(LakeError):
    """A tag cannot have that name, or another snapshot has it.

    Fix: Give the snapshot another name.
    """

    exit_code = 2


class UnknownTag(LakeError):
    """A text is neither a tag, a date nor an instant.

    Fix: Use a tag that `cohortlake snapshots` lists, a date or an instant.
    """

    exit_code = 2

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(
            f"{name!r} is neither a date, an instant nor a tag{did_you_mean(name, names)} "
            f"(tags: {', '.join(names) or 'none yet'})"
        )


class BadQuery(LakeError):
    """DuckDB cannot run the SQL.

    Fix: Correct the SQL; `Lake.describe` shows the columns of a table.
    """

    exit_code = 2


class ExportError(LakeError):
    """A file cannot be written, or its kind cannot hold the rows.

    Fix: Name another file, or another kind of file, as the message says.
    """

    exit_code = 2


class MissingExtra(LakeError):
    """A library that an extra installs is missing.

    Fix: Install the extra that the message names.
    """

    exit_code = 2

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed: `pip install 'cohortlake[{extra}]'`")


class CohortError(LakeError):
    """A cohort cannot be selected or verified as asked.

    Fix: See the subclass.
    """

    exit_code = 2


class BadCondition(CohortError):
    """A condition cannot be read, or a cohort may not hold it.

    Fix: Write it over the columns of one table, with comparisons and plain functions only.
    """


class UnknownValue(CohortError):
    """No row has the value.

    Fix: Correct the value, or write it as a condition in SQL, which is not looked up.
    """

    def __init__(self, value: str, column: str, near: str) -> None:
        super().__init__(
            f"{value!r} does not occur in {column}{near} (a condition that "
            f"may find nothing is written in SQL: \"{column} = '...'\")"
        )


class BadCriteria(CohortError):
    """Criteria, or a file with them, cannot be used.

    Fix: Correct what the message names; docs/how-to/cohorts.md shows all there is.
    """


class BadOutsideTable(CohortError):
    """A table cannot be joined by patient.

    Fix: Give one row per patient, with its patient_key.
    """


class UnknownCohort(CohortError):
    """No cohort of that name was defined or frozen.

    Fix: Use one of the names that `cohortlake cohort list` shows.
    """

    def __init__(self, name: str, known: Iterable[str], where: str) -> None:
        names = sorted(known)
        listed = f" (there: {', '.join(names)})" if names else ""
        super().__init__(f"no cohort {name!r} {where}{did_you_mean(name, names)}{listed}")


class PixelsNotReachable(CohortError):
    """What pixels are fetched by is not shown, not in the lake, or not readable here.

    Fix: Do what the message says: fetch headers, open the whole lake, or ask for another policy.
    """


class NotAsFrozen(CohortError):
    """The files of a frozen cohort are not what was frozen.

    Fix: Restore the frozen cohort from a backup, and find out who changed it.
    """

    exit_code = 5
