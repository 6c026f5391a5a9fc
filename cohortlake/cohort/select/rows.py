"""Rows of a query that runs when they are asked for, as Arrow, pandas, Polars or tuples.

The text of an error of DuckDB may hold the value of a tag. So only errors about the query itself
are passed on with their text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import duckdb
import pyarrow as pa

from cohortlake.cohort import guesses
from cohortlake.dicom_terms import did_you_mean_column
from cohortlake.errors import BadQuery, LakeClosed, did_you_mean
from cohortlake.flatten import to_frame

if TYPE_CHECKING:
    import pandas as pd

# DuckDB raises these before it reads a row: they quote the query, and never a value of a row.
_OF_THE_QUERY = (
    duckdb.ParserException,
    duckdb.CatalogException,
    duckdb.BinderException,
)
_UNKNOWN_COLUMN = re.compile(r'column "?([^" ]+)"? (?:not found|does not exist)')
_UNKNOWN_TABLE = re.compile(r'Table with name "?([^" ]+)"? does not exist')
_QUOTED = re.compile(r'"([^"]+)"')
_SHOWN = 20
"""Rows that a notebook shows."""


@dataclass(frozen=True)
class Rows:
    """The rows of a query. The query runs when they are asked for.

    Attributes:
        relation: The query, to go on with in DuckDB.
        explained: Explains errors inside a block that takes rows out.
    """

    relation: duckdb.DuckDBPyRelation
    explained: Callable[[], AbstractContextManager[None]] = field(repr=False)

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self.relation.columns)

    def to_arrow(self) -> pa.Table:
        """Return the rows as an Arrow table; instants are UTC.

        Raises:
            BadQuery: The query fails on some row.
        """
        with self.explained():
            return self.relation.to_arrow_table()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return the rows as a stream of the Arrow C interface."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows as a frame; see `flatten.frame` for the dtypes.

        Raises:
            BadQuery: The query fails on some row.
        """
        return to_frame(self.to_arrow())

    def to_polars(self) -> Any:
        """Return the rows as a `polars.DataFrame`; polars must be installed.

        Raises:
            BadQuery: The query fails on some row, or polars is not installed.
        """
        try:
            import polars
        except ModuleNotFoundError:
            raise BadQuery("polars is not installed: `pip install polars`") from None
        return polars.from_arrow(self.to_arrow())

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return the rows as tuples.

        Raises:
            BadQuery: The query fails on some row.
        """
        with self.explained():
            return self.relation.fetchall()

    def head(self, n: int = 5) -> pd.DataFrame:
        """Return the first rows as a frame.

        Raises:
            BadQuery: The query fails on some row.
        """
        with self.explained():
            return to_frame(self.relation.limit(n).to_arrow_table())

    def __len__(self) -> int:
        with self.explained():
            return int(self.relation.shape[0])

    def __iter__(self) -> NoReturn:
        raise TypeError("rows cannot be iterated over: write rows.fetchall() or rows.to_pandas()")

    def __getitem__(self, name: object) -> NoReturn:
        raise TypeError(f"rows have no items: write rows.to_pandas()[{name!r}]")

    if not TYPE_CHECKING:  # a type checker would take any name for one that there is

        def __getattr__(self, name: str) -> NoReturn:
            is_made = "relation" in vars(self) and name[0] != "_"
            columns = self.columns if is_made else ()
            raise guesses.answer("rows", name, guesses.ROWS, dir(type(self)), columns)

    def __reduce__(self) -> NoReturn:
        raise TypeError("rows cannot be pickled: write rows.to_arrow() or rows.to_pandas()")

    def __repr__(self) -> str:
        with self.explained():
            return str(self.relation)

    def _repr_html_(self) -> str:
        first = self.head(_SHOWN + 1)
        more = "<p>More rows follow; len(rows) counts them.</p>" if len(first) > _SHOWN else ""
        return first.head(_SHOWN).to_html(index=False) + more


@contextmanager
def explained(
    tables: Iterable[str] = (),
    columns: Iterable[str] = (),
    not_shown: Callable[[str], Exception | None] = lambda _: None,
) -> Iterator[None]:
    """Turn DuckDB's errors inside the block into BadQuery, without any row's value.

    Args:
        tables: The names of tables, to suggest one.
        columns: The names of columns, to suggest one.
        not_shown: Gives the error for a name of a column that the policy does not show.
    """
    try:
        yield
    except duckdb.ConnectionException:
        raise LakeClosed(
            "the lake was closed; open it again with `cohortlake.open`, and take rows out before "
            "it is closed"
        ) from None
    except _OF_THE_QUERY as error:
        line = str(error).splitlines()[0]
        for name in _QUOTED.findall(line):
            if withheld := not_shown(name):
                raise withheld from None
        raise BadQuery(line + _near(line, tables, columns)) from None
    except duckdb.Error as error:
        # It becomes `__context__`, and a report of errors may show its text.
        error.args = ()
        raise BadQuery(
            f"the query fails on some row ({type(error).__name__}; the text is left out, for it "
            "may hold the value of a tag): compare columns with values of their own type, or "
            "use TRY_CAST"
        ) from None


def _near(line: str, tables: Iterable[str], columns: Iterable[str]) -> str:
    if unknown := _UNKNOWN_TABLE.search(line):
        there = sorted(tables)
        return did_you_mean(unknown[1], there) + f" (tables: {', '.join(there)})"
    unknown = _UNKNOWN_COLUMN.search(line)
    return did_you_mean_column(unknown[1], columns) if unknown else ""
