"""The format `ahi-retrieve`: a JSON file for each image set, for the retrieval tool of AWS.

The tool takes a part of the metadata document of an image set, and ignores all other fields. It
saves frames below `<data store>/<image set>/`, and so are the files here. Source:
https://github.com/aws-samples/aws-healthimaging-samples, ahi-batch-image-frame-retrieve,
docs/input.md and include/ahi-retrieve/input.h, which needs a number for each size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from cohortlake.cohort.pixels.about import About
from cohortlake.cohort.pixels.entries import Entry


def write(folder: Path, entries: Iterator[Entry], about: About) -> None:
    """Write a file for each entry, and a summary beside the folders of the data stores."""
    datastores = set[str]()
    for entry in entries:
        if entry.datastore_id not in datastores:
            datastores.add(entry.datastore_id)
            (folder / entry.datastore_id).mkdir()
        document = msgspec.json.encode(_document(entry) | {"cohortlake": about.facts(entry)})
        (folder / entry.datastore_id / f"{entry.image_set_id}.json").write_bytes(document)
    about.write_summary(folder)


def _document(entry: Entry) -> dict[str, Any]:
    instances: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for instance in entry.instances:
        frames = instances.setdefault(instance["SOPInstanceUID"], {"ImageFrames": []})
        frames["ImageFrames"] += (
            {"ID": frame["ID"], "FrameSizeInBytes": frame["FrameSizeInBytes"] or 0}
            for frame in instance["ImageFrames"]
        )
    return {
        "DatastoreID": entry.datastore_id,
        "ImageSetID": entry.image_set_id,
        "Study": {"Series": {entry.SeriesInstanceUID or "": {"Instances": instances}}},
    }
