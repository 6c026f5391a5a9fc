"""The published tables as the catalogue describes them: columns, partitions and files.

See `database`, `athena` and `dictionary` for what is written for each tool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cohortlake import schema

if TYPE_CHECKING:
    from cohortlake.publish.publication.marker import Publication


@dataclass(frozen=True)
class Table:
    """A published table.

    Attributes:
        name: Its name.
        columns: The columns in its files.
        partition: The column in the names of its folders, or None if it has no partitions.
        values: The values of `partition` that have a folder.
        has_files: Whether it has files.
    """

    name: str
    columns: tuple[schema.Column, ...]
    partition: schema.Column | None
    values: tuple[str, ...]
    has_files: bool

    @property
    def all_columns(self) -> tuple[schema.Column, ...]:
        """The columns that a reader sees. The partition is the last one."""
        return (*self.columns, self.partition) if self.partition else self.columns

    @property
    def pattern(self) -> str:
        """The pattern of the paths of its files below `published/`. It matches no draft."""
        if self.partition:
            return f"{self.name}/{self.partition.name}=*/{self.name}.parquet"
        return f"{self.name}/{self.name}*.parquet"  # see `publish.patients`


def tables(publication: Publication) -> tuple[Table, ...]:
    """Return all tables of a publication."""
    return tuple(_table(publication, name) for name in schema.PUBLISHED)


def _table(publication: Publication, name: str) -> Table:
    shown = publication.shown(name)
    partition = next((c for c in schema.forms(schema.STUDY_MONTH) if c in shown), None)
    paths = publication.paths(name)
    return Table(
        name,
        tuple(column for column in shown if column != partition),
        partition,
        tuple(sorted(path.split("/")[-2].partition("=")[2] for path in paths if partition)),
        bool(paths),
    )
