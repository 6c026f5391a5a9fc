"""No planted value leaves the restricted zone, whatever is run and however it ends."""

from __future__ import annotations

import ast
import base64
import gzip
import importlib
import json
import logging
import os
import pty
import signal
import sqlite3
import stat
import subprocess
import sys
import uuid
import zipfile
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import date, time
from pathlib import Path
from urllib.parse import quote

import boto3
import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from endpoint import DATASTORE, Endpoint

from canary import plant
from canary.look import hits, planted_in
from canary.plant import DATES, NEEDLES, TIME
from cohortlake.cli import process
from cohortlake.storage.files import RESTRICTED

TESTS = Path(__file__).parents[1]


@dataclass(frozen=True)
class Machine:
    """A machine with nothing on it but what the runs leave.

    Attributes:
        folder: All of it.
        queue: The URL of the queue of events; empty for none.
    """

    folder: Path
    queue: str = ""

    def environment(self) -> dict[str, str]:
        """What a process on it is given."""
        for name in ("home", "tmp", "cwd"):
            (self.folder / name).mkdir(exist_ok=True)
        own = {k: v for k, v in os.environ.items() if k.startswith("AWS_")}
        return own | {
            "HOME": str(self.folder / "home"),
            "TMPDIR": str(self.folder / "tmp"),
            "DAGSTER_HOME": str(self.folder / "dagster"),
            "COHORTLAKE_ROOT": str(self.folder / "lake"),
            "COHORTLAKE_DATASTORES": DATASTORE,
            "COHORTLAKE_TPS": "1000",
            "COHORTLAKE_EVENTS_QUEUE": self.queue,
            "PYTHONPATH": f"{TESTS}:{TESTS.parent}",
            "PATH": os.environ["PATH"],
        }

    def run(self, *jobs: str) -> int:
        """Do jobs of `canary.work`, keep what they print, and return how they ended."""
        environment = self.environment()
        with (
            (self.folder / f"{jobs[0]}.stdout").open("wb") as out,
            (self.folder / f"{jobs[0]}.stderr").open("wb") as err,
        ):
            return subprocess.run(
                (sys.executable, "-m", "canary.work", environment["COHORTLAKE_ROOT"], *jobs),
                cwd=self.folder / "cwd",
                env=environment,
                stdout=out,
                stderr=err,
                timeout=300,
                check=False,
            ).returncode

    def work(self, *jobs: str) -> None:
        """Do jobs of `canary.work` that must end well."""
        assert self.run(*jobs) == 0, (self.folder / f"{jobs[0]}.stderr").read_text()[-3000:]

    def shows_nothing(self, anything: set[str] = frozenset()) -> None:
        """Look through all of it but the restricted zone.

        Args:
            anything: What may hold anything.
        """
        restricted = {f"lake/{name}/*" for name in RESTRICTED}
        assert hits(self.folder, skip=restricted | anything) == set()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def with_queue(machine: Machine, aws: str) -> Machine:
    """A machine with a queue of events: of two that count, and of one that is not ours."""
    made = boto3.resource("sqs", region_name="us-east-1").create_queue(QueueName=uuid.uuid4().hex)
    event = {"source": "aws.medical-imaging", "note": plant.text("event")}
    for kind, number in (("Deleted", 1), ("Updated", 2)):
        detail = {"datastoreId": DATASTORE, "imageSetId": f"{number:032x}"}
        about = {"detail-type": f"Image Set {kind}", "detail": detail}
        made.send_message(MessageBody=json.dumps(event | about))
    made.send_message(MessageBody=plant.text("event"))
    return replace(machine, queue=made.url)


def test_a_lake_is_filled_asked_and_cleared_and_all_that_fails_and_a_key_that_aws_keeps(
    machine: Machine, moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.work("fill", "ask", "note", "fail", "erase")
    assert "DEBUG:botocore.endpoint:" in (machine.folder / "fill.stderr").read_text()
    _keep_keys_at(moto_url, monkeypatch)
    machine.work("keyed")  # in a process of its own, which makes no other call of AWS before
    assert "DEBUG:botocore.endpoint:" in (machine.folder / "keyed.stderr").read_text()
    machine.shows_nothing()


def test_every_command(with_queue: Machine) -> None:
    with_queue.work("command")
    with_queue.shows_nothing()
    assert "ValueError in" in (with_queue.folder / "command.stderr").read_text()


def _keep_keys_at(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a secret and a key that wraps, both of which give the planted key."""
    for service in ("SECRETS_MANAGER", "KMS"):
        monkeypatch.setenv(f"AWS_ENDPOINT_URL_{service}", moto_url)
    secret = plant.KEY.hex()
    region = {"region_name": "us-east-1"}
    boto3.client("secretsmanager", **region).create_secret(Name="canary", SecretString=secret)
    kms = boto3.client("kms", **region)
    key_id = kms.create_key()["KeyMetadata"]["KeyId"]
    kms.create_alias(AliasName="alias/canary", TargetKeyId=key_id)


def test_data_that_is_identified_by_intention_is_not_logged(machine: Machine) -> None:
    machine.work("identified")
    machine.shows_nothing(anything={"identified.stdout", "cwd/found.parquet"})


def test_every_job_under_dagster(with_queue: Machine) -> None:
    with_queue.work("orchestrate")
    with_queue.shows_nothing()
    assert (with_queue.folder / "orchestrate.stdout").read_text() == "runs 7 good 3 bad\n"


def test_a_run_that_is_killed_leaves_no_core_dump_and_nobody_reads_what_it_spilled(
    machine: Machine,
) -> None:
    assert machine.run("die") == -signal.SIGABRT
    assert "Fatal Python error: Aborted" in (machine.folder / "die.stderr").read_text()
    machine.shows_nothing()
    (spilled,) = (machine.folder / "tmp").iterdir()
    assert stat.S_IMODE(spilled.stat().st_mode) == 0o700


def test_a_bar_on_a_terminal_shows_counts_only(machine: Machine, endpoint: Endpoint) -> None:
    plant.fill(endpoint)
    terminal, end = pty.openpty()
    command = (Path(sys.executable).parent / "cohortlake", "sync")
    with subprocess.Popen(command, env=machine.environment(), stderr=end, stdout=end) as process:
        os.close(end)
        drawn = b"".join(iter(lambda: _read(terminal), b""))
    os.close(terminal)
    assert process.returncode == 0
    assert b"of the time range" in drawn
    assert planted_in(drawn) == set()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that nobody writes any more
        return b""


def test_whatever_is_planted_would_be_found_in_any_form() -> None:
    for name, texts in NEEDLES.items():
        for text in texts:
            for start in range(3):
                encoded = base64.b64encode(b"x" * start + text.encode() + b"yz")
                assert name in planted_in(encoded), (text, start)
            for form in (text.encode("utf-16"), text.encode().hex().encode(), quote(text).encode()):
                assert name in planted_in(b"before" + form + b"after")


@pytest.mark.parametrize("number", [0, 1], ids=["all", "the second spelling of dates and times"])
def test_whatever_is_planted_would_be_found_in_any_file(number: int, tmp_path: Path) -> None:
    planted = {name: texts[number] for name, texts in NEEDLES.items() if texts[number:]}
    texts = [*planted.values()]
    table = pa.table({"column": [None, *(f"a {text}" for text in texts)] * 2})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("member", "\n".join(texts) * 3)
    packed = "\n".join(texts).encode()
    (tmp_path / "a.gz").write_bytes(gzip.compress(packed))
    (tmp_path / "a.zst").write_bytes(pa.compress(packed, "zstd", asbytes=True))
    lines = [json.dumps({"a": "\u00e9" + text}) for text in texts]
    (tmp_path / "a.json").write_text("\n".join(lines))
    with closing(sqlite3.connect(tmp_path / "a.db")) as database:
        database.execute("CREATE TABLE t (text TEXT)")
        database.executemany("INSERT INTO t VALUES (?)", [(text,) for text in texts])
        database.commit()
    with duckdb.connect(str(tmp_path / "a.duckdb")) as lake:
        lake.execute("CREATE TABLE t AS SELECT unnest(?) AS text", (texts,))
    files = [path.name for path in tmp_path.iterdir() if path.suffix != ".wal"]
    assert len(files) == 7
    assert hits(tmp_path) == {(file, name) for file in files for name in planted}


def test_dates_and_times_are_found_as_values_too(tmp_path: Path) -> None:
    values = {"a": [date(*DATES["StudyDate"])], "b": [time.fromisoformat(TIME[1])]}
    pq.write_table(pa.table(values), tmp_path / "typed.parquet")
    assert {planted for _, planted in hits(tmp_path)} == {"StudyDate", "StudyTime"}


def test_what_the_libraries_log_is_a_constant_wherever_it_is_kept() -> None:
    """What is left of a record is its message: none may be put together from values."""
    found = {
        (path.name, ast.unparse(call.args[0]))
        for library in process.LIBRARIES
        for path in Path(importlib.import_module(library).__path__[0]).rglob("*.py")
        if "docs" not in path.parts
        for call in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and ast.unparse(call.func.value).lower() in ("log", "logger", "_logger")
        and call.func.attr in ("debug", "info", "warning", "warn", "error", "exception", "critical")
        and not isinstance(call.args[0], ast.Constant)
    }
    # Each was read: they tell of profiles, endpoints and the metadata service, and of no call.
    assert found == {
        ("tokens.py", "msg"),
        ("endpoint_provider.py", "depr_str"),
        ("credentials.py", "msg"),
        ("httpsession.py", "message"),
        ("compress.py", "log_msg"),
        ("utils.py", "statement"),
    }


def test_records_of_others_stay_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    process.protect_process()
    process.protect_process()
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("somebody").debug("their %s", "value")
        logging.getLogger("botocore.made.later").debug("body %s", "value")
    assert caplog.messages == ["their value", "body %s"]
