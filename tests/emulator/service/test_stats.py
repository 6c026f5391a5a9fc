from __future__ import annotations

import pytest

from emulator.service import stats
from emulator.service.stats import Stats


def test_the_most_requests_within_ten_seconds_are_those_of_the_busiest_span(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    counted = Stats()
    for instant in (0, 1, 9.9, 10, 10.5, 30, 31):
        monkeypatch.setattr(stats.time, "monotonic", lambda instant=instant: instant)
        counted.count("SearchImageSets")
    counted.count("GetDatastore")
    # 10 is ten seconds after 0, so those from 1 to 10.5 are the busiest.
    assert counted.most_in_10_s == {"SearchImageSets": 4, "GetDatastore": 1}
    assert counted.requests == {"SearchImageSets": 7, "GetDatastore": 1}
    counted.clear()
    assert counted.counts()["most_in_10_s"] == {}
    counted.count("SearchImageSets")
    assert counted.most_in_10_s == {"SearchImageSets": 1}
