"""The steps of a run at which it may be killed, and the constants that tests make small.

Each step is a function of the library, which `run` wraps from outside. No production code knows of
it. Whoever renames such a function changes the table `STEPS` too.
"""

from __future__ import annotations

import functools
import importlib
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

OnPoint = Callable[[str], None]


@dataclass(frozen=True)
class Step:
    """A named step.

    Attributes:
        name: What happens there.
        target: `module:attribute` of the function that is the step.
        often: About how many times a run comes to it; a kill is drawn from so many.
        command: A command that comes to it.
        on: Says from the arguments whether a call is this step; every call is by default.
    """

    name: str
    target: str
    often: int = 1
    command: str = "sync"
    on: Callable[..., bool] = lambda *_, **__: True


def _draft_of(part: str) -> Callable[..., bool]:
    return lambda draft: part in draft.temporary


def _is_month(draft: Any) -> bool:
    return "/published/" in draft.temporary and ".parquet" in draft.temporary


def _table(name: str) -> Callable[..., bool]:
    return lambda _root, table, *_, **__: table == name


STEPS = (
    Step("service's clock", "cohortlake.healthimaging.client:HealthImaging.datastore"),
    Step("page", "cohortlake.healthimaging.client:HealthImaging.search_page", often=20),
    Step(
        "confirmation", "cohortlake.healthimaging.client:HealthImaging.has_image_set",
        often=3, command="reconcile",
    ),
    Step("row group", "cohortlake.increments.writer:IncrementWriter.flush",
         often=4, command="reconcile"),
    Step("draft", "cohortlake.storage.root:Root.draft", often=30),
    Step(
        "increment", "cohortlake.storage.files:Draft.keep", often=5, on=_draft_of("/updated_at/")
    ),
    Step(
        "sweep", "cohortlake.storage.files:Draft.keep", often=60, command="reconcile",
        on=_draft_of("/study_date/"),
    ),
    Step("absence", "cohortlake.storage.files:Draft.keep", command="reconcile",
         on=_draft_of("/absence/")),
    Step("day", "cohortlake.ingest.extract:merge_results", often=3),
    Step("version history made", "cohortlake.storage.delta:make_table", on=_table("image_sets")),
    Step("version history committed", "cohortlake.storage.delta:commit", on=_table("image_sets")),
    Step("increments applied", "cohortlake.history.image_sets:apply"),
    Step("coverage made", "cohortlake.storage.delta:make_table", on=_table("coverage")),
    Step("coverage committed", "cohortlake.storage.delta:commit", on=_table("coverage")),
    Step("key", "cohortlake.storage.root:Root.create"),
    Step("index written", "cohortlake.storage.files:Draft.keep", on=_draft_of("/history_index/")),
    Step("month published", "cohortlake.storage.files:Draft.keep", often=10, on=_is_month),
    Step("month removed", "cohortlake.storage.root:Root.delete", command="reconcile"),
    Step("catalogue written", "cohortlake.publish.export.catalogue:bring_up_to_date"),
    Step("publication recorded", "cohortlake.storage.files:Draft.keep",
         on=_draft_of("_snapshots.jsonl")),
    Step("publication marked", "cohortlake.publish.publisher:write_marker"),
    Step("retention stated", "cohortlake.history.maintenance:state_retention", often=2,
         command="maintain"),
    Step("table compacted", "cohortlake.history.maintenance:compact", often=2, command="maintain"),
    Step("log shortened", "cohortlake.history.maintenance:shorten_log",
         often=2, command="maintain"),
    Step("leftovers deleted", "cohortlake.history.maintenance:vacuum", often=2, command="maintain"),
    Step("increments packed", "cohortlake.history.packing:_write", often=2, command="maintain"),
    Step("copied increments deleted", "cohortlake.history.packing:delete_copied",
         command="maintain"),
    Step("erasure recorded", "cohortlake.privacy.erasures:write", often=3, command="erase"),
    Step("counts forgotten", "cohortlake.increments.rewrite:clear_counts", command="erase"),
    Step("rows erased", "cohortlake.increments.rewrite:remove_rows", often=3, command="erase"),
    Step("past forgotten", "cohortlake.history.maintenance:forget_past", often=2, command="erase"),
    Step("published unmarked", "cohortlake.publish.publisher:request_full_publish",
         command="erase"),
)  # fmt: skip

POINTS = tuple(f"{when} {step.name}" for step in STEPS for when in ("before", "after"))
"""Where a run may be killed: before and after each step."""

WHERE_RUNS_MEET = (
    "after version history made",
    "before version history committed",
    "after version history committed",
    "before coverage committed",
    "before month published",
    "after month published",
    "before publication marked",
    "before table compacted",
    "after table compacted",
)
"""Where the first of two runs waits, so that the second overtakes it."""

SMALL = {
    # Otherwise a few hundred image sets need few tokens and never fill a row group.
    "cohortlake.increments.writer:ROW_GROUP_ROWS": 40,
    "cohortlake.increments.pack_writer:ROW_GROUP_ROWS": 40,
    "cohortlake.ingest.extract:_BATCH_BYTES": 20_000,
    "cohortlake.healthimaging.client:PAGE_SIZE": 10,
    # Otherwise compaction and packing begin after the end of a storm.
    "cohortlake.history.maintenance:_FEWEST_SMALL_FILES": 4,
    "cohortlake.history.packing:_FEWEST_SMALL_FILES": 4,
    # Nobody needs to spare a service that fails on purpose.
    "cohortlake.healthimaging.client:_LONGEST_WAIT_SECONDS": 0.2,
    # Each month costs a request; earlier ones are swept with `undated`.
    "cohortlake.ingest.partitions:FIRST_MONTH": date(2019, 1, 1),
    # Otherwise a first run writes a file for each day of three years.
    "cohortlake.ingest.partitions:FIRST_DAY": date(2026, 5, 1),
}


def step_of(point: str) -> Step:
    """Return the step that a point is before or after."""
    name = point.split(" ", 1)[1]
    return next(step for step in STEPS if step.name == name)


def install(on_point: OnPoint, constants: Mapping[str, Any]) -> None:
    """Wrap all steps in this process, and set the constants of `SMALL`.

    Args:
        on_point: Called at each point, in the thread that comes to it.
        constants: More constants to set, or other values.
    """
    for target, value in {**SMALL, **constants}.items():
        owner, name = _resolved(target)
        getattr(owner, name)  # that it is still there
        setattr(owner, name, value)
    for target in dict.fromkeys(step.target for step in STEPS):
        owner, name = _resolved(target)
        steps = [step for step in STEPS if step.target == target]
        setattr(owner, name, _wrapped(getattr(owner, name), steps, on_point))


def _resolved(target: str) -> tuple[Any, str]:
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module)), name


def _wrapped(function: Callable[..., Any], steps: list[Step], on_point: OnPoint) -> Any:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        names = [step.name for step in steps if step.on(*args, **kwargs)]
        for name in names:
            on_point(f"before {name}")
        result = function(*args, **kwargs)
        for name in names:
            on_point(f"after {name}")
        return result

    return wrapped


class Counts:
    """Counts how often a run comes to each point, from any thread."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def add(self, point: str) -> int:
        """Count one more, and return how many there are."""
        with self._lock:
            self._counts[point] += 1
            return self._counts[point]
