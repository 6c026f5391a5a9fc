"""What a process does before it handles identified data: it logs no values and dumps no core.

Both are settings of the whole process. So the command line and Dagster's code location make them,
and the library does not: it is a guest in its host's process. A host that opens the loggers of
boto3, botocore or urllib3 at level DEBUG, or that could leave a core dump, calls
`protect_process` first.
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
    holds the token of the next page. Their messages stay, without what they are about, whatever
    handlers and levels anybody sets, now or later. Records of other loggers stay as they are.
    """
    make = logging.getLogRecordFactory()
    if not isinstance(make, _WithoutValues):
        logging.setLogRecordFactory(_WithoutValues(make))
    _leave_no_core_dump()


class _WithoutValues:
    """Makes log records as another factory does, and leaves values out of the libraries'.

    A message is a constant of the library's source, and what it is about are its arguments.
    """

    def __init__(self, make: _MakeRecord) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._make(*args, **kwargs)
        if str(record.name).partition(".")[0] in LIBRARIES:
            error = record.exc_info and record.exc_info[0]
            told = f" ({error.__name__})" if error else ""
            record.msg, record.args = f"{record.msg}{told}", ()
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
