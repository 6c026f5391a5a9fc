"""What criteria mean, said a second time: plain loops over rows, no SQL."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import date, timedelta
from typing import Any

from cohortlake.cohort.define.criteria import Criteria
from cohortlake.cohort.define.steps import (
    Condition,
    Exclude,
    OneStudyPerPatient,
    Step,
    Where,
    WithoutStudy,
    WithStudy,
)

Row = dict[str, Any]

SERIES = """
SELECT series.*, study_ordinal FROM series
LEFT JOIN (SELECT datastore_id, StudyInstanceUID, study_ordinal FROM studies)
USING (datastore_id, StudyInstanceUID)
"""
"""The series that `stages` takes."""


def stages(series: Iterable[Row], criteria: Criteria) -> list[list[Row]]:
    """The series that are left after each step, the whole lake first."""
    everything = list(series)
    left = [everything]
    is_identified = False
    for step in criteria.steps:
        if not is_identified and not isinstance(step, Where | Exclude):
            left.append(identified(left[-1], everything))
            is_identified = True
        left.append(after(step, left[-1], everything))
    if not is_identified:
        left.append(identified(left[-1], everything))
    return left


def counts(rows: Iterable[Row]) -> tuple[int, int, int]:
    """Patients, studies and series."""
    rows = list(rows)
    return (
        len({row["patient_key"] for row in rows} - {None}),
        len({row["StudyInstanceUID"] or row["SeriesInstanceUID"] for row in rows}),
        len(rows),
    )


def identified(rows: list[Row], everything: list[Row]) -> list[Row]:
    patients = defaultdict(set)
    for row in everything:
        patients[row["StudyInstanceUID"]].add(row["patient_key"])
    return [
        row
        for row in rows
        if row["patient_key"]
        and row["StudyInstanceUID"]
        and len(patients[row["StudyInstanceUID"]] - {None}) == 1
    ]


def after(step: Step, rows: list[Row], everything: list[Row]) -> list[Row]:
    match step:
        case Where(condition):
            return [row for row in rows if meets(row, condition)]
        case Exclude(condition):
            return [row for row in rows if not meets(row, condition)]
        case WithStudy() | WithoutStudy():
            wanted = isinstance(step, WithStudy)
            dated = [row for row in rows if row["StudyDate"]]
            return [row for row in dated if has_other(step, row, rows, everything) is wanted]
        case OneStudyPerPatient():
            return one_study(step, rows)
    raise AssertionError(step)


def meets(row: Row, condition: Condition) -> bool:
    return all(row[column] in values for column, values in condition.values)


def has_other(
    step: WithStudy | WithoutStudy, row: Row, rows: list[Row], everything: list[Row]
) -> bool:
    days = {r["StudyDate"] for r in rows if r["StudyInstanceUID"] == row["StudyInstanceUID"]}
    others = [
        other["StudyDate"]
        for other in everything
        if other["patient_key"] == row["patient_key"]
        and other["StudyInstanceUID"] not in (None, row["StudyInstanceUID"])
        and other["StudyDate"]
        and meets(other, step.condition)
    ]
    return any(near(step, other, own) for other in others for own in days if own)


def near(step: WithStudy | WithoutStudy, other: date, own: date) -> bool:
    period = step.period
    distance = (other - own) // timedelta(days=1)
    distances = {"before": (-distance,), "after": (distance,), "apart": (distance, -distance)}
    return any(
        period.low <= d and (period.high is None or d <= period.high)
        for d in distances[period.side]
    )


def one_study(step: OneStudyPerPatient, rows: list[Row]) -> list[Row]:
    least_ids: dict[str, str] = {}
    for row in rows:
        study = row["StudyInstanceUID"]
        least_ids[study] = min(row["image_set_id"], least_ids.get(study, "g"))

    def rank(row: Row) -> tuple[Any, ...]:
        if step.choice == "random":
            return (md5(step.seed, row["datastore_id"], least_ids[row["StudyInstanceUID"]]) >> 1,)
        sign = -1 if step.choice == "last" else 1
        day, ordinal, time_ = row["StudyDate"], row["study_ordinal"], row["StudyTime"]
        from_to = (abs(day - step.to),) if step.choice == "closest" else ()
        clock = time_ and sign * time_.hour  # the made-up times are whole hours
        return (
            *from_to,
            sign * day.toordinal(),
            (24 if sign > 0 else 0) if clock is None else clock,
            (ordinal is None, sign * (ordinal or 0)),
            row["image_set_id"],
        )

    patients = defaultdict(list)
    for row in rows:
        if row["StudyDate"] or step.choice == "random":
            patients[row["patient_key"]].append(row)
    chosen = {min(own, key=rank)["StudyInstanceUID"] for own in patients.values()}
    return [row for row in rows if row["StudyInstanceUID"] in chosen]


def md5(*parts: object) -> int:
    digest = hashlib.md5("|".join(map(str, parts)).encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[8:], "little")
