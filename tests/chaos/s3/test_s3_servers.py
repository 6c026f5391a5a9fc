"""The S3 servers of the tests let one of several writers succeed, as S3 does."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from chaos.s3.lake import Bucket
from chaos.s3.servers import MARKS, SERVERS
from cohortlake.storage.root import Root

pytestmark = pytest.mark.chaos
WRITERS, ROUNDS = 4, 10


@pytest.fixture(params=[pytest.param(name, marks=MARKS[name]) for name in SERVERS])
def bucket(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    for name, value in bucket.environment("lake").items():
        monkeypatch.setenv(name, value)
    return bucket


def at_once(work: Callable[[int], bool]) -> int:
    """Let all writers work at once, and return how many of them succeeded."""
    barrier = Barrier(WRITERS)

    def begin(number: int) -> bool:
        barrier.wait()
        return work(number)

    with ThreadPoolExecutor(WRITERS) as pool:
        return sum(pool.map(begin, range(WRITERS)))


def test_one_of_several_writers_creates_an_object_and_one_replaces_it(bucket: Bucket) -> None:
    roots = [Root(bucket.root("lake")) for _ in range(WRITERS)]
    for number in range(ROUNDS):
        path = f"published/{number}"

        def create(writer: int, path: str = path) -> bool:
            return roots[writer].replace(path, b"%d" % writer, None)

        assert at_once(create) == 1
        before, tag = roots[0].read_with_tag(path)

        def replace(writer: int, path: str = path, tag: str = tag) -> bool:
            return roots[writer].replace(path, b"new %d" % writer, tag)

        assert at_once(replace) == 1
        assert roots[0].read(path).startswith(b"new "), before


def test_no_line_of_several_writers_is_lost(bucket: Bucket) -> None:
    roots = [Root(bucket.root("lake")) for _ in range(WRITERS)]
    assert roots[0].replace("published/lines", b"", None)

    def append(writer: int) -> bool:
        for number in range(ROUNDS):
            line, is_written = b"%d %d\n" % (writer, number), False
            while not is_written:
                lines, tag = roots[writer].read_with_tag("published/lines")
                is_written = roots[writer].replace("published/lines", lines + line, tag)
        return True

    at_once(append)
    lines = roots[0].read("published/lines").split(b"\n")
    assert len(set(lines)) == len(lines) == WRITERS * ROUNDS + 1
