"""Whole numbers as people write them in a period: `12`, `two`, `a`."""

from __future__ import annotations

_WORDS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten",
    "eleven", "twelve",
)  # fmt: skip

NUMBER = rf"\d{{1,6}}|{'|'.join(_WORDS)}|an|a"
"""A pattern for such a number."""


def number(text: str) -> int:
    """Return the number that a text which `NUMBER` matches says."""
    if text in ("a", "an"):
        return 1
    return _WORDS.index(text) if text in _WORDS else int(text)
