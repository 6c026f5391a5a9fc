"""How many values of each field are missing, or could not be read as what they should be.

Owns which fields are told. A share is of the image sets; whether it may be told follows from the
patients they are of.
"""

from __future__ import annotations

from dataclasses import dataclass

from cohortlake import schema
from cohortlake.cohort import Lake
from cohortlake.report.cells import PERSON

_KEYS = ("patient_key", "accession_key", "age_at_study_years", "study_date_shifted", "study_year")
"""Fields without a tag of their own, where the policy shows them."""


@dataclass(frozen=True)
class Share:
    """A share of the image sets.

    Attributes:
        share: From 0 to 1; None where it is hidden.
        is_small: Of a hidden one: whether it is those with it that are few, not those without.
    """

    share: float | None
    is_small: bool = True


@dataclass(frozen=True)
class Field:
    """How good a field is.

    Attributes:
        name: The column.
        tag: Its DICOM tag.
        missing: How many lack it.
        invalid: In how many it was sent and could not be read; None where the policy hides it.
    """

    name: str
    tag: str | None
    missing: Share
    invalid: Share | None


def quality(lake: Lake, below: int) -> list[Field]:
    """Look at each field of the image sets.

    Args:
        lake: The lake.
        below: The least number of patients that may be shown.
    """
    known, tags = lake.columns("image_sets"), {c.name: c.tag for c in schema.STATE}
    names = [name for name in known if tags.get(name) or name in _KEYS]
    raw = {name: name + schema.RAW_SUFFIX for name in names if name + schema.RAW_SUFFIX in known}
    conditions = [f'"{name}" IS NULL' for name in names]
    conditions += [f'"{name}" IS NULL AND "{r}" IS NOT NULL' for name, r in raw.items()]
    shares = _shares(lake, conditions, below)
    invalid = dict(zip(raw, shares[len(names) :], strict=True))
    return [
        Field(name, tags.get(name), missing, invalid.get(name))
        for name, missing in zip(names, shares, strict=False)
    ]


def _shares(lake: Lake, conditions: list[str], below: int) -> list[Share]:
    """Return the share of image sets that meet each condition; all in one pass."""
    met = ", ".join(f"count_if({c}) AS met_{i}" for i, c in enumerate(conditions))
    told = ", ".join(
        f"sum(met_{i}), count(person) FILTER (met_{i} > 0), count(person) FILTER (met_{i} < n)"
        for i in range(len(conditions))
    )
    ((total, *counts),) = lake.sql(f"""
        SELECT sum(n), {told} FROM (
            SELECT person, count(*) AS n, {met} FROM (SELECT *, {PERSON} FROM image_sets)
            GROUP BY person
        )
    """).fetchall()
    triples = zip(counts[::3], counts[1::3], counts[2::3], strict=True)
    return [_share(int(n), int(total), own, others, below) for n, own, others in triples]


def _share(n: int, total: int, own: int, others: int, below: int) -> Share:
    """Return a share, unless those with or those without are too few."""
    if n and own < below:
        return Share(None)
    if n < total and others < below:
        return Share(None, is_small=False)
    return Share(n / total)
