"""UpdateImageSetMetadata and CopyImageSet: new versions with changed documents.

The service answers LOCKED and works on; here the change is done at once. See `data.edits` for what
may change in a document.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Mapping
from typing import Any

from emulator.clock import Clock
from emulator.data import edits, frames, metadata, records
from emulator.data.edits import Document
from emulator.data.records import Record
from emulator.data.store import Datastore, Store
from emulator.datetimes import seconds
from emulator.seeded import identifier
from emulator.service.arns import image_set_arn
from emulator.service.faults import Faults
from emulator.wire import Answer, ServiceError, answer, encode, invalid, not_found

Input = Mapping[str, Any]


class Changes:
    """The operations that change image sets."""

    def __init__(self, store: Store, clock: Clock, faults: Faults) -> None:
        self._store = store
        self._clock = clock
        self._faults = faults

    def update(self, given: Input) -> Answer:
        """Updates or removes attributes, or reverts to an earlier version: a new version."""
        datastore = self._store.datastore(given["datastoreId"])
        record = self._latest(datastore, given["imageSetId"], given["latestVersionId"])
        updates = given["updateImageSetMetadataUpdates"]
        if "revertToVersionId" in updates:
            changed = [self._reverted(datastore, record, updates["revertToVersionId"])]
        else:
            changed = self._updated(datastore, record, updates["DICOMUpdates"], given)
        with self._store.transaction():
            for before, after, document in changed:
                self._put(datastore, before, after, document)
        newest = changed[0][1]
        return answer(
            {
                "datastoreId": datastore.id,
                "imageSetId": newest.image_set_id,
                "latestVersionId": str(newest.version),
                "imageSetState": "LOCKED",
                "imageSetWorkflowStatus": "UPDATING",
                "createdAt": seconds(newest.created_ms),
                "updatedAt": seconds(newest.updated_ms),
            }
        )

    def copy(self, given: Input) -> Answer:
        """Copies instances into a new image set, or into another one."""
        datastore = self._store.datastore(given["datastoreId"])
        wanted = given["copyImageSetInformation"]
        asked = wanted["sourceImageSet"]
        source = self._latest(datastore, given["sourceImageSetId"], asked["latestVersionId"])
        document = self._document(datastore, source)
        if "DICOMCopies" in asked:
            chosen = edits.read(asked["DICOMCopies"]["copiableAttributes"])
            document = edits.selected(document, edits.instance_uids(chosen))
        if "destinationImageSet" in wanted:
            if given.get("promoteToPrimary"):
                raise invalid("promoteToPrimary makes a new image set; name no destination")
            into = wanted["destinationImageSet"]
            before = self._latest(datastore, into["imageSetId"], into["latestVersionId"])
            known = self._document(datastore, before)
            document = edits.merged(known, document, force=bool(given.get("force")))
            after = records.next_version(before, {}, self._clock.now_ms())
        else:
            before = None
            after = self._copied(datastore, source, primary=bool(given.get("promoteToPrimary")))
        after = after._replace(instances=edits.instance_count(document))
        with self._store.transaction():
            self._put(datastore, before, after, document)
            named = {frame.id for frame in frames.of_document(document)}
            self._store.add_frames(
                (datastore.number, after.image_set_id, frame)
                for frame in self._frames(datastore, source)
                if frame.id in named
            )
        return answer(
            {
                "datastoreId": datastore.id,
                "sourceImageSetProperties": _properties(datastore, source),
                "destinationImageSetProperties": _properties(datastore, after),
            }
        )

    def _latest(self, datastore: Datastore, image_set_id: str, version_id: str) -> Record:
        """Returns the newest version, which the caller must know.

        Raises:
            ServiceError: `ConflictException` if the caller knows another version.
        """
        record = self._store.current(datastore, image_set_id)
        if version_id != str(record.version):
            raise ServiceError(
                "ConflictException",
                "The image set has another latest version; read it and try again",
            )
        return record

    def _updated(
        self, datastore: Datastore, record: Record, updates: Input, given: Input
    ) -> list[tuple[Record, Record, Document]]:
        force, whole_study = bool(given.get("force")), bool(given.get("includeStudyImageSets"))
        update, remove = (
            edits.read(b64decode(updates[name])) if name in updates else {}
            for name in ("updatableAttributes", "removableAttributes")
        )
        if not update and not remove:
            raise invalid("DICOMUpdates must have updatableAttributes or removableAttributes")
        for one in (update, remove):
            _check_primary(record, one, whole_study=whole_study)
        changed = [self._edited(datastore, record, update, remove, force=force)]
        if whole_study:
            # The series of the request are only in its own image set.
            update, remove = (_without_series(one) for one in (update, remove))
            changed += [
                self._edited(datastore, other, update, remove, force=force)
                for other in self._store.of_study(datastore, record.study_uid)
                if other.image_set_id != record.image_set_id
            ]
        return changed

    def _edited(
        self,
        datastore: Datastore,
        record: Record,
        update: Document,
        remove: Document,
        *,
        force: bool,
    ) -> tuple[Record, Record, Document]:
        document = self._document(datastore, record)
        before = edits.tags(document)
        edits.update(document, update, force=force)
        edits.remove(document, remove, force=force)
        after = edits.tags(document)
        changed = {name: value for name, value in after.items() if value != before[name]}
        changed_record = records.next_version(record, changed, self._clock.now_ms())
        count = edits.instance_count(document)
        return record, changed_record._replace(instances=count), document

    def _reverted(
        self, datastore: Datastore, record: Record, version_id: str
    ) -> tuple[Record, Record, Document]:
        versions = self._store.versions(datastore, record.image_set_id)
        found = [one for one in versions if str(one.version) == version_id]
        if not found:
            raise not_found(f"Version {version_id[:20]} of image set {record.image_set_id}")
        if found[0].version == record.version:
            raise invalid("revertToVersionId must be an earlier version")
        old = found[0].wire().get("DICOMTags")
        now = record.wire().get("DICOMTags")
        gone = dict.fromkeys(now) if isinstance(now, dict) else {}
        tags = gone | (old if isinstance(old, dict) else {})
        after = records.next_version(record, tags, self._clock.now_ms())
        document = self._document(datastore, found[0])
        return record, after._replace(instances=found[0].instances), document

    def _copied(self, datastore: Datastore, source: Record, *, primary: bool) -> Record:
        """Returns the first version of a copy. Only a promoted one is primary."""
        if primary and self._store.has_primary(datastore, source.series_uid):
            raise invalid("Another image set of this series is primary; delete it before")
        now_ms = self._clock.now_ms()
        moment = seconds(now_ms)
        summary = source.wire() | {
            "imageSetId": identifier("copy", source.image_set_id, self._store.row_count(), now_ms),
            "version": 1,
            "createdAt": moment,
            "updatedAt": moment,
            "lastAccessedAt": moment,
            "storageTier": records.FREQUENT,
            "isPrimary": primary,
        }
        return records.from_summary(datastore.number, summary)

    def _put(
        self, datastore: Datastore, before: Record | None, after: Record, document: Document
    ) -> None:
        """Stores a version with its document. Frames of earlier versions stay readable."""
        where = (datastore.number, after.image_set_id)
        if before is not None and not self._store.frames(before):
            kept = self._frames(datastore, before)
            self._store.add_frames((*where, frame) for frame in kept)
        levels = {"Patient": document["Patient"], "Study": document["Study"]}
        self._store.add_documents([(*where, after.version, metadata.pack(encode(levels)))])
        self._store.put([after], self._clock.now_ms(), self._faults.behaviour.index_lag_ms)

    def _frames(self, datastore: Datastore, record: Record) -> list[frames.Frame]:
        """Returns all frames of an image set: the stored ones, or those that its header names."""
        stored = self._store.frames(record)
        return stored or frames.of_document(self._document(datastore, record))

    def _document(self, datastore: Datastore, record: Record) -> Document:
        text = metadata.text(datastore.id, record, self._store.document(record))
        document: Document = json.loads(text)
        return document


def _check_primary(record: Record, given: Document, *, whole_study: bool) -> None:
    """Checks that the levels of a primary image set stay consistent with its study.

    Raises:
        ServiceError: `ValidationException` if they would not.
    """
    if not record.is_primary:
        return
    if given.get("Patient", {}).get("DICOM") and not whole_study:
        raise invalid("The Patient level of a primary image set changes for the whole study only")
    if "StudyInstanceUID" in given.get("Study", {}).get("DICOM", {}):
        raise invalid("The StudyInstanceUID of a primary image set cannot change")
    for series in given.get("Study", {}).get("Series", {}).values():
        if series.get("DICOM"):
            raise invalid("The Series level of a primary image set cannot change")
        instances = series.get("Instances", {}).values()
        if any("SOPInstanceUID" in one.get("DICOM", {}) for one in instances):
            raise invalid("The SOPInstanceUID in a primary image set cannot change")


def _without_series(given: Document) -> Document:
    study = {name: value for name, value in given.get("Study", {}).items() if name == "DICOM"}
    return {"Patient": given.get("Patient", {}), "Study": study}


def _properties(datastore: Datastore, record: Record) -> dict[str, Any]:
    return {
        "imageSetId": record.image_set_id,
        "latestVersionId": str(record.version),
        "imageSetState": "LOCKED",
        "imageSetWorkflowStatus": "COPYING",
        "createdAt": seconds(record.created_ms),
        "updatedAt": seconds(record.updated_ms),
        "imageSetArn": image_set_arn(datastore, record.image_set_id),
    }
