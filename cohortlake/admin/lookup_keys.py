"""The published keys of ids that a person holds, such as the PatientIDs of a registry.

Readers of `published/` know patients by `patient_key` only. Whoever may read the key and the
version history can make a crosswalk for them. Each lookup leaves a record in `keys/lookups/` of the
restricted zone: when, by whom, how many ids. No record, log or error holds an id.
"""

from __future__ import annotations

import csv
import getpass
import io
import json
import os
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cohortlake import schema
from cohortlake.cohort.define.values import is_text
from cohortlake.cohort.select import sources
from cohortlake.dicom_values import canonical_text
from cohortlake.errors import BadOutsideTable, ExportError, MissingKey, SettingError, did_you_mean
from cohortlake.history import image_sets
from cohortlake.privacy import Policy, Treatment, key_store
from cohortlake.privacy.keyed_hashes import create_macros
from cohortlake.publish.publication.marker import read_marker
from cohortlake.settings import Settings
from cohortlake.storage import engine
from cohortlake.storage.disk import whole_file
from cohortlake.storage.root import Root

KEYS = {
    "PatientID": "patient_key",
    "AccessionNumber": "accession_key",
    "StudyInstanceUID": "published_uid",
    "SeriesInstanceUID": "published_uid",
}
"""Attribute -> the column of its keys in a crosswalk."""

_FOLDER = "keys/lookups"


@dataclass(frozen=True)
class Crosswalk:
    """The keys of some ids.

    Attributes:
        table: The ids as given under the name of the attribute, `datastore_id`, the key and
            `in_lake`. An id that several data stores have has a row for each. An id that none has
            gets a row for each data store of the lake.
        ids: How many different ids there are.
        in_lake: How many of them the lake has.
        blank: Values that hold no id. They are left out.
        repeated: Values that repeat an id, in the same or in another spelling.
    """

    table: pa.Table
    ids: int
    in_lake: int
    blank: int
    repeated: int


def read_ids(path: Path, column: str) -> list[str | None]:
    """Read ids from a file, each as the text that it is: `00123` keeps its zeros.

    Args:
        path: A .csv or .parquet file.
        column: The column with the ids.

    Raises:
        BadOutsideTable: It cannot be read, has no such column, or the column holds no text.
    """
    table = sources.read(path, column).table
    if table.column_names.count(column) != 1:
        # No name is shown: without a first line of names, the names are ids.
        raise BadOutsideTable(
            f"{path} does not have one column of that name: its first line must name the columns, "
            "and --column the one with the ids"
        )
    if not is_text(table[column].type):
        raise BadOutsideTable(
            f"{path}: the column is not text, and a number has lost the zeros of an id; write it "
            "as text"
        )
    ids: list[str | None] = table[column].to_pylist()
    return ids


def lookup(
    root: Root,
    settings: Settings,
    policy: Policy,
    ids: Iterable[str | None],
    attribute: str = "PatientID",
    datastores: Collection[str] = (),
) -> Crosswalk:
    """Return the keys of ids, and record that somebody asked.

    Args:
        root: The lake.
        settings: Where the patient key is.
        policy: The policy of `published/`. It decides whether UIDs are replaced.
        ids: The ids, in any spelling that DICOM allows. None and blanks hold no id.
        attribute: What the ids are: one of `KEYS`.
        datastores: The data stores to look in; by default all of the lake.

    Raises:
        MissingKey: Nothing is published yet, or the key is missing.
        WrongKey: The lake was published with another key.
        SettingError: The attribute has no key, or no such data store is in the lake, or UIDs are
            published under another policy.
    """
    if attribute not in KEYS:
        raise SettingError(
            f"an attribute that has a key is one of {', '.join(KEYS)}"
            f"{did_you_mean(attribute, KEYS)}"
        )
    tag = next(tag for tag in schema.DICOM_TAGS if tag.name == attribute)
    is_uid = tag.vr == "UI"
    key = _published_key(root, settings, policy if is_uid else None)
    sent = list(ids)
    canonical = [None if one is None else canonical_text(tag.vr or "", one) for one in sent]
    spellings = {one: id_ for one, id_ in zip(sent, canonical, strict=True) if id_ is not None}
    given = pa.table(
        {
            "position": pa.array(range(len(spellings)), pa.int64()),
            "given": pa.array(spellings.keys(), pa.string()),
            "id": pa.array(spellings.values(), pa.string()),
        }
    )
    key_sql = f"keyed_hash('{attribute}', datastore_id, id)"
    if is_uid:
        key_sql = "keyed_uid(id)" if policy.treatment(tag) is Treatment.REPLACE else "id"
    with engine.connection() as con:
        current = image_sets.register(con, root).current
        create_macros(con, key)
        con.register("given_ids", given)
        known = con.execute(f"SELECT DISTINCT datastore_id FROM {current} ORDER BY 1").fetchall()
        stores = _stores([store for (store,) in known], datastores)
        con.register("stores", pa.table({"datastore_id": pa.array(stores, pa.string())}))
        query = _QUERY.format(attribute=attribute, key=key_sql, current=current)
        found: pa.Table = con.sql(query).to_arrow_table()
    named = {"given": attribute, "published_key": KEYS[attribute]}
    table = found.drop_columns(["position", "id"])
    table = table.rename_columns([named.get(name, name) for name in table.column_names])
    in_lake = len(found.filter(found["in_lake"])["id"].unique())
    n_ids = len(set(spellings.values()))
    blank = canonical.count(None)
    walked = Crosswalk(table, n_ids, in_lake, blank, len(sent) - blank - n_ids)
    _record(root, attribute, walked)
    return walked


def to_csv(table: pa.Table) -> str:
    """Return a crosswalk as CSV, each id exactly as given: read it back as text."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.column_names)
    *columns, in_lake = (column.to_pylist() for column in table.columns)
    words = ("true" if one else "false" for one in in_lake)
    writer.writerows(zip(*columns, words, strict=True))
    return text.getvalue()


def write(table: pa.Table, path: Path) -> None:
    """Write a crosswalk to a file that only its owner may read, whole or not at all.

    Args:
        table: The crosswalk.
        path: A .csv or .parquet file.

    Raises:
        ExportError: It cannot be written.
    """
    try:
        with whole_file(path) as draft:
            draft.touch(0o600)
            if path.suffix.lower() == ".parquet":
                pq.write_table(table, draft)
            else:
                draft.write_bytes(to_csv(table).encode())
    except OSError as error:
        raise ExportError(
            f"cannot write {path}: {error.strerror}; name a folder that is there and that this "
            "user may write"
        ) from None


def _published_key(root: Root, settings: Settings, policy: Policy | None) -> bytes:
    marker = read_marker(root)
    if marker is None:
        raise MissingKey(
            f"nothing is published below {root.uri} yet, so ids have no keys; run "
            "`cohortlake publish` first"
        )
    if policy and policy.digest != marker.policy_digest:
        raise SettingError(
            f"{root.uri} is published under the policy {marker.policy!r}, which decides how UIDs "
            "are published; set COHORTLAKE_PRIVACY and what else the policy depends on to it"
        )
    key_store.require_own_keys(root, settings.patient_key, marker.key_fingerprint)
    return key_store.read_key(root, settings.patient_key, may_create=False)


def _stores(known: list[str], wanted: Collection[str]) -> list[str]:
    for store in wanted:
        if store not in known:
            raise SettingError(f"the lake holds no image set of the data store {store}")
    return sorted({*wanted}) or known


def _record(root: Root, attribute: str, found: Crosswalk) -> None:
    at = datetime.now(UTC)
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number without a name
        user = str(os.getuid())
    record = {
        "looked_up_at": at.isoformat(timespec="seconds"),
        "by": user,
        "attribute": attribute,
        "ids": found.ids,
        "in_lake": found.in_lake,
        "written_by": f"cohortlake {version('cohortlake')}",
    }
    path = f"{_FOLDER}/{at:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}.json"
    root.create(path, json.dumps(record, indent=1).encode())


_QUERY = """
WITH held AS (
    SELECT DISTINCT datastore_id, {attribute} AS id FROM {current}
    WHERE {attribute} IN (SELECT id FROM given_ids)
      AND datastore_id IN (SELECT datastore_id FROM stores)
),
placed AS (
    SELECT position, given, id, datastore_id, true AS in_lake FROM given_ids JOIN held USING (id)
    UNION ALL
    SELECT position, given, id, datastore_id, false
    FROM given_ids ANTI JOIN held USING (id) CROSS JOIN stores
)
SELECT position, id, given, datastore_id, {key} AS published_key, in_lake
FROM placed ORDER BY position, datastore_id
"""
