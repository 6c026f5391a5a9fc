"""How one DICOM date or time is read (PS3.5 section 6.2).

The table's columns (`flatten.values`) and the paging of searches by study date
(`healthimaging.places`) read dates here, so that both agree on which text is a date.
"""

from __future__ import annotations

import functools
import re
from datetime import date, time

# DA is YYYYMMDD; YYYY.MM.DD is ACR-NEMA's way, which readers shall accept (PS3.5 6.2 note).
_DA = re.compile(r"(\d{4})(\d\d)(\d\d)|(\d{4})\.(\d\d)\.(\d\d)", re.ASCII)
# TM is HH, HHMM, HHMMSS or HHMMSS.F to .FFFFFF; HH:MM:SS.FFFFFF is ACR-NEMA's way.
_TM = re.compile(r"(\d\d)(?:(\d\d)(?:(\d\d)(?:\.(\d{1,6}))?)?)?", re.ASCII)
_TM_COLONS = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?", re.ASCII)


@functools.lru_cache(maxsize=2**16)  # dates come again in every batch
def read_da(text: str) -> tuple[date | None, str | None]:
    """Read a date.

    Args:
        text: A DA value as sent.

    Returns:
        The date, or None for text that is none, such as `20240230`. Then the text, or None
        where the date gives it back: it is written YYYYMMDD.
    """
    match = _DA.fullmatch(text.strip(" "))
    if not match:
        return None, text
    year, month, day = (int(part) for part in match.groups() if part is not None)
    try:
        value = date(year, month, day)
    except ValueError:
        return None, text
    return value, None if f"{value.year:04d}{value:%m%d}" == text else text


def read_tm(text: str) -> tuple[time | None, str | None]:
    """Read a time.

    Args:
        text: A TM value as sent.

    Returns:
        The time, or None for text that is none: seconds of 60 (a leap second) are no `time`.
        Then the text.
    """
    stripped = text.strip(" ")
    match = _TM.fullmatch(stripped) or _TM_COLONS.fullmatch(stripped)
    if not match:
        return None, text
    hours, minutes, seconds, fraction = match.groups(default="0")
    try:
        return time(int(hours), int(minutes), int(seconds), int(fraction.ljust(6, "0"))), text
    except ValueError:
        return None, text
