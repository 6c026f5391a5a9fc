"""A client of the admin API, for the command line and for tests.

Each method calls one route of `admin` and returns its JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlencode, urlsplit

from emulator.control.admin import PREFIX

Json = dict[str, Any]


class AdminError(Exception):
    """The admin API refused a call. The message says why and comes from the API."""


class AdminClient:
    """The admin API of the emulator at an endpoint.

    Example:
        >>> AdminClient("http://127.0.0.1:9000").endpoint
        'http://127.0.0.1:9000'
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._address = urlsplit(endpoint)

    def clock(self) -> Json:
        """Returns the simulated time: `now` and `epochSeconds`."""
        return self._call("GET", "clock")

    def advance(self, *, seconds: float = 0, days: float = 0) -> Json:
        """Moves the clock forward."""
        return self._call("POST", "clock", {"seconds": seconds, "days": days})

    def live(
        self, days: float, *, seed: int = 0, over_s: float = 0, datastore_id: str | None = None
    ) -> Json:
        """Simulates days; returns the number of changed image sets for each kind of change."""
        given = {"days": days, "seed": seed, "overSeconds": over_s}
        return self._call("POST", "live", given, datastore_id)

    def import_summaries(
        self,
        summaries: Sequence[Mapping[str, Any]],
        *,
        instances: int = 0,
        datastore_id: str | None = None,
    ) -> list[str]:
        """Imports image sets and returns their ids.

        Args:
            summaries: Image sets in wire form.
            instances: The number of instances of each; 0 takes what the summary suggests.
            datastore_id: The data store; the first by default.
        """
        given = {"summaries": summaries, "instances": instances}
        return self._ids("import", given, datastore_id)

    def update(
        self,
        image_set_id: str,
        tags: Mapping[str, Any],
        *,
        cascade: bool = False,
        datastore_id: str | None = None,
    ) -> list[str]:
        """Changes tags of an image set or of its whole study; returns the changed ids."""
        given = {"imageSetId": image_set_id, "tags": tags, "cascade": cascade}
        return self._ids("update", given, datastore_id)

    def delete(self, image_set_id: str, *, datastore_id: str | None = None) -> None:
        """Deletes an image set."""
        self._ids("delete", {"imageSetId": image_set_id}, datastore_id)

    def add_import_job(
        self,
        status: str,
        *,
        name: str = "job",
        message: str = "",
        datastore_id: str | None = None,
    ) -> str:
        """Adds an import job that has a certain status now, and returns its id.

        Args:
            status: SUBMITTED, IN_PROGRESS, COMPLETED or FAILED.
            name: The job's name.
            message: What the service says about its end.
            datastore_id: The data store; the first by default.
        """
        given = {"status": status, "name": name, "message": message}
        job_id: str = self._call("POST", "import-job", given, datastore_id)["jobId"]
        return job_id

    def put_document(
        self, image_set_id: str, document: Mapping[str, Any], *, datastore_id: str | None = None
    ) -> None:
        """Sets the metadata document of an image set. The tags of its summary lie over it."""
        self._ids("document", {"imageSetId": image_set_id, "document": document}, datastore_id)

    def spoil_documents(
        self,
        image_set_ids: Sequence[str],
        kind: str,
        *,
        times: int = 0,
        datastore_id: str | None = None,
    ) -> None:
        """Makes metadata documents bad.

        Args:
            image_set_ids: The image sets.
            kind: One of `BAD_DOCUMENTS`: cut, empty, not-gzip, not-json, not-metadata,
                other-image-set, huge, huge-body, gone.
            times: For how many requests; 0 for all.
            datastore_id: The data store; the first by default.
        """
        given = {"imageSetIds": list(image_set_ids), "kind": kind, "times": times}
        self._ids("spoil", given, datastore_id)

    def mend_documents(self) -> None:
        """Makes all bad documents good again."""
        self._call("DELETE", "spoil")

    def plan(self, image_set_id: str, *, datastore_id: str | None = None) -> Json:
        """Returns what is special about a synthetic header: `kind`, `geometry`, `fault`."""
        query = {"imageSetId": image_set_id}
        query |= {"datastoreId": datastore_id} if datastore_id else {}
        return self._call("GET", f"plan?{urlencode(query)}")

    def truth(self, *, datastore_id: str | None = None) -> Iterator[Json]:
        """Yields the summary of every current image set, ordered by id, as the answer arrives."""
        for line in self.truth_lines(datastore_id=datastore_id):
            yield json.loads(line)

    def truth_lines(self, *, datastore_id: str | None = None) -> Iterator[bytes]:
        """Yields the summaries of `truth` as lines of NDJSON, unchanged."""
        query = f"?{urlencode({'datastoreId': datastore_id})}" if datastore_id else ""
        connection = self._connection()
        try:
            yield from _succeeded(self._request(connection, "GET", f"truth{query}"))
        finally:
            connection.close()

    def behaviour(self) -> Json:
        """Returns how the service behaves."""
        return self._call("GET", "behaviour")

    def behave(self, **changes: float | bool | str) -> Json:
        """Changes how the service behaves. The names are the fields of `Behaviour`."""
        return self._call("POST", "behaviour", changes)

    def stats(self) -> Json:
        """Returns the counts of requests by operation, errors by code, injected faults by kind.

        `most_in_10_s` has the most requests of an operation within ten seconds, and
        `moved_to_frequent` counts the archived image sets that a read moved.
        """
        return self._call("GET", "stats")

    def clear_stats(self) -> None:
        """Sets all counts to zero."""
        self._call("DELETE", "stats")

    def _ids(self, path: str, given: Mapping[str, Any], datastore_id: str | None) -> list[str]:
        ids: list[str] = self._call("POST", path, given, datastore_id)["imageSetIds"]
        return ids

    def _call(
        self,
        method: str,
        path: str,
        given: Mapping[str, Any] | None = None,
        datastore_id: str | None = None,
    ) -> Json:
        body = None
        if given is not None:
            body = dict(given) | ({"datastoreId": datastore_id} if datastore_id else {})
        connection = self._connection()
        try:
            answered = _succeeded(self._request(connection, method, path, body)).read()
        finally:
            connection.close()
        result: Json = json.loads(answered)
        return result

    def _connection(self) -> HTTPConnection:
        return HTTPConnection(self._address.hostname or "", self._address.port)

    def _request(
        self, connection: HTTPConnection, method: str, path: str, body: Json | None = None
    ) -> HTTPResponse:
        connection.request(method, PREFIX + path, None if body is None else json.dumps(body))
        return connection.getresponse()


def _succeeded(response: HTTPResponse) -> HTTPResponse:
    if response.status != 200:
        raise AdminError(json.loads(response.read())["message"])
    return response
