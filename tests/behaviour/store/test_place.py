"""Where a lake may lie, and what is said and tried where S3 fails."""

from __future__ import annotations

import socket
import string
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import dagster as dg
import pyarrow as pa
import pytest
from aws import allow
from command import command
from hypothesis import given
from hypothesis import strategies as st

from assets.failures import failures_told
from cohortlake.errors import NoCredentials, RootNotUsable, RootUnreachable
from cohortlake.storage import delta, s3
from cohortlake.storage.location import StorageLocation
from cohortlake.storage.root import Root

COHORTLAKE = Path(sys.executable).parent / "cohortlake"

NOWHERE = (
    *("gs://bucket/x", "s3a://bucket/x", "S3://bucket/x", "https://host/x", "FILE:///x"),
    *("s3://", "s3:///", "s3:///x", "s3://bucket//x", "s3:/bucket/x", "abfs://a@b.net/x"),
)


@pytest.mark.parametrize("uri", NOWHERE)
def test_a_url_that_is_no_place_for_a_lake_is_refused(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in ((uri,), (str(tmp_path / "lake"), uri)):
        with pytest.raises(RootNotUsable, match="a folder, file:///folder or s3://bucket/prefix"):
            Root(*arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("variable", ["COHORTLAKE_ROOT", "COHORTLAKE_PUBLISHED"])
def test_the_command_line_says_so_in_a_line(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = {"COHORTLAKE_DATASTORES": "a" * 32, variable: "gs://bucket/lake"}
    done = command("publish", **settings)
    assert done.exit_code == RootNotUsable.exit_code
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: no lake can lie at this gs:/ URL; give COHORTLAKE_ROOT")
    assert list(tmp_path.iterdir()) == []


SCHEMES = st.from_regex(r"[A-Za-z][A-Za-z0-9+.-]{0,8}", fullmatch=True)
NAMES = st.lists(st.text(string.ascii_letters + string.digits + "-_:@ ", min_size=1), min_size=1)


@given(SCHEMES.filter(lambda scheme: scheme not in ("s3", "file")), NAMES)
def test_no_scheme_but_two_is_taken(scheme: str, names: list[str]) -> None:
    with pytest.raises(RootNotUsable):
        StorageLocation(f"{scheme}://{'/'.join(names)}")


@given(NAMES)
def test_any_folder_is_taken_and_lies_where_it_says(names: list[str]) -> None:
    path = "/" + "/".join(names)
    assert StorageLocation(path).uri == StorageLocation(f"file://{path}").uri == path
    assert StorageLocation(f"./{path}").uri == f"{Path.cwd()}{path}"


class FakeS3:
    """Answers all requests with what stands in `answers`, the last of them for ever.

    Attributes:
        answers: Statuses and S3's codes; `cut` for a body shorter than its length says.
        requests: What was asked for.
    """

    def __init__(self) -> None:
        self.answers: list[tuple[int, str]] = []
        self.requests: list[str] = []


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    fake = FakeS3()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fake.requests.append(self.command)
            status, code = fake.answers[0]
            if len(fake.answers) > 1:
                fake.answers.pop(0)
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
            if status == 200:
                body = b"" if self.command == "PUT" else b"content"
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) + (9 if code == "cut" else 0)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer  # noqa: N815 - http.server's

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # boto3's own retries take their time
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def closed_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def _opened(place: Root) -> None:
    with place.open("keys/x"):
        pass


CALLS: dict[str, Callable[[Root], object]] = {
    "exists": lambda place: place.exists("keys/x"),
    "files": lambda place: place.files("keys", ""),
    "open": _opened,
    "read": lambda place: place.read("keys/x"),
    "create": lambda place: place.create("keys/x", b"content"),
    "write": lambda place: place.write("keys/x", b"content"),
    "delete": lambda place: place.delete("keys/x"),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)

_TELLS_NOTHING = r"^(?!.*(?:127\.0\.0\.1|keys|UNKNOWN))"


@every_call
def test_an_s3_out_of_reach_is_worth_another_try(
    closed_port: None, call: Callable[[Root], object]
) -> None:
    with pytest.raises(RootUnreachable, match=_TELLS_NOTHING + ".*s3://bkt/a: .*run it again"):
        call(Root("s3://bkt/a"))


@every_call
def test_an_s3_in_trouble_is_worth_another_try(
    fake: FakeS3, call: Callable[[Root], object]
) -> None:
    fake.answers = [(503, "SlowDown")]
    with pytest.raises(RootUnreachable, match=_TELLS_NOTHING + ".*S3 answered .*run it again"):
        call(Root("s3://bkt/a"))


@every_call
def test_a_missing_right_is_named(fake: FakeS3, call: Callable[[Root], object]) -> None:
    fake.answers = [(403, "AccessDenied")]
    rights = {"files": "List", "create": "Put", "write": "Put", "delete": "Delete"}
    right = {CALLS[name]: right for name, right in rights.items()}.get(call, "Get")
    with pytest.raises(RootNotUsable, match=rf"give this user s3:{right}\w+.*COHORTLAKE") as told:
        call(Root("s3://bkt/a"))
    assert not told.value.transient


@every_call
def test_a_request_that_s3_calls_invalid_is_not_tried_again(
    fake: FakeS3, call: Callable[[Root], object]
) -> None:
    fake.answers = [(400, "InvalidArgument")]
    with pytest.raises(RootNotUsable, match=r"S3 answered 400.*AWS_REGION") as told:
        call(Root("s3://bkt/a"))
    assert not told.value.transient


def test_a_body_that_breaks_off_is_worth_another_try(fake: FakeS3) -> None:
    fake.answers = [(200, "cut")]
    with pytest.raises(RootUnreachable, match="run it again"):
        Root("s3://bkt/a").read("keys/x")


def test_a_table_out_of_reach_is_worth_another_try(fake: FakeS3) -> None:
    fake.answers = [(403, "AccessDenied")]
    with pytest.raises(RootNotUsable, match="give this user s3:ListBucket"):
        delta.open_table(Root("s3://bkt/a"), "image_sets")
    fake.answers = [(409, "OperationAborted")]
    with pytest.raises(RootUnreachable, match=r"S3 answered \w+ to \w+; run it again"):
        delta.open_table(Root("s3://bkt/a"), "image_sets")


def test_missing_credentials_are_named(fake: FakeS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(NoCredentials, match="AWS_PROFILE"):
        Root("s3://bkt/a").read("keys/x")
    assert fake.requests == []


def test_dagster_retries_what_is_out_of_reach_and_nothing_else(fake: FakeS3) -> None:
    for status, is_retried in ((500, True), (403, False)):
        fake.answers = [(status, "Code")]
        says = f"S3 answered {status} Code"
        with pytest.raises(dg.Failure, match=says) as told, failures_told():
            Root("s3://bkt/a").read("keys/x")
        assert told.value.allow_retries is is_retried


CONFLICT = (409, "ConditionalRequestConflict")


@pytest.mark.parametrize("end", [(200, ""), (412, "PreconditionFailed")])
def test_of_two_that_create_at_once_the_refused_one_tries_again(
    fake: FakeS3, end: tuple[int, str]
) -> None:
    fake.answers = [CONFLICT, CONFLICT, end]
    Root("s3://bkt/a").create("keys/x", b"content")
    assert fake.requests == ["PUT"] * 3


def test_a_conflict_that_does_not_end_is_left_to_the_next_run(
    fake: FakeS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "_FIRST_WAIT_SECONDS", 0.001)
    fake.answers = [CONFLICT]
    with pytest.raises(RootUnreachable, match="409 ConditionalRequestConflict to PutObject; run"):
        Root("s3://bkt/a").create("keys/x", b"content")
    assert fake.requests == ["PUT"] * s3._ATTEMPTS


@pytest.fixture
def bucket(aws: str) -> str:
    name = uuid.uuid4().hex
    boto3.client("s3").create_bucket(Bucket=name)
    return name


def test_the_first_of_several_that_create_wins(bucket: str) -> None:
    contents = [bytes([n]) * 10 for n in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda content: Root(f"s3://{bucket}").create("x", content), contents))
    won = Root(f"s3://{bucket}").read("x")
    assert won in contents
    Root(f"s3://{bucket}").create("x", b"late")
    assert Root(f"s3://{bucket}").read("x") == won


def test_a_missing_file_is_an_error_on_disk_and_on_s3(bucket: str, tmp_path: Path) -> None:
    for place in (Root(f"s3://{bucket}/a"), Root(str(tmp_path))):
        assert not place.exists("keys/x")
        assert place.files("keys", "") == []
        place.delete("keys/x")
        for call in (place.read, lambda path, place=place: _opened(place)):
            with pytest.raises(RootNotUsable, match=r"No such file|404 NoSuchKey") as told:
                call("keys/x")
            assert not told.value.transient


@pytest.mark.parametrize("missing", ["GetObject", "PutObject", "DeleteObject"])
def test_each_right_that_is_missing_is_named(
    bucket: str, aws: str, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    Root(f"s3://{bucket}/a").write("keys/x", b"content")
    arn = f"arn:aws:s3:::{bucket}"
    actions = [f"s3:{n}Object" for n in ("Get", "Put", "Delete") if f"{n}Object" != missing]
    allow(
        monkeypatch,
        aws,
        {"Action": "s3:ListBucket", "Resource": arn},
        {"Action": actions, "Resource": f"{arn}/a/*"},
    )
    call = {"GetObject": "read", "PutObject": "create", "DeleteObject": "delete"}[missing]
    with pytest.raises(RootNotUsable, match=f"give this user s3:{missing}"):
        CALLS[call](Root(f"s3://{bucket}/a"))


def test_a_table_that_may_not_be_written_names_the_right(
    bucket: str, aws: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, columns = Root(f"s3://{bucket}/a"), pa.schema([("n", pa.int64())])
    delta.make_table(root, "image_sets", columns)
    arn = f"arn:aws:s3:::{bucket}"
    allow(
        monkeypatch,
        aws,
        {"Action": ["s3:ListBucket", "s3:GetObject"], "Resource": [arn, f"{arn}/*"]},
    )
    table = delta.make_table(root, "image_sets", columns)
    with pytest.raises(RootNotUsable, match="403 to PUT; give this user s3:PutObject"):
        delta.commit(root, "image_sets", table, pa.table({"n": [1]}))


def test_a_file_is_explained_as_long_as_it_is_open(fake: FakeS3) -> None:
    fake.answers = [(200, "its size"), (500, "InternalError")]
    with pytest.raises(RootUnreachable), Root("s3://bkt/a").open("keys/x") as file:
        file.read()
