"""Criteria as data: YAML there and back, and what a wrong file is told."""

from __future__ import annotations

from datetime import UTC, date

import pytest
from cohort.strategies import STEPS
from hypothesis import given
from hypothesis import strategies as st

from cohortlake.cohort import Criteria
from cohortlake.cohort.define.period import Period
from cohortlake.cohort.define.steps import (
    NAME,
    Condition,
    Exclude,
    Join,
    OneStudyPerPatient,
    Split,
    Where,
    WithStudy,
)
from cohortlake.errors import BadCriteria

NAMES = st.from_regex(NAME, fullmatch=True)
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False, allow_infinity=False),
    st.dates(),
    st.datetimes(timezones=st.none() | st.just(UTC)).map(lambda at: at.replace(fold=0)),
    st.text(),
    st.sampled_from(["no", "2020-01-01", "1e3", "null", "~", "0x1", "'", "# x", "- a", "\x85"]),
)
CONDITIONS = st.builds(
    Condition,
    st.dictionaries(st.text(min_size=1), st.lists(VALUES, min_size=1).map(tuple), min_size=1).map(
        lambda values: tuple(values.items())
    ),
    st.lists(st.text()).map(tuple),
) | st.lists(st.text(), min_size=1).map(lambda texts: Condition((), tuple(texts)))
SPLITS = st.integers(1, 9).flatmap(
    lambda n: st.builds(
        Split,
        st.permutations([("train", n / 10), ("test", 1 - n / 10)]).map(tuple),
        st.integers(),
    )
)


@given(
    st.builds(
        Criteria,
        NAMES,
        st.sampled_from(["patient", "study", "series"]),
        st.text(),
        st.lists(
            STEPS
            | st.builds(Where, CONDITIONS)
            | st.builds(Exclude, CONDITIONS)
            | st.builds(WithStudy, st.just(Period(6, 18, "month", "after")), CONDITIONS)
            | NAMES.map(lambda column: OneStudyPerPatient("closest", to=column))
        ).map(tuple),
        st.none() | SPLITS,
    ),
    st.lists(
        st.builds(Join, NAMES, st.none() | st.text(min_size=1))
        | st.builds(Join, NAMES, st.text(min_size=1), st.just((("seen", "%d/%m/%Y"), ("no", "1")))),
        unique_by=lambda join: join.table,
    ),
)
def test_yaml_there_and_back_is_the_same(criteria: Criteria, joins: list[Join]) -> None:
    whole = Criteria(
        criteria.name,
        criteria.level,
        criteria.about,
        (*joins, *criteria.steps),
        criteria.split,
    )
    again = Criteria.from_yaml(whole.to_yaml())
    assert again == whole
    assert repr(again) == repr(whole)  # 1, 1.0 and True are equal, and are not the same


@given(st.integers(0, 100), st.integers(0, 100), st.sampled_from(["day", "month", "year"]),
       st.sampled_from(["before", "after", "apart"]))  # fmt: skip
def test_a_period_is_what_it_says(low: int, more: int, unit: str, side: str) -> None:
    period = Period(low, low + more, unit, side)
    assert Period.parse(str(period)) == period


def test_a_file_as_a_person_writes_it() -> None:
    text = """
    cohort: screening
    about: Women with a first screening mammogram.
    steps:
      - where: {Modality: MG, PatientSex: [F, null]}
      - where: [{Modality: MG}, age_at_study_years between 40 and 65]
      - exclude: "BodyPartExamined = 'CHEST'"
      - with_study: {when: within 30 days, where: {Modality: US}}
      - without_study: {when: any time before, where: {Modality: [MR, PT]}}
      - join: {table: registry, file: registry.csv}
      - one_study_per_patient: {closest: 2020-01-31}
    split: {train: 0.8, test: 0.2, seed: 3}
    """
    criteria = Criteria.from_yaml(text)
    assert criteria.level == "study"
    assert criteria.steps[0] == Where(
        Condition((("Modality", ("MG",)), ("PatientSex", ("F", None))))
    )
    assert criteria.steps[-1] == OneStudyPerPatient("closest", to=date(2020, 1, 31))
    assert criteria.split == Split((("train", 0.8), ("test", 0.2)), 3)


def test_a_date_in_quotes_is_that_date() -> None:
    text = "{cohort: a, steps: [{one_study_per_patient: {closest: %s}}]}"
    quoted, plain = (Criteria.from_yaml(text % day) for day in ("'2020-01-31'", "2020-01-31"))
    assert quoted == plain
    assert repr(quoted) == repr(plain)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a", "a cohort must be a mapping"),
        ("cohort: {", "cannot be read in line 1"),
        ("cohort: Screening", "lower case"),
        ("cohort: ../x", "lower case"),
        ("level: study", "cohort must be text"),
        ("{cohort: a, level: studies}", "did you mean 'study'"),
        ("{cohort: a, step: []}", "did you mean 'steps'"),
        ("{cohort: a, steps: {where: x}}", "with a dash"),
        ("{cohort: a, steps: [{were: x}]}", "step 1: 'were'.*did you mean 'where'"),
        ("{cohort: a, steps: [{where: x, exclude: y}]}", "step 1: each step"),
        ("{cohort: a, steps: [{label: x}]}", "step 1: each step"),
        ("{cohort: a, steps: [{where: x, label: 5}]}", "step 1: label must be text"),
        ("{cohort: a, steps: [{where: x, label: ' '}]}", "step 1: a label is one line"),
        ('{cohort: a, steps: [{where: x, label: "a\\nb"}]}', "step 1: a label is one line"),
        ("{cohort: a, steps: [{where: {}}]}", "step 1: a condition is empty"),
        ("{cohort: a, steps: [{where: {Modality: []}}]}", "Modality: give at least one"),
        ("{cohort: a, steps: [{where: {Modality: .nan}}]}", "finite"),
        ("{cohort: a, steps: [{where: {Modality: {a: b}}}]}", "text, a number"),
        ("{cohort: a, steps: [{with_study: {where: x}}]}", "needs 'when'"),
        ("{cohort: a, steps: [{with_study: {when: soon, where: x}}]}", "is no period"),
        (
            "{cohort: a, steps: [{with_study: {when: 12 months before, where: x}}]}",
            "write 'within 12 months before'",
        ),
        ("{cohort: a, steps: [{with_study: {when: 9 to 3 days after, where: x}}]}", "lesser"),
        ("{cohort: a, steps: [{with_study: {when: within 9999 years, where: x}}]}", "200 years"),
        ("{cohort: a, steps: [{one_study_per_patient: fist}]}", "did you mean 'first'"),
        ("{cohort: a, steps: [{one_study_per_patient: {}}]}", "write first, last"),
        ("{cohort: a, steps: [{one_study_per_patient: closest}]}", "takes a date"),
        (
            "{cohort: a, steps: [{one_study_per_patient: {closest: 5}}]}",
            "step 1: closest takes a date",
        ),
        ("{cohort: a, steps: [{one_study_per_patient: {closest: true}}]}", "closest takes a date"),
        ("{cohort: a, steps: [{one_study_per_patient: {closest: 2020-01-31 10:00:00}}]}", "a time"),
        ("{cohort: a, steps: [{one_study_per_patient: {closest: '2020-02-31'}}]}", "the calendar"),
        ("{cohort: a, steps: [{one_study_per_patient: {closest: 2020-02-31}}]}", "the calendar"),
        ("{cohort: a, steps: [{one_study_per_patient: {random: x}}]}", "takes a seed"),
        ("{cohort: a, steps: [{join: a b}]}", "a table's name"),
        ("{cohort: a, steps: [{join: a}, {join: a}]}", "joined twice"),
        ("{cohort: a, steps: [{join: {table: a, file: b, date_formats: {c: 1}}}]}", "is text"),
        ("{cohort: a, steps: [{join: {table: a, file: b, date_formats: x}}]}", "a mapping"),
        ("{cohort: a, split: {train: 0.7, test: 0.2}}", "add up to 1"),
        ("{cohort: a, split: {train: 2, test: -1}}", "above 0"),
        ("{cohort: a, split: {train: 1, seed: x}}", "whole number"),
    ],
)
def test_a_wrong_file_says_the_fix(text: str, says: str) -> None:
    with pytest.raises(BadCriteria, match=says):
        Criteria.from_yaml(text)
