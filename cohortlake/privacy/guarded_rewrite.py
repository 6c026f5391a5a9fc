"""Writing rows again that were read from the lake, while another machine may erase a patient.

A run reads rows and writes them into a file: a pack, a merged file, a file without some rows. On
S3 runs cannot see each other, so an erasure may remove the rows between the two. All such files are
written by the rule in `erasure_began`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from cohortlake.privacy import erasures
from cohortlake.storage.files import Overtaken
from cohortlake.storage.root import Root

Unless = Callable[[], bool]
"""Says whether an erasure began since a file was read."""


def erasure_began(root: Root) -> Unless:
    """Return a function that says whether an erasure began since this call.

    Rows that are read after this call are written again `unless` it says so. On S3 another machine
    may erase a patient meanwhile. It writes its record first. Then it deletes the hidden files, and
    then it lists the files whose rows it removes. The file that is written here is hidden until
    this function has looked at the records once more. So either it sees the record, or the erasure
    deletes the hidden file, or it lists the file. No kill changes that: what is hidden is never
    read.
    """
    before = erasures.read(root)
    return lambda: erasures.read(root) != before


def copying(root: Root) -> Unless:
    """Return the same for rows that are copied into another file.

    An erasure that is under way may have listed its files before the copy is there, and may not
    have removed the rows yet. So nothing is copied then.

    Raises:
        Overtaken: An erasure is under way, or did not come to its end.
    """
    before = erasures.read(root)
    if any(erasure.erased_at is None for erasure in before):
        raise Overtaken
    return lambda: erasures.read(root) != before


def beside_erasures(root: Root, attempt: Callable[[Unless], None]) -> None:
    """Read a file and write it again, and start over if an erasure began meanwhile.

    Args:
        root: The lake.
        attempt: Reads and writes. It gives what it writes the function that it gets.
    """
    is_written = False
    while not is_written:
        with contextlib.suppress(Overtaken):
            attempt(erasure_began(root))
            is_written = True
