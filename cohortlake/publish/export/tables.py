"""The published tables as other tools are told of them: columns, partitions and files.

The one place that says by which column the folders of a table are named, and which values of it
there are. See `database`, `athena` and `dictionary` for how each tool is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cohortlake import schema

if TYPE_CHECKING:
    from cohortlake.publish.marker import Publication


@dataclass(frozen=True)
class Table:
    """A published table.

    Attributes:
        name: Its name.
        columns: What its files hold, under the policy they were published under.
        partition: The column that its folders are named by, or None where it has none.
        values: The values of `partition` that there are folders of.
        has_files: Whether anything is published of it.
    """

    name: str
    columns: tuple[schema.Column, ...]
    partition: schema.Column | None
    values: tuple[str, ...]
    has_files: bool

    @property
    def all_columns(self) -> tuple[schema.Column, ...]:
        """The columns as a reader sees them, the partition's last."""
        return (*self.columns, self.partition) if self.partition else self.columns

    @property
    def pattern(self) -> str:
        """What its files are called below `published/`, and no draft of one is."""
        folder = f"{self.partition.name}=*/" if self.partition else ""
        return f"{self.name}/{folder}{self.name}.parquet"


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
