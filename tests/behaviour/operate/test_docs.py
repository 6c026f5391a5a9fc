"""Every Python snippet and every `cohortlake` command of the README and the how-to pages runs, and
every example in a docstring, on a lake like the demo's."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command import command
from emulated import emulated, fill_lake

import cohortlake
from emulator import Emulator

REPOSITORY = Path(__file__).parents[3]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs/how-to").glob("*.md"))]
SNIPPETS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]
COMMAND = re.compile(r"^\$ cohortlake (.*?)(?: +#.*)?$", re.MULTILINE)
COMMANDS = {page: found for page in PAGES if (found := COMMAND.findall(page.read_text()))}
RUN_ELSEWHERE = {
    "erase --patient - --datastore <the data store's id>": "test_erase.py",
    "events": "test_hints.py",
    "key lookup --ids ids.csv --column AccessionNumber > accession_keys.csv": "test_lookup.py",
    "key lookup --ids ids.csv --output keys.csv": "test_lookup.py",
    "key rotate --to secretsmanager:cohortlake-2027": "test_keys.py",
}
"""Commands that need a queue, a secret or an id -> the test that runs what they do."""


@pytest.fixture(scope="module")
def hospital() -> Iterator[Emulator]:
    # It then lives two weeks, so that the days that the pages name are among them.
    with emulated(synthetic=700, seed=2, now="2026-05-28T12:00:00Z") as emulator:
        yield emulator


@pytest.fixture(scope="module")
def demo_like(hospital: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    fill_lake(hospital, folder / "var/demo/lake", days=14)
    return folder


@pytest.fixture
def own_lake(
    demo_like: Path, hospital: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder of its own like the demo's, and settings for it."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", hospital.endpoint)
    monkeypatch.setenv("COHORTLAKE_DATASTORES", hospital.datastores[0])
    monkeypatch.setenv("COHORTLAKE_ROOT", "var/demo/lake")
    monkeypatch.setenv("COHORTLAKE_PRIVACY", "limited")
    monkeypatch.setenv("COHORTLAKE_TPS", "500")
    monkeypatch.setenv("COHORTLAKE_MAX_DELETED_SHARE", "1")  # its months are small
    shutil.copytree(demo_like, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippet(
    code: str, demo_like: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo_like)
    exec(compile(code, "snippet", "exec"), {})  # noqa: S102 - our own pages
    assert capsys.readouterr().out.strip()


def _run(folder: Path, arguments: str) -> None:
    with contextlib.chdir(folder):
        done = command(*shlex.split(arguments), COLUMNS="200")
    assert done.exit_code == 0, f"cohortlake {arguments}\n{done.stdout}\n{done.stderr}"
    assert (done.stdout + done.stderr).strip(), arguments


def _screening(folder: Path) -> Path:
    """Write the cohort that a page shows as YAML, and the table it joins."""
    page = (REPOSITORY / "docs/how-to/cohorts.md").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    file = folder / "cohorts/screening.yaml"
    file.parent.mkdir()
    file.write_text(shown)
    patients = cohortlake.read_table(str(folder / "var/demo/lake"), "patients", ["patient_key"])
    patients.to_csv(folder / "cohorts/registry.csv", index=False)
    return file


def _frozen_before(folder: Path) -> None:
    """Freeze the cohort as it was before a step was added, so that there are two freezings."""
    file = _screening(folder)
    shown = file.read_text()
    exclusion = "  - exclude: BodyPartExamined = 'CHEST'\n"
    assert exclusion in shown
    file.write_text(shown.replace(exclusion, ""))
    _run(folder, "cohort freeze screening")
    file.write_text(shown)


def _chests(folder: Path) -> None:
    """Write the cohort whose pixels a page fetches."""
    patients = cohortlake.read_table(str(folder / "var/demo/lake"), "patients", ["patient_key"])
    (folder / "cohorts").mkdir()
    patients.assign(grade=1).to_csv(folder / "cohorts/registry.csv", index=False)
    (folder / "cohorts/chests.yaml").write_text("""
cohort: chests
level: series
steps:
  - where: {Modality: CT, body_part: CHEST}
  - join: {table: registry, file: registry.csv}
""")


PREPARE: dict[str, Callable[[Path], object]] = {
    "cohorts.md": _frozen_before,
    "pixels.md": _chests,
    "report.md": _screening,
}


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in COMMANDS])
def test_the_commands_of_a_page_run_in_their_order(page: Path, own_lake: Path) -> None:
    PREPARE.get(page.name, lambda _: None)(own_lake)
    for arguments in COMMANDS[page]:
        if arguments not in RUN_ELSEWHERE:
            _run(own_lake, arguments)


def test_each_command_that_does_not_run_here_is_on_a_page() -> None:
    shown = {command for commands in COMMANDS.values() for command in commands}
    assert {*RUN_ELSEWHERE} <= shown
    tests = {path.name for path in (REPOSITORY / "tests").rglob("test_*.py")}
    assert {*RUN_ELSEWHERE.values()} <= tests


EXAMPLES = [
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")
    for package in ("cohortlake", "emulator")
    for path in sorted((REPOSITORY / package).rglob("*.py"))
    if ">>>" in path.read_text()
]


@pytest.mark.parametrize("module", EXAMPLES)
def test_examples_in_docstrings(
    module: str, demo_like: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(demo_like)
    result = doctest.testmod(importlib.import_module(module))
    assert (result.failed, result.attempted > 0) == (0, True)


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 5


def test_each_test_that_the_page_on_security_names_is_there() -> None:
    page = (REPOSITORY / "docs/security.md").read_text()
    tests = "".join(path.read_text() for path in (REPOSITORY / "tests").rglob("test_*.py"))
    names = set(re.findall(r"`(test_\w+)`", page))
    assert len(names) >= 4
    assert {name for name in names if f"def {name}(" not in tests} == set()
    assert all((REPOSITORY / path).exists() for path in re.findall(r"`(tests/[\w/.]+)`", page))
