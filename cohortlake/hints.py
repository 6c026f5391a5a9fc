"""Events as hints: something happened, so the lake searches now and not at the next hour.

EventBridge may deliver an event late, twice or never, and anyone with write access to the queue can
invent one. So an event never changes the lake by itself. Any event starts a search of what is due.
An event about a deletion is confirmed first, see `ingest.confirm_deletions`. A message is removed
only after the lake has committed. If a run dies before that, the next run gets the message again,
without effect.

Two kinds of messages stay in the queue: deletions that the service does not confirm, or not yet,
and messages that are not events of HealthImaging. They return after the queue's visibility timeout,
as often as its redrive policy allows, and do not delay others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from cohortlake.failures import Failures
from cohortlake.healthimaging import Datastore
from cohortlake.ingest.events import Event, Queue
from cohortlake.ingest.progress import Progress
from cohortlake.sync import Sync


@dataclass(frozen=True)
class HintResult:
    """What the messages of a queue led to.

    Attributes:
        messages: Messages received.
        hints: Messages about image sets of this lake's data stores.
        foreign: Messages that are not events of HealthImaging. They stay in the queue.
        unsettled: Deletions that the service does not confirm, or not yet. They stay too.
        removed: Messages removed.
        changes: Kind of change -> how many, as `ApplyResult.changes`.
        unconfirmed: Image sets in `unsettled` that no search finds, where GetImageSet is denied.
    """

    messages: int
    hints: int
    foreign: int
    unsettled: int
    removed: int
    changes: dict[str, int]
    unconfirmed: int = 0


def count_waiting(sync: Sync) -> int:
    """Return about how many messages wait in the queue.

    Raises:
        CohortlakeError: See `errors`.
    """
    return Queue(sync.settings.events_queue).waiting()


def take_hints(sync: Sync, progress: Progress | None = None) -> HintResult:
    """Read the queue once, update the version history, and remove the messages that are settled.

    The caller publishes.

    Args:
        sync: The lake. Its setting `events_queue` names the queue.
        progress: Gets how far the searches have come.

    Raises:
        CohortlakeError: See `errors`. What was written stays. A failed data store does not stop
            the others. The messages about it return, and so do all where the queue fails.
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
    # An image set may have been created and deleted since the last tick. Its deletion can be
    # confirmed only after the lake knows it.
    found = sync.apply()
    unsettled: set[Event] = set()
    unconfirmed = 0
    for store in stores:
        with failures.of(store.datastore_id):
            own = [h for h in hints if h.is_deletion and h.datastore_id == store.datastore_id]
            result = sync.confirm_deletions(store, {hint.image_set_id for hint in own})
            unsettled.update(hint for hint in own if hint.image_set_id in result.unsettled)
            unconfirmed += len(result.unconfirmed)
    closed = sync.apply()
    unsettled.update(hint for hint in hints if hint.datastore_id in failures.datastores)
    settled = [m for m in messages if m.event and m.event not in unsettled]
    result_of_all = HintResult(
        messages=len(messages),
        hints=len(hints),
        foreign=sum(m.event is None for m in messages),
        unsettled=sum(m.event in unsettled for m in messages),
        removed=queue.remove(settled),
        changes=dict(Counter(found.changes) + Counter(closed.changes)),
        unconfirmed=unconfirmed,
    )
    failures.raise_all()
    return result_of_all
