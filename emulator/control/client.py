"""A client of the admin API, for the command line and for tests.

It owns nothing but the calls: each method is one route of `admin` and returns that route's JSON.
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
    """The admin API refused a call; the message is its own."""


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
        """The simulated time: `now` and `epochSeconds`."""
        return self._call("GET", "clock")

    def advance(self, *, seconds: float = 0, days: float = 0) -> Json:
        """Moves the clock on."""
        return self._call("POST", "clock", {"seconds": seconds, "days": days})

    def live(
        self, days: float, *, seed: int = 0, over_s: float = 0, datastore_id: str | None = None
    ) -> Json:
        """Lives simulated days; returns how many image sets each kind of change touched."""
        given = {"days": days, "seed": seed, "overSeconds": over_s}
        return self._call("POST", "live", given, datastore_id)

    def import_summaries(
        self, summaries: Sequence[Mapping[str, Any]], *, datastore_id: str | None = None
    ) -> list[str]:
        """Imports image sets and returns their ids."""
        return self._ids("import", {"summaries": summaries}, datastore_id)

    def update(
        self,
        image_set_id: str,
        tags: Mapping[str, Any],
        *,
        cascade: bool = False,
        datastore_id: str | None = None,
    ) -> list[str]:
        """Changes tags of an image set or of its whole study; returns the ids touched."""
        given = {"imageSetId": image_set_id, "tags": tags, "cascade": cascade}
        return self._ids("update", given, datastore_id)

    def delete(self, image_set_id: str, *, datastore_id: str | None = None) -> None:
        """Deletes an image set."""
        self._ids("delete", {"imageSetId": image_set_id}, datastore_id)

    def truth(self, *, datastore_id: str | None = None) -> Iterator[Json]:
        """Every current image set as its summary, ordered by id, as the answer streams in."""
        for line in self.truth_lines(datastore_id=datastore_id):
            yield json.loads(line)

    def truth_lines(self, *, datastore_id: str | None = None) -> Iterator[bytes]:
        """The same as lines of NDJSON, byte for byte."""
        query = f"?{urlencode({'datastoreId': datastore_id})}" if datastore_id else ""
        connection = self._connection()
        try:
            yield from _succeeded(self._request(connection, "GET", f"truth{query}"))
        finally:
            connection.close()

    def behaviour(self) -> Json:
        """How the service behaves."""
        return self._call("GET", "behaviour")

    def behave(self, **changes: float | bool | str) -> Json:
        """Changes how the service behaves; the names are those of `Behaviour`."""
        return self._call("POST", "behaviour", changes)

    def stats(self) -> Json:
        """Requests by operation, errors by code, injected faults by kind."""
        return self._call("GET", "stats")

    def clear_stats(self) -> None:
        """Starts counting anew."""
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
