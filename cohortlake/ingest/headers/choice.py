"""Which headers of image sets are wanted and due, and what fetching them costs.

A search gives sixteen tags. The others stand in the metadata document of a version, which costs a
request. So nothing is fetched that nobody chose, and each version once: it never changes. An
archived image set moves to the frequent tier when its document is read, so it is left alone unless
it is asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.bill import Bill
from cohortlake.dicom_values import distinct_values
from cohortlake.headers import files
from cohortlake.history.current_states import CurrentStates, Interval
from cohortlake.storage import engine
from cohortlake.storage.root import Root

ALL_MODALITIES = frozenset(("ALL",))
_GROUP_ROWS = 100_000
_STATE_COLUMNS = ("image_set_id", "version", "Modality", "storage_tier", "study_month")


@dataclass(frozen=True)
class HeaderChoice:
    """Which headers are wanted.

    Attributes:
        modalities: Modalities, in upper case; `ALL_MODALITIES` for all. An image set with several
            is wanted for any of them.
        first_month: The first study month, YYYY-MM; empty for no bound. With a bound, image sets
            without a date are left out.
        last_month: The last study month, the same.
        months: The study months; None for no bound.
        image_set_ids: The image sets of a cohort; None for all.
        include_archived: Whether archived image sets are wanted too.
    """

    modalities: frozenset[str] = ALL_MODALITIES
    first_month: str = ""
    last_month: str = ""
    months: frozenset[str] | None = None
    image_set_ids: pa.Array | None = None
    include_archived: bool = False

    def has_month(self, month: str) -> bool:
        """Return whether image sets of a study month are wanted."""
        if self.months is not None and month not in self.months:
            return False
        if month == schema.UNDATED:
            return not (self.first_month or self.last_month)
        return self.first_month <= month <= (self.last_month or month)

    def mask(self, states: pa.Table) -> pa.Array:
        """Return which states are wanted, archived or not."""
        wanted = pa.repeat(pa.scalar(True), len(states))
        if self.modalities != ALL_MODALITIES:
            wanted = pc.and_(wanted, self._have_modality(states["Modality"]))
        if self.image_set_ids is not None:
            own = self.image_set_ids
            wanted = pc.and_(wanted, pc.is_in(states["image_set_id"], value_set=own))
        return wanted

    def _have_modality(self, modalities: pa.ChunkedArray) -> pa.Array:
        r"""Return which values name a wanted modality. PT\CT names two."""
        encoded = modalities.combine_chunks().dictionary_encode()
        named = [
            not self.modalities.isdisjoint(distinct_values(v))
            for v in encoded.dictionary.to_pylist()
        ]
        return pc.fill_null(pa.array(named, pa.bool_()).take(encoded.indices), fill_value=False)


@dataclass(frozen=True)
class HeadersEstimate:
    """What fetching headers would cost.

    Attributes:
        wanted: Image sets whose headers are wanted, fetched or not.
        failed: Those of `requests` that were asked for before, and could not be read.
        requests: Headers to fetch, at one request each.
        archived: Archived image sets among those wanted: they would move to the frequent tier, or
            are left alone.
        includes_archived: Whether `requests` includes them.
        tps: Requests per second.
    """

    requests: int
    archived: int
    includes_archived: bool
    tps: float
    wanted: int = 0
    failed: int = 0

    @property
    def hours(self) -> float:
        """How long it takes at the quota."""
        return Bill(self.requests, self.tps).hours

    @property
    def dollars(self) -> float:
        """What the requests cost, in USD."""
        return Bill(self.requests, self.tps).dollars


@dataclass(frozen=True)
class Due:
    """Image sets whose headers are due, and counts of some study months.

    Attributes:
        states: The image sets whose headers are due.
        archived: Archived image sets among them.
        left_alone: Archived image sets that are not among them.
        wanted: Image sets whose headers are wanted, fetched or not.
        failed: Image sets that are due because their header could not be read before.
    """

    states: pa.Table
    archived: int
    left_alone: int
    wanted: int
    failed: int


def estimate(
    root: Root, datastores: Iterable[str], choice: HeaderChoice, tps: float
) -> HeadersEstimate:
    """Count what is due, without a request.

    Args:
        root: The lake.
        datastores: The data stores.
        choice: Which headers are wanted.
        tps: Requests per second.
    """
    counts = Counter[str]()
    for datastore_id in datastores:
        for due in find_due(root, datastore_id, choice):
            counts["requests"] += len(due.states)
            counts["archived"] += due.archived + due.left_alone
            counts["wanted"] += due.wanted
            counts["failed"] += due.failed
    return HeadersEstimate(
        counts["requests"],
        counts["archived"],
        choice.include_archived,
        tps,
        counts["wanted"],
        counts["failed"],
    )


def find_due(root: Root, datastore_id: str, choice: HeaderChoice) -> Iterator[Due]:
    """Yield what is due, some study months at a time. See `estimate` for the arguments."""
    current = CurrentStates(root)
    fetched = files.by_month(files.paths(root, datastore_id))
    for months in _groups(current.versions_by_month(), choice):
        states = _states(current, datastore_id, months)
        states = states.filter(choice.mask(states))
        wanted = len(states)
        asked = files.read_fetched(root, [p for month in months for p in fetched.get(month, ())])
        is_done, key = asked["failure"].is_null(), ["image_set_id", "version"]
        states = states.join(asked.filter(is_done).select(key), key, join_type="left anti")
        again = asked.filter(pc.invert(is_done)).select(key)
        failed = len(states.join(again, key, join_type="left semi"))
        states = states.sort_by([("study_month", "ascending"), ("image_set_id", "ascending")])
        is_archived = pc.equal(states["storage_tier"], schema.ARCHIVE).fill_null(fill_value=False)
        archived = pc.sum(is_archived).as_py() or 0
        if choice.include_archived:
            yield Due(states, archived, 0, wanted, failed)
        else:
            yield Due(states.filter(pc.invert(is_archived)), 0, archived, wanted, failed)


def _groups(sizes: Mapping[str, int], choice: HeaderChoice) -> Iterator[list[str]]:
    """Yield the wanted study months, as many together as their states fit into memory."""
    months, rows = list[str](), 0
    for month in sorted(filter(choice.has_month, sizes)):
        rows += sizes[month]
        if months and (rows > _GROUP_ROWS or month == schema.UNDATED):
            yield months
            months, rows = [], sizes[month]
        months.append(month)
    if months:
        yield months


def _states(current: CurrentStates, datastore_id: str, months: Sequence[str]) -> pa.Table:
    """Return the current states of some study months."""
    known = current.files("StudyDate")
    if schema.UNDATED in months:
        paths = [file.path for file in known if file.nulls != 0]
    else:
        intervals = [Interval.of_month(month) for month in months]
        paths = [file.path for file in known if any(i.overlaps(file) for i in intervals)]
    where = f"study_month IN {engine.text_list(months)} AND datastore_id = '{datastore_id}'"
    return current.read(", ".join(_STATE_COLUMNS), f"{where} AND version IS NOT NULL", paths)
