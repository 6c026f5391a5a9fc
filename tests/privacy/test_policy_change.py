"""A run changes the policy of a lake only where somebody asked for it, and says so before."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from looks import Looked, write
from privacy.people import SEEN, lake_of, summaries
from typer.testing import CliRunner

from assets.published import published
from cohortlake.cli.app import app
from cohortlake.errors import PolicyNotAskedFor
from cohortlake.ingest.partition_search import SearchResult
from cohortlake.publish.publication.marker import MARKER_PATH, read_marker
from cohortlake.settings import Settings
from cohortlake.storage.root import Root
from cohortlake.sync import Sync
from pipelines.resources import RESOURCES

COMMANDS = (
    ("publish",),
    ("rebuild",),
    ("maintain",),
    ("key", "rotate"),
    ("erase", "--patient", "nobody", "--datastore", "d" * 32, "--yes"),
)


@pytest.fixture(scope="module")
def limited(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake that is published under `limited`, to copy."""
    root = lake_of(f"{tmp_path_factory.mktemp('limited')}/lake", summaries(12, days=30))
    Sync(Settings(root=root.uri, privacy="limited")).publish()
    return Path(root.uri)


@pytest.fixture
def root(limited: Path, tmp_path: Path) -> Root:
    """A lake that is published under `limited`."""
    return Root(str(shutil.copytree(limited, tmp_path / "lake")))


def marked(root: Root) -> tuple[str, str]:
    marker = read_marker(root)
    assert marker
    return marker.policy, marker.policy_digest


def cli(root: Root, *arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, [*arguments, "--root", root.uri])
    return done.exit_code, done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_run_without_the_setting_leaves_the_policy_as_it_is(
    root: Root, command: tuple[str, ...]
) -> None:
    before = root.read(MARKER_PATH)
    code, said = cli(root, *command)
    assert code == 2
    assert "Set COHORTLAKE_PRIVACY=limited to go on, or give --policy safe to change it" in said
    assert root.read(MARKER_PATH) == before


def test_what_was_found_is_applied_although_it_is_not_published(root: Root) -> None:
    before = read_marker(root)
    assert before
    new = summaries(1)[0] | {"imageSetId": "e" * 32}
    write(root, [Looked(SEEN + timedelta(days=1), [new])])
    work = Sync(Settings(root=root.uri))
    with pytest.raises(PolicyNotAskedFor, match="What was found is kept"):
        work._apply_and_publish((), "")
    assert read_marker(root) == before
    assert work.status().pending == 0
    publication = Sync(Settings(root=root.uri, privacy="limited")).publish()
    assert publication
    assert publication.rows("image_sets") == before.rows("image_sets") + 1


@pytest.mark.parametrize("by", ["option", "setting"])
def test_a_change_that_is_asked_for_is_said_before_it_is_done(
    root: Root, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    if by == "setting":
        monkeypatch.setenv("COHORTLAKE_PRIVACY", "safe")
    code, said = cli(root, "publish", *(["--policy", "safe"] if by == "option" else []))
    assert code == 0
    assert "published under the policy 'limited': from now on it is published under 'safe'" in said
    assert marked(root)[0] == "safe"
    assert cli(root, "publish") == (0, ""), "it is what is published, so nothing is to be asked"


def test_years_are_not_made_days_by_a_run_without_the_setting(root: Root) -> None:
    safe = Settings(root=root.uri, privacy="safe", safe_dates="year")
    Sync(safe).publish()
    before = marked(root)
    for privacy in ("", "safe"):
        without = replace(safe, safe_dates="", privacy=privacy)
        with pytest.raises(PolicyNotAskedFor, match="Set COHORTLAKE_SAFE_DATES=year to go on"):
            Sync(without).publish()
    assert marked(root) == before
    Sync(replace(safe, safe_dates="shift")).publish()
    assert marked(root) != before


def test_a_file_of_ones_own_is_asked_for_by_its_name(root: Root, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("policy: ours\nextends: safe\ncolumns: {Modality: withhold}\n")
    with pytest.raises(PolicyNotAskedFor):
        Sync(Settings(root=root.uri, privacy_file=str(file))).publish()
    ours = Settings(root=root.uri, privacy="ours", privacy_file=str(file))
    Sync(ours).publish()
    before = marked(root)
    # Whoever lacks the file would show more.
    without = Sync(Settings(root=root.uri))
    with pytest.raises(PolicyNotAskedFor, match="ours and COHORTLAKE_PRIVACY_FILE to its file"):
        without.publish()
    # The same name and another content: the file itself asks for it.
    file.write_text("policy: ours\nextends: safe\ncolumns: {Modality: reviewed}\n")
    notes: list[str] = []
    Sync(replace(ours, privacy=""), note=notes.append).publish()
    (note,) = notes
    assert "'ours', which has changed since" in note
    assert marked(root)[0] == before[0]
    assert marked(root)[1] != before[1]
    # But years are no part of this file, and the setting for them may be missing here.
    Sync(replace(ours, safe_dates="year")).publish()
    with pytest.raises(PolicyNotAskedFor, match="COHORTLAKE_SAFE_DATES=year"):
        Sync(ours).publish()


def test_a_new_lake_is_published_under_safe(tmp_path: Path) -> None:
    root = lake_of(f"{tmp_path}/lake", summaries(3, days=30))
    Sync(Settings(root=root.uri)).publish()
    assert marked(root)[0] == "safe"


def test_a_run_says_it_once_and_before_it_searches(root: Root) -> None:
    notes: list[str] = []

    def found() -> Iterator[SearchResult]:
        assert len(notes) == 1
        yield from ()

    work = Sync(Settings(root=root.uri, privacy="safe"), note=notes.append)
    work._apply_and_publish(found(), "")
    assert marked(root)[0] == "safe"
    work.publish()
    assert len(notes) == 1


def test_dagster_refuses_likewise_and_tells_of_a_change(
    root: Root, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(dg.Failure, match="Set COHORTLAKE_PRIVACY=limited to go on"):
        list(published(sync=Sync(Settings(root=root.uri))))
    monkeypatch.setenv("COHORTLAKE_ROOT", root.uri)
    monkeypatch.setenv("COHORTLAKE_PRIVACY", "safe")
    assert dg.materialize([published], resources=RESOURCES).success
    assert "from now on it is published under 'safe'" in capsys.readouterr().err
