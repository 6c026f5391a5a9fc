"""What lies beside the published tables, so that other tools find their way in them.

A database of views, the data dictionary, and DDL for Athena. None of it holds a row. A file is
written only where its content would be another; `publish.publisher` says when it is looked at.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from cohortlake.privacy import Policy
from cohortlake.publish.export import athena, database, dictionary
from cohortlake.publish.export.tables import tables
from cohortlake.storage.root import Root

if TYPE_CHECKING:
    from cohortlake.publish.marker import Publication

DATABASE_PATH = "published/cohortlake.duckdb"
VIEWS_PATH = "published/cohortlake.sql"
CSV_PATH = "published/data_dictionary.csv"
MARKDOWN_PATH = "published/data_dictionary.md"
ATHENA_PATH = "published/athena.sql"


def bring_up_to_date(root: Root, publication: Publication, policy: Policy) -> None:
    """Write what is missing, or is not of this publication.

    On S3 there is no database: DuckDB reads one from a disk only.

    Args:
        root: The lake.
        publication: What stands in `published/`.
        policy: The policy that it was published under.

    Raises:
        RootNotUsable: It cannot be written.
    """
    known = tables(publication)
    next_year = datetime.fromisoformat(publication.published_at).year + 1
    place = root.location_of("published")
    lake = athena.PLACE if place.is_local else place.uri
    _write(root, CSV_PATH, dictionary.to_csv(policy))
    _write(root, MARKDOWN_PATH, dictionary.to_markdown(policy))
    _write(root, ATHENA_PATH, athena.statements(lake, known, next_year))
    if place.is_local:
        views = database.views(root.path("published"), known)
        if not (root.exists(DATABASE_PATH) and _is_written(root, VIEWS_PATH, views)):
            root.write(DATABASE_PATH, database.build(views))
            # After the database: a run that dies between the two leaves both due.
            root.write(VIEWS_PATH, views.encode())


def _write(root: Root, path: str, text: str) -> None:
    if not _is_written(root, path, text):
        root.write(path, text.encode())


def _is_written(root: Root, path: str, text: str) -> bool:
    return root.exists(path) and root.read(path) == text.encode()
