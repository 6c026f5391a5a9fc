"""Several data stores in one run: one that fails holds up no other.

Kept for the end is what concerns one data store: the service refused it, or other runs search
it. Missing credentials and a lake that cannot be written concern all of them, and end the run
at once.
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
    """What went wrong so far, by data store.

    Attributes:
        datastores: The ids of those that failed.
    """

    def __init__(self) -> None:
        self.datastores: set[str] = set()
        self._errors: list[CohortlakeError] = []

    @contextmanager
    def of(self, datastore_id: str) -> Iterator[None]:
        """Keep an error that concerns one data store, raised in the block, for the end.

        Args:
            datastore_id: The data store that the block is about; the message names it.

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
        """Keep an error for the end."""
        self._errors.append(error)

    def raise_them(self) -> None:
        """Raise what was kept, if there is any.

        Raises:
            SeveralFailed: There are several.
            CohortlakeError: There is one.
        """
        if len(self._errors) > 1:
            raise SeveralFailed(self._errors)
        if self._errors:
            raise self._errors[0]
