"""A window of study dates becomes dates of the lake that is open, and stays so."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pandas as pd
import pytest
from cohort.tiny import BEGAN, image_set, publish
from privacy.people import lake_of, summaries

import cohortlake
from cohortlake.errors import BadCriteria, NotShown
from cohortlake.privacy import built_in
from cohortlake.publish.publisher import publish as publish_lake

LAST_YEAR = "last 12 months of data"
FIRST_DAYS = (date(2023, 5, 1), date(2024, 8, 1), date(2024, 8, 2), date(2025, 8, 1))
ROWS = [
    image_set(n, f"p{n}", f"1.{n}", Modality="CT", StudyDate=day)
    for n, day in enumerate(FIRST_DAYS)
]
TYPING_ERROR = image_set(8, "p8", "1.8", Modality="CT", StudyDate=date(2099, 1, 1))
LATER = image_set(9, "p9", "1.9", Modality="CT", StudyDate=date(2025, 12, 1))


def test_the_words_become_dates_in_the_criteria_the_file_and_the_manifest(root: str) -> None:
    publish(root, [*ROWS, TYPING_ERROR])
    with cohortlake.open(root) as lake:
        cohort = lake.cohort("recent").where(Modality="CT", study_date_in=LAST_YEAR)
        dates = "StudyDate BETWEEN '2024-08-02' AND '2025-08-01'"
        assert dates in cohort.criteria.to_yaml()
        assert "last" not in cohort.criteria.to_yaml()
        assert sorted(cohort.to_pandas()["patient_key"]) == ["p2", "p3"]
        frozen = cohort.freeze()
        assert dates in frozen.criteria

    publish(root, [*ROWS, TYPING_ERROR, LATER], version=1)
    with cohortlake.open(root) as lake:
        assert lake.verify("recent").is_identical
        again = lake.cohort("recent").where(Modality="CT", study_date_in=LAST_YEAR)
        assert sorted(again.to_pandas()["patient_key"]) == ["p3", "p9"]
        counts = lake.compare("recent@1", again.freeze().label).counts
        assert counts == {"joined": 1, "left": 1}


def test_a_file_may_say_the_words_and_each_kind_of_step(root: str, tmp_path: Path) -> None:
    publish(root, [*ROWS, image_set(10, "p3", "1.10", Modality="MR", StudyDate=date(2025, 7, 1))])
    file = tmp_path / "recent.yaml"
    file.write_text(f"cohort: recent\nsteps:\n  - where: {{study_date_in: {LAST_YEAR}}}\n")
    with cohortlake.open(root) as lake:
        drawn = lake.load_cohort(file)
        assert "2024-08-02" in drawn.criteria.to_yaml()
        assert len(drawn.to_pandas()) == 3
        years = lake.cohort("years").where(study_date_in=["2023", "2025-Q3"])
        assert sorted(years.to_pandas()["patient_key"]) == ["p0", "p3", "p3"]
        early = lake.cohort("early").exclude(study_date_in="2024-01 to 2025-12")
        assert early.to_pandas()["patient_key"].tolist() == ["p0"]
        before = lake.cohort("a").with_study(
            "within 12 months before", Modality="MR", study_date_in="2025"
        )
        assert before.to_pandas()["StudyInstanceUID"].tolist() == ["1.3"]


def test_the_past_counts_from_the_latest_study_of_then(root: str) -> None:
    late = LATER | {"valid_from": BEGAN + timedelta(days=2)}
    publish(root, [*ROWS, late])
    with cohortlake.open(root, as_of=BEGAN + timedelta(days=1)) as lake:
        cohort = lake.cohort("then").where(study_date_in=LAST_YEAR)
        assert "'2025-08-01'" in cohort.criteria.to_yaml()


def test_shifted_dates_count_from_the_latest_shifted_date(root: str) -> None:
    lake_root = lake_of(root, summaries(40, days=1500))
    publish_lake(lake_root, built_in("safe"))
    with cohortlake.open(lake_root.uri) as lake:
        days = lake.sql("SELECT study_date_shifted AS day FROM studies").to_pandas()["day"]
        cohort = lake.cohort("recent").where(study_date_in="last 24 months of data")
        assert f"AND '{days.max().date()}'" in cohort.criteria.to_yaml()
        after = days.max() - pd.DateOffset(months=24)
        assert len(cohort.to_pandas()) == (days > after).sum() > 0
    publish_lake(lake_root, built_in("safe", "year"))
    with cohortlake.open(lake_root.uri) as lake, pytest.raises(NotShown, match="window of study"):
        lake.cohort("recent").where(study_date_in="2024")


def test_a_lake_without_dates_has_no_last_months(root: str) -> None:
    publish(root, [image_set(0, "p", "1.1")])
    with cohortlake.open(root) as lake, pytest.raises(BadCriteria, match="no study has a date"):
        lake.cohort("recent").where(study_date_in=LAST_YEAR)
