"""Every Python snippet in the README and the how-to pages runs, on a lake like the demo's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cohortlake import Settings, Sync
from emulator import running

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs/how-to").glob("*.md"))]
SNIPPETS = [
    pytest.param(code, id=f"{page.name}-{number}")
    for page in PAGES
    for number, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
]


@pytest.fixture(scope="module")
def demo_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    root = folder / "var/demo/lake"
    with pytest.MonkeyPatch.context() as patch, running(synthetic=1500, seed=2) as emulator:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "none")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", emulator.endpoint)
        sync = Sync(Settings(emulator.datastores, str(root), tps=500, workers=8, privacy="limited"))
        sync.run()
        emulator.admin.live(2, seed=1)
        sync.run()
    return folder


@pytest.mark.parametrize("code", SNIPPETS)
def test_snippet(
    code: str, demo_like: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(demo_like)
    exec(compile(code, "snippet", "exec"), {})  # noqa: S102 - our own pages
    assert capsys.readouterr().out.strip()


def test_there_are_snippets() -> None:
    assert len(SNIPPETS) >= 5


def test_each_test_that_the_page_on_security_names_is_there() -> None:
    page = (REPOSITORY / "docs/security.md").read_text()
    tests = "".join(path.read_text() for path in (REPOSITORY / "tests").rglob("test_*.py"))
    names = set(re.findall(r"`(test_\w+)`", page))
    assert len(names) >= 4
    assert {name for name in names if f"def {name}(" not in tests} == set()
    assert all((REPOSITORY / path).exists() for path in re.findall(r"`(tests/[\w/.]+)`", page))
