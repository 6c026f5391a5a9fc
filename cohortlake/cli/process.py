"""Keeps identified data out of the logs of other libraries, and prevents core dumps.

Both are settings of the whole process, so the command line and Dagster's code location make them,
and the library does not. A program that uses the library calls `protect_process` itself if it logs
boto3, botocore or urllib3 at level DEBUG, or could leave a core dump.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

LIBRARIES = ("boto3", "botocore", "urllib3")

_MakeRecord = Callable[..., logging.LogRecord]


def protect_process() -> None:
    """Leave values out of what boto3 and its libraries log, and leave no core dump.

    At level DEBUG botocore logs requests, answers and what it signs, and urllib3 the address, which
    holds the token of the next page. Their messages are kept without their arguments, with any
    handlers and levels, now or later. Records of other loggers are not changed.
    """
    make = logging.getLogRecordFactory()
    if not isinstance(make, _WithoutValues):
        logging.setLogRecordFactory(_WithoutValues(make))
    _leave_no_core_dump()


class _WithoutValues:
    """A log record factory that removes the arguments from the records of those libraries.

    A message is a constant in the source of the library. The values are its arguments.
    """

    def __init__(self, make: _MakeRecord) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._make(*args, **kwargs)
        if str(record.name).partition(".")[0] in LIBRARIES:
            error = record.exc_info and record.exc_info[0]
            error_type = f" ({error.__name__})" if error else ""
            record.msg, record.args = f"{record.msg}{error_type}", ()
            record.exc_info = record.exc_text = None
        return record


def _leave_no_core_dump() -> None:
    try:
        import resource
    except ModuleNotFoundError:  # Windows, where a lake can only be read
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    # One byte: what takes dumps through a pipe is not bound by a limit of none (core(5)).
    least = 1 if hard else 0
    if soft != least:
        resource.setrlimit(resource.RLIMIT_CORE, (least, hard))
