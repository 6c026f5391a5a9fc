"""The image sets whose pixels a cohort needs, each with its version, its part and its label.

These are the image sets that represent the series that are left after all steps. A frozen cohort
has the versions that were frozen. All of it is read from the published tables, so it is what the
privacy policy shows. Only the ids of frames come from elsewhere: see `write`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cohortlake.cohort.freeze import digest, image_sets
from cohortlake.cohort.freeze import manifest as freeze
from cohortlake.cohort.freeze.manifest import Manifest
from cohortlake.cohort.select import held_out
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.cohort.select.selected import Selected
from cohortlake.dicom_terms import did_you_mean_column
from cohortlake.errors import BadCriteria, PixelsNotReachable, UnknownColumn

_SAME_MEMBER = {
    "patient": "m.patient_key = l.patient_key",
    "study": "m.datastore_id = l.datastore_id AND m.StudyInstanceUID = l.StudyInstanceUID",
    "series": "m.datastore_id = l.datastore_id AND "
    "coalesce(m.SeriesInstanceUID, m.image_set_id) = l.series_id",
}
_KEY = "datastore_id, image_set_id"
_VERSION = f"{_KEY}, version"
_OF_IMAGE_SET = ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "study_month")
_OF_HEADER = ("TransferSyntaxUID", "SOPClassUID", "BurnedInAnnotation", "instance_count",
              "frame_count", "size_bytes")  # fmt: skip


@dataclass(slots=True)
class Entry:
    """An image set of a manifest.

    Attributes:
        datastore_id: The data store.
        image_set_id: The image set.
        version: Its version.
        patient_key: The patient.
        part: The part of the split, or None.
        label: The label, or None.
        StudyInstanceUID, SeriesInstanceUID, Modality, TransferSyntaxUID, SOPClassUID,
        BurnedInAnnotation: As published; None where nothing is known.
        instance_count: How many instances it has; None where no header was fetched.
        frame_count: How many frames.
        size_bytes: The size of all frames; None also where the service does not say it.
        has_header: Whether the published tables have a header of this version.
        version_now: The version in the lake today; None if the image set is gone.
        storage_tier: Where HealthImaging stores it, as of the last change that the lake saw.
        n_image_sets: How many image sets the series has, this one included.
        instances: Its instances with their frames, for formats that need them.
    """

    datastore_id: str
    image_set_id: str
    version: int
    patient_key: str
    part: str | None
    label: Any
    StudyInstanceUID: str | None
    SeriesInstanceUID: str | None
    Modality: str | None
    TransferSyntaxUID: str | None
    SOPClassUID: str | None
    BurnedInAnnotation: str | None
    instance_count: int | None
    frame_count: int | None
    size_bytes: int | None
    has_header: bool
    version_now: int | None
    storage_tier: str | None
    n_image_sets: int | None
    instances: list[dict[str, Any]] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, int]:
        """The image set's id and its version."""
        return self.image_set_id, self.version

    @property
    def facts(self) -> dict[str, Any]:
        """What each entry of a manifest says, whatever the format."""
        return {
            "datastore_id": self.datastore_id,
            "image_set_id": self.image_set_id,
            "version": self.version,
            "study_instance_uid": self.StudyInstanceUID,
            "series_instance_uid": self.SeriesInstanceUID,
            "patient_key": self.patient_key,
            "modality": self.Modality,
            "transfer_syntax_uid": self.TransferSyntaxUID,
            "burned_in_annotation": self.BurnedInAnnotation,
            "frames": self.frame_count,
            "bytes": self.size_bytes,
        }

    def take(self, instances: list[dict[str, Any]]) -> None:
        """Take the instances of its header, and count them."""
        self.instances = instances
        sizes = [f["FrameSizeInBytes"] for i in instances for f in i["ImageFrames"]]
        self.instance_count, self.frame_count = len(instances), len(sizes)
        self.size_bytes = None if None in sizes else sum(sizes)


def of_cohort(selected: Selected, label: str | None) -> pa.Table:
    """Return a row for each image set of a cohort, as the lake has it.

    Args:
        selected: The cohort.
        label: The column of the members that holds the labels, or None.

    Raises:
        UnknownColumn: The members have no such column.
        BadCriteria: A member has no label, or a patient is in two parts of the split.
        PixelsNotReachable: The policy replaces UIDs, or hides versions.
    """
    _require_shown(selected.tables)
    held_out.check(selected)
    if label:
        _require_label(selected.members.columns, label)
    part = 'm."split"' if selected.criteria.split else "NULL::VARCHAR"
    labels = f'm."{label}"' if label else "NULL::VARCHAR"
    pins = selected.ask(f"""
        SELECT DISTINCT l.datastore_id, l.image_set_id, v.version, l.patient_key,
               {part} AS part, {labels} AS label
        FROM {selected.query.last} l
        JOIN ({selected.query.members}) m ON {_SAME_MEMBER[selected.criteria.level]}
        JOIN (SELECT {_VERSION} FROM image_sets) v
        ON v.datastore_id = l.datastore_id AND v.image_set_id = l.image_set_id
    """).to_arrow()
    return _completed(selected.tables, _checked(pins, label), "image_sets")


def of_frozen(tables: OpenedTables, manifest: Manifest, label: str | None) -> pa.Table:
    """Return a row for each image set of a frozen cohort, in the version that was frozen.

    Args:
        tables: The opened tables.
        manifest: What was frozen.
        label: The column of the frozen members that holds the labels, or None.

    Raises:
        NotAsFrozen: The frozen files were changed.
        UnknownColumn: The members have no such column.
        BadCriteria: A member has no label.
        PixelsNotReachable: No versions were frozen, or the policy replaces UIDs.
    """
    _require_shown(tables)
    members = freeze.read_members(tables.root, manifest)
    members = members.filter(pc.is_valid(members["patient_key"]))
    if digest.IMAGE_SETS not in members.column_names:
        raise PixelsNotReachable(
            f"{manifest.label} was frozen without the versions of its image sets, by an older "
            "release or under a policy that hides them; freeze the cohort again"
        )
    if label:
        _require_label(digest.own_values(members).column_names, label)
    row = pc.list_parent_indices(members[digest.IMAGE_SETS].combine_chunks())
    pins = image_sets.frozen(members)
    nothing = pa.nulls(len(pins), pa.string())
    is_split = manifest.read_criteria().split is not None
    for name, column in (
        ("patient_key", "patient_key"),
        ("part", "split" if is_split else None),
        ("label", label),
    ):
        pins = pins.append_column(name, members[column].take(row) if column else nothing)
    return _completed(tables, _checked(pins, label), "history")


def read(table: pa.Table) -> Iterator[Entry]:
    """Yield the entries of a table that `of_cohort` or `of_frozen` made, in its order."""
    for batch in table.to_batches(max_chunksize=1_000):
        for row in batch.to_pylist():
            yield Entry(**row)


def _require_shown(tables: OpenedTables) -> None:
    publication = tables.publication
    if not publication.shows_true_uids():
        raise PixelsNotReachable(
            f"the privacy policy {publication.policy!r} replaces UIDs, and pixels cannot be "
            "fetched by replaced ones; the policy `limited` shows what they are fetched by "
            "(COHORTLAKE_PRIVACY, for those who publish the lake)"
        )
    tables.require_columns(["version"], "image_sets", tables.columns("image_sets"))


def _require_label(known: list[str], label: str) -> None:
    if label not in known:
        raise UnknownColumn(label, "the members", did_you_mean_column(label, known))


def _checked(pins: pa.Table, label: str | None) -> pa.Table:
    missing = pins.filter(pc.is_null(pins["label"])) if label else pins.slice(0, 0)
    if len(missing):
        patients = pc.count_distinct(missing["patient_key"]).as_py()
        raise BadCriteria(
            f"{patients:,} patients have no value in the column {label!r} of labels; leave them "
            f'out first: .where("{label} IS NOT NULL")'
        )
    return pins


def _completed(tables: OpenedTables, pins: pa.Table, source: str) -> pa.Table:
    """Add what is known of each image set; `source` is the table with its UIDs in that version."""
    tables.connection.register("pinned", pins)
    shown = {table: tables.columns(table) for table in (source, "image_sets", "series_headers")}
    own = ", ".join(_value(name, shown[source], "any_value({})") for name in _OF_IMAGE_SET)
    headers = ", ".join(_value(name, shown["series_headers"]) for name in _OF_HEADER)
    tier = _value("storage_tier", shown["image_sets"])
    others = _value("n_image_sets", tables.columns("series"))
    try:
        return tables.sql(f"""
            SELECT {_VERSION}, patient_key, part, label, {", ".join(_OF_IMAGE_SET[:-1])},
                   {", ".join(_OF_HEADER)}, coalesce(has_header, false) AS has_header,
                   version_now, storage_tier, n_image_sets
            FROM pinned
            LEFT JOIN (
                SELECT {_VERSION}, {own} FROM {source} SEMI JOIN pinned USING ({_VERSION})
                GROUP BY {_VERSION}
            ) own USING ({_VERSION})
            LEFT JOIN (SELECT {_VERSION}, {headers}, true AS has_header FROM series_headers) h
            USING ({_VERSION})
            LEFT JOIN (SELECT {_KEY}, version AS version_now, {tier} FROM image_sets) now
            USING ({_KEY})
            LEFT JOIN (SELECT {_KEY}, {others} FROM series) series USING ({_KEY})
            ORDER BY part, study_month, datastore_id, image_set_id
        """).to_arrow()
    finally:
        tables.connection.unregister("pinned")


_TYPES = {"instance_count": "BIGINT", "frame_count": "BIGINT", "size_bytes": "BIGINT",
          "n_image_sets": "BIGINT"}  # fmt: skip


def _value(name: str, known: tuple[str, ...], form: str = "{}") -> str:
    """Return SQL for a column, which is null if the policy does not show it."""
    sql = form.format(name) if name in known else f"NULL::{_TYPES.get(name, 'VARCHAR')}"
    return f"{sql} AS {name}"
