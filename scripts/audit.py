"""Check the dependencies against the database of known vulnerabilities.

If the database cannot be reached, compare the installed packages with the lock instead: the same
versions and no others, and each file as its wheel recorded it. The last line printed says which of
the two checks was done.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parent.parent / "requirements.txt"
OURS = "cohortlake"
_INSTALLERS = frozenset(("pip", "setuptools", "uv", "wheel"))
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[.*?\])?==([^ ;\\]+)", re.MULTILINE)


def main() -> int:
    """Run the audit. Return 0 if it has no findings, else 1."""
    found = audited()
    if found is None:
        wrong = sorted(differences())
        done = "the database of vulnerabilities is out of reach: held what is installed to the lock"
    else:
        wrong = sorted(vulnerabilities(found))
        done = f"held {len(found)} dependencies against the database of vulnerabilities"
    for line in wrong:
        sys.stdout.write(f"{line}\n")
    sys.stdout.write(f"{done}; {len(wrong)} findings\n")
    return 1 if wrong else 0


def audited() -> list[dict[str, Any]] | None:
    """Return the results of pip-audit for all dependencies, or None if it cannot check them all."""
    command = (
        sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off",
        "--no-deps", "--disable-pip", "--require-hashes", "--requirement", LOCK,
    )  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return None
    return found if all("vulns" in one for one in found) else None


def vulnerabilities(found: list[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for each known vulnerability."""
    for one in found:
        for known in one["vulns"]:
            fixed = ", ".join(known["fix_versions"]) or "no release yet"
            yield f"{one['name']} {one['version']}: {known['id']}, fixed in {fixed}"


def differences() -> Iterator[str]:
    """Yield a line for each difference between the installed packages and the lock."""
    locked: dict[str, set[str]] = defaultdict(set)  # the lock may name one version per platform
    for name, version in _PINNED.findall(LOCK.read_text("utf-8")):
        locked[_bare(name)].add(version)
    for installed in distributions():
        name = _bare(installed.name)
        if name == OURS or name in _INSTALLERS:
            continue
        if name not in locked:
            yield f"{name} {installed.version} is installed, and the lock does not name it"
        elif installed.version not in locked[name]:
            others = ", ".join(sorted(locked[name]))
            yield f"{name} {installed.version} is installed, and the lock names {others}"
        for path in changed_files(installed):
            yield f"{name} {installed.version}: {path} is not as its wheel recorded it"


def changed_files(installed: Distribution) -> Iterator[str]:
    """Yield the files of a distribution whose content differs from its record."""
    for file in installed.files or ():
        if file.hash is None or ".." in file.parts:
            continue  # made at installation: byte code, and commands that name this Python
        path = Path(str(file.locate()))
        digest = hashlib.new(file.hash.mode, path.read_bytes() if path.is_file() else b"").digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            yield str(file)


def _bare(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    sys.exit(main())
