"""The format `croissant`: a folder with two tables, and the JSON-LD that describes them.

Croissant asks for the SHA-256 of each file. That of pixels is not known before they are fetched. So
the files that are described are the tables of series and of frames. mlcroissant 1.1.1 reads the
folder without an error. It recommends a licence and a citation, which are for a person to add. It
cannot read values that are not in its vocabulary, so the summary is a file of its own. Source:
Croissant 1.1, https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cohortlake.cohort.pixels.about import About
from cohortlake.cohort.pixels.entries import Entry

JSON_LD = "croissant.json"
SERIES, FRAMES = "series", "frames"
_ROWS = 20_000

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

_SERIES = {
    "datastore_id": (pa.string(), "The data store of HealthImaging."),
    "image_set_id": (pa.string(), "The image set."),
    "version": (pa.int64(), "The version of the image set whose frames these are."),
    "study_instance_uid": (pa.string(), "StudyInstanceUID."),
    "series_instance_uid": (pa.string(), "SeriesInstanceUID."),
    "patient_key": (pa.string(), "A keyed hash of the patient's id."),
    "modality": (pa.string(), "Modality."),
    "transfer_syntax_uid": (pa.string(), "How the pixels were encoded when they were imported."),
    "burned_in_annotation": (pa.string(), "YES if text in the pixels may identify the patient."),
    "frames": (pa.int64(), "How many frames the image set has."),
    "bytes": (pa.int64(), "The size of all frames."),
}
_FRAMES = {
    "image_set_id": (pa.string(), "The image set."),
    "datastore_id": (pa.string(), "The data store of HealthImaging."),
    "version": (pa.int64(), "The version of the image set."),
    "sop_instance_uid": (pa.string(), "SOPInstanceUID of the frame's instance."),
    "frame_number": (pa.int64(), "The place of the frame in its instance, from 1."),
    "frame_id": (pa.string(), "The id that GetImageFrame takes."),
    "bytes": (pa.int64(), "The size of what GetImageFrame returns."),
}
_Columns = dict[str, tuple[pa.DataType, str]]


def write(folder: Path, entries: Iterator[Entry], about: About) -> None:
    """Write the tables, and the JSON-LD that describes them."""
    series = dict(_SERIES)
    if about.parts:
        series["split"] = pa.string(), "The part of the cohort's split, by patient."
    if about.label:
        series["label"] = about.label_type, "The label of the series."
    with (
        _Table(folder / f"{SERIES}.parquet", series) as own,
        _Table(folder / f"{FRAMES}.parquet", _FRAMES) as frames,
    ):
        for entry in entries:
            own.add(about.facts(entry))
            for row in _frames(entry):
                frames.add(row)
    tables = {SERIES: series, FRAMES: _FRAMES}
    described = _described(folder, tables, about)
    text = json.dumps(described, indent=1, ensure_ascii=False)
    (folder / JSON_LD).write_text(text, "utf-8")
    about.write_summary(folder)


def _frames(entry: Entry) -> Iterator[dict[str, Any]]:
    image_set = {name: entry.facts[name] for name in ("image_set_id", "datastore_id", "version")}
    for instance in entry.instances:
        for number, frame in enumerate(instance["ImageFrames"], 1):
            yield {
                **image_set,
                "sop_instance_uid": instance["SOPInstanceUID"],
                "frame_number": number,
                "frame_id": frame["ID"],
                "bytes": frame["FrameSizeInBytes"],
            }


class _Table:
    """Writes rows to a Parquet file, some at a time."""

    def __init__(self, path: Path, columns: _Columns) -> None:
        self._schema = pa.schema([(name, type_) for name, (type_, _) in columns.items()])
        self._writer = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> _Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._write()
        self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        """Add a row."""
        self._rows.append(row)
        if len(self._rows) == _ROWS:
            self._write()

    def _write(self) -> None:
        self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows = []


def _described(folder: Path, tables: dict[str, _Columns], about: About) -> dict[str, Any]:
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.1",
        "name": about.cohort,
        "description": about.description
        or f"The series of the cohort {about.cohort}, and the frames of their pixels.",
        "datePublished": about.published_at,
        "version": "1.0.0",
        "isLiveDataset": False,
        "distribution": [_file(folder / f"{name}.parquet") for name in tables],
        "recordSet": [*_splits(about), *(_records(*table) for table in tables.items())],
    }


def _file(path: Path) -> dict[str, Any]:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {
        "@type": "cr:FileObject",
        "@id": path.name,
        "name": path.name,
        "contentUrl": path.name,
        "contentSize": f"{path.stat().st_size} B",
        "encodingFormat": "application/x-parquet",
        "sha256": digest,
    }


def _splits(about: About) -> Iterator[dict[str, Any]]:
    if about.parts:
        yield {
            "@type": "cr:RecordSet",
            "@id": "splits",
            "name": "splits",
            "dataType": "cr:Split",
            "key": {"@id": "splits/name"},
            "field": [
                {
                    "@type": "cr:Field",
                    "@id": "splits/name",
                    "name": "name",
                    "dataType": "sc:Text",
                }
            ],
            "data": [{"splits/name": part} for part in about.parts],
        }


def _records(name: str, columns: _Columns) -> dict[str, Any]:
    key = "image_set_id" if name == SERIES else "frame_id"
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "key": {"@id": f"{name}/{key}"},
        "field": [_field(name, column, *entry) for column, entry in columns.items()],
    }


def _field(table: str, column: str, type_: pa.DataType, description: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"{table}/{column}",
        "name": column,
        "description": description,
        "dataType": _DATA_TYPES.get(str(type_), "sc:Text"),
        "source": {"fileObject": {"@id": f"{table}.parquet"}, "extract": {"column": column}},
    }


_DATA_TYPES = {
    "int64": "sc:Integer",
    "int32": "sc:Integer",
    "double": "sc:Float",
    "bool": "sc:Boolean",
    "date32[day]": "sc:Date",
}
