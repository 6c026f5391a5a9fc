"""Data stores that are unknown or refused: all others go on, and the error names each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from endpoint import DATASTORE, Endpoint
from small_hospital import assert_equal_to_truth, fill

from cohortlake import Settings, Sync
from cohortlake.errors import NoSuchDatastore, SeveralFailed
from cohortlake.ingest import partitions

UNKNOWN = ("a" * 32, "f" * 32)


@pytest.fixture
def settings(
    endpoint: Endpoint, lake_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.setattr(partitions, "FIRST_MONTH", date(2025, 1, 1))  # few months, less to wait
    fill(endpoint, 60)
    return replace(lake_settings, datastores=(UNKNOWN[0], DATASTORE, UNKNOWN[1]))


@pytest.mark.parametrize(
    "method", [Sync.run, Sync.reconcile, lambda sync: sync.run(fill_versions=True)]
)
def test_the_others_are_searched_and_published(
    endpoint: Endpoint, settings: Settings, method: Callable[[Sync], Any]
) -> None:
    with pytest.raises(SeveralFailed) as raised:
        method(Sync(settings))
    assert raised.value.exit_code == NoSuchDatastore.exit_code
    assert not raised.value.transient
    assert all(f"\n- no data store {store} in region" in str(raised.value) for store in UNKNOWN)
    assert_equal_to_truth(settings.root, endpoint)
