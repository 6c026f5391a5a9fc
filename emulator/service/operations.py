"""The emulated operations: one method for each, which takes a checked input.

`model` has checked the shape of the input before. `server` injects faults.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from emulator.clock import Clock
from emulator.data import metadata, records
from emulator.data.records import Record
from emulator.data.store import Datastore, Store
from emulator.datetimes import UNSORTABLE, seconds
from emulator.service import bad_documents
from emulator.service.arns import datastore_arn, image_set_arn
from emulator.service.changes import Changes
from emulator.service.faults import Faults
from emulator.service.import_jobs import ImportJobs
from emulator.service.reading import Reading
from emulator.service.resource_tags import ResourceTags
from emulator.service.search import DEFAULT_PAGE_SIZE, Criteria, criteria_of, search
from emulator.service.stats import Stats
from emulator.wire import Answer, Stream, answer, decode, encode, invalid, not_found

_ABOVE_ALL_VERSIONS = 2**62

Input = Mapping[str, Any]


class Operations:
    """The operations of HealthImaging on one store."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        faults: Faults,
        stats: Stats,
        s3_root: Path | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self._faults = faults
        self._stats = stats
        self.reading = Reading(store, clock, faults, stats)
        self.import_jobs = ImportJobs(store, clock, faults, s3_root)
        changes, tags = Changes(store, clock, faults), ResourceTags(store)
        self.handlers: Mapping[str, Callable[[Input], Answer | Stream]] = {
            "SearchImageSets": self.search_image_sets,
            "GetDatastore": self.get_datastore,
            "ListDatastores": self.list_datastores,
            "GetImageSet": self.get_image_set,
            "GetImageSetMetadata": self.get_image_set_metadata,
            "GetImageFrame": self.get_image_frame,
            "ListImageSetVersions": self.list_image_set_versions,
            "DeleteImageSet": self.delete_image_set,
            "CopyImageSet": changes.copy,
            "UpdateImageSetMetadata": changes.update,
            "TagResource": tags.tag,
            "UntagResource": tags.untag,
            "ListTagsForResource": tags.list,
            "StartDICOMImportJob": self.import_jobs.start,
            "GetDICOMImportJob": self.import_jobs.get,
            "ListDICOMImportJobs": self.import_jobs.list,
        }

    def search_image_sets(self, given: Input) -> Answer:
        """Returns one page of summaries. It joins the stored texts without parsing them."""
        datastore = self._store.datastore(given["datastoreId"])
        criteria = _criteria(encode(given.get("searchCriteria") or {}))
        self._store.settle(self._clock.now_ms())
        page = search(
            self._store,
            datastore,
            criteria,
            self._faults.behaviour,
            limit=given.get("maxResults", DEFAULT_PAGE_SIZE),
            token=given.get("nextToken"),
        )
        rest: dict[str, Any] = {
            "sort": {"sortOrder": criteria.sort_order, "sortField": criteria.sort_field}
        }
        if page.next_token is not None:
            rest["nextToken"] = page.next_token
        summaries = b",".join(page.summaries)
        return Answer(b'{"imageSetsMetadataSummaries":[%b],%b' % (summaries, encode(rest)[1:]))

    def get_datastore(self, given: Input) -> Answer:
        """Returns the properties of one data store."""
        return answer(
            {"datastoreProperties": _described(self._store.datastore(given["datastoreId"]))}
        )

    def list_datastores(self, given: Input) -> Answer:
        """Returns one page of the data stores. All of them are ACTIVE."""
        found = (
            self._store.datastores() if given.get("datastoreStatus", "ACTIVE") == "ACTIVE" else []
        )
        start = _token_number(given, 0)
        end = start + given.get("maxResults", DEFAULT_PAGE_SIZE)
        page: dict[str, Any] = {"datastoreSummaries": [_described(one) for one in found[start:end]]}
        if end < len(found):
            page["nextToken"] = str(end)
        return answer(page)

    def get_image_set(self, given: Input) -> Answer:
        """Returns the properties of an image set, for the requested or the newest version."""
        datastore = self._store.datastore(given["datastoreId"])
        record = self._version(datastore, given)
        arn = image_set_arn(datastore, record.image_set_id)
        properties = _properties(record) | {"datastoreId": datastore.id, "imageSetArn": arn}
        tier = {k: v for k, v in record.wire().items() if k in ("lastAccessedAt", "storageTier")}
        return answer(properties | tier)

    def get_image_set_metadata(self, given: Input) -> Answer | Stream:
        """Returns the metadata document of a version; moves the image set to the frequent tier."""
        datastore = self._store.datastore(given["datastoreId"])
        newest = self._store.current(datastore, given["imageSetId"])
        bad = self._faults.bad_document(datastore.id, newest.image_set_id)
        if bad is not None:
            self._stats.faults[f"document_{bad}"] += 1
        if bad == "gone":
            raise not_found(f"Image set {newest.image_set_id}")
        record = self._version(datastore, given)
        self.reading.access(newest)
        document = metadata.text(datastore.id, record, self._store.document(record))
        if bad in bad_documents.HUGE:
            pieces = bad_documents.huge(bad, document, self._faults.behaviour.huge_document_mb)
            return Stream(pieces, metadata.CONTENT_TYPE, metadata.HEADERS)
        body = (
            metadata.pack(document)
            if bad is None
            else bad_documents.body(bad, document, record.image_set_id)
        )
        return Answer(body, content_type=metadata.CONTENT_TYPE, headers=metadata.HEADERS)

    def get_image_frame(self, given: Input) -> Stream:
        """Returns the bytes of an image frame; moves the image set to the frequent tier."""
        datastore = self._store.datastore(given["datastoreId"])
        newest = self.reading.current(datastore, given["imageSetId"])
        return self.reading.frame(newest, given["imageFrameInformation"]["imageFrameId"])

    def list_image_set_versions(self, given: Input) -> Answer:
        """Returns one page of the versions of an image set, newest first."""
        datastore = self._store.datastore(given["datastoreId"])
        if not self._faults.behaviour.deleted_found:
            self._store.current(datastore, given["imageSetId"])
        limit = given.get("maxResults", DEFAULT_PAGE_SIZE)
        below = _token_number(given, _ABOVE_ALL_VERSIONS)
        found = self._store.versions(datastore, given["imageSetId"], below=below, limit=limit + 1)
        if not found and below == _ABOVE_ALL_VERSIONS:
            raise not_found(f"Image set {given['imageSetId']}")
        listed = [_listed(record) for record in found[:limit]]
        page: dict[str, Any] = {"imageSetPropertiesList": listed}
        if len(found) > limit:
            page["nextToken"] = str(found[limit - 1].version)
        return answer(page)

    def delete_image_set(self, given: Input) -> Answer:
        """Deletes an image set at once, but answers DELETING, as AWS does."""
        datastore = self._store.datastore(given["datastoreId"])
        now_ms = self._clock.now_ms()
        mark = records.deletion(self._store.current(datastore, given["imageSetId"]), now_ms)
        self._store.put([mark], now_ms, self._faults.behaviour.index_lag_ms)
        return answer(
            {
                "datastoreId": datastore.id,
                "imageSetId": mark.image_set_id,
                "imageSetState": "LOCKED",
                "imageSetWorkflowStatus": "DELETING",
            }
        )

    def _version(self, datastore: Datastore, given: Input) -> Record:
        image_set_id, asked = given["imageSetId"], given.get("versionId")
        if self._faults.is_gone(datastore.id, image_set_id):
            raise not_found(f"Image set {image_set_id}")
        below = None if asked is None else int(asked[:18]) + 1
        found = self._store.versions(datastore, image_set_id, below=below, limit=1)
        newest = self._store.versions(datastore, image_set_id, limit=1)
        if not found or (asked is not None and found[0].version != int(asked)):
            raise not_found(f"Image set {image_set_id}")
        if newest[0].deleted_ms is not None and not self._faults.behaviour.deleted_found:
            raise not_found(f"Image set {image_set_id}")
        return found[0]


@lru_cache(maxsize=1024)
def _criteria(search_criteria: bytes) -> Criteria:
    # Cached, because a client sends the same criteria with every page.
    return criteria_of(decode(search_criteria))


def _described(datastore: Datastore) -> dict[str, Any]:
    return {
        "datastoreId": datastore.id,
        "datastoreName": datastore.name,
        "datastoreStatus": "ACTIVE",
        "datastoreArn": datastore_arn(datastore),
        "createdAt": seconds(datastore.created_ms),
        "updatedAt": seconds(datastore.created_ms),
    }


def _properties(record: Record) -> dict[str, Any]:
    deleted = record.deleted_ms is not None
    properties: dict[str, Any] = {
        "imageSetId": record.image_set_id,
        "versionId": str(record.version),
        "imageSetState": "DELETED" if deleted else "ACTIVE",
        "imageSetWorkflowStatus": _workflow_status(record),
    }
    if record.created_ms != UNSORTABLE:
        properties["createdAt"] = seconds(record.created_ms)
    if record.updated_ms != UNSORTABLE:
        properties["updatedAt"] = seconds(record.updated_ms)
    if record.deleted_ms is not None:
        properties["deletedAt"] = seconds(record.deleted_ms)
    if record.is_primary is not None:
        properties["isPrimary"] = bool(record.is_primary)
    return properties


def _listed(record: Record) -> dict[str, Any]:
    """Returns a version in the form of a list, which differs from the answer of GetImageSet."""
    properties = _properties(record)
    # In the model this member of ImageSetProperties begins with a capital letter.
    properties["ImageSetWorkflowStatus"] = properties.pop("imageSetWorkflowStatus")
    if record.version == 1 and record.updated_ms == record.created_ms:
        # In the example of AWS's guide a first version without an update has no updatedAt.
        properties.pop("updatedAt", None)
    return properties


def _workflow_status(record: Record) -> str:
    if record.deleted_ms is not None:
        return "DELETED"
    return "CREATED" if record.version == 1 else "UPDATED"


def _token_number(given: Input, otherwise: int) -> int:
    token = given.get("nextToken")
    if token is None:
        return otherwise
    if not token.isdecimal() or len(token) > 18:
        raise invalid("The nextToken does not belong to this list; start the list again without it")
    return int(token)
