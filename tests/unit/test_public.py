"""The public surface: names, settings, errors, schema, docs."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

import cohortlake
from cohortlake import Settings, errors, schema
from cohortlake.errors import SettingError
from cohortlake.schema import header_columns
from cohortlake.settings import SETTINGS

REPOSITORY = Path(__file__).parents[2]


def test_all_is_what_there_is() -> None:
    assert sorted(cohortlake.__all__) == cohortlake.__all__
    for name in cohortlake.__all__:
        assert inspect.getdoc(getattr(cohortlake, name)), f"{name} has no docstring"


def test_every_name_is_imported_from_where_it_is() -> None:
    assert sorted(cohortlake._MODULES) == cohortlake.__all__
    assert set(cohortlake.__all__) <= set(dir(cohortlake))
    for name, module in cohortlake._MODULES.items():
        importlib.import_module(module)  # which leaves nothing of its own under that name
        assert getattr(cohortlake, name) is getattr(sys.modules[module], name)
    with pytest.raises(AttributeError, match="'nothing'"):
        _ = cohortlake.nothing  # type: ignore[attr-defined]


def test_the_error_tree_is_drawn_in_full() -> None:
    classes = {
        name: value
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    base = classes.pop("CohortlakeError")
    tree = str(errors.__doc__).split("CohortlakeError", 1)[1].split("\n\n")[0]
    drawn = re.findall(r"[├└]── (\w+)( \(transient\))?", tree)
    assert {name for name, _ in drawn} == set(classes)
    assert {name for name, is_transient in drawn if is_transient} == {
        name for name, error in classes.items() if error.transient
    }
    for name, error in classes.items():
        what, fix = re.fullmatch(
            r"(\w[^\n]*)\.\n\nFix: (\w[^\n]*)\..*", inspect.getdoc(error) or "", re.DOTALL
        ).groups()  # type: ignore[union-attr]
        assert what, name
        assert base.remedy.fget(error.__new__(error)) == fix


def test_dicom_columns_are_the_standards() -> None:
    for column in schema.DICOM_TAGS:
        tag = tag_for_keyword(column.name)
        assert tag is not None, column.name
        assert column.tag == f"({tag >> 16:04X},{tag & 0xFFFF:04X})"
        assert column.vr == dictionary_VR(tag)
        assert keyword_for_tag(tag) == column.name


def test_columns_of_headers_are_the_standards() -> None:
    for each in header_columns.FROM_ATTRIBUTES:
        name = "Laterality" if each.column.name == "Laterality" else each.path[0]
        keyword = {"StoredTransferSyntaxUID": "TransferSyntaxUID"}.get(name, name)
        own = tag_for_keyword(each.path[-1] if len(each.path) > 1 else keyword)
        expected = tag_for_keyword(keyword) if each.column.name.startswith("anatomic") else own
        assert expected is not None, each.column.name
        assert each.column.tag == f"({expected >> 16:04X},{expected & 0xFFFF:04X})"
        assert own is not None
        assert each.column.vr == dictionary_VR(own).split(" ")[0], each.column.name


def test_every_column_is_described_and_named_by_the_rule() -> None:
    tables = (
        *(*schema.PUBLISHED.values(), schema.FOUND, schema.IMAGE_SETS, schema.COVERAGE),
        *(schema.CHANGES, schema.SNAPSHOTS),
    )
    for column in {column for table in tables for column in table}:
        assert column.description.endswith("."), column.name
        stem = re.sub(r"(_row_mm|_col_mm)?(_raw|_min|_max|_n_distinct)?$", "", column.name)
        assert tag_for_keyword(stem) or re.fullmatch(r"[a-z][a-z0-9_]*", column.name)
    for name, table in schema.PUBLISHED.items():
        names = [column.name for column in table]
        assert len(names) == len(set(names)), name


def test_the_map_of_members_is_botocores() -> None:
    from botocore.loaders import Loader

    model = Loader().load_service_model("medical-imaging", "service-2")["shapes"]
    assert {c.wire for c in schema.DICOM_TAGS} == set(model["DICOMTags"]["members"])
    summary = set(model["ImageSetsMetadataSummary"]["members"]) - {"DICOMTags"}
    assert {c.wire for c in schema.SUMMARY_FIELDS} == summary


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("COHORTLAKE_TPS", "0", "above 0"),
        ("COHORTLAKE_TPS", "fast", "above 0"),
        ("COHORTLAKE_TPS", "nan", "above 0"),
        ("COHORTLAKE_WORKERS", "0", "from 1 to 512"),
        ("COHORTLAKE_WORKERS", "2.5", "from 1 to 512"),
        ("COHORTLAKE_LOOKBACK_SECONDS", "-1", "0 or more"),
        ("COHORTLAKE_SETTLE_SECONDS", "soon", "0 or more"),
        ("COHORTLAKE_EVENTS_QUEUE", "hints", "get-queue-url"),
        ("COHORTLAKE_SAFE_DATES", "shifted", "did you mean 'shift'"),
        ("COHORTLAKE_DATASTORES", "abc", "32 characters"),
        ("COHORTLAKE_DATASTORES", "../" + "a" * 29, "32 characters"),
        ("COHORTLAKE_DATASTORE", "a" * 32, "did you mean 'COHORTLAKE_DATASTORES'"),
    ],
)
def test_a_bad_setting_says_the_fix(variable: str, value: str, says: str) -> None:
    with pytest.raises(SettingError, match=says):
        Settings.from_env({variable: value})


def test_a_key_in_a_variable_that_looks_like_a_setting_says_the_fix() -> None:
    there = {"COHORTLAKE_PATIENT_KEY": "env:COHORTLAKE_KEY", "COHORTLAKE_KEY": "secret"}
    with pytest.raises(SettingError, match="must not begin with COHORTLAKE_") as told:
        Settings.from_env(there)
    assert "secret" not in str(told.value)
    elsewhere = {"COHORTLAKE_PATIENT_KEY": "env:LAKE_KEY", "LAKE_KEY": "secret"}
    assert Settings.from_env(elsewhere).patient_key == "env:LAKE_KEY"


def test_the_defaults_of_the_class_are_those_of_the_environment() -> None:
    assert Settings() == Settings.from_env({})


def test_every_setting_has_a_default_but_those_that_have_none() -> None:
    settings = Settings.from_env({})
    assert (settings.tps, settings.burst, settings.workers, settings.privacy) == (25, 25, 5, "")
    assert [s.variable for s in SETTINGS if not s.default] == [
        "COHORTLAKE_DATASTORES",
        "COHORTLAKE_PUBLISHED",
        "COHORTLAKE_BURST",
        "COHORTLAKE_WORKERS",
        "COHORTLAKE_PRIVACY_FILE",
        "COHORTLAKE_HEADERS",
        "COHORTLAKE_EVENTS_QUEUE",
        "COHORTLAKE_NOTIFY",
        "COHORTLAKE_ICEBERG",
        "COHORTLAKE_COHORT_KEY_FILE",
    ]
    with pytest.raises(SettingError, match="COHORTLAKE_DATASTORES is not set"):
        settings.require_datastores()


def test_the_reference_pages_are_up_to_date() -> None:
    command = [sys.executable, "scripts/reference.py", "--check"]
    width = os.environ | {"COLUMNS": "80"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=width, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_links_in_the_docs_lead_somewhere() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


PACKAGE = REPOSITORY / "cohortlake"
TOP = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
CITED = re.compile(r"`(?:cohortlake\.)?([a-z_]+(?:\.\w+)+)`")


def exists(cited: str) -> bool:
    """Return whether a dotted name below `cohortlake` leads to a module or a name in one."""
    parts = cited.split(".")
    end = next(n for n in range(len(parts), -1, -1) if PACKAGE.joinpath(*parts[:n]).is_dir()
               or PACKAGE.joinpath(*parts[:n]).with_suffix(".py").is_file())  # fmt: skip
    found: object = importlib.import_module(".".join(["cohortlake", *parts[:end]]))
    for name in parts[end:]:
        found = getattr(found, name, None)
    return found is not None


def test_each_module_and_symbol_that_the_docs_cite_exists() -> None:
    pages = [*(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "docs/adr").glob("*.md"),
             *(REPOSITORY / "docs/how-to").glob("*.md")]  # fmt: skip
    cited = {
        (page.name, name)
        for page in pages
        for name in CITED.findall(page.read_text())
        if name.partition(".")[0] in TOP and not name.endswith(".py")
    }
    assert len(cited) > 10 and not exists("history.nothing")
    assert [one for one in sorted(cited) if not exists(one[1])] == []


def test_each_file_of_the_repository_that_the_docs_name_exists() -> None:
    folders = "assets|benchmarks|cohortlake|emulator|pipelines|scripts|tests"
    path = re.compile(rf"`((?:{folders})/[\w./]+)`")
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    named = {(page.name, name) for page in pages for name in path.findall(page.read_text())}
    assert len(named) > 10
    assert [one for one in sorted(named) if not (REPOSITORY / one[1]).exists()] == []


HOW_TO = sorted((REPOSITORY / "docs/how-to").glob("*.md"))
DECISIONS = sorted((REPOSITORY / "docs/adr").glob("*.md"))
# Words that earlier texts used for coverage, an end event and "again", and other old phrases.
RETIRED = re.compile(r"\b(ledger|closures?|anew|whence|let go of|comes? to light)\b", re.IGNORECASE)


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in HOW_TO])
def test_each_how_to_page_ends_with_the_files_that_it_touches(page: Path) -> None:
    assert page.read_text().rstrip().rpartition("\n\n")[2].startswith("*Files this touches: ")


@pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in DECISIONS])
def test_each_decision_has_its_number_context_decision_and_consequences(page: Path) -> None:
    text = page.read_text()
    assert text.startswith(f"# {int(page.stem[:4])}. ")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"]


def test_no_page_uses_a_retired_word() -> None:
    pages = [*HOW_TO, *DECISIONS, REPOSITORY / "docs/security.md"]
    prose = {page.name: re.sub(r"```.*?```", "", page.read_text(), flags=re.S) for page in pages}
    assert {name: found for name, text in prose.items() if (found := RETIRED.findall(text))} == {}
    assert RETIRED.search("the Ledger says so")


def test_each_message_that_the_page_on_aws_quotes_is_in_the_code() -> None:
    source = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    source = re.sub(r'"\s*\n\s*f?"', "", source)  # a message stands on several lines
    page = (REPOSITORY / "docs/how-to/aws.md").read_text().partition("For exit code 5")[2]
    quoted = [
        piece.strip()
        for message in re.findall(r"(?<!\*)\*([^*\n]+)\*(?!\*)", page)
        for piece in re.split(r"…|\.\.\.|\bPATH\b|\bN\.|\bN\b", message)
    ]
    assert len(quoted) > 8
    assert [piece for piece in quoted if piece not in source] == []


MOST_MODULES = 15
PACKAGES = ("assets", "cohortlake", "emulator", "pipelines")


def test_no_folder_has_more_modules_than_a_reader_sees_at_once() -> None:
    modules = [path for name in (*PACKAGES, "tests") for path in (REPOSITORY / name).rglob("*.py")]
    counts = Counter(str(path.parent.relative_to(REPOSITORY)) for path in modules)
    assert len(counts) > 20
    assert {folder: n for folder, n in counts.items() if n > MOST_MODULES} == {}


def test_each_package_says_what_belongs_there() -> None:
    packages = [path for name in PACKAGES for path in (REPOSITORY / name).rglob("__init__.py")]
    assert [path for path in packages if not ast.get_docstring(ast.parse(path.read_text()))] == []
