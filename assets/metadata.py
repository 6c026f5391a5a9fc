"""What the assets tell Dagster: counts, names, instants and paths, never the value of a tag."""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from cohortlake.ingest.extract import Found
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


def search_metadata(found: Found, root: Root) -> Metadata:
    """Return what there is to tell about a partition that was searched."""
    records = found.records
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


def _column_tags(column: Column) -> dict[str, str]:
    tags = {"dicom_tag": column.tag, "dicom_vr": column.vr, "identifies": column.identifies.value}
    return {name: value for name, value in tags.items() if value}
