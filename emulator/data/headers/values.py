"""Values as the service sends them: DS and IS as padded texts, codes as items of a sequence.

HealthImaging keeps the text of a file. A DS or IS value has an even length in a file, so its last
component often ends with a space. Numbers of a binary VR (US, FL, FD) are JSON numbers.
"""

from __future__ import annotations

from typing import Any

Attributes = dict[str, Any]


def ds(value: float, decimals: int | None = None) -> str:
    """Returns one decimal number as the text of a DS element with one value."""
    text = _number(value, decimals)
    return text + " " * (len(text) % 2)


def ds_list(values: tuple[float, ...], decimals: int | None = None) -> list[str]:
    """Returns decimal numbers as the texts of a DS element with several values."""
    texts = [_number(value, decimals) for value in values]
    # The backslashes between the values count for the length in the file.
    if (sum(map(len, texts)) + len(texts) - 1) % 2:
        texts[-1] += " "
    return texts


def integer(value: int) -> str:
    """Returns the text of an IS element."""
    text = str(value)
    return text + " " * (len(text) % 2)


def code(value: str, scheme: str, meaning: str) -> list[Attributes]:
    """Returns a code sequence with one item."""
    return [{"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}]


def _number(value: float, decimals: int | None) -> str:
    # A DS value has at most 16 characters.
    return f"{value:.8g}" if decimals is None else f"{value:.{decimals}f}"
