"""How far one study lies from another, in words: "6 to 18 months after", "within 30 days"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cohortlake.cohort.define.numbers import NUMBER, number
from cohortlake.errors import BadCriteria

_UNITS = ("day", "week", "month", "year")
_LONGEST_YEARS = 200
_LONGEST = {
    "day": _LONGEST_YEARS * 365,
    "week": _LONGEST_YEARS * 52,
    "month": _LONGEST_YEARS * 12,
    "year": _LONGEST_YEARS,
}
_UNIT = rf"(?P<unit>{'|'.join(_UNITS)})s?"
_WORDS = re.compile(
    rf"(?:(?:with)?in (?:the )?(?P<within>{NUMBER})|up to (?P<up_to>{NUMBER})"
    rf"|(?:between )?(?P<low>{NUMBER})(?: to | and | ?- ?)(?P<high>{NUMBER})) {_UNIT}"
    r"(?: (?P<side>before|after|apart))?|any ?time(?: (?P<any_side>before|after))?"
)
_BARE = re.compile(rf"(?P<number>{NUMBER}) {_UNIT} (?P<side>before|after)")


@dataclass(frozen=True)
class Period:
    """A span of days before or after a study, whole calendar units, both ends included.

    "within 30 days" includes the same day; "any time before" and "any time after" do not.

    Attributes:
        low: The least distance.
        high: The greatest; None is any.
        unit: day, week, month or year.
        side: before, after, or apart for either.
    """

    low: int
    high: int | None
    unit: str = "day"
    side: str = "apart"

    @classmethod
    def parse(cls, words: str) -> Period:
        """Read a period.

        Args:
            words: "within 30 days", "6 to 18 months after", "any time before" and the like.

        Raises:
            BadCriteria: It is none.
        """
        text = " ".join(words.lower().split()) if isinstance(words, str) else ""
        if bare := _BARE.fullmatch(text):
            count, rest = number(bare["number"]), text.partition(" ")[2]
            raise BadCriteria(
                f"{words!r} is one day or all days up to it; write 'within {count} {rest}' for all "
                f"of them, or '{count} to {count} {rest}' for the day"
            )
        found = _WORDS.fullmatch(text)
        if not found:
            raise BadCriteria(
                f"{words!r} is no period; write 'within 30 days', 'within 12 months before', "
                "'6 to 18 months after', '1 to 2 years apart' or 'any time before'"
            )
        if not found["unit"]:
            side = found["any_side"]
            return cls(1 if side else 0, None, side=side or "apart")
        low = number(found["low"] or "0")
        high = number(found["within"] or found["up_to"] or found["high"])
        if not low <= high <= _LONGEST[found["unit"]]:
            raise BadCriteria(
                f"{words!r}: the lesser number comes first, and {_LONGEST_YEARS} years is the most"
            )
        return cls(low, high, found["unit"], found["side"] or "apart")

    def __str__(self) -> str:
        side = "" if self.side == "apart" else f" {self.side}"
        if self.high is None:
            return f"any time{side}"
        if self.low == 0:
            return f"within {self.high} {self.unit}s{side}"
        return f"{self.low} to {self.high} {self.unit}s {self.side}"

    def sql(self, other: str, anchor: str) -> str:
        """Return SQL for whether a date lies in the period around another."""
        sides = {"before": ("-",), "after": ("+",), "apart": ("-", "+")}[self.side]
        return "(" + " OR ".join(self._one_side(other, anchor, sign) for sign in sides) + ")"

    def _one_side(self, other: str, anchor: str, sign: str) -> str:
        near, far = (
            None if n is None else f"{anchor} {sign} INTERVAL {n} {self.unit}"
            for n in (self.low, self.high)
        )
        nearer, farther = ("<=", ">=") if sign == "-" else (">=", "<=")
        within = f"{other} {nearer} {near}"
        return f"({within} AND {other} {farther} {far})" if far else f"({within})"
