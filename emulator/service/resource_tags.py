"""TagResource, UntagResource and ListTagsForResource: tags of data stores and image sets.

These tags have nothing to do with the tags of DICOM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from emulator.data.store import Store
from emulator.service import arns
from emulator.wire import Answer, answer, invalid

Input = Mapping[str, Any]

_TABLE = """
CREATE TABLE IF NOT EXISTS resource_tags (
    resource TEXT, key TEXT, value TEXT, PRIMARY KEY (resource, key)
)
"""
_MOST_TAGS = 50


class ResourceTags:
    """The operations on tags of resources."""

    def __init__(self, store: Store) -> None:
        self._store = store
        store.query(_TABLE, ())

    def tag(self, given: Input) -> Answer:
        """Sets tags of a resource."""
        resource = self._resource(given)
        tags = self._of(resource) | given["tags"]
        if len(tags) > _MOST_TAGS:
            raise invalid(f"A resource has at most {_MOST_TAGS} tags")
        with self._store.transaction():
            for key, value in given["tags"].items():
                self._store.query(
                    "INSERT OR REPLACE INTO resource_tags VALUES (?, ?, ?)", (resource, key, value)
                )
        return answer({})

    def untag(self, given: Input) -> Answer:
        """Removes tags of a resource. A key that it does not have changes nothing."""
        resource = self._resource(given)
        with self._store.transaction():
            for key in given["tagKeys"]:
                self._store.query(
                    "DELETE FROM resource_tags WHERE resource = ? AND key = ?", (resource, key)
                )
        return answer({})

    def list(self, given: Input) -> Answer:
        """Returns the tags of a resource."""
        return answer({"tags": self._of(self._resource(given))})

    def _resource(self, given: Input) -> str:
        """Returns the resource of an ARN.

        Raises:
            ServiceError: `ResourceNotFoundException` if it does not exist.
        """
        datastore_id, image_set_id = arns.parts(given["resourceArn"])
        datastore = self._store.datastore(datastore_id)
        if image_set_id is None:
            return datastore.id
        return f"{datastore.id}/{self._store.current(datastore, image_set_id).image_set_id}"

    def _of(self, resource: str) -> dict[str, str]:
        select = "SELECT key, value FROM resource_tags WHERE resource = ?"
        return dict(self._store.query(select, (resource,)))
