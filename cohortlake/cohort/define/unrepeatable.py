"""Refuses what gives another answer on another day or in another run: `now()`, `random()`.

A cohort must select the same rows from the same data, whenever somebody asks.
"""

from __future__ import annotations

from cohortlake.errors import BadCondition

_OF_TODAY = frozenset(
    ("curdate", "current_date", "current_time", "current_timestamp", "get_current_time",
     "get_current_timestamp", "getdate", "localtime", "localtimestamp", "now", "sysdate", "today",
     "transaction_timestamp", "yesterday")
)  # fmt: skip
_OF_CHANCE = frozenset(("gen_random_uuid", "rand", "random", "setseed", "uuid", "uuidv4", "uuidv7"))


def refusal(name: str) -> BadCondition | None:
    """Return the error for a function or a word of SQL that is not the same at each call.

    Args:
        name: Its name.

    Returns:
        The error, or None where the name is no such one.
    """
    if name.casefold() in _OF_TODAY:
        return BadCondition(
            f"{name!r} may not stand in a condition, because a cohort must have the same members "
            "on any day: write a date, as \"StudyDate >= '2024-01-31'\", or count back from the "
            "latest study, as where(study_date_in='last 24 months of data')"
        )
    if name.casefold() in _OF_CHANCE:
        return BadCondition(
            f"{name!r} may not stand in a condition, because a cohort must have the same members "
            "each time: use random_study_per_patient(seed=1) or split(train=0.8, test=0.2, seed=1)"
        )
    return None
