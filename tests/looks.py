"""What looks at a data store saw, written into a lake as searches and sweeps write it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from cohortlake.flatten import flatten_summaries
from cohortlake.healthimaging import EPOCH
from cohortlake.increments import kinds, writer
from cohortlake.increments.record import Record
from cohortlake.storage.root import Root

DATASTORE = "d" * 32


@dataclass
class Looked:
    """What one look at the data store saw."""

    at: datetime
    found: Sequence[dict[str, Any]] = ()
    gone: Sequence[str] = ()


def write(root: Root, looks: Sequence[Looked]) -> list[str]:
    """Write increments, and return their paths."""
    paths = []
    for look in looks:
        run_id = f"run-{look.at:%Y%m%dT%H%M%S%f}"
        record = Record(DATASTORE, "updated_at", "2026-01-01", EPOCH, look.at, look.at, run_id)
        states = flatten_summaries(look.found, DATASTORE)
        record = replace(record, rows=len(states), kept_rows=len(states))
        states = states.append_column("page", pa.array([0] * len(states), pa.int32()))
        writer.write_table(root, record, kinds.with_run_columns(states, record))
        paths.append(record.path)
        if look.gone:
            count = len(look.gone)
            absence = replace(record, axis=kinds.ABSENCE_AXIS, rows=count, kept_rows=count)
            rows = [
                {
                    "datastore_id": DATASTORE,
                    "image_set_id": gone,
                    "confirmed_by": "GetImageSet",
                    "last_seen_at": look.at - timedelta(minutes=1),
                }
                for gone in look.gone
            ]
            table = pa.Table.from_pylist(rows, kinds.ABSENCE_WITHOUT_RUN)
            writer.write_table(root, absence, kinds.with_run_columns(table, absence))
            paths.append(absence.path)
    return paths
