"""A stopped run keeps the rows that it has read, and a second run does not read them again."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from endpoint import DATASTORE, Endpoint
from small_hospital import assert_equal_to_truth, fill
from unpublished import assert_history_equals_truth, unpublished

from cohortlake import Settings, Sync, read_table
from cohortlake.errors import SearchedByOthers, Stopped
from cohortlake.history import coverage
from cohortlake.ingest.progress import PeriodicProgress
from cohortlake.stop import Stop

COHORTLAKE = Path(sys.executable).parent / "cohortlake"
ANSWERED = 5


@pytest.fixture
def answer_again(endpoint: Endpoint) -> Iterator[Callable[..., threading.Event]]:
    """After five answers, do something once, and hold back or break all answers that follow."""
    search, asked, released = endpoint.search, itertools.count(), threading.Event()

    def after_five(act: Callable[[], object], *, hold: bool = False, broken: bool = False) -> Any:
        acted = threading.Event()

        def answer(*request: Any) -> dict[str, Any]:
            number = next(asked)
            if number == ANSWERED:
                act()
                acted.set()
            if number >= ANSWERED:
                if hold:
                    released.wait(60)
                if broken:
                    return {"no": "page"}
            return search(*request)

        endpoint.search = answer  # type: ignore[method-assign]
        return acted

    yield after_five
    released.set()
    endpoint.search = search  # type: ignore[method-assign]


def again(endpoint: Endpoint, settings: Settings, kept: int) -> None:
    """Run once more: it reads the rest, and of what came only where chains broke off."""
    endpoint.search = Endpoint.search.__get__(endpoint)  # type: ignore[method-assign]
    with unpublished():
        outcome = Sync(replace(settings, tps=1000)).run()
    assert_history_equals_truth(settings.root, endpoint)
    assert outcome.rows - (400 - kept) <= settings.workers


def _study_date(row: dict[str, Any]) -> str:
    return str(row["DICOMTags"]["DICOMStudyDate"])


@pytest.mark.parametrize("waits_for", ["its slot", "an answer", "another attempt"])
def test_a_stopped_run_keeps_what_came_whatever_it_waits_for(
    endpoint: Endpoint,
    lake_settings: Settings,
    answer_again: Callable[..., threading.Event],
    monkeypatch: pytest.MonkeyPatch,
    waits_for: str,
) -> None:
    fill(endpoint, 400)
    stop, asked_at = Stop(), list[float]()
    settings = lake_settings
    if waits_for == "its slot":  # for two minutes
        settings = replace(settings, tps=1 / 120, burst=ANSWERED + 2)
    if waits_for == "another attempt":
        monkeypatch.setattr("random.uniform", lambda *_: 120.0)

    def ask() -> None:
        # When what came has been taken in, and the others wait.
        threading.Timer(1.0, lambda: (asked_at.append(time.monotonic()), stop.ask())).start()

    answer_again(ask, hold=waits_for == "an answer", broken=waits_for == "another attempt")
    with pytest.raises(Stopped, match=r"\d+ new rows had come; they are kept, applied and pub"):
        Sync(settings, stop=stop).run()
    assert time.monotonic() - asked_at[0] < 60, "the waits are two minutes"
    kept = read_table(settings.root, "image_sets")
    assert 100 <= len(kept) < 400
    again(endpoint, settings, len(kept))


def test_an_interrupt_keeps_what_came_too(
    endpoint: Endpoint, lake_settings: Settings, answer_again: Callable[..., threading.Event]
) -> None:
    fill(endpoint, 400)

    def interrupt() -> None:
        threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()

    answer_again(interrupt, hold=True)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            Sync(lake_settings).run()
    finally:
        signal.signal(signal.SIGINT, before)
    kept = read_table(lake_settings.root, "image_sets")
    assert 100 <= len(kept) < 400
    again(endpoint, lake_settings, len(kept))


def test_a_stopped_sweep_closes_nothing_and_records_nothing(
    endpoint: Endpoint, lake_settings: Settings, answer_again: Callable[..., threading.Event]
) -> None:
    fill(endpoint, 400)
    Sync(lake_settings).run()
    rows = len(coverage.read(Sync(lake_settings).root))
    gone = endpoint.image_sets[::2]
    del endpoint.image_sets[::2]
    stop = Stop()
    answer_again(lambda: threading.Timer(0.5, stop.ask).start(), hold=True)
    with pytest.raises(Stopped, match="A partial sweep proves nothing"):
        Sync(lake_settings, stop=stop).reconcile(accept_deletions=True)
    ledger = coverage.read(Sync(lake_settings).root).to_pandas()[rows:]
    assert "created_at" not in set(ledger["axis"]), "what has no study date was at work"
    held = set(read_table(lake_settings.root, "image_sets")["image_set_id"])
    assert held >= {row["imageSetId"] for row in endpoint.image_sets}
    assert held >= {row["imageSetId"] for row in gone if _study_date(row) == "20240230"}


def test_a_second_run_waits_and_finds_little_left_and_a_third_says_that_both_are_there(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    fill(endpoint, 400)
    answer, first_is_at_work, released = endpoint.search, threading.Event(), threading.Event()

    def held_back(*request: Any) -> dict[str, Any]:
        first_is_at_work.set()
        released.wait(60)
        return answer(*request)

    endpoint.search = held_back  # type: ignore[method-assign]
    notes: list[str] = []
    is_waiting = threading.Event()
    rows: dict[str, int] = {}

    def note(text: str) -> None:
        notes.append(text)
        is_waiting.set()

    def run(name: str) -> None:
        progress = PeriodicProgress(lambda _: None, 60, note=note)
        rows[name] = Sync(lake_settings).run(progress).rows

    runs = [threading.Thread(target=run, args=(name,)) for name in ("first", "second")]
    runs[0].start()
    assert first_is_at_work.wait(60)
    runs[1].start()
    assert is_waiting.wait(60)
    with pytest.raises(SearchedByOthers, match="another one waits for it to end"):
        Sync(lake_settings).run()
    released.set()
    for thread in runs:
        thread.join(60)
    assert notes == [f"another run searches data store {DATASTORE}; waiting for it to end"]
    assert rows["first"] == 400
    assert rows["second"] < 100, "what may have changed lately, and no more"
    assert_equal_to_truth(lake_settings.root, endpoint)


def test_whoever_waits_for_another_run_can_be_stopped(
    endpoint: Endpoint, lake_settings: Settings
) -> None:
    stop, sync = Stop(), Sync(lake_settings)
    with sync.searching(DATASTORE):
        progress = PeriodicProgress(lambda _: None, 60, note=lambda _: stop.ask())
        with pytest.raises(Stopped):
            Sync(lake_settings, stop=stop).run(progress)
    assert Sync(lake_settings).run().rows == 0


def _heed_sigterm() -> None:
    """Start a child as a shell does, whatever libraries did to this process before."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def test_sync_under_nohup_ends_by_sigterm_and_says_what_it_kept(
    endpoint: Endpoint, lake_settings: Settings, answer_again: Callable[..., threading.Event]
) -> None:
    fill(endpoint, 400)
    for row in endpoint.image_sets:  # one month, so that publishing takes no time
        row["DICOMTags"]["DICOMStudyDate"] = "20250115"
    at_work = answer_again(lambda: None)
    environment = os.environ | {
        "COHORTLAKE_DATASTORES": DATASTORE,
        "COHORTLAKE_ROOT": lake_settings.root,
        "COHORTLAKE_TPS": "0.1",
        "COHORTLAKE_BURST": str(ANSWERED + 2),
    }
    command = ("nohup", COHORTLAKE, "sync")
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=_heed_sigterm,
    ) as process:  # fmt: skip
        assert at_work.wait(120)
        process.send_signal(signal.SIGHUP)
        time.sleep(1)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped by SIGTERM: " in said
    assert " new rows had come; they are kept, applied and published. Run it again" in said
    assert "Traceback" not in said
    kept = read_table(lake_settings.root, "image_sets")
    assert len(kept) >= 100
