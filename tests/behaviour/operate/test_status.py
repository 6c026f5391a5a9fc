"""`cohortlake status` names the damage of a lake, and the commands it names repair it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable, write_deltalake
from endpoint import DATASTORE, Endpoint
from filled import FilledLake, filled
from small_hospital import fill
from typer.testing import CliRunner

from cohortlake import Settings, Sync
from cohortlake.admin.diagnosis import Verdict
from cohortlake.cli.app import app
from cohortlake.errors import ServiceError
from cohortlake.ingest import partitions
from cohortlake.settings import SETTINGS

KEY = "7a" * 32
FIRST_DAY, FIRST_MONTH = date(2026, 1, 25), date(2025, 1, 1)


@dataclass
class Lake:
    """A lake to be damaged, and the settings in force."""

    path: Path
    endpoint: Endpoint
    patch: pytest.MonkeyPatch

    def setting(self, name: str, value: str | None) -> None:
        if value is None:
            self.patch.delenv(name)
        else:
            self.patch.setenv(name, value)

    def sync(self) -> Sync:
        return Sync(Settings((DATASTORE,), str(self.path), tps=1000, privacy="limited"))

    def files(self, pattern: str) -> list[Path]:
        return sorted(self.path.glob(pattern), key=lambda path: (path.stat().st_size, path))

    def run(self, command: str) -> str:
        result = CliRunner().invoke(app, command.split())
        assert result.exit_code == 0, result.output
        return result.output

    def status(self, *options: str) -> tuple[int, dict[str, Any]]:
        as_json = CliRunner().invoke(app, ["status", "--json", *options])
        found: dict[str, Any] = json.loads(as_json.output)
        assert as_json.exit_code == found["exit_code"]
        if as_json.exit_code == 0:  # a table, which one test looks at
            return 0, found
        told = CliRunner().invoke(app, ["status", *options])
        assert told.exit_code == as_json.exit_code
        assert told.output.splitlines()[0] == found["verdict"]
        for finding in found["findings"]:
            # The two commands run one after the other, and --within counts from each one's start.
            what, _, _ = finding["what"].partition(", and not until")
            assert what in told.output
            assert finding["remedy"] in told.output
        return told.exit_code, found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> FilledLake:
    return filled(tmp_path_factory.mktemp("status"), fill_and_sweep, FIRST_DAY, FIRST_MONTH)


def fill_and_sweep(endpoint: Endpoint, sync: Sync) -> None:
    fill(endpoint, 12, months=1)
    sync.run()
    endpoint.now += timedelta(hours=2)
    sync.reconcile()


@pytest.fixture
def lake(
    whole: FilledLake, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Lake:
    path = tmp_path / "lake"
    whole.copy_to(str(path), endpoint)
    monkeypatch.setattr(partitions, "FIRST_DAY", FIRST_DAY)
    monkeypatch.setattr(partitions, "FIRST_MONTH", FIRST_MONTH)
    settings = {
        "COHORTLAKE_DATASTORES": DATASTORE,
        "COHORTLAKE_ROOT": str(path),
        "COHORTLAKE_TPS": "1000",
        "COHORTLAKE_PRIVACY": "limited",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return Lake(path, endpoint, monkeypatch)


def _delete_published(lake: Lake) -> None:
    lake.files("published/studies/*/*.parquet")[0].unlink()


def _cut_published(lake: Lake) -> None:
    file = lake.files("published/patients/*.parquet")[0]
    file.write_bytes(file.read_bytes()[:-8])


def _flip_published(lake: Lake) -> None:
    file = lake.files("published/series/*/*.parquet")[-1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def _break_marker(lake: Lake) -> None:
    file = lake.path / "published/_published.json"
    file.write_bytes(file.read_bytes()[:100])


def _delete_keys(lake: Lake) -> None:
    shutil.move(lake.path / "keys", lake.path.parent / "keys")


def _delete_state_file(lake: Lake) -> None:
    lake.files("image_sets/row_kind=version/*.parquet")[-1].unlink()


def _garble_state_file(lake: Lake) -> None:
    """Of the same size: it is seen where the figures are read from it."""
    file = lake.files("image_sets/row_kind=version/*.parquet")[-1]
    file.write_bytes(b"PAR1" + bytes(file.stat().st_size - 8) + b"PAR1")


def _cut_coverage_file(lake: Lake) -> None:
    file = lake.files("coverage/*.parquet")[0]
    file.write_bytes(file.read_bytes()[:-100])


def _cut_log(lake: Lake) -> None:
    file = lake.files("image_sets/_delta_log/*.json")[-1]
    file.write_bytes(file.read_bytes()[:50])


def _empty_log(lake: Lake) -> None:
    lake.files("image_sets/_delta_log/*.json")[0].write_bytes(b"")


def _delete_history(lake: Lake) -> None:
    shutil.rmtree(lake.path / "image_sets")


def _delete_increment(lake: Lake) -> None:
    lake.files("increments/*/updated_at/*/*.parquet")[-1].unlink()


def _flip_increment(lake: Lake) -> None:
    file = lake.files("increments/*/updated_at/*/*.parquet")[-1]
    file.write_bytes(b"PAR1" + bytes(len(file.read_bytes()) - 8) + b"PAR1")


def _find_without_applying(lake: Lake) -> None:
    fill(lake.endpoint, 3, seed=2)
    for row in lake.endpoint.image_sets[-3:]:
        row["createdAt"] = row["updatedAt"] = lake.endpoint.now.timestamp() + 60
    lake.endpoint.now += timedelta(hours=2)
    sync = lake.sync()
    store = sync.datastore(DATASTORE)
    assert list(sync.extract(store, sync.due(store)))


def _apply_without_publishing(lake: Lake) -> None:
    _find_without_applying(lake)
    assert lake.sync().apply().rows


def _write_as_an_older_release(lake: Lake) -> None:
    ledger = DeltaTable(str(lake.path / "coverage"))
    rows = ledger.to_pyarrow_table().drop_columns(["counted"])
    write_deltalake(ledger, rows, mode="overwrite", schema_mode="overwrite")


def _leave_a_gap(lake: Lake) -> None:
    lake.endpoint.now += timedelta(days=4)
    sync = lake.sync()
    store = sync.datastore(DATASTORE)
    due = sync.due(store)
    assert list(sync.extract(store, dict(list(due.items())[-2:])))
    sync.apply()


DAMAGED, BEHIND, INCOMPLETE = Verdict.DAMAGED, Verdict.BEHIND, Verdict.INCOMPLETE
MISCONFIGURED = Verdict.MISCONFIGURED


@dataclass(frozen=True)
class Case:
    """A damage, and what status says of it."""

    damage: Callable[[Lake], None]
    verdict: Verdict
    what: str
    commands: list[str]
    options: tuple[str, ...] = ()
    # whether `make test` runs the commands too; those of a like damage are enough for it
    is_repaired: bool = True


CASES = [
    Case(_delete_published, DAMAGED, "studies.parquet is not there", ["publish"]),
    Case(_cut_published, DAMAGED, "bytes, and was written with", ["publish"], is_repaired=False),
    Case(
        _flip_published, DAMAGED, "does not hold what", ["publish --verify"], options=("--verify",)
    ),
    Case(
        _delete_state_file,
        DAMAGED,
        "version history or the coverage",
        ["rebuild"],
        is_repaired=False,
    ),
    Case(_garble_state_file, DAMAGED, "is damaged, cut off or gone", ["rebuild"]),
    Case(
        _cut_coverage_file,
        DAMAGED,
        "version history or the coverage",
        ["rebuild"],
        is_repaired=False,
    ),
    Case(_cut_log, DAMAGED, ".json cannot be read", ["rebuild"], is_repaired=False),
    Case(_empty_log, DAMAGED, ".json is empty", ["rebuild"]),
    Case(_delete_history, DAMAGED, "image_sets is not there", ["rebuild"], is_repaired=False),
    Case(
        _delete_increment,
        DAMAGED,
        "increments that were applied are lost",
        ["rebuild", "sync"],
    ),
    Case(_find_without_applying, BEHIND, "not applied yet", ["sync"]),
    Case(_apply_without_publishing, BEHIND, "the published tables show version", ["publish"]),
    Case(_write_as_an_older_release, BEHIND, "with other columns", ["rebuild"]),
    Case(_leave_a_gap, INCOMPLETE, "was not searched from", ["sync"]),
]


@pytest.mark.parametrize(
    ("case", "is_repaired"),
    [
        pytest.param(
            case,
            is_repaired,
            id=f"{case.damage.__name__}{'-repaired' * is_repaired}",
            marks=[pytest.mark.chaos] * (is_repaired and not case.is_repaired),
        )
        for case in CASES
        # where the commands run, the report is read too
        for is_repaired in ((True,) if case.is_repaired else (False, True))
    ],
)
def test_damage_is_reported_and_repaired_by_the_commands_it_names(
    lake: Lake, case: Case, is_repaired: bool
) -> None:
    case.damage(lake)
    before = _content(lake.path)
    code, found = lake.status(*case.options)
    assert _content(lake.path) == before, "status changes nothing"
    assert (code, found["verdict"]) == (case.verdict.exit_code, case.verdict)
    (finding, *others) = found["findings"]
    assert case.what in finding["what"]
    assert finding["verdict"] == case.verdict
    assert all(other["verdict"] != case.verdict for other in others)
    assert re.findall(r"`cohortlake ([^`]*)`", finding["remedy"]) == case.commands
    if is_repaired:
        for command in case.commands:
            lake.run(command)
        code, found = lake.status("--verify")
        assert found["findings"] == []
        assert (code, found["verdict"]) == (0, "healthy")


def _content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_whole_lake_is_healthy_and_behind_only_if_asked(lake: Lake) -> None:
    told = CliRunner().invoke(app, ["status"])
    assert (told.exit_code, told.output.splitlines()[0]) == (0, "healthy")
    assert lake.status()[1]["verdict"] == "healthy"
    assert lake.status("--verify")[0] == 0
    code, found = lake.status("--within", "1")
    assert (code, found["verdict"]) == (1, "behind")
    assert "is proven complete until 2026-02-01" in found["findings"][0]["what"]
    assert lake.status("--within", "1000000")[0] == 0


def test_exit_codes_tell_the_verdicts_apart() -> None:
    codes = [verdict.exit_code for verdict in Verdict]
    assert len(set(codes)) == len(codes)


def test_a_damaged_increment_is_set_aside_and_searched_again(lake: Lake) -> None:
    _flip_increment(lake)
    assert lake.status()[0] == 0, "its size is right"
    code, found = lake.status("--verify")
    assert (code, found["verdict"]) == (5, "damaged")
    (finding,) = found["findings"]
    (path,) = re.findall(r"(increments/\S+parquet) cannot be read", finding["what"])
    assert f"`cohortlake set-aside {path}`" in finding["remedy"]
    for command in re.findall(r"`cohortlake ([^`]*)`", finding["remedy"]):
        lake.run(command)
    assert lake.status("--verify")[0] == 0


def test_a_broken_marker_is_deleted_and_written_again(lake: Lake) -> None:
    _break_marker(lake)
    code, found = lake.status()
    assert (code, found["verdict"]) == (5, "damaged")
    (finding,) = found["findings"]
    assert "_published.json" in finding["what"]
    (lake.path / "published/_published.json").unlink()
    lake.run("publish")
    assert lake.status("--verify")[0] == 0


def test_lost_keys_are_not_created_again(lake: Lake) -> None:
    _delete_keys(lake)
    lake.run("sync")
    assert not (lake.path / "keys").exists()
    code, found = lake.status()
    assert (code, found["verdict"]) == (5, "damaged")
    assert "patient-key is not there" in found["findings"][0]["what"]
    shutil.move(lake.path.parent / "keys", lake.path / "keys")
    assert lake.status()[0] == 0


def test_a_lake_that_does_not_say_its_key_is_damaged(lake: Lake) -> None:
    (lake.path / "keys/fingerprint").unlink()
    assert lake.status()[0] == 0, "the marker says it, too"
    marker = lake.path / "published/_published.json"
    marker.write_text(
        re.sub(r'"key_fingerprint": "\w+"', '"key_fingerprint": ""', marker.read_text())
    )
    code, found = lake.status()
    assert (code, found["verdict"]) == (5, "damaged")
    assert "keys/fingerprint" in found["findings"][0]["what"]


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({"COHORTLAKE_DATASTORES": None}, "COHORTLAKE_DATASTORES is not set"),
        ({"COHORTLAKE_PATIENT_KEY": "env:MY_KEY"}, "MY_KEY is not set"),
        ({"COHORTLAKE_PATIENT_KEY": "file:/no/such/file"}, "cannot be read"),
        ({"COHORTLAKE_PATIENT_KEY": "env:MY_KEY", "MY_KEY": "short"}, "does not hold a key"),
        ({"COHORTLAKE_PATIENT_KEY": "env:MY_KEY", "MY_KEY": KEY}, "is not the key that"),
        ({"COHORTLAKE_PATIENT_KEY": "vault:x"}, "must be lake, env:NAME"),
        ({"COHORTLAKE_PRIVACY": "open"}, "COHORTLAKE_PRIVACY must be one of"),
        ({"COHORTLAKE_TPS": "fast"}, "COHORTLAKE_TPS must be a number"),
        ({"COHORTLAKE_ROT": "x"}, "COHORTLAKE_ROT is not a setting"),
        ({"COHORTLAKE_ROOT": "gs://bucket"}, "no lake can lie at this gs:/ URL"),
    ],
)
def test_settings_that_do_not_fit_the_lake_are_named(
    lake: Lake, settings: dict[str, str | None], what: str
) -> None:
    for name, value in settings.items():
        lake.setting(name, value)
    code, found = lake.status()
    assert (code, found["verdict"]) == (2, "misconfigured")
    (finding,) = found["findings"]
    assert what in finding["what"]
    assert finding["remedy"]
    assert KEY not in json.dumps(found)


def test_another_policy_is_named_and_can_be_published(lake: Lake) -> None:
    lake.setting("COHORTLAKE_PRIVACY", "identified")
    code, found = lake.status()
    assert (code, found["verdict"]) == (2, "misconfigured")
    (finding,) = found["findings"]
    assert "'identified'" in finding["what"]
    assert "'limited'" in finding["what"]
    assert "COHORTLAKE_PRIVACY=limited" in finding["remedy"]
    lake.run("publish")
    assert lake.status()[0] == 0
    lake.setting("COHORTLAKE_PRIVACY", None)
    code, found = lake.status()
    assert (code, found["verdict"]) == (2, "misconfigured")
    assert "set COHORTLAKE_PRIVACY=identified to go on" in found["findings"][0]["remedy"]


def test_where_there_is_no_lake_it_says_so_and_what_to_run(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.setting("COHORTLAKE_ROOT", str(tmp_path / "none"))
    code, found = lake.status()
    assert (code, found["verdict"]) == (2, "misconfigured")
    (finding,) = found["findings"]
    assert finding["what"] == f"there is no lake at {tmp_path / 'none'}"
    assert "`cohortlake sync`" in finding["remedy"]
    assert not (tmp_path / "none").exists()

    lake.setting("COHORTLAKE_ROOT", None)
    monkeypatch.chdir(tmp_path)
    _, found = lake.status()
    assert found["findings"][0]["what"].endswith("(COHORTLAKE_ROOT is not set)")
    lake.run("sync")
    assert lake.status()[0] == 0


def test_a_root_that_is_a_file_is_reported(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lake.setting("COHORTLAKE_ROOT", str(tmp_path / "file"))
    code, found = lake.status()
    assert (code, found["verdict"]) == (2, "misconfigured")
    assert "is a file" in found["findings"][0]["what"]


def test_a_root_for_readers_is_no_lake_to_write(lake: Lake, tmp_path: Path) -> None:
    shutil.copytree(lake.path / "published", tmp_path / "readers/published")
    lake.setting("COHORTLAKE_ROOT", str(tmp_path / "readers"))
    code, found = lake.status()
    assert (code, found["verdict"]) == (5, "damaged")
    assert any("something published, but neither" in f["what"] for f in found["findings"])


def test_ids_are_whole_on_a_narrow_terminal(lake: Lake) -> None:
    result = CliRunner().invoke(app, ["status"], env={"COLUMNS": "20"})
    assert DATASTORE in result.output


@pytest.mark.parametrize("days", [1, 30])
def test_a_first_load_that_stopped_is_incomplete(
    endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """Whether it stopped in the days that are over, or in the one that is not."""
    monkeypatch.setattr("cohortlake.healthimaging.client._LONGEST_WAIT_SECONDS", 0.0)
    fill(endpoint, 250, months=1)
    for number, row in enumerate(endpoint.image_sets):
        row["updatedAt"] = endpoint.now.timestamp() - days * 36000 * (1 - number / 250) - 400
    search, asked = endpoint.search, 0

    def some(criteria: dict[str, Any], size: int, token: str | None) -> dict[str, Any]:
        nonlocal asked
        asked += 1
        return search(criteria, size, token) if asked <= 3 else {"no": "page"}

    for name, value in {
        "COHORTLAKE_DATASTORES": DATASTORE,
        "COHORTLAKE_ROOT": str(tmp_path / "lake"),
        "COHORTLAKE_TPS": "1000",
        "COHORTLAKE_PRIVACY": "limited",
    }.items():
        monkeypatch.setenv(name, value)
    lake = Lake(tmp_path / "lake", endpoint, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(endpoint, "search", some)
        sync = Sync(replace(Settings.from_env(), workers=1))
        with pytest.raises(ServiceError):
            sync.run()
    assert 0 < sync.status().rows["image_sets"] < 250
    code, found = lake.status()
    assert (code, found["verdict"]) == (6, "incomplete")
    assert "did not come to its end" in found["findings"][0]["what"]
    assert "`cohortlake sync`" in found["findings"][0]["remedy"]
    lake.run("sync")
    code, found = lake.status()
    assert found["rows"]["image_sets"] == 250
    assert (code, found["verdict"]) == (0, "healthy")


def test_every_setting_that_a_remedy_names_exists() -> None:
    text = Path(str(Verdict.__module__).replace(".", "/") + ".py").read_text()
    known = {setting.variable for setting in SETTINGS}
    assert set(re.findall(r"COHORTLAKE_[A-Z_]+", text)) <= known
