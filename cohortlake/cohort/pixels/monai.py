"""The format `monai`: a datalist, with a list of entries for each part of the cohort's split.

`image` is the folder in which `ahi-retrieve` saves the frames of the image set. MONAI takes it from
the folder of the datalist, or from its `base_dir`. All other keys stay in the item. Source:
https://github.com/Project-MONAI/MONAI, monai/data/decathlon_datalist.py, `load_decathlon_datalist`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import msgspec

from cohortlake.cohort.pixels.about import About
from cohortlake.cohort.pixels.entries import Entry
from cohortlake.errors import BadCriteria

_WHOLE = "training"
"""The part of a cohort without a split."""
_MONAI_NAMES = {
    "train": "training",
    "val": "validation",
    "valid": "validation",
    "tune": "validation",
    "testing": "test",
}
_SUMMARY = "cohortlake"
_NO_ENTRIES: tuple[str, Iterator[Entry]] = ("", iter(()))


def write(file: Path, entries: Iterator[Entry], about: About) -> None:
    """Write the datalist.

    Raises:
        BadCriteria: Two parts of the split have one name in MONAI's words.
    """
    parts = sorted(about.parts) or [_WHOLE]  # as the entries are
    keys = [_key(part) for part in parts]
    if len({*keys, _SUMMARY}) <= len(keys):
        raise BadCriteria(
            f"the parts of the split are called {', '.join(keys)} in a datalist, where each name "
            f"stands once and {_SUMMARY} is taken; rename a part"
        )
    groups = groupby(entries, lambda entry: entry.part or _WHOLE)
    filled, group = next(groups, _NO_ENTRIES)
    with file.open("wb") as stream:
        stream.write(b"{")
        for part, key in zip(parts, keys, strict=True):
            stream.write(b'\n"%s": [' % key.encode())
            if part == filled:
                between = b"\n"
                for entry in group:
                    stream.write(between + msgspec.json.encode(_item(entry, about)))
                    between = b",\n"
                filled, group = next(groups, _NO_ENTRIES)
            stream.write(b"\n],")
        stream.write(b'\n"%s": %s\n}\n' % (_SUMMARY.encode(), msgspec.json.encode(about.summary())))


def _key(part: str) -> str:
    return _MONAI_NAMES.get(part, part)


def _item(entry: Entry, about: About) -> dict[str, object]:
    return {"image": f"{entry.datastore_id}/{entry.image_set_id}"} | about.facts(entry)
