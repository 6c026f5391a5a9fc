"""Explains what deltalake raises: the operating system's errors, S3's answers, and panics."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from deltalake.exceptions import CommitFailedError, DeltaError

from cohortlake.errors import is_panic
from cohortlake.storage.root import Root

# deltalake's errors hold the operating system's error as text: a full disk, a missing right.
_OS_ERROR = re.compile(r"\(os error (\d+)\)")
# S3 refuses, or its answer breaks off. "Already exists" is another case: another writer was faster.
_S3_ERROR = re.compile(
    r"^(?!.*already exists).*(?:Error performing [A-Z]+ http|Generic S3 error)", re.DOTALL
)


@contextlib.contextmanager
def explained(root: Root) -> Iterator[None]:
    """Explain errors inside a block. See `Root.explained` for what it raises."""
    with root.explained(), s3_explained():
        try:
            with without_panic():
                yield
        except (DeltaError, OSError) as error:
            text = str(error)
            # A connection that breaks has such a number too.
            if not _S3_ERROR.search(text) and (number := _OS_ERROR.search(text)):
                raise OSError(int(number[1]), "") from None
            raise


@contextlib.contextmanager
def s3_explained() -> Iterator[None]:
    """Raise an OSError, which `Root.explained` reads, if deltalake's error holds S3's answer."""
    try:
        yield
    except DeltaError as error:
        if _S3_ERROR.search(str(error)) and not isinstance(error, CommitFailedError):
            raise OSError(str(error)) from None
        raise


@contextlib.contextmanager
def without_panic() -> Iterator[None]:
    """Turn a panic of deltalake's Rust code, which is not an Exception, into a DeltaError."""
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        raise DeltaError("deltalake panicked") from None
