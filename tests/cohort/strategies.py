"""Hospitals and criteria for the laws, small enough that everything odd happens in them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, time, timedelta
from typing import Any

from cohort.tiny import image_set
from hypothesis import strategies as st

from cohortlake.cohort.define.criteria import Criteria
from cohortlake.cohort.define.period import Period
from cohortlake.cohort.define.steps import (
    Condition,
    Exclude,
    OneStudyPerPatient,
    Where,
    WithoutStudy,
    WithStudy,
)

FIRST_DAY = date(2020, 1, 1)
MODALITIES = ("CT", "MR", None)
SEXES = ("F", "M", None)


@st.composite
def hospitals(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Series of a few patients and studies, with gaps and contradictions."""
    rows = draw(
        st.lists(
            st.fixed_dictionaries(
                {
                    "patient": st.sampled_from(["p", "q", "r", None]),
                    "study": st.sampled_from(["1.1", "1.2", "1.3", "1.4", "1.5", None]),
                    "StudyDate": st.none()
                    | st.integers(0, 40).map(lambda n: FIRST_DAY + timedelta(days=n)),
                    "StudyTime": st.sampled_from([None, time(8), time(9)]),
                    "Modality": st.sampled_from(MODALITIES),
                    "PatientSex": st.sampled_from(SEXES),
                }
            ),
            min_size=1,
            max_size=14,
        )
    )
    return [image_set(number, **row) for number, row in enumerate(rows)]


_CONDITIONS = st.one_of(
    st.lists(st.sampled_from(MODALITIES), min_size=1, max_size=2, unique=True).map(
        lambda values: Condition((("Modality", tuple(values)),))
    ),
    st.sampled_from(SEXES).map(lambda sex: Condition((("PatientSex", (sex,)),))),
)
_PERIODS = st.one_of(
    st.tuples(
        st.integers(0, 9), st.integers(0, 20), st.sampled_from(["before", "after", "apart"])
    ).map(lambda p: Period(p[0], p[0] + p[1], "day", p[2])),
    st.sampled_from(["any time", "any time before", "any time after"]).map(Period.parse),
)
_CHOICES = st.one_of(
    st.sampled_from(["first", "last"]).map(OneStudyPerPatient),
    st.integers(0, 40).map(
        lambda n: OneStudyPerPatient("closest", to=FIRST_DAY + timedelta(days=n))
    ),
    st.integers(0, 5).map(lambda seed: OneStudyPerPatient("random", seed=seed)),
)
_UNLABELLED = st.one_of(
    st.builds(Where, _CONDITIONS),
    st.builds(Exclude, _CONDITIONS),
    st.builds(WithStudy, _PERIODS, _CONDITIONS),
    st.builds(WithoutStudy, _PERIODS, _CONDITIONS),
    _CHOICES,
)
STEPS = st.builds(replace, _UNLABELLED, label=st.sampled_from(["", "Women: 50 to 69 # 1"]))
CRITERIA = st.builds(
    Criteria,
    name=st.just("law"),
    level=st.sampled_from(["patient", "study", "series"]),
    steps=st.lists(STEPS, max_size=4).map(tuple),
)
