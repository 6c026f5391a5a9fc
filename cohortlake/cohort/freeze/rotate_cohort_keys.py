"""Rewrites frozen cohorts when keys change: the same members, under their new keys.

Keys change with the patient key, and when a release reads ids in another way. Only this and an
erasure rewrite a frozen cohort: with the old keys, its members could not be found in the lake. The
members, the digest and the signature are new; the criteria, the counts and the number stay.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import date, timedelta

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake import schema
from cohortlake.cohort.freeze import digest, signature
from cohortlake.cohort.freeze import manifest as freeze
from cohortlake.cohort.freeze.manifest import Manifest
from cohortlake.errors import SettingError
from cohortlake.storage.root import Root

_KINDS = {
    "patient_key": "patient",
    "accession_key": "accession",
    "StudyInstanceUID": "uid",
    "SeriesInstanceUID": "uid",
}
_SHIFTED = "_shifted"
_OF_STUDY_DATE: dict[str, Callable[[date], object]] = {
    schema.SHIFTED_YEAR.name: lambda day: day.strftime(schema.YEAR_FORMAT),
    "study_year": lambda day: day.year,
    "study_quarter": lambda day: f"{day.year}-Q{(day.month + 2) // 3}",
}
"""Column -> its value for a shifted study date."""


def require_key(root: Root, key: bytes | None) -> None:
    """Check that every signed frozen cohort can be signed again.

    Raises:
        SettingError: There is no key to sign with.
    """
    for manifest in _manifests(root):
        _require_key(manifest, key)


def _require_key(manifest: Manifest, key: bytes | None) -> None:
    if manifest.signature and key is None:
        raise SettingError(
            "frozen cohorts are signed, and there is no key to sign them again; set "
            "COHORTLAKE_COHORT_KEY_FILE to the key that they are signed with"
        )


def rotate(root: Root, link: pa.Table, key: bytes | None) -> int:
    """Replace the keys in all frozen cohorts of a lake. A second call changes nothing.

    Args:
        root: The lake.
        link: See `admin.rotate_patient_key.LINK`.
        key: To sign with, or None.

    Returns:
        How many frozen cohorts were changed.

    Raises:
        NotAsFrozen: The files of one are not what was frozen.
        RootNotUsable: A file cannot be written.
        SettingError: There is no key to sign with. Cohorts before it were changed.
    """
    maps = {
        kind: dict(zip(*(_of(link, kind)[c].to_pylist() for c in ("old", "new")), strict=True))
        for kind in sorted({*_KINDS.values()})
    }
    patients = _of(link, "patient")
    days = dict(zip(patients["old"].to_pylist(), patients["days"].to_pylist(), strict=True))
    changed = 0
    for manifest in _manifests(root):
        members = freeze.read_members(root, manifest)
        rotated = _rotated(members, maps, days)
        if rotated.equals(members):
            continue
        _require_key(manifest, key)
        whole = digest.of_all(rotated[digest.COLUMN].to_pylist())
        path = f"{freeze.FOLDER}/{manifest.cohort}/members/{whole[:32]}.parquet"
        freeze.write_members(root, path, rotated, whole)
        changed_manifest = replace(manifest, members=path, digest=whole, signature=None)
        if manifest.signature and key:
            signed = signature.sign(key, changed_manifest.signed)
            changed_manifest = replace(changed_manifest, signature=signed)
        root.write(manifest.path, json.dumps(asdict(changed_manifest), indent=1).encode())
        changed += 1
    if changed:
        _delete_old_members(root)
    return changed


def _manifests(root: Root) -> list[Manifest]:
    return [
        freeze.read(root, name, number)
        for name, numbers in freeze.numbers_of(root).items()
        for number in numbers
    ]


def _of(link: pa.Table, kind: str) -> pa.Table:
    return link.filter(pc.equal(link["kind"], kind))


def _rotated(members: pa.Table, maps: dict[str, dict[str, str]], days: dict[str, int]) -> pa.Table:
    shifts = [days.get(patient) for patient in members["patient_key"].to_pylist()]
    columns = {name: members[name].to_pylist() for name in members.column_names}
    for name, values in columns.items():
        if name in _KINDS:
            known = maps[_KINDS[name]]
            columns[name] = [known.get(value, value) for value in values]
        elif name.endswith(_SHIFTED) and pa.types.is_date(members.schema.field(name).type):
            columns[name] = [_moved(*one) for one in zip(values, shifts, strict=True)]
    shifted = columns.get(schema.shifted(schema.STUDY_DATE).name)
    for name, of_date in _OF_STUDY_DATE.items():
        if shifted is not None and name in columns:
            columns[name] = [
                of_date(day) if day else value
                for day, value in zip(shifted, columns[name], strict=True)
            ]
    rotated = pa.table(columns, members.schema)
    digests = zip(members[digest.COLUMN].to_pylist(), digest.of_members(rotated), strict=True)
    erased = pc.is_null(members["patient_key"]).to_pylist()
    # An erased member keeps its digest.
    columns[digest.COLUMN] = [
        old if is_gone else new for (old, new), is_gone in zip(digests, erased, strict=True)
    ]
    return pa.table(columns, members.schema)


def _moved(day: date | None, days: int | None) -> date | None:
    return day if day is None or days is None else day + timedelta(days=days)


def _delete_old_members(root: Root) -> None:
    """Delete files of members that no manifest names, and the present members for BI."""
    named = {manifest.members for manifest in _manifests(root)}
    for path in root.files(freeze.FOLDER, ".parquet"):
        if path not in named:
            root.delete(path)
