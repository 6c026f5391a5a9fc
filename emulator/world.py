"""The state of one run: the clock, the store and the faults, made from its options.

It also loads the image sets at the start. See `server` for the requests.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from emulator.clock import Clock
from emulator.data import dicom, history
from emulator.data.hospital import Hospital
from emulator.data.jobs import Jobs, synthetic
from emulator.data.records import Record, from_summary, suggested_instances
from emulator.data.store import Datastore, Store
from emulator.datetimes import from_iso8601
from emulator.options import Options
from emulator.seeded import identifier
from emulator.service.faults import Faults
from emulator.service.stats import Stats


@dataclass(frozen=True)
class World:
    """The state of one run of the emulator.

    Attributes:
        skipped: The number of files in the DICOM folders that are not DICOM objects.
    """

    options: Options
    clock: Clock
    store: Store
    faults: Faults
    stats: Stats
    skipped: int

    def close(self) -> None:
        """Closes the store."""
        self.store.close()


def build(options: Options) -> World:
    """Makes the state of a run and loads its image sets.

    Raises:
        ValueError: If an option or a file to load cannot be used. The message says which and why.
    """
    start_ms = from_iso8601(options.now) if options.now else None
    clock = Clock(start_ms, stopped=options.clock == "stopped")
    store = Store(options.db)
    try:
        if store.datastores():
            _reopen(options, store, clock)
            skipped = 0
        else:
            with store.transaction():
                skipped = _fill(options, store, clock.now_ms())
    except BaseException:
        store.close()
        raise
    return World(options, clock, store, Faults(options.behaviour, options.seed), Stats(), skipped)


def _reopen(options: Options, store: Store, clock: Clock) -> None:
    if options.loads_data:
        raise ValueError(f"{options.db} already holds data stores; load nothing or use a new file")
    # The file may be from a clock that was ahead, and no updatedAt may lie in the future.
    clock.move_to(store.newest_ms() + 1)


def _fill(options: Options, store: Store, now_ms: int) -> int:
    datastores = [_add(options, store, number, now_ms) for number in range(options.datastores)]
    if options.synthetic:
        import_jobs = Jobs(store)
        for datastore in datastores:
            for job in synthetic(datastore, options.seed, now_ms):
                import_jobs.add(job)
    first = datastores[0]
    imports = [dicom.read(folder, first, now_ms) for folder in options.dicom]
    store.load(_records(options, datastores, now_ms, imports))
    for imported in imports:
        store.add_documents(imported.documents)
        store.add_frames(imported.frames)
    return sum(imported.skipped for imported in imports)


def _add(options: Options, store: Store, number: int, now_ms: int) -> Datastore:
    datastore_id = identifier("datastore", options.seed, number)
    if number == 0 and options.datastore_id:
        datastore_id = options.datastore_id
    created_ms = now_ms - history.HISTORY_MS
    return store.add_datastore(datastore_id, f"emulated-{number + 1}", created_ms)


def _records(
    options: Options, datastores: list[Datastore], now_ms: int, imports: list[dicom.Import]
) -> Iterator[Record]:
    share, rest = divmod(options.synthetic, len(datastores))
    for place, datastore in enumerate(datastores):
        hospital = Hospital(datastore.number, options.seed, now_ms, series_size=options.series_size)
        yield from history.records(hospital, share + (place < rest))
    for path in options.load:
        yield from _summaries(path, datastores[0])
    for imported in imports:
        yield from imported.records


def _summaries(path: Path, datastore: Datastore) -> Iterator[Record]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if not text:
                continue
            try:
                summary = json.loads(text)
            except ValueError:
                raise ValueError(
                    f"{path}, line {number}: not JSON; write one summary per line"
                ) from None
            if not isinstance(summary, dict) or not isinstance(summary.get("imageSetId"), str):
                raise ValueError(f"{path}, line {number}: write an object with an imageSetId")
            instances = suggested_instances(summary)
            yield from_summary(datastore.number, summary, text=text, instances=instances)
