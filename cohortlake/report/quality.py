"""Counts the values of each field that are missing, withheld, invalid or implausible.

Decides which fields are listed, and for which a missing value may only be hidden. A share is of the
image sets. Whether it may be shown depends on how many patients they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from cohortlake import schema
from cohortlake.cohort.select import withheld
from cohortlake.cohort.select.opened_tables import OpenedTables
from cohortlake.dicom_values import holds_value_sql
from cohortlake.report.cells import PERSON

_KEYS = ("patient_key", "accession_key", "age_at_study_years", "study_date_shifted", "study_year")
"""Fields that have no DICOM tag, listed if the policy shows them."""

_STATUS = {
    "PatientSex": "sex_status",
    "Modality": "modality_status",
    "BodyPartExamined": "body_part_status",
    "age_at_study_years": "age_status",
}
"""Field -> the column with the status of its value."""

_FIELDS = {column.name: column for column in schema.STATE}


@dataclass(frozen=True)
class Share:
    """A share of the image sets.

    Attributes:
        share: From 0 to 1; None if it is hidden.
        is_small: If it is hidden, whether few patients have it, and not all but few.
    """

    share: float | None
    is_small: bool = True


@dataclass(frozen=True)
class Field:
    """The quality of a field.

    Attributes:
        name: The column.
        tag: Its DICOM tag.
        missing: How many lack it.
        may_be_hidden: Whether some of those may have a text that cannot be read, and that the
            policy does not show.
        withheld: How many have a value that the policy withholds; None if it shows all.
        invalid: How many have a value that cannot be read; None if that is unknown.
        implausible: How many have a value that cannot be true; None if that is unknown.
    """

    name: str
    tag: str | None
    missing: Share
    may_be_hidden: bool
    withheld: Share | None
    invalid: Share | None
    implausible: Share | None


def quality(tables: OpenedTables, below: int) -> list[Field]:
    """Count the quality of each field of the image sets.

    Args:
        tables: The opened tables.
        below: The least number of patients that may be shown.
    """
    known, tags = tables.columns("image_sets"), {name: c.tag for name, c in _FIELDS.items()}
    names = [name for name in known if tags.get(name) or name in _KEYS]
    asked = {(name, what): sql for name in names for what, sql in _conditions(name, known).items()}
    shares = dict(zip(asked, _shares(tables, list(asked.values()), below), strict=True))
    return [
        Field(
            name,
            tags.get(name),
            shares[name, "missing"],
            shares[name, "missing"].share != 0 and _may_be_hidden(name, known),
            shares.get((name, "withheld")),
            shares.get((name, "invalid")),
            shares.get((name, "implausible")),
        )
        for name in names
    ]


def _conditions(name: str, known: Sequence[str]) -> dict[str, str]:
    """Return the possible faults of a field, with SQL for the rows that have each."""
    status, raw = _STATUS.get(name), name + schema.RAW_SUFFIX
    is_by_value = name in schema.MAY_BE_WITHHELD and schema.WITHHELD_FIELDS.name in known
    hidden = {"withheld": withheld.is_withheld(name)} if is_by_value else {}
    if status in known:
        # A value that was sent may be null although it is not missing.
        doubts = ("missing", "invalid", "implausible")
        return hidden | {what: f"{status} = '{what}'" for what in doubts}
    conditions = hidden | {"missing": withheld.is_missing(name, pa.string(), known)}
    if raw in known:
        was_sent = holds_value_sql(f'"{raw}"')
        conditions["invalid"] = f'"{name}" IS NULL AND {was_sent}'
        conditions["missing"] = f'"{name}" IS NULL AND ({was_sent}) IS NOT TRUE'
    return conditions


def _may_be_hidden(name: str, known: Sequence[str]) -> bool:
    if name not in _FIELDS or _STATUS.get(name) in known:
        return False
    column = _FIELDS[name]
    return column.vr in schema.PARSED_VRS and column.raw_name not in known


def _shares(tables: OpenedTables, conditions: list[str], below: int) -> list[Share]:
    """Return the share of image sets that meet each condition, with one query."""
    met = ", ".join(f"count(*) FILTER ({c}) AS met_{i}" for i, c in enumerate(conditions))
    counts_sql = ", ".join(
        f"coalesce(sum(met_{i}), 0), "
        f"count(person) FILTER (met_{i} > 0), count(person) FILTER (met_{i} < n)"
        for i in range(len(conditions))
    )
    ((total, *counts),) = tables.sql(f"""
        SELECT coalesce(sum(n), 0), {counts_sql} FROM (
            SELECT person, count(*) AS n, {met} FROM (SELECT *, {PERSON} FROM image_sets)
            GROUP BY person
        )
    """).fetchall()
    triples = zip(counts[::3], counts[1::3], counts[2::3], strict=True)
    return [_share(int(n), int(total), own, others, below) for n, own, others in triples]


def _share(n: int, total: int, own: int, others: int, below: int) -> Share:
    """Return a share, unless too few patients have it or lack it."""
    if n and own < below:
        return Share(None)
    if n < total and others < below:
        return Share(None, is_small=False)
    return Share(n / total if total else 0)
