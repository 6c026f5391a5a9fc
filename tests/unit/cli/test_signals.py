"""What a signal does to a command, with a command that does little: its words and its code."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import typer

from cohortlake.cli import signals
from cohortlake.cli.console import explained
from cohortlake.errors import Stopped

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """No test leaves a handler behind."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:  # as in a terminal: `nohup make test &` ignores two of them
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    ours = [signal.getsignal(number) for number in SIGNALS]
    yield
    assert [signal.getsignal(number) for number in SIGNALS] == ours
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The codes of `os._exit`, which does not end the tests."""
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    yield codes


def code_of(command: Callable[[], object]) -> int:
    with pytest.raises(typer.Exit) as exit_:
        explained(command)()
    return exit_.value.exit_code


@pytest.mark.parametrize("number", SIGNALS)
def test_a_command_is_interrupted_where_it_waits(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    assert code_of(command) == 128 + number
    assert f"stopped by {number.name}: what is complete stays" in capfd.readouterr().err


@pytest.mark.parametrize("number", SIGNALS)
def test_what_looks_at_a_stop_ends_by_it_and_says_what_it_kept(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        with signals.stopping() as stop:
            os.kill(os.getpid(), number)
            try:
                stop.wait(60)
            except Stopped:
                raise Stopped("7 rows are kept") from None

    assert code_of(command) == 128 + number
    assert f"stopped by {number.name}: 7 rows are kept" in capfd.readouterr().err


def test_what_is_done_in_spite_of_a_signal_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        with signals.stopping():
            os.kill(os.getpid(), signal.SIGTERM)

    assert code_of(command) == 143
    assert "SIGTERM came when all was done" in capfd.readouterr().err


def test_a_second_signal_ends_it_at_once(
    ended: list[int], capfd: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        with signals.stopping() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            while not stop.is_asked:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGINT)
            while not ended:
                time.sleep(0.01)

    code_of(command)
    assert ended == [143]
    assert "SIGTERM: a second signal came, so it ends at once" in capfd.readouterr().err


def test_what_takes_too_long_ends_at_once(
    ended: list[int], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(signals, "SECONDS_TO_END", 0.05)

    def command() -> None:
        with signals.stopping():
            os.kill(os.getpid(), signal.SIGHUP)
            while not ended:
                time.sleep(0.01)

    code_of(command)
    assert ended == [129]
    assert "SIGHUP: it took too long" in capfd.readouterr().err
    assert signals.SECONDS_TO_END < 10


def test_what_was_ignored_stays_ignored() -> None:
    def command() -> str:
        os.kill(os.getpid(), signal.SIGHUP)
        return "done"

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert explained(command)() == "done"
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_command_in_another_thread_leaves_signals_alone() -> None:
    seen: list[object] = []

    def command() -> None:
        with signals.stopping() as stop:
            seen.append((signal.getsignal(signal.SIGTERM), stop.is_asked))

    thread = threading.Thread(target=explained(command))
    thread.start()
    thread.join()
    assert seen == [(signal.getsignal(signal.SIGTERM), False)]
