"""Metadata of the assets: counts, names, instants and paths, never the value of a tag."""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from cohortlake.ingest.partition_search import SearchResult
from cohortlake.ingest.sweep import SweepResult
from cohortlake.schema import Column
from cohortlake.storage.root import Root

Value = dg.MetadataValue[Any] | dg.TableSchema | int | float | str
Metadata = Mapping[str, Value]


def column_schema(columns: Iterable[Column]) -> dg.TableSchema:
    """Return columns as Dagster's catalog shows them."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                column.name, str(column.type), column.description, tags=_column_tags(column)
            )
            for column in columns
        ]
    )


def search_metadata(found: SearchResult, root: Root) -> Metadata:
    """Return the metadata of a partition that was searched."""
    records = found.records
    if not records:  # a day before the data store's first, or in the future
        return {"dagster/row_count": 0}
    metadata: dict[str, Value] = {
        "dagster/row_count": found.rows,
        "requests": found.requests,
        "throttles": found.throttles,
        "window_start": min(record.start for record in records).isoformat(),
        "window_end": max(record.end for record in records).isoformat(),
        "duration_seconds": sum(record.duration_seconds for record in records),
    }
    if found.is_written:
        metadata["path"] = dg.MetadataValue.path(root.uri_of(records[0].path))
    return metadata


def sweep_metadata(swept: SweepResult, root: Root) -> Metadata:
    """Return the metadata of a partition that was swept."""
    return {
        **search_metadata(swept.search, root),
        "missing": swept.missing,
        "confirmed_absent": swept.absent,
        "refused": swept.refused,
        "unconfirmed": swept.unconfirmed,
    }


def _column_tags(column: Column) -> dict[str, str]:
    tags = {"dicom_tag": column.tag, "dicom_vr": column.vr, "identifies": column.identifies.value}
    return {name: value for name, value in tags.items() if value}
