"""Trino reads the Iceberg tables of a lake on S3 by AWS Glue, as Athena does."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from engines import trino
from engines.conftest import ENGINES, NAMESPACE, Lakes
from engines.questions import MONTHS, OF_THREE_MONTHS, QUESTIONS, comparable
from engines.trino import Trino

HOME = ENGINES / "trino-server-476"
pytestmark = [
    pytest.mark.engines,
    pytest.mark.skipif(not HOME.exists(), reason="scripts/engines.sh could not fetch Trino"),
]


@pytest.fixture(scope="module")
def server(lakes: Lakes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trino]:
    if trino.java() is None:
        pytest.skip(f"Trino needs Java {trino.LEAST_JAVA}")
    keys = {"aws-access-key": "none", "aws-secret-key": "none", "region": "us-east-1"}
    lake = {
        "connector.name": "iceberg",
        "iceberg.catalog.type": "glue",
        "hive.metastore.glue.endpoint-url": lakes.endpoint,
        **{f"hive.metastore.glue.{name}": value for name, value in keys.items()},
        "fs.native-s3.enabled": "true",
        "s3.endpoint": lakes.endpoint,
        "s3.path-style-access": "true",
        **{f"s3.{name}": value for name, value in keys.items()},
    }
    with trino.running(HOME, tmp_path_factory.mktemp("trino"), {"lake": lake}) as running:
        yield running


@pytest.mark.parametrize("question", QUESTIONS)
def test_it_answers_as_duckdb_does(server: Trino, lakes: Lakes, question: str) -> None:
    sql = QUESTIONS[question].format(at="", has_ct="contains(modalities, 'CT')")
    assert comparable(server.query(sql, "lake", NAMESPACE)) == lakes.answers[question]


def test_a_filter_on_the_month_opens_the_files_of_these_months(server: Trino, lakes: Lakes) -> None:
    def files(sql: str) -> int:
        ((plan,),) = server.query(f"EXPLAIN ANALYZE {sql}", "lake", NAMESPACE)
        (scan,) = re.findall(r"Input: .*?, Splits: (\d+)", plan)
        return int(scan)

    there = len([*(lakes.local / "published/studies").iterdir()])
    assert files(OF_THREE_MONTHS.format(at="", months=MONTHS)) == 3 < there
    assert files("SELECT sum(n_series) FROM studies") == there


def test_rows_without_a_date_have_no_month(server: Trino) -> None:
    sql = "SELECT count(*), count(StudyDate) FROM series WHERE study_month IS NULL"
    ((rows, dates),) = server.query(sql, "lake", NAMESPACE)
    assert (rows > 0, dates) == (True, 0)
    # `study_month <> 'undated'` alone has these rows too: see docs/how-to/iceberg.md.
    sql = "SELECT count(*) FROM series WHERE coalesce(study_month, 'undated') <> 'undated'"
    assert server.query(sql, "lake", NAMESPACE) == server.query(
        "SELECT count(study_month) FROM series", "lake", NAMESPACE
    )
