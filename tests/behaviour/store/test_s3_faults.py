"""S3 fails, or its answer is lost: what was written is not taken for another writer's."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import boto3
import pyarrow as pa
import pytest
from chaos.s3.proxy import FaultProxy

from cohortlake.errors import RootUnreachable
from cohortlake.history import maintenance
from cohortlake.publish.publication import snapshots
from cohortlake.publish.publication.snapshots import Snapshot
from cohortlake.schema import PUBLISHED
from cohortlake.storage import delta
from cohortlake.storage.root import Root

LOST = ("answer lost", "500 after the request succeeded")
ROWS = pa.table({"a": [1, 2]})


@pytest.fixture
def proxy(aws: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(aws).serving() as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", served.url)
        yield served


@pytest.fixture
def root(proxy: FaultProxy) -> Root:
    bucket = uuid.uuid4().hex
    boto3.client("s3").create_bucket(Bucket=bucket)
    return Root(f"s3://{bucket}/a")


@pytest.mark.parametrize("fault", LOST)
def test_a_replaced_file_is_ones_own_though_the_answer_was_lost(
    proxy: FaultProxy, root: Root, fault: str
) -> None:
    for before, after in ((None, b"1"), (b"1", b"2")):
        tag = root.read_with_tag("published/a")[1] if before else None
        proxy.disturb_once(fault, "PUT")
        assert root.replace("published/a", after, tag)
        assert root.read("published/a") == after
    proxy.disturb_once(fault, "PUT")
    root.create("keys/a", b"mine")
    assert root.read("keys/a") == b"mine"
    assert proxy.faults[fault] == 3


def test_a_publication_is_recorded_once_though_another_one_follows_before_the_answer(
    proxy: FaultProxy, root: Root, aws: str
) -> None:
    def record(at: Root, version: int) -> None:
        rows = dict.fromkeys(PUBLISHED, 0)
        snapshots.record(at, Snapshot("2026-01-01T00:00:00+00:00", version, "safe", None, rows))

    def overtake() -> None:
        before, tag = root.read_with_tag("published/_snapshots.jsonl")
        other = before.replace(b'"image_sets_version": 1', b'"image_sets_version": 2')
        assert root.replace("published/_snapshots.jsonl", before + other, tag)

    proxy.disturb_once("answer lost", "PUT", overtake)
    record(root, 1)
    assert snapshots.table(root)["image_sets_version"].to_pylist() == [1, 2]


@pytest.mark.parametrize("fault", LOST)
def test_a_large_file_is_whole_though_the_answer_to_its_end_was_lost(
    proxy: FaultProxy, root: Root, fault: str
) -> None:
    content = os.urandom(9 << 20)
    proxy.disturb_once(fault, "POST .*uploadId")
    root.write("published/large", content)
    assert proxy.faults[fault] == 1
    assert root.read("published/large") == content


@pytest.mark.parametrize("fault", ["cut body", "slow body", *LOST])
def test_a_small_file_is_read_again_if_its_answer_breaks_off(
    proxy: FaultProxy, root: Root, fault: str
) -> None:
    root.write("published/a", b"whole" * 1000)
    proxy.disturb_once(fault, "GET")
    assert root.read("published/a") == b"whole" * 1000
    assert proxy.faults[fault] == 1


@pytest.mark.parametrize("fault", LOST)
def test_a_commit_whose_answer_was_lost_has_its_rows_once(
    proxy: FaultProxy, root: Root, fault: str
) -> None:
    def attempt() -> None:
        table = delta.open_table(root, "table")
        assert table
        if not table.file_uris():  # as the version history looks which rows it lacks
            delta.commit(root, "table", table, ROWS)

    delta.make_table(root, "table", ROWS.schema)
    proxy.disturb_once(fault, r"PUT .*/_delta_log/0*1\.json")
    delta.retrying("table", attempt)
    assert proxy.faults[fault] == 1
    assert delta.reopened(root, "table").to_pyarrow_table() == ROWS


def test_a_table_whose_answer_breaks_off_is_worth_another_try(
    proxy: FaultProxy, root: Root
) -> None:
    delta.commit(root, "table", delta.make_table(root, "table", ROWS.schema), ROWS)
    works: list[Callable[[], object]] = [
        lambda: delta.open_table(Root(root.uri), "table"),
        lambda: maintenance.compact(root, "table"),
        lambda: maintenance.shorten_log(root, "table", []),
    ]
    for work in works:
        proxy.disturb(1, seed=1, kinds=["cut body"])
        with pytest.raises(RootUnreachable):
            work()
        proxy.disturb(0, seed=1)
        work()
