"""The catalogue: files beside the published tables that describe them to other tools.

It has a database of views, the data dictionary, and DDL for Athena and Spark. None of them holds
a row. A file is written only if its content changes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import duckdb

from cohortlake.errors import DamagedFile
from cohortlake.privacy import Policy
from cohortlake.publish.export import athena, database, dictionary, spark
from cohortlake.publish.export.tables import Table, tables
from cohortlake.publish.publication import intact
from cohortlake.storage import damage
from cohortlake.storage.root import Root

if TYPE_CHECKING:
    from cohortlake.publish.publication.marker import Publication

DATABASE_PATH = f"published/{database.NAME}"
VIEWS_PATH = "published/cohortlake.sql"
CSV_PATH = "published/data_dictionary.csv"
MARKDOWN_PATH = "published/data_dictionary.md"
ATHENA_PATH = "published/athena.sql"
SPARK_PATH = "published/spark.sql"


def bring_up_to_date(
    root: Root, publication: Publication, policy: Policy, there: Mapping[str, str]
) -> dict[str, str]:
    """Write the files of the catalogue that are missing or out of date.

    On S3 there is no database, because DuckDB opens databases on a disk only.

    Args:
        root: The lake.
        publication: What is published.
        policy: The policy that it was published under.
        there: Path -> the SHA-256 of its content, of the files that are there. On S3 these are not
            read. On a disk all are, because people may have changed one.

    Returns:
        The same of the files that are there now.

    Raises:
        DamagedFile: A published file is not as it was written, so DuckDB cannot make a view of it.
        RootNotUsable: A file cannot be written.
    """
    known = tables(publication)
    next_year = datetime.fromisoformat(publication.published_at).year + 1
    place = root.location_of("published")
    lake = athena.PLACE if place.is_local else place.uri
    texts = {
        CSV_PATH: dictionary.to_csv(policy),
        MARKDOWN_PATH: dictionary.to_markdown(policy),
        ATHENA_PATH: athena.statements(lake, known, next_year),
        SPARK_PATH: spark.statements(known),
    }
    digests = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in texts.items()}
    for path, text in texts.items():
        if place.is_local or there.get(path) != digests[path]:
            _write(root, path, text)
    if place.is_local:
        folder = root.path("published")
        views = database.views(folder, known)
        if not (root.exists(DATABASE_PATH) and _is_written(root, VIEWS_PATH, views)):
            root.write(DATABASE_PATH, _database(root, publication, known))
            # After the database, so that a run that is killed in between leaves both to write.
            root.write(VIEWS_PATH, views.encode())
    return digests


def _database(root: Root, publication: Publication, known: Sequence[Table]) -> bytes:
    """Return the content of the database. DuckDB reads the footers of the files for it."""
    try:
        return database.build(root.path("published"), known)
    except duckdb.Error as error:
        # Not only of a damaged file: one of another table has other columns.
        altered = intact.altered(root, publication, intact.sizes(root), verify=True)
        path = next(iter(altered), None)
        path = path or damage.first_damaged(root, root.files("published", ".parquet"))
        if path is None:
            raise
        error.args = ()  # it stays the `__context__` of ours, which a report may show
        raise DamagedFile(path) from None


def _write(root: Root, path: str, text: str) -> None:
    if not _is_written(root, path, text):
        root.write(path, text.encode())


def _is_written(root: Root, path: str, text: str) -> bool:
    written = root.read_if_there(path)
    return written is not None and written[0] == text.encode()
