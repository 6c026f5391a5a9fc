"""Paging and the table's columns agree on what is a study date."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from cohortlake.flatten import flatten_summaries
from cohortlake.healthimaging import Axis, Page, Window
from cohortlake.healthimaging.positions import rows_of
from cohortlake.ingest import partitions

WHOLE = Window(Axis.STUDY_DATE, datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "is_date"),
    [
        ("20240103", True),
        ("00240103", True),
        ("202413", False),
        ("2024103", False),
        ("2024 103", False),
        ("20240230", False),
        ("2024.01.03", False),  # a date to the table, and nobody knows which search finds it
        ("20240103 ", False),
        (" 20240103", False),
        ("20240103\0", False),
        ("\uff12\uff10\uff12\uff140103", False),
        ("+2024103", False),
        ("", False),
        (None, False),
        (20240103, False),
    ],
)
def test_only_a_date_as_the_standard_writes_it_has_a_position(text: object, is_date: bool) -> None:
    summary = {"imageSetId": "a" * 32, "DICOMTags": {"DICOMStudyDate": text}}
    answer = {"imageSetsMetadataSummaries": [summary]}
    rows = rows_of(Page.checked(json.dumps(answer).encode()).heads, WHOLE)
    assert (bool(rows.positions), rows.ids, rows.outside) == (is_date, ["a" * 32], frozenset())
    states = flatten_summaries([summary], "d" * 32)
    assert partitions.is_dated(states)[0].as_py() == is_date
