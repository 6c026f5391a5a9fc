"""Frozen cohorts when keys change: the same members, under their new keys.

Keys change with the patient key, and where a release reads ids otherwise. A frozen cohort is never
written again but for this and an erasure: otherwise nobody could be looked up any more. Its
members, digest and signature are made anew; the criteria, the counts and the number stay.
"""

from __future__ import annotations

import json
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


def require_key(root: Root, key: bytes | None) -> None:
    """Look whether every frozen cohort that is signed can be signed again.

    Raises:
        SettingError: There is no key to sign with.
    """
    for manifest in _manifests(root):
        _require_key(manifest, key)


def _require_key(manifest: Manifest, key: bytes | None) -> None:
    if manifest.signature and key is None:
        raise SettingError(
            "frozen cohorts are signed, and would not be any more; set COHORTLAKE_COHORT_KEY_FILE "
            "to the key that they are signed with"
        )


def rekey(root: Root, link: pa.Table, key: bytes | None) -> int:
    """Bring all cohorts below a lake under new keys. Doing it twice does nothing more.

    Args:
        root: The lake.
        link: See `admin.rotate_patient_key.LINK`.
        key: To sign with, or None.

    Returns:
        How many frozen cohorts were brought under new keys.

    Raises:
        NotAsFrozen: The files of one are not what was frozen.
        RootNotUsable: A file cannot be written.
        SettingError: There is no key to sign with. Those before are done.
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
        rekeyed = _rekeyed(members, maps, days)
        if rekeyed.equals(members):
            continue
        _require_key(manifest, key)
        whole = digest.of_all(rekeyed[digest.COLUMN].to_pylist())
        path = f"{freeze.FOLDER}/{manifest.cohort}/members/{whole[:32]}.parquet"
        freeze.write_members(root, path, rekeyed, whole)
        anew = replace(manifest, members=path, digest=whole, signature=None)
        if manifest.signature and key:
            anew = replace(anew, signature=signature.sign(key, anew.signed))
        root.write(manifest.path, json.dumps(asdict(anew), indent=1).encode())
        changed += 1
    if changed:
        _forget_old_members(root)
    return changed


def _manifests(root: Root) -> list[Manifest]:
    return [
        freeze.read(root, name, number)
        for name, numbers in freeze.numbers_of(root).items()
        for number in numbers
    ]


def _of(link: pa.Table, kind: str) -> pa.Table:
    return link.filter(pc.equal(link["kind"], kind))


def _rekeyed(members: pa.Table, maps: dict[str, dict[str, str]], days: dict[str, int]) -> pa.Table:
    shifts = [days.get(patient) for patient in members["patient_key"].to_pylist()]
    columns = {name: members[name].to_pylist() for name in members.column_names}
    for name, values in columns.items():
        if name in _KINDS:
            known = maps[_KINDS[name]]
            columns[name] = [known.get(value, value) for value in values]
        elif name.endswith(_SHIFTED) and pa.types.is_date(members.schema.field(name).type):
            columns[name] = [_moved(*one) for one in zip(values, shifts, strict=True)]
    if schema.SHIFTED_YEAR.name in columns:
        moved = columns[schema.shifted(schema.STUDY_DATE).name]
        columns[schema.SHIFTED_YEAR.name] = [
            day.strftime(schema.YEAR_FORMAT) if day else year
            for day, year in zip(moved, columns[schema.SHIFTED_YEAR.name], strict=True)
        ]
    rekeyed = pa.table(columns, members.schema)
    told = zip(members[digest.COLUMN].to_pylist(), digest.of_members(rekeyed), strict=True)
    erased = pc.is_null(members["patient_key"]).to_pylist()
    # Of who was erased remains the digest that they had.
    columns[digest.COLUMN] = [
        old if is_gone else new for (old, new), is_gone in zip(told, erased, strict=True)
    ]
    return pa.table(columns, members.schema)


def _moved(day: date | None, days: int | None) -> date | None:
    return day if day is None or days is None else day + timedelta(days=days)


def _forget_old_members(root: Root) -> None:
    """Delete members that no manifest names, and those that were drawn last for BI."""
    named = {manifest.members for manifest in _manifests(root)}
    for path in root.files(freeze.FOLDER, ".parquet"):
        if path not in named:
            root.delete(path)
