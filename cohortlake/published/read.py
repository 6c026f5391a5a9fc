"""Reads the published tables: what is true now, what was true or known earlier, what changed.

Needs the right to read `published/` only, and sees what the policy shows. See `history.timeline`
for the time lines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.errors import DamagedFile, InstantError, NotALake, OldFormat
from cohortlake.flatten import to_frame
from cohortlake.instants import Instant, instant, is_instant
from cohortlake.publish.publication import snapshots
from cohortlake.publish.publication.marker import Publication, read_marker
from cohortlake.published import changes, views
from cohortlake.published.changes import Clock
from cohortlake.storage import damage, engine
from cohortlake.storage.root import Root

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.dataset as pads

T = TypeVar("T")


def read_table(
    root: str | os.PathLike[str], table: str, columns: Sequence[str] | None = None
) -> pd.DataFrame:
    """Read a published table as it is now.

    Args:
        root: The lake: a folder or an `s3://` URL.
        table: `image_sets`, `series`, `studies`, `patients`, `history`, `series_headers` or
            `earlier_headers`.
        columns: Which columns; all that the policy shows by default.

    Returns:
        One row per entity. See `flatten.frame` for the dtypes.

    Raises:
        UnknownTable: There is no such table.
        UnknownColumn: The table has no such column.
        ColumnNotShown: The policy does not show it.
        NotALake: Nothing was ever published there.
        OldFormat: An older release published it.
    """
    return PublishedTables(Root(os.fspath(root))).table(table, columns)


class PublishedTables:
    """The published tables of a lake. Each call reads what is published at that moment.

    Args:
        root: The lake.
        as_of: The instant that the tables show; None is now. `history` and `earlier_headers` are
            of all times.

    Attributes:
        root: The lake.
        as_of: The instant, or None.
    """

    def __init__(self, root: Root, as_of: datetime | None = None) -> None:
        self.root, self.as_of = root, as_of

    def publication(self) -> Publication:
        """Return what is published now.

        Raises:
            NotALake: Nothing was ever published there.
            OldFormat: An older release published it.
        """
        marker = read_marker(self.root)
        if marker is None:
            raise NotALake(
                f"nothing is published below {self.root.location_of('published').uri}; run "
                "`cohortlake sync` first"
            )
        if marker.format != schema.FORMAT_VERSION:
            raise OldFormat(self.root.uri_of("published"))
        return marker

    def reading(self, read: Callable[[Publication], T]) -> T:
        """Read files that the marker names, and read again if a publication replaced the marker.

        A full publication removes files that the marker named before.

        Args:
            read: Reads the files of a publication.

        Raises:
            NotALake: Nothing was ever published there.
            OldFormat: An older release published it.
        """
        marker = self.publication()
        while True:
            try:
                return read(marker)
            except (OSError, DamagedFile):
                latest = self.publication()
                if latest == marker:
                    raise
                marker = latest

    def table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        as_of: Instant | None = None,
        known_at: Instant | None = None,
    ) -> pd.DataFrame:
        """Read a published table, as it is or as it was.

        Args:
            name: The table: see `read_table`.
            columns: Which columns; all that the policy shows by default.
            as_of: What was true at this instant, as far as is known now; not for `history`
                and `earlier_headers`.
            known_at: Only for `image_sets`: what the lake knew at this instant, or at the snapshot
                that this tag names.

        Returns:
            One row per entity. See `flatten.frame` for the dtypes.

        Raises:
            UnknownTable: There is no such table.
            UnknownColumn: The table has no such column.
            ColumnNotShown: The policy does not show it.
            InstantError: The instant cannot be used; the message says why.
            NotShown: The policy hides what the past is made from.
            UnknownTag: There is no such tag.
            NotALake: Nothing was ever published there.
            OldFormat: An older release published it.
        """
        if isinstance(columns, str):
            columns = [columns]
        schema.published(name)  # raises UnknownTable even if nothing is published
        return self.reading(lambda marker: self._table(marker, name, columns, as_of, known_at))

    def _table(
        self,
        marker: Publication,
        name: str,
        columns: Sequence[str] | None,
        as_of: Instant | None,
        known_at: Instant | None,
    ) -> pd.DataFrame:
        shown = [column.name for column in marker.shown(name)]
        for column in columns or ():
            if column not in shown:
                raise marker.unknown(column, name, shown)
        wanted = list(columns or shown)
        past = self._past(name, as_of, known_at)
        if past is None:
            return self._rows(marker, name, wanted)
        clock, at = past
        if name != "image_sets":
            return self._derived_rows(marker, name, wanted, at)
        views.require_past(marker, at)
        return self._rows(marker, "history", wanted, _current(clock, at))

    def changes(self, since: Instant, until: Instant | None = None) -> pd.DataFrame:
        """Return what changed in the data store, on the service's clock.

        The changes are the difference between `table("image_sets", as_of=since)` and the table as
        of `until`.

        Args:
            since: Changes after this instant.
            until: Changes up to this instant; no bound by default.

        Returns:
            One row per image set, change and field that differs and that the policy shows, with
            the value before and after as text. A change has one row without a field if an image
            set began or ended, or if no shown field differs. The columns are those of
            `schema.CHANGES`.

        Raises:
            InstantError: The instants cannot be used; the message says why.
            NotShown: The policy hides when states began and ended.
            NotALake: Nothing was ever published there.
            OldFormat: An older release published it.
        """
        end = None if until is None else instant(until)
        return self._changes(Clock.VALID, instant(since), end)

    def diff(self, a: str, b: str) -> pd.DataFrame:
        """Return the difference between two states of the lake.

        Args:
            a: A date, an instant or a tag.
            b: A later one, or `now`.

        Returns:
            Between two instants, the same as `changes`. If one of the two is a tag, what the lake
            came to know in between: the difference between the snapshot and the other state.

        Raises:
            InstantError: The instants cannot be used; the message says why.
            NotShown: The policy hides when states began and ended.
            UnknownTag: There is no such tag.
            NotALake: Nothing was ever published there.
            OldFormat: An older release published it.
        """
        if a == snapshots.NOW:
            raise InstantError("`now` is the later of the two; give the earlier one first")
        until = None if b == snapshots.NOW else b
        if is_instant(a) and (until is None or is_instant(until)):
            return self.changes(a, until)
        end = None if until is None else self._known_at(until)
        return self._changes(Clock.OBSERVED, self._known_at(a), end)

    def snapshots(self) -> pd.DataFrame:
        """List all publications so far, the oldest first.

        Returns:
            One row per publication, with the columns of `schema.SNAPSHOTS`.
        """
        return to_frame(snapshots.table(self.root))

    def tag(self, name: str) -> Publication:
        """Give what is published now a name, and keep it from maintenance. A tag never moves.

        Args:
            name: Letters, digits and `._-`. Everybody who may read the lake can read the name.

        Returns:
            The publication that the tag names.

        Raises:
            TagError: The name cannot be used, or names another snapshot.
            NotALake: Nothing was ever published there.
            OldFormat: An older release published it.
            RootNotUsable: The lake cannot be written.
        """
        marker = self.publication()
        snapshots.tag(self.root, name, marker.snapshot())
        return marker

    def _past(
        self, name: str, as_of: Instant | None, known_at: Instant | None
    ) -> tuple[Clock, datetime] | None:
        """Return the clock and the instant that a table is asked for, or None for now."""
        if as_of is not None and known_at is not None:
            raise InstantError(
                "give as_of for what was true, as far as is known now, or known_at for what the "
                "lake had seen then; not both"
            )
        if known_at is not None:
            if name != "image_sets":
                raise InstantError(
                    f"known_at is for 'image_sets' only, not for {name!r}; 'history' holds all "
                    "states, with when the lake saw them"
                )
            return Clock.OBSERVED, self._known_at(known_at)
        if name in views.OF_ALL_TIMES:
            if as_of is not None:
                raise InstantError(f"{name!r} is of all times; read it without as_of")
            return None
        shown_at = self.as_of if as_of is None else instant(as_of)
        return None if shown_at is None else (Clock.VALID, shown_at)

    def _known_at(self, given: Instant) -> datetime:
        if isinstance(given, str) and not is_instant(given):
            return snapshots.tagged(self.root, given).knew_until
        return instant(given)

    def _changes(self, clock: Clock, since: datetime, until: datetime | None) -> pd.DataFrame:
        if until is not None and since >= until:
            raise InstantError(f"{since.isoformat()} is not before {until.isoformat()}")

        def read(marker: Publication) -> pd.DataFrame:
            views.require_past(marker, since)
            shown = schema.arrow_schema(c for c in marker.shown("history") if c not in PARTITIONS)
            files = marker.paths("history")
            return to_frame(changes.between(self.root, files, shown, clock, since, until))

        return self.reading(read)

    def _rows(
        self,
        marker: Publication,
        table: str,
        columns: Sequence[str],
        condition: pads.Expression | None = None,
    ) -> pd.DataFrame:
        shown, paths = schema.arrow_schema(marker.shown(table)), marker.paths(table)
        with damage.explained(lambda: [(self.root, paths)]):
            files = engine.dataset(self.root, paths, shown)
            return _frame(files.to_table(columns=list(columns), filter=condition))

    def _derived_rows(
        self, marker: Publication, table: str, columns: Sequence[str], at: datetime
    ) -> pd.DataFrame:
        """Return rows of a table as of an instant, derived from the history."""
        names = ", ".join(f'"{column}"' for column in columns)
        with engine.connection() as con:
            views.create(con, self.root, marker, at)
            return to_frame(con.sql(f"SELECT {names} FROM {table}").to_arrow_table())


PARTITIONS = schema.forms(schema.STUDY_MONTH)


def _frame(rows: pa.Table) -> pd.DataFrame:
    """Return rows as a frame, with null in place of the folder `undated`."""
    for partition in PARTITIONS:
        if partition.name in rows.column_names:
            folders = rows[partition.name]
            values = pc.if_else(pc.equal(folders, schema.UNDATED), None, folders)
            place = rows.column_names.index(partition.name)
            rows = rows.set_column(place, partition.name, values)
    return to_frame(rows)


def _current(clock: Clock, at: datetime) -> pads.Expression:
    """Return the condition for the states that were current at an instant of a clock."""
    began, ended = pc.field(f"{clock.value}_from"), pc.field(f"{clock.value}_to")
    current: pads.Expression = (began <= at) & (ended.is_null() | (ended > at))
    return current
