"""The command line: `serve` as a process, and every other command against it."""

import json
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from typer.testing import CliRunner

from emulator import Options
from emulator.cli import app


def start(*arguments):
    command = [sys.executable, "-m", "emulator", "serve", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def served():
    with start("--synthetic", "60", "--seed", "1", "--now", "2024-06-03T09:00:00Z") as process:
        yield json.loads(process.stdout.readline())
        process.send_signal(signal.SIGTERM)


@pytest.fixture
def run(served):
    def invoke(command, *arguments):
        result = CliRunner().invoke(app, [command, "--endpoint", served["endpoint"], *arguments])
        assert result.exit_code == 0, result.output
        return result.stdout

    return invoke


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_announces_itself_and_ends_by_a_signal(number):
    with start("--seed", "1") as process:
        ready = json.loads(process.stdout.readline())
        assert ready["endpoint"].startswith("http://127.0.0.1:")
        assert [len(one) for one in ready["datastores"]] == [32]
        process.send_signal(number)
        assert process.wait(timeout=5) == 0
        assert process.stderr.read() == ""


def test_serve_gives_notice_beyond_loopback(tmp_path):
    (tmp_path / "x.txt").write_text("not DICOM")
    with start("--host", "0.0.0.0", "--dicom", str(tmp_path)) as process:  # noqa: S104 - tested
        assert json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        notices = process.stderr.read()
    assert "has no TLS and no authentication" in notices
    assert "1 files are not DICOM objects" in notices


def test_serve_explains_what_is_wrong():
    result = CliRunner().invoke(app, ["serve", "--error-rate", "2"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: error_rate must be")


def test_every_option_is_on_the_command_line():
    result = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"})
    for field in fields(Options):
        assert f"--{field.name.replace('_', '-')}" in result.stdout


def test_clock(run):
    before = json.loads(run("clock"))["epochSeconds"]
    after = json.loads(run("clock", "--days", "1", "--seconds", "5"))["epochSeconds"]
    assert 86_405 <= after - before < 86_465


def test_changes_and_truth(run, tmp_path):
    file = tmp_path / "new.ndjson"
    file.write_text('{"DICOMTags":{"DICOMPatientId":"A","DICOMStudyId":"1"}}\n\n')
    [image_set_id] = json.loads(run("import", str(file)))
    arguments = ["--tag", "DICOMPatientId=B=C", "--tag", "DICOMStudyId=", "--cascade"]
    assert json.loads(run("update", image_set_id, *arguments)) == [image_set_id]
    rows = {row["imageSetId"]: row for row in map(json.loads, run("truth").splitlines())}
    assert rows[image_set_id]["DICOMTags"] == {"DICOMPatientId": "B=C"}
    run("delete", image_set_id)
    assert image_set_id not in run("truth")


def test_live(run):
    counts = json.loads(run("live", "--days", "1", "--seed", "3", "--over-seconds", "0.1"))
    assert counts["imported"] > 0


def test_behave_and_stats(run):
    assert json.loads(run("behave"))["quota"] == 0
    changed = json.loads(run("behave", "quota=25", "cut-rate=0.5", "undated-match=true"))
    assert (changed["quota"], changed["cut_rate"], changed["undated_match"]) == (25, 0.5, True)
    assert json.loads(run("behave", "between=open"))["between"] == "open"
    assert set(json.loads(run("stats"))) == {
        "requests",
        "most_in_10_s",
        "errors",
        "faults",
        "moved_to_frequent",
    }


def test_what_goes_wrong_is_one_line(served):
    endpoint = ["--endpoint", served["endpoint"]]
    for arguments in (
        ["delete", "x", *endpoint],
        ["behave", "nonsense=1", *endpoint],
        ["clock", "--endpoint", "http://127.0.0.1:9"],
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")


def test_the_reference_page_is_up_to_date():
    page = Path(__file__).parents[2] / "docs" / "reference" / "emulator.md"
    result = CliRunner().invoke(app, ["docs"])
    assert result.stdout == page.read_text(encoding="utf-8")


def test_documents_and_jobs(run, tmp_path):
    image_set_id = json.loads(run("truth").splitlines()[0])["imageSetId"]
    assert json.loads(run("plan", image_set_id)).keys() == {"kind", "geometry", "fault"}
    run("spoil", image_set_id, "--kind", "empty", "--times", "1")
    run("mend")
    assert len(json.loads(run("import-job", "--status", "FAILED", "--name", "night"))) == 32
    file = tmp_path / "document.json"
    study = {"DICOM": {}, "Series": {"1.2": {"DICOM": {}, "Instances": {}}}}
    file.write_text(json.dumps({"Patient": {"DICOM": {}}, "Study": study}))
    run("document", image_set_id, str(file))
