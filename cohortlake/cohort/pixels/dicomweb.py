"""The format `dicomweb`: the URLs of each series on HealthImaging's DICOMweb host.

HealthImaging gives the metadata of a series, and instances and frames one instance at a time:
`{url}/instances/{SOPInstanceUID}/frames/{numbers}?imageSetId={image set}`. The instances are named
in the metadata, so no header has to be fetched for this format. Source:
https://docs.aws.amazon.com/healthimaging/latest/devguide/dicomweb-retrieve.html.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from cohortlake.cohort.pixels.about import About
from cohortlake.cohort.pixels.entries import Entry

_AWS = ".amazonaws.com"


def write(file: Path, entries: Iterator[Entry], about: About) -> None:
    """Write a JSON file with an object for each series.

    Raises:
        SettingError: No AWS region is set.
    """
    host = _host()
    with file.open("wb") as stream:
        stream.write(b'{"series": [')
        between = b"\n"
        for entry in entries:
            urls = _urls(host, entry)
            stream.write(between + msgspec.json.encode(urls | about.facts(entry)))
            between = b",\n"
        stream.write(b'\n],\n"cohortlake": %s\n}\n' % msgspec.json.encode(about.summary()))


def _urls(host: str, entry: Entry) -> dict[str, str]:
    study, series = (quote(str(uid), safe="") for uid in _uids(entry))
    url = f"{host}/datastore/{entry.datastore_id}/studies/{study}/series/{series}"
    return {"url": url, "metadata_url": f"{url}/metadata?imageSetId={entry.image_set_id}"}


def _uids(entry: Entry) -> tuple[str | None, str | None]:
    return entry.StudyInstanceUID, entry.SeriesInstanceUID


def _host() -> str:
    """Return the address of DICOMweb: that of the other operations, where it is not AWS's own."""
    from botocore.config import Config  # here and not above: it takes long

    from cohortlake.aws import connect

    endpoint = str(connect("medical-imaging", Config()).meta.endpoint_url).rstrip("/")
    parts = urlsplit(endpoint)
    is_aws = (parts.hostname or "").endswith((_AWS, f"{_AWS}.cn"))
    return f"{parts.scheme}://dicom-{parts.netloc}" if is_aws else endpoint
