"""Failures in a run over several data stores: a failed data store does not stop the others.

Errors of one data store are kept until the end: the service refused it, or other runs search it.
Missing credentials and a lake that cannot be written affect all data stores, and end the run at
once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cohortlake.errors import (
    CohortlakeError,
    NoCredentials,
    SearchedByOthers,
    ServiceError,
    SeveralFailed,
)


class Failures:
    """Keeps the errors of single data stores, to raise them at the end of a run.

    Attributes:
        datastores: Ids of the data stores that failed.
    """

    def __init__(self) -> None:
        self.datastores: set[str] = set()
        self._errors: list[CohortlakeError] = []

    @contextmanager
    def of(self, datastore_id: str) -> Iterator[None]:
        """Keep an error that the block raises, if it concerns this data store alone.

        Args:
            datastore_id: The data store of the block. The error's message names it.

        Raises:
            NoCredentials: There are none for any data store.
        """
        try:
            yield
        except NoCredentials:
            raise
        except (ServiceError, SearchedByOthers) as error:
            if datastore_id not in str(error):
                error.args = (f"data store {datastore_id}: {error}",)
            self.datastores.add(datastore_id)
            self.add(error)

    def add(self, error: CohortlakeError) -> None:
        """Keep an error until the end."""
        self._errors.append(error)

    def raise_all(self) -> None:
        """Raise what was kept, if there is anything.

        Raises:
            SeveralFailed: There are several errors.
            CohortlakeError: There is one.
        """
        if len(self._errors) > 1:
            raise SeveralFailed(self._errors)
        if self._errors:
            raise self._errors[0]
