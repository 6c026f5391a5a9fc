"""What `make audit` finds where it can only look at what is installed."""

from __future__ import annotations

import base64
import hashlib
import sys
from importlib.metadata import Distribution
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[3] / "scripts"


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    monkeypatch.delitem(sys.modules, "audit", raising=False)
    import audit

    return audit


def install(folder: Path, name: str, version: str) -> Distribution:
    """Put a distribution of one module into a folder, as pip does."""
    (folder / f"{name}.py").write_text("safe = True\n")
    digest = hashlib.sha256(b"safe = True\n").digest()
    encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"{name}.py,sha256={encoded},12\n../../bin/{name},sha256=x,1\n")
    return Distribution.at(info)


def test_other_versions_strangers_and_changed_files_are_findings(
    audit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text(
        "good==1.0 \\\n    --hash=sha256:0\nOther_One==1 ; python_version < '3.12' \\\n"
        "other-one==2 ; python_version >= '3.12' \\\nextra[all]==3 \\\n"
    )
    installed = [
        install(tmp_path, "good", "1.0"),
        install(tmp_path, "other_one", "2"),
        install(tmp_path, "extra", "4"),
        install(tmp_path, "stranger", "1"),
        install(tmp_path, "pip", "99"),
    ]
    monkeypatch.setattr(audit, "LOCK", lock)
    monkeypatch.setattr(audit, "distributions", lambda: installed)
    findings = {
        "extra 4 is installed, and the lock names 3",
        "stranger 1 is installed, and the lock does not name it",
    }
    assert set(audit.differences()) == findings
    (tmp_path / "good.py").write_text("safe = False\n")
    changed = "good 1.0: good.py is not as its wheel recorded it"
    assert set(audit.differences()) == {*findings, changed}


def test_an_audit_that_could_not_ask_about_all_is_none(
    audit: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answering(text: str) -> None:
        answer = type("Done", (), {"stdout": text})
        monkeypatch.setattr(audit.subprocess, "run", lambda *_, **__: answer)

    answering("")
    assert audit.audited() is None
    answering('{"dependencies": [{"name": "a", "skip_reason": "out of reach"}]}')
    assert audit.audited() is None
    vulnerable = '{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}'
    answering(f'{{"dependencies": [{vulnerable}]}}')
    assert list(audit.vulnerabilities(audit.audited())) == ["a 1: CVE-1, fixed in 2"]
