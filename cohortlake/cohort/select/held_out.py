"""Checks that each patient belongs to one part of a split, all of its series included.

A part that is held out has the patients whose series meet a condition. A patient with other series
too, or with series of which it is not known, would bring what is held out into another part.
"""

from __future__ import annotations

from cohortlake.cohort.select.selected import Selected
from cohortlake.errors import BadCriteria


def check(selected: Selected) -> None:
    """Check the parts of a cohort's split that are held out.

    Raises:
        BadCriteria: The series of a patient do not agree, it is not known whether they meet the
            condition of a part, or none does.
    """
    taken = list[str]()
    for held in selected.query.held_out:
        ((patients, those, mixed, unknown),) = selected.ask(f"""
            SELECT count(*), count(*) FILTER (has_some),
                   count(*) FILTER (has_some AND has_others), count(*) FILTER (has_unknown)
            FROM (
                SELECT bool_or(meets) AS has_some, bool_or(NOT meets) AS has_others,
                       bool_or(meets IS NULL) AS has_unknown
                FROM ({held.sql}) GROUP BY patient_key
            )
        """).fetchall()
        if unknown:
            raise BadCriteria(
                f"{unknown:,} patients have series of which it is not known whether they belong "
                f"to the part {held.part!r}, because no header was fetched or no value was sent; "
                "leave these series out first, with a step that asks for the values to keep"
            )
        if mixed:
            raise BadCriteria(
                f"{mixed:,} patients have series that meet the condition of the part "
                f"{held.part!r} and series that do not, and a patient is in one part only; leave "
                "some of them out first, for example by `first_study_per_patient()`"
            )
        if patients and not those:
            raise BadCriteria(
                f"no series meets the condition of the part {held.part!r}, so it would be empty; "
                "correct the condition: `count` shows which values there are"
            )
        taken.append(f"SELECT DISTINCT patient_key FROM ({held.sql}) WHERE meets")
    if len(taken) > 1:
        every = " UNION ALL ".join(taken)
        ((twice,),) = selected.ask(f"""
            SELECT count(*) FROM
            (SELECT patient_key FROM ({every}) GROUP BY patient_key HAVING count(*) > 1)
        """).fetchall()
        if twice:
            raise BadCriteria(
                f"{twice:,} patients meet the conditions of two parts that are held out; change "
                "the conditions so that no series meets both"
            )
