"""Reading a lake: what is true now, what was true or known at an instant, what changed.

Needs no right on anything but `published/`, and sees what the policy shows. How the time
lines come about is `lake.timeline`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from cohortlake import schema
from cohortlake.errors import InstantError, NotALake, UnknownColumn
from cohortlake.flatten import to_frame
from cohortlake.lake import changes, snapshots
from cohortlake.lake.changes import Clock
from cohortlake.lake.instants import Instant, instant, is_instant
from cohortlake.lake.publish import Publication, read_marker
from cohortlake.lake.root import Root
from cohortlake.privacy import visible

_AT_ONCE = timedelta(microseconds=1)


def open_lake(root: str) -> Lake:
    """Open a lake to read it.

    Args:
        root: The lake: a folder or an `s3://` URL.

    Raises:
        NotALake: Nothing was ever published there.
    """
    lake = Lake(Root(root))
    lake.publication()
    return lake


class Lake:
    """The published tables of a lake, as they are whenever they are asked for.

    Args:
        root: The lake.
    """

    def __init__(self, root: Root) -> None:
        self._root = root

    def publication(self) -> Publication:
        """Return what stands in `published/` now.

        Raises:
            NotALake: Nothing was ever published there.
        """
        marker = read_marker(self._root)
        if marker is None:
            raise NotALake(
                f"nothing is published below {self._root.uri}; run `cohortlake sync` first"
            )
        return marker

    def table(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        as_of: Instant | None = None,
        known_at: Instant | None = None,
    ) -> pd.DataFrame:
        """Read a published table, as it is or as it was.

        Args:
            name: `image_sets`, `series`, `studies`, `patients` or `history`.
            columns: Which columns; all that the policy shows by default.
            as_of: Only for `image_sets`: what was true at this instant, as far as is known
                today. After the last change known, that is what is true now.
            known_at: Only for `image_sets`: what the lake held true at this instant, or in the
                snapshot that this tag names.

        Returns:
            One row per entity, with Arrow-backed dtypes.

        Raises:
            UnknownTable: There is no such table.
            UnknownColumn: The table has no such column, or its policy does not show it.
            InstantError: The instant cannot be used; the message says why.
            TagError: There is no such tag.
        """
        marker = self.publication()
        names = [column.name for column in visible(schema.published(name), marker.policy)]
        for column in columns or ():
            if column not in names:
                raise UnknownColumn(column, name, names)
        wanted = list(columns or names)
        if as_of is None and known_at is None:
            return to_frame(self._files(marker, name).to_table(columns=wanted))
        if name != "image_sets":
            raise InstantError(
                f"{name!r} has no past of its own; as_of and known_at are for 'image_sets', "
                "and 'history' holds all states"
            )
        if known_at is None:
            return self._past(marker, wanted, Clock.VALID, instant(as_of or ""))
        if as_of is None:
            at = self._known_at(known_at)
            return self._past(marker, wanted, Clock.OBSERVED, at)
        raise InstantError(
            "give as_of for what was true, as far as is known today, or known_at for what the "
            "lake held true then; not both"
        )

    def changes(self, since: Instant, until: Instant | None = None) -> pd.DataFrame:
        """Tell what changed in the data store in [since, until), on the service's clock.

        Args:
            since: The first instant.
            until: The first instant after; now by default.

        Returns:
            One row per image set, change and field that differs and that the policy shows, with
            the value before and after as text; one row without a field where none does. The
            columns are those of `schema.CHANGES`.

        Raises:
            InstantError: The instants cannot be used; the message says why.
        """
        end = None if until is None else instant(until)
        return self._changes(Clock.VALID, instant(since), end)

    def diff(self, a: str, b: str) -> pd.DataFrame:
        """Tell two states of the lake apart.

        Args:
            a: A date, an instant or a tag.
            b: A later one, or `now`.

        Returns:
            What `changes` gives between two instants. Where a tag is given: what was learned
            between, and so what tells the snapshot from another.

        Raises:
            InstantError: The instants cannot be used; the message says why.
            TagError: There is no such tag.
        """
        ends = [text for text in (a, b) if text != snapshots.NOW]
        if a == snapshots.NOW:
            raise InstantError("'now' is the later of the two; give an earlier one before it")
        if all(is_instant(text) for text in ends):
            return self.changes(*ends)
        # A snapshot knows what was seen at its last instant, so what is new begins after it.
        bounds = [
            instant(text) if is_instant(text) else self._known_at(text) + _AT_ONCE for text in ends
        ]
        return self._changes(Clock.OBSERVED, bounds[0], bounds[1] if len(bounds) > 1 else None)

    def snapshots(self) -> pd.DataFrame:
        """List the publications there have been, the oldest first.

        Returns:
            One row each, with the columns of `schema.SNAPSHOTS`.
        """
        return to_frame(snapshots.table(self._root))

    def tag(self, name: str) -> None:
        """Name what is published now, and hold it against retention. A tag never moves.

        Args:
            name: Letters, digits and `._-`. It is readable by all who may read the lake.

        Raises:
            TagError: The name cannot be used, or is another snapshot's.
            RootNotUsable: The lake cannot be written.
        """
        snapshots.tag(self._root, name, self.publication().snapshot())

    def _known_at(self, given: Instant) -> datetime:
        if isinstance(given, str) and not is_instant(given):
            return datetime.fromisoformat(snapshots.tagged(self._root, given).observed_until)
        return instant(given)

    def _past(
        self, marker: Publication, columns: list[str], clock: Clock, at: datetime
    ) -> pd.DataFrame:
        """Return the states that were current on a clock."""
        self._require_seen(marker, at)
        began, ended = (pc.field(f"{clock.value}_{end}") for end in ("from", "to"))
        now = pa.scalar(at, schema.INSTANT)
        current = (began <= now) & (ended.is_null() | (ended > now)) & ((ended > began) | ended.is_null())
        return to_frame(self._files(marker, "history").to_table(columns=columns, filter=current))

    def _changes(self, clock: Clock, since: datetime, until: datetime | None) -> pd.DataFrame:
        if until is not None and since >= until:
            raise InstantError(f"{since.isoformat()} is not before {until.isoformat()}")
        marker = self.publication()
        self._require_seen(marker, since)
        columns = visible(schema.published("history"), marker.policy)
        shown = schema.arrow_schema(c for c in columns if c != schema.STUDY_MONTH)
        files = marker.paths("history")
        return to_frame(changes.between(self._root, files, shown, clock, since, until))

    def _require_seen(self, marker: Publication, at: datetime) -> None:
        first = datetime.fromisoformat(marker.observed_since)
        if at < first:
            raise InstantError(
                f"the lake first looked at {first.isoformat()}, so it cannot say what was there at "
                f"{at.isoformat()}: what had ended by then it never saw; 'history' holds what is "
                "known of earlier times"
            )

    def _files(self, marker: Publication, name: str) -> pads.Dataset:
        paths = [self._root.path(path) for path in marker.paths(name)]
        shown = schema.arrow_schema(visible(schema.published(name), marker.policy))
        return pads.dataset(
            paths, shown, format="parquet", filesystem=self._root.filesystem, partitioning="hive"
        )
