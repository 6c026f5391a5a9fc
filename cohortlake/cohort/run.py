"""Cohorts that are kept as YAML files: found, drawn, and their present members written.

Owns `cohorts/<name>/current/` below the lake's root, which BI reads: it follows the published
tables and proves nothing. Proof is `freeze`'s. When this runs is the scheduler's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from cohortlake.cohort import digest, freeze
from cohortlake.cohort.attrition import Attrition, attrition
from cohortlake.cohort.cohort import Cohort
from cohortlake.cohort.lake import Lake
from cohortlake.cohort.verify import Verification
from cohortlake.errors import BadCriteria, UnknownCohort


@dataclass(frozen=True)
class Ran:
    """What a run of a cohort brought.

    Attributes:
        attrition: Who was left after each step.
        members: How many members there are.
        columns: What is told of each.
        path: Where they lie, below the lake's root.
        is_written: Whether they are others than the last time.
        verification: What became of the last freezing; None where nothing was ever frozen.
    """

    attrition: Attrition
    members: int
    columns: tuple[str, ...]
    path: str
    is_written: bool
    verification: Verification | None


def files(folder: str | Path) -> dict[str, Path]:
    """Return the YAML files of a folder by their cohort's name; none where there is no folder."""
    return {path.stem: path for path in sorted(Path(folder).glob("*.yaml"))}


def load(lake: Lake, folder: str | Path, name: str) -> Cohort:
    """Draw the cohort of a file; see `Lake.load_cohort`.

    Raises:
        UnknownCohort: There is no such file.
        BadCriteria: It makes no cohort, or one of another name.
    """
    known = files(folder)
    if name not in known:
        raise UnknownCohort(name, known, f"is in {folder}/")
    cohort = lake.load_cohort(known[name])
    if cohort.criteria.name != name:
        raise BadCriteria(f"{known[name]} holds the cohort {cohort.criteria.name!r}: rename one")
    return cohort


def run(cohort: Cohort) -> Ran:
    """Draw a cohort, write its members if they are others, and verify its last freezing.

    Raises:
        RootNotUsable: The members cannot be written.
        NotAsFrozen: The frozen files themselves were changed.
    """
    lake, name = cohort.lake, cohort.criteria.name
    members = freeze.with_digests(cohort.to_arrow())
    whole = digest.of_all(members[digest.COLUMN].to_pylist())
    path = f"{freeze.FOLDER}/{name}/{freeze.CURRENT}"
    is_other = _written_digest(lake, path) != whole
    if is_other:
        freeze.write_members(lake.root, path, members, whole)
    frozen = name in freeze.numbers_of(lake.root)
    return Ran(
        attrition(cohort),
        len(members),
        tuple(members.column_names),
        path,
        is_other,
        lake.verify(name) if frozen else None,
    )


def _written_digest(lake: Lake, path: str) -> str | None:
    if not lake.root.exists(path):
        return None
    with lake.root.open(path) as file:
        told: dict[bytes, bytes] = pq.read_schema(file).metadata or {}
    return told.get(b"cohortlake.digest", b"").decode()
