"""What lies beside the published tables says what they hold, wherever the folder lies."""

from __future__ import annotations

import csv
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from documents import read, write_headers
from looks import DATASTORE, Looked, write

from cohortlake import schema
from cohortlake.history import image_sets
from cohortlake.privacy import Policy, Treatment, built_in
from cohortlake.publish import publisher
from cohortlake.publish.export import athena, catalogue
from cohortlake.publish.export.dictionary import HEAD
from cohortlake.publish.publication.marker import Publication
from cohortlake.settings import POLICIES
from cohortlake.storage.root import Root

START = datetime(2026, 1, 1, tzinfo=UTC)
FILES = (
    catalogue.DATABASE_PATH,
    catalogue.VIEWS_PATH,
    catalogue.CSV_PATH,
    catalogue.MARKDOWN_PATH,
    catalogue.ATHENA_PATH,
    catalogue.SPARK_PATH,
)


def bring(root: Root, policy: str = "limited", hour: int = 0, dates: tuple[str, ...] = ()) -> None:
    """Have one image set of each date seen in two versions, and published with both headers."""
    at = START + timedelta(hours=hour)
    found = [
        {
            "imageSetId": f"{hour:016x}{number:016x}",
            "version": 1,
            "createdAt": at,
            "updatedAt": at,
            "isPrimary": True,
            "DICOMTags": {
                "DICOMPatientId": f"P{number}",
                "DICOMStudyInstanceUID": f"1.{hour}.{number}",
                "DICOMSeriesInstanceUID": f"2.{hour}.{number}",
                "DICOMSeriesModality": "CT",
                "DICOMStudyDate": day,
                "DICOMStudyTime": "101500",
            },
        }
        for number, day in enumerate(dates)
    ]
    for number, day in enumerate(dates):
        month = f"{day[:4]}-{day[4:6]}" if day.isdigit() else schema.UNDATED
        header = read({"SliceThickness": "1.5", "Manufacturer": "GE"}, {"SliceThickness": "3"})
        image_set_id = f"{hour:016x}{number:016x}"
        write_headers(
            root, DATASTORE, month, {(image_set_id, 1): header, (image_set_id, 2): header}
        )
    if found:
        later = [{**each, "version": 2, "updatedAt": at + timedelta(minutes=2)} for each in found]
        looks = [Looked(at + timedelta(minutes=1), found), Looked(at + timedelta(minutes=3), later)]
        image_sets.apply(root, write(root, looks))
    assert publisher.publish(root, built_in(policy))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Root]:
    """A lake for each policy, by its name; no test changes them."""
    lakes = {}
    for policy in POLICIES:
        root = Root(str(tmp_path_factory.mktemp(policy) / "it's a* lake?"))
        root.prepare()
        bring(root, policy, dates=("20240105", "20240207", "no date"))
        lakes[policy] = root
    return lakes


@pytest.fixture
def root(published: dict[str, Root], tmp_path: Path) -> Root:
    """A lake of the test's own, published under `limited`, and another one beside it."""
    root = Root(str(tmp_path / "it's a* lake?"))
    shutil.copytree(published["limited"].uri, root.uri)
    bring(root)  # the views of this folder
    shutil.copytree(root.uri, tmp_path / "it's another lake!")  # it is no pattern
    return root


def opened(root: Root) -> duckdb.DuckDBPyConnection:
    return duckdb.connect(root.path(catalogue.DATABASE_PATH), read_only=True)


def stamps(root: Root) -> dict[str, int]:
    return {path: Path(root.path(path)).stat().st_mtime_ns for path in FILES}


@pytest.mark.parametrize("policy", POLICIES)
def test_the_views_hold_what_the_files_hold(published: dict[str, Root], policy: str) -> None:
    root = published[policy]
    with opened(root) as con:
        assert con.sql("SELECT * FROM duckdb_tables()").fetchall() == []
        for table in schema.PUBLISHED:
            shown = built_in(policy).shown(schema.published(table))
            view = con.table(table)
            assert view.columns == [column.name for column in shown]
            told = con.execute(
                "SELECT column_name, comment FROM duckdb_columns() WHERE table_name = ?", [table]
            ).fetchall()
            assert dict(told) == {column.name: column.description for column in shown}
            files = pads.dataset(
                root.path("published", table),
                schema.arrow_schema(shown),
                partitioning="hive",
            ).to_table()
            for column in schema.forms(schema.STUDY_MONTH):
                if column.name in files.column_names:  # the name of a folder, and no value
                    place, folders = files.column_names.index(column.name), files[column.name]
                    values = pc.if_else(pc.equal(folders, schema.UNDATED), None, folders)
                    files = files.set_column(place, column.name, values)
            rows = view.order("ALL").to_arrow_table()
            expected = duckdb.from_arrow(files).order("ALL").to_arrow_table()
            assert rows.cast(expected.schema).equals(expected)
            assert len(rows) == (6 if table == "history" else 3)


def test_a_month_is_read_as_soon_as_it_is_there_and_a_draft_never(root: Root) -> None:
    with opened(root) as con:
        count = "SELECT count(*), count(DISTINCT study_month) FROM series"
        assert con.sql(count).fetchall() == [(3, 2)]
        before = stamps(root)
        bring(root, hour=1, dates=("20250311",))
        month = Path(root.path("published/series/study_month=2025-03"))
        shutil.copy(month / "series.parquet", month / ".series.parquet.0.tmp")
        assert con.sql(count).fetchall() == [(4, 3)]
    assert stamps(root) == before


def test_nothing_is_written_without_need_and_all_under_another_policy(root: Root) -> None:
    before = stamps(root)
    bring(root)
    assert stamps(root) == before
    for path in FILES:
        root.delete(path)
        bring(root)
        assert root.exists(path)
    before = stamps(root)
    bring(root, "identified")
    assert all(stamps(root)[path] > stamp for path, stamp in before.items())
    assert "PatientName" in root.read(catalogue.ATHENA_PATH).decode()
    assert root.files("published", ".tmp") == []


COUNT = "SELECT count(*) FROM series"


def copied(root: Root, tmp_path: Path) -> Root:
    """Copy the lake to another folder, and publish a fourth series in the original."""
    copy = Root(str(tmp_path / "the copy's * {1}"))
    shutil.copytree(root.uri, copy.uri)
    bring(root, hour=1, dates=("20250311",))
    return copy


def test_a_copy_reads_its_own_folder_and_never_the_original(root: Root, tmp_path: Path) -> None:
    copy = copied(root, tmp_path)
    link = tmp_path / "link"
    link.symlink_to(copy.path("published"))
    for folder in (Path(copy.path("published")), link):
        with duckdb.connect(str(folder / "cohortlake.duckdb"), read_only=True) as con:
            assert con.sql(COUNT).fetchall() == [(3,)]
            (files,) = con.sql("SELECT list(DISTINCT StudyDate) FROM studies").fetchall()[0]
            assert len(files) == 2 + 1  # two dates and none
    with opened(root) as con:
        assert con.sql(COUNT).fetchall() == [(4,)]


def test_a_relative_path_and_a_folder_that_cannot_be_written(
    root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied(root, tmp_path)
    folder = Path(copy.path("published"))
    monkeypatch.chdir(folder)
    folder.chmod(0o555)
    try:
        with duckdb.connect("cohortlake.duckdb", read_only=True) as con:
            assert con.sql(COUNT).fetchall() == [(3,)]
            monkeypatch.chdir(tmp_path)
            assert con.sql(COUNT).fetchall() == [(3,)]
    finally:
        folder.chmod(0o755)


def test_a_moved_folder_reads_itself(root: Root, tmp_path: Path) -> None:
    moved = Root(str(tmp_path / "elsewhere"))
    shutil.move(root.uri, moved.uri)
    with opened(moved) as con:
        assert con.sql(COUNT).fetchall() == [(3,)]


def attached(*paths: str) -> duckdb.DuckDBPyConnection:
    con = duckdb.connect()
    for number, path in enumerate(paths):
        con.execute(f"ATTACH '{path.replace(chr(39), chr(39) * 2)}' AS lake{number} (READ_ONLY)")
    return con


def test_where_it_does_not_know_its_folder_it_refuses(root: Root, tmp_path: Path) -> None:
    copy = copied(root, tmp_path)
    original, other = (one.path(catalogue.DATABASE_PATH) for one in (root, copy))
    renamed = copy.path("published", "renamed.duckdb")
    shutil.copy(other, renamed)
    with attached(original) as con:  # where it was written
        assert con.sql("SELECT count(*) FROM lake0.series").fetchall() == [(4,)]
    for paths in ([other], [renamed], [original, other], [other, original], [original, renamed]):
        with attached(*paths) as con:
            for number in range(len(paths)):
                with pytest.raises(duckdb.InvalidInputException, match="copied, moved or renamed"):
                    con.sql(f"SELECT count(*) FROM lake{number}.series").fetchall()
    with (
        duckdb.connect(renamed, read_only=True) as con,
        pytest.raises(duckdb.InvalidInputException, match="SET file_search_path"),
    ):
        con.sql(COUNT).fetchall()
    with opened(copy) as con:
        path = original.replace("'", "''")
        con.execute(f"ATTACH '{path}' AS original (READ_ONLY)")
        with pytest.raises(duckdb.InvalidInputException, match="a second one is attached"):
            con.sql("SELECT count(*) FROM original.series").fetchall()


def test_a_session_names_the_folder_or_publishing_writes_the_views_anew(
    root: Root, tmp_path: Path
) -> None:
    copy = copied(root, tmp_path)
    folder = copy.path("published").replace("'", "''")
    with attached(copy.path(catalogue.DATABASE_PATH)) as con:
        con.execute(f"SET file_search_path = '{folder}'")
        assert con.sql("SELECT count(*) FROM lake0.series").fetchall() == [(3,)]
    with duckdb.connect() as con:  # of one's own, for the original
        con.execute(copy.read(catalogue.VIEWS_PATH).decode())
        assert con.sql(COUNT).fetchall() == [(4,)]
        con.execute(f"SET file_search_path = '{folder}'")
        assert con.sql(COUNT).fetchall() == [(3,)]
    bring(copy)
    with attached(copy.path(catalogue.DATABASE_PATH)) as con:
        assert con.sql("SELECT count(*) FROM lake0.series").fetchall() == [(3,)]
        assert con.sql("SELECT count(*) FROM lake0.patients").fetchall() == [(3,)]


def test_a_table_without_rows_is_a_view_without_rows(tmp_path: Path) -> None:
    root = Root(str(tmp_path / "lake"))
    root.prepare()
    bring(root, dates=("20240105",))
    gone = Looked(START + timedelta(hours=2), gone=[f"{0:032x}"])
    image_sets.apply(root, write(root, [gone]))
    bring(root)
    with opened(root) as con:
        assert len(con.sql("FROM history").fetchall()) == 2
        for table in ("image_sets", "series", "studies"):
            shown = built_in("limited").shown(schema.published(table))
            empty = duckdb.from_arrow(schema.arrow_schema(shown).empty_table())
            view = con.table(table)
            assert (view.columns, view.types) == (empty.columns, empty.types)
            assert view.fetchall() == []


@pytest.mark.parametrize("policy", [built_in(name) for name in POLICIES], ids=POLICIES)
def test_the_dictionary_tells_every_column_and_what_the_policy_does(
    published: dict[str, Root], policy: Policy
) -> None:
    root = published[policy.name]
    with Path(root.path(catalogue.CSV_PATH)).open(newline="") as file:
        rows = list(csv.DictReader(file))
    known = [(t, c) for t, columns in schema.PUBLISHED.items() for c in columns]
    assert [(row["table"], row["column"]) for row in rows] == [(t, c.name) for t, c in known]
    page = root.read(catalogue.MARKDOWN_PATH).decode()
    assert f"policy `{policy.name}`" in page
    for row, (_, column) in zip(rows, known, strict=True):
        shown, treatment = policy.shown_as(column), policy.treatment(column)
        assert row["treatment"].startswith("not shown") == (shown is None)
        assert (row["treatment"] == "shown") == (shown == column and treatment is Treatment.KEEP)
        if shown and shown != column:
            assert row["treatment"] == f"as {shown.name}"
        assert row["policy"] == policy.name
        assert row["meaning"] == column.description
        assert f"| `{column.name}` | `{column.type}` |" in page
        assert all(row[name] is not None for name in HEAD)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_views_for_spark_name_all_columns_but_times(
    published: dict[str, Root], policy: str
) -> None:
    text = published[policy].read(catalogue.SPARK_PATH).decode()
    views = re.findall(r"VIEW `(\w+)` \(\n(.*?)\n\)\nUSING parquet", text, re.DOTALL)
    assert [name for name, _ in views] == [*schema.PUBLISHED]
    for name, lines in views:
        shown = built_in(policy).shown(schema.published(name))
        typed = {column.name: column.type for column in shown}
        named = dict(re.findall(r"^  `(\w+)` ([a-z<>]+) COMMENT '[^']*',?$", lines, re.MULTILINE))
        read_as = READ_AS | {pa.list_(pa.string()): "array<string>"}
        assert named == {column: read_as[t] for column, t in typed.items() if t in read_as}
        assert {column for column in typed if column not in named} <= {"StudyTime"}
        assert f"path '${{LAKE}}/published/{name}'" in text


CREATE = re.compile(
    r"CREATE EXTERNAL TABLE `(?P<table>\w+)` \(\n(?P<columns>.*?)\n\)\n"
    r"(PARTITIONED BY \(`(?P<partition>\w+)` string\)\n)?"
    r"STORED AS PARQUET\n"
    r"LOCATION '(?P<location>[^']+)'"
    r"(\nTBLPROPERTIES \(\n  'projection\.enabled' = 'true',\n"
    r"  'projection\.(?P=partition)\.type' = 'enum',\n"
    r"  'projection\.(?P=partition)\.values' = '(?P<values>[^']+)'\n\))?",
    re.DOTALL,
)
COLUMN = re.compile(r"  `(?P<name>\w+)` (?P<type>[a-z<>]+) COMMENT '[^']{1,255}'")
READ_AS = {
    pa.float64(): "double",
    pa.string(): "string",
    pa.bool_(): "boolean",
    pa.int16(): "smallint",
    pa.int32(): "int",
    pa.int64(): "bigint",
    pa.date32(): "date",
    schema.INSTANT: "timestamp",
    pa.list_(pa.field("element", pa.string())): "array<string>",
}


def ddl(root: Root) -> Iterator[re.Match[str]]:
    """Yield each table that the DDL makes, after a look that nothing else is in it."""
    text = root.read(catalogue.ATHENA_PATH).decode()
    code = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("--"))
    *statements, rest = code.split(";\n")
    assert rest == ""
    for drop, create in zip(statements[::2], statements[1::2], strict=True):
        made = CREATE.fullmatch(create.strip())
        assert made, create
        assert drop.strip() == f"DROP TABLE IF EXISTS `{made['table']}`"
        yield made


@pytest.mark.parametrize("policy", POLICIES)
def test_the_ddl_has_the_types_that_the_files_have(published: dict[str, Root], policy: str) -> None:
    root = published[policy]
    made = {table["table"]: table for table in ddl(root)}
    assert set(made) == set(schema.PUBLISHED)
    for name, table in made.items():
        columns = [COLUMN.fullmatch(line) for line in table["columns"].split(",\n")]
        told = {column["name"]: column["type"] for column in columns if column}
        assert len(told) == len(columns)
        path = next(path for path in root.files(f"published/{name}", ".parquet"))
        held = pq.read_schema(root.path(path))
        expected = {f.name: READ_AS[f.type] for f in held if f.type != pa.time64("us")}
        assert told == expected
        assert table["location"] == f"${{LAKE}}/published/{name}/"
        assert (table["partition"] is None) == (name == "patients") == (table["values"] is None)


def test_the_ddl_names_every_partition_there_is_and_those_to_come(root: Root) -> None:
    bring(root, hour=1, dates=("19610704", f"{datetime.now(UTC):%Y}1231"))
    by_name = {table["table"]: table for table in ddl(root)}
    for name in ("image_sets", "series", "studies", "history", "series_headers", "earlier_headers"):
        values = by_name[name]["values"].split(",")
        folders = {path.name for path in Path(root.path("published", name)).iterdir()}
        assert folders <= {f"study_month={value}" for value in values}
        assert {"undated", "1961-07", f"{datetime.now(UTC):%Y-%m}"} <= set(values)
        assert len(values) == len(set(values))


def test_the_ddl_of_a_lake_on_s3_needs_no_change() -> None:
    policy = built_in("safe")
    marker = Publication(
        0, policy.name, policy.digest, policy.widened, policy.tables, schema.FORMAT_VERSION,
        "2026-01-01T00:00:00+00:00", {},
    )  # fmt: skip
    text = athena.statements("s3://bucket/lake", catalogue.tables(marker), 2027)
    assert "LOCATION 's3://bucket/lake/published/series/'" in text
    assert athena.PLACE not in text
