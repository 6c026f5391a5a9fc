"""The columns and the partitions of the Iceberg tables, and how a table is created or changed.

The period is in the name of a published file's folder and not in the file. Iceberg's specification
provides for that: the value of an identity partition that a file does not hold is the one that the
table's metadata gives for the file ("Column projection").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cohortlake import schema
from cohortlake.errors import SettingError
from cohortlake.optional_dependencies import module
from cohortlake.publish.export.tables import Table
from cohortlake.storage.root import Root

if TYPE_CHECKING:
    from cohortlake.publish.iceberg.catalogue import Target

_NAME_MAPPING = "schema.name-mapping.default"
_PROPERTIES = {
    "format-version": "2",
    # Two runs that register the same publication at once would both add its files.
    "commit.retry.num-retries": "0",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "10",
}


def columns(table: Table) -> tuple[schema.Column, ...]:
    """Return the columns of an Iceberg table.

    Times of day are left out: Spark cannot open an Iceberg table that has one.
    """
    return tuple(column for column in table.all_columns if not _is_left_out(column))


def load(catalogue: Any, target: Target, name: str) -> Any | None:
    """Return a table of the catalogue, or None if there is none."""
    exceptions = module("pyiceberg.exceptions")
    try:
        return catalogue.load_table(target.table(name))
    except (exceptions.NoSuchTableError, exceptions.NoSuchNamespaceError):
        return None


def load_or_create(catalogue: Any, target: Target, table: Table, root: Root, folder: str) -> Any:
    """Return a table of the catalogue that has the right columns, partitions and place.

    New columns are added to the table that is there. If a column or the partition is gone, or the
    lake was moved, the table is dropped with its files, and created again.

    Args:
        catalogue: The open catalogue.
        target: Where the table is registered.
        table: The published table.
        root: The lake.
        folder: The folder of the table, below the root.

    Raises:
        SettingError: The table is one of another lake.
    """
    try:
        held = load(catalogue, target, table.name)
        is_there = held is not None
    except FileNotFoundError:  # the lake was moved, and the table's own files with it
        held, is_there = None, True
    if held is not None:
        _require_own(held, root.uri_of(folder))
        if _can_be_kept(held, table):
            _add_columns(held, table)
            return held
    if is_there:
        catalogue.drop_table(target.table(table.name))
    # What is in the folder may be from a run that was killed after the table was dropped.
    for path in root.files(folder, ""):
        root.delete(path)
    catalogue.create_namespace_if_not_exists(target.namespace)
    with catalogue.create_table_transaction(
        target.table(table.name),
        schema=_schema(table),
        location=root.uri_of(folder),
        partition_spec=_partitions(table),
        properties=_PROPERTIES,
    ) as creation:
        # The files name their columns and have no ids.
        mapping = creation.table_metadata.schema().name_mapping.model_dump_json()
        creation.set_properties({_NAME_MAPPING: mapping})
        _leave_out(creation, table.all_columns)
    return catalogue.load_table(target.table(table.name))


def _require_own(held: Any, location: str) -> None:
    if held.location() != location:
        raise SettingError(
            f"the Iceberg table {'.'.join(held.name())} lies at {held.location()}, and that of "
            f"this lake at {location}; name another namespace in COHORTLAKE_ICEBERG, or drop that "
            "table"
        )


def _can_be_kept(held: Any, table: Table) -> bool:
    types = {field.name: field.field_type for field in held.schema().fields}
    wanted = {column.name: column.type for column in columns(table)}
    partitions = [held.schema().find_column_name(f.source_id) for f in held.spec().fields]
    return (
        types.keys() <= wanted.keys()
        and all(_same_type(type_, wanted[name]) for name, type_ in types.items())
        and partitions == ([table.partition.name] if table.partition else [])
    )


def _same_type(held: Any, wanted: pa.DataType) -> bool:
    if pa.types.is_list(wanted):
        return type(held).__name__ == "ListType"
    return bool(held == _types()[wanted])


def _add_columns(held: Any, table: Table) -> None:
    in_files = {name for field in held.name_mapping() for name in field.names}
    known = {field.name for field in held.schema().fields}
    known |= in_files - {column.name for column in columns(table)}
    if new := [column for column in table.all_columns if column.name not in known]:
        with held.transaction() as transaction:
            with transaction.update_schema() as update:
                for column in new:
                    update.add_column(column.name, _types()[column.type], column.description)
            _leave_out(transaction, new)


def _is_left_out(column: schema.Column) -> bool:
    return bool(pa.types.is_time(column.type))


def _leave_out(transaction: Any, some: Iterable[schema.Column]) -> None:
    """Take columns out of the table. Readers of the files still know their names."""
    if names := [column.name for column in some if _is_left_out(column)]:
        with transaction.update_schema(allow_incompatible_changes=True) as update:
            for name in names:
                update.delete_column(name)


def _types() -> dict[pa.DataType, Any]:
    """Return Arrow type -> Iceberg's type."""
    types = module("pyiceberg.types")
    # `create_table` and `add_column` give each column, and the element of a list, an id of its own.
    texts = types.ListType(element_id=1, element_type=types.StringType(), element_required=False)
    return {
        pa.string(): types.StringType(),
        pa.bool_(): types.BooleanType(),
        pa.int16(): types.IntegerType(),
        pa.int32(): types.IntegerType(),
        pa.int64(): types.LongType(),
        pa.float64(): types.DoubleType(),
        pa.date32(): types.DateType(),
        pa.time64("us"): types.TimeType(),
        schema.INSTANT: types.TimestamptzType(),
        pa.list_(pa.string()): texts,
    }


def _schema(table: Table) -> Any:
    types = module("pyiceberg.types")
    fields = [
        types.NestedField(number, column.name, _types()[column.type], False, column.description)
        for number, column in enumerate(table.all_columns, start=1)
    ]
    return module("pyiceberg.schema").Schema(*fields)


def _partitions(table: Table) -> Any:
    partitioning = module("pyiceberg.partitioning")
    if table.partition is None:
        return partitioning.UNPARTITIONED_PARTITION_SPEC
    field = partitioning.PartitionField(
        source_id=len(table.all_columns),  # it is the last one
        field_id=1000,
        transform=module("pyiceberg.transforms").IdentityTransform(),
        name=table.partition.name,
    )
    return partitioning.PartitionSpec(field)
