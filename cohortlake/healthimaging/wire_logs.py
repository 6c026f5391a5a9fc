"""What boto3 and its libraries may log of a call: that it is made, and nothing that it carries.

At level DEBUG botocore logs requests, answers and what it signs, and urllib3 the address, which
holds the token of the next page. What these libraries say is kept, and what they say it of is
left out, whatever handlers and levels anybody sets, now or later: the records themselves are made
so. Those of other libraries are nobody's business here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

LIBRARIES = ("boto3", "botocore", "urllib3")

_MakeRecord = Callable[..., logging.LogRecord]


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


def leave_values_out() -> None:
    """Leave values out of the libraries' log records from now on, in this process."""
    make = logging.getLogRecordFactory()
    if not isinstance(make, _WithoutValues):
        logging.setLogRecordFactory(_WithoutValues(make))
