"""Paging and the table read an instant alike, however it was sent and wherever it is read."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cohortlake.epoch import epoch_seconds
from cohortlake.flatten import flatten_pages
from cohortlake.healthimaging import Axis, Page, Range, Window
from cohortlake.healthimaging.ranges import Chain

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
WINDOW = Window(Axis.UPDATED_AT, NOON, NOON + timedelta(hours=1))

_NEAR = st.integers(-36 * 3600, 36 * 3600).map(lambda s: NOON.timestamp() + s)
_TEXTS = st.datetimes(datetime(2025, 12, 31), datetime(2026, 1, 3)).map(datetime.isoformat)
_SENT = (
    _NEAR
    | st.builds("{}{}".format, _TEXTS, st.sampled_from(["", "Z", "+09:00", "-05:00"]))
    | st.sampled_from([None, True, 10**400, -1e300, "noon", "0001-01-01T00:00+14:00", [1]])
)


@pytest.fixture(autouse=True, scope="module")
def far_from_utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        yield
    time.tzset()


@given(_SENT)
@example("2026-01-01T12:30:00")
@example("2026-01-01T21:30:00")
def test_a_row_is_of_the_window_that_its_column_says(sent: Any) -> None:
    summaries = [{"imageSetId": "a" * 32, "updatedAt": sent}]
    page = Page.checked(json.dumps({"imageSetsMetadataSummaries": summaries}).encode())
    is_found = not Chain(Range(WINDOW)).follow(page).skip
    (updated_at,) = flatten_pages([page.body], "d" * 32)["updated_at"].to_pylist()
    assert is_found == (updated_at is None or WINDOW.start <= updated_at < WINDOW.end)


def test_what_has_no_offset_is_utc() -> None:
    assert epoch_seconds("2026-01-01T12:00:00") == NOON.timestamp()
    assert epoch_seconds(datetime(2026, 1, 1, 12)) == NOON.timestamp()
    assert epoch_seconds("2026-01-01T21:00:00+09:00") == NOON.timestamp()
