"""Spark reads the published files, their Iceberg tables and the version history as DuckDB does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from deltalake import DeltaTable

from engines.conftest import CATALOGUE, ENGINES, NAMESPACE, Lakes
from engines.questions import MONTHS, OF_THREE_MONTHS, QUESTIONS, comparable

# PySpark's own: sockets to Java that it leaves open, and what py4j calls.
pytestmark = [pytest.mark.engines, pytest.mark.filterwarnings("default")]
pyspark_sql = pytest.importorskip("pyspark.sql", reason="PySpark is not installed")

JARS = {
    "iceberg": ("iceberg-spark-runtime-4.0_2.13-1.10.0.jar", "sqlite-jdbc-3.50.3.0.jar"),
    "delta": ("delta-spark_2.13-4.0.0.jar", "delta-storage-4.0.0.jar"),
}
# Iceberg's reader for Spark fails at a list column if the file has a time of day.
HAS_CT = {"files": "array_contains(modalities, 'CT')", "iceberg": "modalities_text LIKE '%CT%'"}
AT = {"files": "", "iceberg": f"{CATALOGUE}.{NAMESPACE}."}


def require(kind: str) -> None:
    for jar in JARS.get(kind, ()):
        if not (ENGINES / "spark" / jar).exists():
            pytest.skip(f"scripts/engines.sh could not fetch {jar}")


@pytest.fixture(scope="module")
def spark(lakes: Lakes) -> Iterator[Any]:
    jars = [ENGINES / "spark" / jar for names in JARS.values() for jar in names]
    catalogue = f"spark.sql.catalog.{CATALOGUE}"
    options = {
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.adaptive.enabled": "false",  # so that a plan keeps its metrics
        "spark.jars": ",".join(str(jar) for jar in jars if jar.exists()),
    }
    if all((ENGINES / "spark" / jar).exists() for jar in JARS["iceberg"]):
        options |= {
            catalogue: "org.apache.iceberg.spark.SparkCatalog",
            f"{catalogue}.type": "jdbc",
            f"{catalogue}.uri": f"jdbc:sqlite:{lakes.catalogue}",
            f"{catalogue}.jdbc.schema-version": "V1",
            f"{catalogue}.warehouse": str(lakes.local / "iceberg"),
        }
    if all((ENGINES / "spark" / jar).exists() for jar in JARS["delta"]):
        options |= {
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        }
    builder = pyspark_sql.SparkSession.builder.master("local[2]")
    for name, value in options.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    session.sql(f"SET LAKE = {lakes.local}")
    text = (lakes.local / "published/spark.sql").read_text()
    for statement in filter(str.strip, text.split(";\n")):
        session.sql(statement)
    yield session
    session.stop()


def files_read(frame: Any, metric: str) -> int:
    """Run a query, and return how many files its scan opened, by Spark's own count."""
    plan = frame._jdf.queryExecution().executedPlan()
    plan.executeCollect()
    while not plan.children().isEmpty():
        plan = plan.children().apply(0)
    return int(plan.metrics().apply(metric).value())


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("kind", AT)
def test_it_answers_as_duckdb_does(spark: Any, lakes: Lakes, kind: str, question: str) -> None:
    require(kind)
    sql = QUESTIONS[question].format(at=AT[kind], has_ct=HAS_CT[kind])
    assert comparable(spark.sql(sql).collect()) == lakes.answers[question]


@pytest.mark.parametrize(
    ("kind", "metric"), [("files", "numFiles"), ("iceberg", "resultDataFiles")]
)
def test_a_filter_on_the_month_opens_the_files_of_these_months(
    spark: Any, lakes: Lakes, kind: str, metric: str
) -> None:
    require(kind)
    there = len([*(lakes.local / "published/studies").iterdir()])
    some = spark.sql(OF_THREE_MONTHS.format(at=AT[kind], months=MONTHS))
    assert files_read(some, metric) == 3 < there
    every = spark.sql(f"SELECT sum(n_series) FROM {AT[kind]}studies")
    assert files_read(every, metric) == there


def test_an_old_snapshot_has_the_former_answers(spark: Any, lakes: Lakes) -> None:
    require("iceberg")
    assert lakes.first != lakes.answers
    table = f"{CATALOGUE}.{NAMESPACE}.history"
    ids = spark.sql(f"SELECT snapshot_id FROM {table}.snapshots ORDER BY committed_at").collect()
    question = "kinds of change"
    sql = QUESTIONS[question].format(at="")
    then = sql.replace("FROM history", f"FROM {table} VERSION AS OF {ids[0][0]}")
    assert comparable(spark.sql(then).collect()) == lakes.first[question]


OF_THE_HISTORY = (
    "SELECT row_kind, count(*), count(DISTINCT image_set_id) FROM history GROUP BY row_kind",
    """SELECT Modality, count(*), max(version) FROM history
       WHERE row_kind = 'version' GROUP BY Modality""",
    "SELECT count(*) FROM history WHERE updated_at >= TIMESTAMP '2026-03-01 00:00:00.500 UTC'",
)


@pytest.mark.parametrize("sql", OF_THE_HISTORY)
def test_the_version_history_is_a_delta_table(spark: Any, lakes: Lakes, sql: str) -> None:
    require("delta")
    import duckdb

    path = str(lakes.local / "image_sets")
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        con.register("history", DeltaTable(path).to_pyarrow_table())
        expected = comparable(con.execute(sql).fetchall())
    spark.read.format("delta").load(path).createOrReplaceTempView("delta_history")
    found = spark.sql(sql.replace("FROM history", "FROM delta_history")).collect()
    assert comparable(found) == expected


def test_a_filter_on_its_partition_opens_the_files_of_that_partition(
    spark: Any, lakes: Lakes
) -> None:
    require("delta")
    path = lakes.local / "image_sets"
    uris = DeltaTable(str(path)).file_uris()
    files = Counter(uri.partition("/row_kind=")[2].partition("/")[0] for uri in uris)
    assert len(files) > 1
    for kind, count in files.items():
        frame = spark.read.format("delta").load(str(path)).where(f"row_kind = '{kind}'")
        assert files_read(frame.groupBy("Modality").count(), "numFiles") == count
