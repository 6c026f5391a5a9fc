"""Runs cohorts that are kept as YAML files, and writes their present members for BI.

The members are in `cohorts/<name>/current/` below the root of the lake. They follow the published
tables and prove nothing: see `freeze` for proof. A scheduler decides when this runs.
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
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.errors import (
    BadCondition,
    BadCriteria,
    BadOutsideTable,
    BadQuery,
    NotShown,
    UnknownCohort,
    UnknownTable,
)
from cohortlake.storage.root import Root

_NOT_DRAWN = (BadCondition, BadOutsideTable, BadQuery, NotShown, UnknownTable)
"""Errors of criteria that worked once: a table or a column is not there any more."""


@dataclass(frozen=True)
class RunResult:
    """The result of a run of a cohort.

    Attributes:
        attrition: Who was left after each step.
        members: How many members there are.
        columns: The columns of the members.
        path: Their file, below the root of the lake.
        is_written: Whether they differ from those of the last run.
        frozen: The last freezing, `name@number`; None if there is none.
        verification: How it compares with today; None if there is none, or it cannot be verified.
        unverified: Why it cannot be verified, for example because a table that it joins is gone.
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
    """Return the YAML files of a folder by their cohort's name; none if there is no folder."""
    found = sorted(Path(folder).glob("*.yaml"))
    return {path.stem: path for path in found if NAME.fullmatch(path.stem)}


def misnamed(folder: str | Path) -> list[str]:
    """Return the names of YAML files in a folder that cannot name a cohort. `files` skips them.

    The name of a cohort is in lower case letters, digits and underscores, and its file ends in
    `.yaml`.
    """
    found = (path for path in Path(folder).glob("*") if path.suffix.lower() in (".yaml", ".yml"))
    return sorted({path.name for path in found} - {path.name for path in files(folder).values()})


def load(lake: Lake, folder: str | Path, name: str) -> Cohort:
    """Load the cohort of a file; see `Lake.load_cohort`.

    Raises:
        UnknownCohort: There is no such file.
        BadCriteria: It makes no cohort, or one of another name, or its name cannot be used.
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


def run(cohort: Cohort, folder: str | Path) -> RunResult:
    """Write the members of a cohort if they changed, and verify its last freezing.

    Args:
        cohort: The cohort.
        folder: The folder of the files that its last freezing joins.

    Raises:
        RootNotUsable: The members cannot be written.
        NotAsFrozen: The frozen files themselves were changed.
    """
    tables, name = cohort.selected.tables, cohort.criteria.name
    members = manifest.with_digests(cohort.to_arrow())
    whole = digest.of_all(members[digest.COLUMN].to_pylist())
    path = f"{manifest.FOLDER}/{name}/{manifest.CURRENT}"
    is_other = _written_digest(tables.root, path) != whole
    if is_other:
        manifest.write_members(tables.root, path, members, whole)
    frozen = manifest.read(tables.root, name) if name in manifest.numbers_of(tables.root) else None
    verification, unverified = _verified(tables, frozen, folder) if frozen else (None, None)
    return RunResult(
        attrition(cohort.selected),
        len(members),
        tuple(members.column_names),
        path,
        is_other,
        frozen.label if frozen else None,
        verification,
        unverified,
    )


def _verified(
    tables: OpenedTables, frozen: manifest.Manifest, folder: str | Path
) -> tuple[Verification, None] | tuple[None, str]:
    """Verify a freezing, or return why it cannot be verified."""
    criteria = frozen.read_criteria()
    # The frozen cohort may join another table than the cohort of today, under the same name.
    with Lake(tables.root, tables.as_of) as other:
        try:
            frames = {join.table for join in criteria.joins if join.file is None}
            other.opened.attach_from(tables, sorted(frames & tables.outside.keys()))
            other.attach_files(criteria, folder)
            return other.verify(frozen.label), None
        except _NOT_DRAWN as error:
            return None, str(error)


def _written_digest(root: Root, path: str) -> str | None:
    if not root.exists(path):
        return None
    with root.open(path) as file:
        metadata: dict[bytes, bytes] = pq.read_schema(file).metadata or {}
    return metadata.get(b"cohortlake.digest", b"").decode()
