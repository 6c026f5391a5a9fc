"""What all reads of an image set share: whether it is there, its frames, and its tier."""

from __future__ import annotations

from dataclasses import dataclass

from emulator.clock import Clock
from emulator.data import metadata, records
from emulator.data.frames import Frame
from emulator.data.records import Record
from emulator.data.store import Datastore, Store
from emulator.service.faults import Faults
from emulator.service.stats import Stats
from emulator.wire import Stream, not_found


@dataclass(frozen=True)
class Reading:
    """Reads image sets of a store."""

    store: Store
    clock: Clock
    faults: Faults
    stats: Stats

    def current(self, datastore: Datastore, image_set_id: str) -> Record:
        """Returns the newest version of an image set.

        Raises:
            ServiceError: `ResourceNotFoundException` if it is not there, or is to look so.
        """
        record = self.store.current(datastore, image_set_id)
        if self.faults.is_gone(datastore.id, image_set_id):
            raise not_found(f"Image set {image_set_id}")
        return record

    def access(self, newest: Record) -> None:
        """Notes that somebody read an image set, which moves it from the archive."""
        if newest.wire().get("storageTier") == records.ARCHIVE:
            self.stats.moved_to_frequent += 1
        self.store.replace(records.accessed(newest, self.clock.now_ms()))

    def frame(self, newest: Record, frame_id: str) -> Stream:
        """Returns the bytes of an image frame; moves the image set to the frequent tier.

        Raises:
            ServiceError: `ResourceNotFoundException` if the image set has no such frame.
        """
        frame = self._frame(newest, frame_id)
        if frame is None:
            raise not_found(f"Image frame {frame_id}")
        try:
            content_type, pieces = frame.content()
        except OSError:
            raise not_found(f"The file of image frame {frame_id}") from None
        self.access(newest)
        return Stream(pieces, content_type, length=frame.size)

    def _frame(self, newest: Record, frame_id: str) -> Frame | None:
        stored = self.store.frame(newest, frame_id)
        if stored is None and self.store.document(newest) is None:
            return metadata.synthetic_frame(newest, frame_id)
        return stored
