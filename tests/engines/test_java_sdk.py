"""AWS's Java SDK, unchanged, does the four searches of the page of SearchImageSets."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

import emulator
from engines.conftest import ENGINES, bare_environment

JARS = ENGINES / "java"
pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(not JARS.exists(), reason="scripts/engines.sh could not fetch the Java SDK"),
    pytest.mark.skipif(shutil.which("java") is None, reason="there is no Java"),
]


def test_the_java_sdk() -> None:
    with emulator.running(
        synthetic=300, seed=1, now="2024-06-03T09:00:00Z", clock="stopped"
    ) as service:
        truth = [*service.admin.truth()]
        patient = truth[0]["DICOMTags"]["DICOMPatientId"]
        series = truth[1]["DICOMTags"]["DICOMSeriesInstanceUID"]
        program = Path(__file__).parent / "java/Search.java"
        done = subprocess.run(
            ["java", "-cp", f"{JARS}/*", program, service.datastores[0], patient, series],
            env=bare_environment()
            | {
                "AWS_ENDPOINT_URL_MEDICAL_IMAGING": service.endpoint,
                "AWS_ACCESS_KEY_ID": "any",
                "AWS_SECRET_ACCESS_KEY": "any",
                "AWS_REGION": "us-east-1",
            },
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert found.pop("refused") == " ValidationException"
    since = 1709251200.123  # 2024-03-01T00:00:00.123Z

    def ids(name: str) -> set[str]:
        return set(found[name].split())

    def where(condition: object) -> set[str]:
        return {row["imageSetId"] for row in truth if condition(row, row["DICOMTags"])}  # type: ignore[operator]

    assert ids("everything") == where(lambda row, tags: True)
    assert ids("patient") == where(lambda row, tags: tags.get("DICOMPatientId") == patient)
    assert ids("studies") == where(
        lambda row, tags: "20240101" <= tags.get("DICOMStudyDate", "") <= "20240331"
    )
    assert ids("created") == where(lambda row, tags: row["createdAt"] >= since)
    assert ids("updated") == where(lambda row, tags: tags.get("DICOMSeriesInstanceUID") == series)
    assert all(len(ids(name)) > 0 for name in found)
    assert len(ids("studies")) < len(truth) > len(ids("created"))
