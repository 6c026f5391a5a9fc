"""A second HealthImaging over HTTP, which shares no code with the emulator.

A mistake in the emulator cannot hide one in the library: what a lake holds is compared with this
endpoint's own list. The list, its filters and its sort are plain Python behind `http.server`. Tests
that need no HTTP ask `Endpoint.search`.
"""

from __future__ import annotations

import json
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

DATASTORE = "0123456789abcdef0123456789abcdef"


class Endpoint:
    """The data store behind the endpoint; change `image_sets` at will between calls."""

    def __init__(self) -> None:
        self.image_sets: list[dict[str, Any]] = []
        # whether descending order is the ascending one reversed among equals
        self.reverses_ties = True
        self.created_at = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
        self.now = datetime(2026, 2, 1, 12, tzinfo=UTC)
        self.status = "ACTIVE"
        self.denied: set[str] = set()
        self.import_jobs: list[dict[str, Any]] = []  # items of jobSummaries
        # (image set, version) -> an item of imageSetPropertiesList and a document, or what
        # GetImageSetMetadata answers instead: a status and an error
        self.versions: dict[tuple[str, int], tuple[dict[str, Any], bytes | tuple[int, str]]] = {}
        # (image set, version) -> the document of a version that is not in `versions`
        self.documents: dict[tuple[str, int], bytes] = {}
        # what every POST gets instead of an answer while it is set: a status, a body and an error
        self.misbehaviour: tuple[int, bytes, str] | None = None
        self.requests: list[str] = []
        self.url = ""

    def search(self, criteria: dict[str, Any], size: int, token: str | None) -> dict[str, Any]:
        """Answer a search; its criteria are as they come over the wire."""
        sort = criteria.get("sort", {})
        field = sort.get("sortField", "updatedAt")
        descending = sort.get("sortOrder", "DESC") == "DESC"
        keys, rows = self.in_order(field, descending)
        for condition in criteria["filters"]:
            filtered, low, high = _bounds(condition)
            if filtered == field:
                first, last = (-high, -low) if descending else (low, high)
                found = slice(bisect_left(keys, first), bisect_right(keys, last))
                keys, rows = keys[found], rows[found]
        for condition in criteria["filters"]:
            filtered, low, high = _bounds(condition)
            if filtered != field:
                rows = [
                    r for r in rows if (v := _value(r, filtered)) is not None and low <= v <= high
                ]
        start = int(token) if token and token.isdecimal() else 0
        answer: dict[str, Any] = {"imageSetsMetadataSummaries": rows[start : start + size]}
        if start + size < len(rows):
            answer["nextToken"] = str(start + size)
        return answer

    def in_order(self, field: str, descending: bool) -> tuple[list[float], list[dict[str, Any]]]:
        """Return all rows in an order, with the keys that they are sorted by."""
        rows = sorted(self.image_sets, key=lambda r: r["imageSetId"])
        if descending and self.reverses_ties:
            rows.reverse()
        sign = -1 if descending else 1
        keyed = [(sign * (_value(row, field) or 0), row) for row in rows]
        keyed.sort(key=lambda pair: pair[0])
        return [key for key, _ in keyed], [row for _, row in keyed]


def _value(row: dict[str, Any], field: str) -> Any:
    tags = row.get("DICOMTags", {})
    if field != "DICOMStudyDateAndTime":
        return row.get(field, tags.get(field))
    date = tags.get("DICOMStudyDate", "")
    return _instant(date, tags.get("DICOMStudyTime")) if _is_date(date) else None


def _is_date(text: str) -> bool:
    return len(text) == 8 and text.isdecimal()


def _instant(date: str, time: str | None) -> int:
    """Return a date and a time as one number, to the microsecond."""
    seconds, _, fraction = (time or "").partition(".")
    return int(f"{date}{seconds:0<6}{fraction:0<6}")


def _bounds(condition: dict[str, Any]) -> tuple[str, Any, Any]:
    """Return the attribute of a filter, and the least and the greatest value that it finds."""
    values = [value for union in condition["values"] for value in union.items()]
    field = values[0][0]
    ends = [
        _instant(end["DICOMStudyDate"], end.get("DICOMStudyTime"))
        if field == "DICOMStudyDateAndTime"
        else end
        for _, end in values
    ]
    return field, ends[0], ends[-1]


@contextmanager
def serving() -> Iterator[Endpoint]:
    endpoint = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def date_time_string(self, timestamp: float | None = None) -> str:
            return super().date_time_string(int(endpoint.now.timestamp()))

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, body: dict[str, Any], error: str = "") -> None:
            self.send(status, json.dumps(body).encode(), error)

        def send(self, status: int, content: bytes, error: str = "") -> None:
            self.send_response(status)
            if error:
                self.send_header("x-amzn-ErrorType", error)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_GET(self) -> None:
            if "listDICOMImportJobs" in self.path:
                return self.list_import_jobs()
            if "GetDatastore" in endpoint.denied:
                return self.answer(403, {"message": "no"}, "AccessDeniedException")
            if DATASTORE not in self.path:
                return self.answer(404, {"message": "none"}, "ResourceNotFoundException")
            self.answer(
                200,
                {
                    "datastoreProperties": {
                        "datastoreId": DATASTORE,
                        "datastoreName": "plain",
                        "datastoreStatus": endpoint.status,
                        "createdAt": endpoint.created_at,
                    }
                },
            )

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            url = urlsplit(self.path)
            endpoint.requests.append(url.path)
            if endpoint.misbehaviour:
                return self.send(*endpoint.misbehaviour)
            query = parse_qs(url.query)
            *_, image_set_id, operation = url.path.split("/")
            if operation == "getImageSet":
                return self.get_image_set(image_set_id)
            if operation == "listImageSetVersions":
                return self.list_image_set_versions(image_set_id, query)
            if operation == "getImageSetMetadata":
                return self.get_image_set_metadata(image_set_id, int(query["version"][0]))
            token = query.get("nextToken", [None])[0]
            self.answer(
                200, endpoint.search(json.loads(content), int(query["maxResults"][0]), token)
            )

        def list_import_jobs(self) -> None:
            if "ListDICOMImportJobs" in endpoint.denied:
                return self.answer(403, {"message": "no"}, "AccessDeniedException")
            query = parse_qs(urlsplit(self.path).query)
            (status,) = query["jobStatus"]
            listed = [job for job in endpoint.import_jobs if job["jobStatus"] == status]
            start = int(query.get("nextToken", ["0"])[0])
            page: dict[str, Any] = {"jobSummaries": listed[start : start + 2]}
            if start + 2 < len(listed):
                page["nextToken"] = str(start + 2)
            self.answer(200, page)

        def get_image_set(self, image_set_id: str) -> None:
            if "GetImageSet" in endpoint.denied:
                return self.answer(403, {"message": "no"}, "AccessDeniedException")
            if not any(r["imageSetId"] == image_set_id for r in endpoint.image_sets):
                return self.answer(404, {"message": "none"}, "ResourceNotFoundException")
            state = {"datastoreId": DATASTORE, "imageSetId": image_set_id, "versionId": "1"}
            self.answer(200, state | {"imageSetState": "ACTIVE"})

        def list_image_set_versions(self, image_set_id: str, query: dict[str, list[str]]) -> None:
            if "ListImageSetVersions" in endpoint.denied:
                return self.answer(403, {"message": "no"}, "AccessDeniedException")
            listed = [p for (one, _), (p, _) in endpoint.versions.items() if one == image_set_id]
            if not listed:
                return self.answer(404, {"message": "none"}, "ResourceNotFoundException")
            start = int(query.get("nextToken", ["0"])[0])
            page: dict[str, Any] = {"imageSetPropertiesList": listed[start : start + 2]}
            if start + 2 < len(listed):
                page["nextToken"] = str(start + 2)
            self.answer(200, page)

        def get_image_set_metadata(self, image_set_id: str, version: int) -> None:
            if "GetImageSetMetadata" in endpoint.denied:
                return self.answer(403, {"message": "no"}, "AccessDeniedException")
            key = image_set_id, version
            missing = 404, "ResourceNotFoundException"
            content: bytes | tuple[int, str] = endpoint.documents.get(key, missing)
            if key in endpoint.versions:
                content = endpoint.versions[key][1]
            if not isinstance(content, bytes):
                return self.answer(content[0], {"message": "no"}, content[1])
            self.send_response(200)
            self.send_header("Content-Type", "text/plain")
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_port}"
    # `shutdown` waits for the next poll.
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
