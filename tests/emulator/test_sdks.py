"""The other clients: the AWS command line and the JavaScript SDK, both unchanged."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Under the git-ignored var/, so that only the first run needs a package registry.
MODULES = HERE.parents[1] / "var" / "emulator-js"
AWS = Path(sys.executable).with_name("aws")


def environment(service):
    keep = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return keep | {
        "AWS_ENDPOINT_URL_MEDICAL_IMAGING": service.emulator.endpoint,
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_PAGER": "",
    }


@pytest.fixture
def aws(hospital):
    if not AWS.exists():
        pytest.skip("the AWS command line is not installed in this environment")

    def run(*arguments):
        command = [AWS, "medical-imaging", *arguments, "--output", "json"]
        return subprocess.run(
            command, env=environment(hospital), capture_output=True, text=True, timeout=60
        )

    return run


def test_the_command_line_pages_through_everything(hospital, aws):
    found = aws("search-image-sets", "--datastore-id", hospital.datastore)
    assert found.returncode == 0, found.stderr
    rows = json.loads(found.stdout)["imageSetsMetadataSummaries"]
    truth = {row["imageSetId"] for row in hospital.emulator.admin.truth()}
    assert {row["imageSetId"] for row in rows} == truth


def test_the_command_line_sends_criteria_and_reads_errors(hospital, aws):
    values = [{"createdAt": "2021-01-01T00:00:00Z"}, {"createdAt": "2024-06-03T09:00:00Z"}]
    criteria = json.dumps({"filters": [{"operator": "BETWEEN", "values": values}]})
    arguments = ("search-image-sets", "--datastore-id", hospital.datastore)
    found = aws(*arguments, "--search-criteria", criteria, "--max-items", "5")
    assert found.returncode == 0, found.stderr
    assert len(json.loads(found.stdout)["imageSetsMetadataSummaries"]) == 5
    refused = aws(*arguments, "--search-criteria", criteria.replace("BETWEEN", "FOO"))
    assert refused.returncode != 0
    assert "ValidationException" in refused.stderr


@pytest.fixture(scope="session")
def javascript():
    """The JavaScript SDK's folder, installed once."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    if not (MODULES / "node_modules" / "@aws-sdk").exists():
        MODULES.mkdir(parents=True, exist_ok=True)
        install = [
            "npm", "install", "--prefix", str(MODULES), "--no-audit", "--no-fund", "--silent",
            "@aws-sdk/client-medical-imaging@3",
        ]  # fmt: skip
        done = subprocess.run(install, capture_output=True, text=True, timeout=120)
        if done.returncode:
            pytest.skip("npm could not install @aws-sdk/client-medical-imaging")
    shutil.copy(HERE / "js" / "search.mjs", MODULES / "search.mjs")
    return MODULES


def test_the_javascript_sdk(hospital, javascript):
    done = subprocess.run(
        ["node", str(javascript / "search.mjs"), hospital.datastore],
        env=environment(hospital), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    truth = {row["imageSetId"] for row in hospital.emulator.admin.truth()}
    assert set(found["ids"]) == truth
    assert len(found["ids"]) == len(truth)
    assert found["isDate"]
    assert found["refused"] == "ValidationException"
    assert hospital.datastore in found["metadata"]
