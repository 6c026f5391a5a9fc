"""How many values of each field are missing, invalid or implausible.

Owns which fields are told. A share is of the image sets; whether it may be told follows from the
patients they are of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cohortlake import schema
from cohortlake.cohort import Lake
from cohortlake.report.cells import PERSON

_KEYS = ("patient_key", "accession_key", "age_at_study_years", "study_date_shifted", "study_year")
"""Fields without a tag of their own, where the policy shows them."""

_STATUS = {
    "PatientSex": "sex_status",
    "BodyPartExamined": "body_part_status",
    "age_at_study_years": "age_status",
}
"""Field -> the column that says what is wrong with it, where there is one."""


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
        invalid: In how many it was sent and could not be read; None where nothing says so.
        implausible: In how many it cannot be true; None where nothing says so.
    """

    name: str
    tag: str | None
    missing: Share
    invalid: Share | None
    implausible: Share | None


def quality(lake: Lake, below: int) -> list[Field]:
    """Look at each field of the image sets.

    Args:
        lake: The lake.
        below: The least number of patients that may be shown.
    """
    known, tags = lake.columns("image_sets"), {c.name: c.tag for c in schema.STATE}
    names = [name for name in known if tags.get(name) or name in _KEYS]
    asked = {(name, what): sql for name in names for what, sql in _conditions(name, known).items()}
    shares = dict(zip(asked, _shares(lake, list(asked.values()), below), strict=True))
    return [
        Field(
            name,
            tags.get(name),
            shares[name, "missing"],
            shares.get((name, "invalid")),
            shares.get((name, "implausible")),
        )
        for name in names
    ]


def _conditions(name: str, known: Sequence[str]) -> dict[str, str]:
    """Return what can be wrong with a field -> SQL for where it is."""
    status, raw = _STATUS.get(name), name + schema.RAW_SUFFIX
    if status in known:
        # A value that was sent may be null for another reason than that it is missing.
        return {what: f"{status} = '{what}'" for what in ("missing", "invalid", "implausible")}
    conditions = {"missing": f'"{name}" IS NULL'}
    if raw in known:
        conditions["invalid"] = f'"{name}" IS NULL AND "{raw}" IS NOT NULL'
        conditions["missing"] = f'"{name}" IS NULL AND "{raw}" IS NULL'
    return conditions


def _shares(lake: Lake, conditions: list[str], below: int) -> list[Share]:
    """Return the share of image sets that meet each condition; all in one pass."""
    met = ", ".join(f"count(*) FILTER ({c}) AS met_{i}" for i, c in enumerate(conditions))
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
