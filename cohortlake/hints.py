"""Events as hints: something happened, so look now and not at the next hour.

EventBridge may bring an event late, twice or not at all, and whoever may write to the queue
can make one up. So an event never changes the lake by itself. Any of them makes the days
that are due be searched now, as the next tick would have; a deletion is asked for as after a
sweep (`ingest.confirm_deletions`). A message is removed only after the lake has committed: a run
that dies before takes it again, to no effect.

Left in the queue are deletions that the service does not confirm, or not yet, and messages
that are no events of HealthImaging's. They come again after the queue's visibility timeout,
as often as its redrive policy lets them, and hold up no others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cohortlake.failures import Failures
from cohortlake.healthimaging import Datastore
from cohortlake.ingest.confirm_deletions import Confirmed
from cohortlake.ingest.events import Event, Queue
from cohortlake.ingest.progress import Progress
from cohortlake.sync import Sync


@dataclass(frozen=True)
class Taken:
    """What the messages of a queue came to.

    Attributes:
        messages: Messages received.
        hints: Those about image sets of this lake's data stores.
        foreign: Those that are no events of HealthImaging's; they stay in the queue.
        unsettled: Deletions that the service does not confirm, or not yet; they stay too.
        removed: Messages removed.
        changes: Kind of change -> how many, as `ApplyResult.changes`.
        unconfirmed: Of those that are unsettled, image sets that no search finds and that stay,
            because GetImageSet is denied.
    """

    messages: int
    hints: int
    foreign: int
    unsettled: int
    removed: int
    changes: dict[str, int]
    unconfirmed: int = 0


def waiting(sync: Sync) -> int:
    """Return about how many messages there are to take.

    Raises:
        CohortlakeError: See `errors`.
    """
    return Queue(sync.settings.events_queue).waiting()


def take_hints(sync: Sync, progress: Progress | None = None) -> Taken:
    """Read the queue once, bring `image_sets/` up to date, and remove what is dealt with.

    Publishing is left to the caller.

    Args:
        sync: The lake; `events_queue` is one of its settings.
        progress: Told how it goes.

    Raises:
        CohortlakeError: See `errors`. What landed stays. A data store that fails holds up no
            other; the messages about it come again, and so do all where the queue fails.
    """
    datastores = sync.settings.require_datastores()
    queue = Queue(sync.settings.events_queue)
    messages = queue.receive()
    hints = [
        m.event
        for m in messages
        if m.event and m.event.image_set_id and m.event.datastore_id in datastores
    ]
    failures = Failures()
    stores: list[Datastore] = []
    for datastore_id in dict.fromkeys(hint.datastore_id for hint in hints):
        with failures.of(datastore_id):
            with sync.searching(datastore_id, progress) as store:
                for _ in sync.extract(store, sync.due(store), progress):
                    pass
            stores.append(store)
    # What was created and deleted since the last tick is to be known before it is asked for.
    found = sync.apply()
    unsettled: set[Event] = set()
    unconfirmed = 0
    for store in stores:
        with failures.of(store.datastore_id):
            own = [h for h in hints if h.is_deletion and h.datastore_id == store.datastore_id]
            said = _confirmed(sync, store, own)
            unsettled.update(hint for hint in own if hint.image_set_id in said.unsettled)
            unconfirmed += len(said.unconfirmed)
    closed = sync.apply()
    unsettled.update(hint for hint in hints if hint.datastore_id in failures.datastores)
    dealt_with = [m for m in messages if m.event and m.event not in unsettled]
    taken = Taken(
        messages=len(messages),
        hints=len(hints),
        foreign=sum(m.event is None for m in messages),
        unsettled=sum(m.event in unsettled for m in messages),
        removed=queue.remove(dealt_with),
        changes=dict(Counter(found.changes) + Counter(closed.changes)),
        unconfirmed=unconfirmed,
    )
    failures.raise_them()
    return taken


def _confirmed(sync: Sync, store: Datastore, deletions: list[Event]) -> Confirmed:
    """Close what is gone of what was said to be deleted."""
    image_set_ids = {hint.image_set_id for hint in deletions}
    return sync.confirm_gone(store, image_set_ids) if image_set_ids else Confirmed.of_nothing()
