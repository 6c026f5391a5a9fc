"""What an alert says, and where it goes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import command
from webhook import Webhook, listening

from cohortlake import Settings
from cohortlake.admin import alerts
from cohortlake.admin.diagnosis import Diagnosis, Finding, Kind, Verdict
from cohortlake.errors import NotNotified, SettingError

RUNBOOK = Path(__file__).parents[3] / "docs/how-to/runbook.md"
FOUND = Diagnosis(
    (
        Finding(Kind.PUBLISHED_DAMAGED, Verdict.DAMAGED, "study_month=2024-05 CANARY", "publish"),
        Finding(Kind.COVERAGE_GAP, Verdict.INCOMPLETE, "from A to B", "sync"),
        Finding(Kind.COVERAGE_GAP, Verdict.INCOMPLETE, "from C to D", "sync"),
    )
)


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    with listening() as found:
        yield found


def test_it_says_which_kinds_were_found_and_no_more(webhook: Webhook) -> None:
    alerts.send([webhook.url], alerts.of_diagnosis(FOUND))
    (message,) = webhook.messages
    assert message["title"] == "Cohortlake: damaged"
    assert (
        "published-damaged, damaged: docs/how-to/runbook.md#published-damaged" in message["message"]
    )
    assert "coverage-gap (2 times), incomplete" in message["message"]
    assert not re.search("CANARY|2024|from A", str(message))


def test_each_alert_has_its_part_of_the_runbook() -> None:
    parts = re.findall(r"^## `?([\w-]+)`?$", RUNBOOK.read_text(), re.MULTILINE)
    assert set(parts) == {*Kind, "failed-run", "failed-check"}


def test_a_target_that_does_not_take_it_is_named_by_its_number_alone(webhook: Webhook) -> None:
    webhook.is_broken = True
    with listening() as other, pytest.raises(NotNotified, match="number 1 of the 2") as caught:
        alerts.send([webhook.url, other.url], alerts.of_diagnosis(FOUND))
    assert len(other.messages) == 1, "the others get it all the same"
    assert "127.0.0.1" not in str(caught.value)
    assert caught.value.transient


@pytest.mark.parametrize("target", ["slak://token/SECRET", "nonsense", "mailto://"])
def test_a_url_that_is_none_is_refused_and_not_repeated(target: str) -> None:
    with pytest.raises(SettingError, match="number 1 of 1") as caught:
        alerts.send([target], alerts.of_diagnosis(FOUND))
    assert target not in str(caught.value)


def test_nobody_to_tell_is_an_error() -> None:
    with pytest.raises(SettingError, match="COHORTLAKE_NOTIFY is not set"):
        alerts.send((), alerts.of_diagnosis(FOUND))


def test_the_settings_do_not_show_where_alerts_go() -> None:
    settings = Settings.from_env({"COHORTLAKE_NOTIFY": "json://one/SECRET  json://two/SECRET"})
    assert settings.notify == ("json://one/SECRET", "json://two/SECRET")
    assert "SECRET" not in repr(settings)


def test_status_sends_what_is_wrong_even_if_a_setting_is(
    webhook: Webhook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COHORTLAKE_NOTIFY", webhook.url)
    monkeypatch.setenv("COHORTLAKE_DATASTORES", "d" * 32)
    missing = command("status", "--root", str(tmp_path / "lake"))
    assert (missing.exit_code, webhook.messages) == (2, []), "unasked it tells nobody"
    missing = command("status", "--root", str(tmp_path / "lake"), "--notify")
    assert missing.exit_code == 2
    assert webhook.messages[0]["title"] == "Cohortlake: misconfigured"
    assert str(tmp_path) not in str(webhook.messages)
    monkeypatch.setenv("COHORTLAKE_TPS", "many")
    assert command("status", "--root", str(tmp_path / "lake"), "--notify").exit_code == 2
    assert "settings" in webhook.messages[1]["message"]
