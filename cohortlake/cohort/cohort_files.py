"""Cohorts that are kept as YAML files: found, drawn, and their present members written.

Owns `cohorts/<name>/current/` below the lake's root, which BI reads: it follows the published
tables and proves nothing. Proof is `freeze`'s. When this runs is the scheduler's to say.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from cohortlake.cohort.cohort import Cohort
from cohortlake.cohort.define.steps import NAME, check_name
from cohortlake.cohort.describe.attrition import Attrition, attrition
from cohortlake.cohort.freeze import digest, manifest
from cohortlake.cohort.freeze.verify import Verification
from cohortlake.cohort.lake import Lake
from cohortlake.errors import (
    BadCondition,
    BadCriteria,
    BadOutsideTable,
    BadQuery,
    NotShown,
    UnknownCohort,
    UnknownTable,
)

_NOT_DRAWN = (BadCondition, BadOutsideTable, BadQuery, NotShown, UnknownTable)
"""Errors of criteria that could be drawn once: a table or a column is not there any more."""


@dataclass(frozen=True)
class Ran:
    """What a run of a cohort brought.

    Attributes:
        attrition: Who was left after each step.
        members: How many members there are.
        columns: What is told of each.
        path: Where they lie, below the lake's root.
        is_written: Whether they are others than the last time.
        frozen: The last freezing, `name@number`; None where nothing was ever frozen.
        verification: What became of it; None where nothing was ever frozen, or it
            cannot be drawn again.
        unverified: Why it cannot, as where it joins a table that is gone; None where it could.
    """

    attrition: Attrition
    members: int
    columns: tuple[str, ...]
    path: str
    is_written: bool
    frozen: str | None
    verification: Verification | None
    unverified: str | None


def files(folder: str | Path) -> dict[str, Path]:
    """Return the YAML files of a folder by their cohort's name; none where there is no folder."""
    found = sorted(Path(folder).glob("*.yaml"))
    return {path.stem: path for path in found if NAME.fullmatch(path.stem)}


def misnamed(folder: str | Path) -> list[str]:
    """Return the names of YAML files of a folder that can be no cohort's: `files` leaves them out.

    The name of a cohort is in lower case letters, digits and underscores, and its file ends in
    `.yaml`.
    """
    found = (path for path in Path(folder).glob("*") if path.suffix.lower() in (".yaml", ".yml"))
    return sorted({path.name for path in found} - {path.name for path in files(folder).values()})


def load(lake: Lake, folder: str | Path, name: str) -> Cohort:
    """Draw the cohort of a file; see `Lake.load_cohort`.

    Raises:
        UnknownCohort: There is no such file.
        BadCriteria: It makes no cohort, or one of another name, or its name can be no cohort's.
    """
    known = files(folder)
    if (Path(folder) / f"{name}.yaml").exists():
        check_name(name, "a cohort's name")
    if name not in known:
        raise UnknownCohort(name, known, f"is in {folder}/")
    cohort = lake.load_cohort(known[name])
    if cohort.criteria.name != name:
        raise BadCriteria(f"{known[name]} holds the cohort {cohort.criteria.name!r}: rename one")
    return cohort


def run(cohort: Cohort, folder: str | Path) -> Ran:
    """Draw a cohort, write its members if they are others, and verify its last freezing.

    Args:
        cohort: The cohort.
        folder: Where the files are that its last freezing joins.

    Raises:
        RootNotUsable: The members cannot be written.
        NotAsFrozen: The frozen files themselves were changed.
    """
    lake, name = cohort.lake, cohort.criteria.name
    members = manifest.with_digests(cohort.to_arrow())
    whole = digest.of_all(members[digest.COLUMN].to_pylist())
    path = f"{manifest.FOLDER}/{name}/{manifest.CURRENT}"
    is_other = _written_digest(lake, path) != whole
    if is_other:
        manifest.write_members(lake.root, path, members, whole)
    frozen = lake.frozen(name) if name in manifest.numbers_of(lake.root) else None
    verification, unverified = _verified(lake, frozen, folder) if frozen else (None, None)
    return Ran(
        attrition(cohort),
        len(members),
        tuple(members.column_names),
        path,
        is_other,
        frozen.label if frozen else None,
        verification,
        unverified,
    )


def _verified(
    lake: Lake, frozen: manifest.Manifest, folder: str | Path
) -> tuple[Verification, None] | tuple[None, str]:
    """Verify a freezing, or say why it cannot be drawn again."""
    criteria = frozen.read_criteria()
    # What was frozen may join another table than the cohort does now, under the same name.
    with Lake(lake.root, lake.as_of) as other:
        try:
            for join in criteria.joins:
                if join.file is None and join.table in lake.outside:
                    other.attach_from(lake, join.table)
            other.attach_files(criteria, folder)
            return other.verify(frozen.label), None
        except _NOT_DRAWN as error:
            return None, str(error)


def _written_digest(lake: Lake, path: str) -> str | None:
    if not lake.root.exists(path):
        return None
    with lake.root.open(path) as file:
        told: dict[bytes, bytes] = pq.read_schema(file).metadata or {}
    return told.get(b"cohortlake.digest", b"").decode()
