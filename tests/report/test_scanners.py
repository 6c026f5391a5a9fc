"""What the report says of headers: how many series have one, and the scanners over the years."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from documents import read, write_headers
from looks import DATASTORE, Looked, write
from playwright.sync_api import Browser

import cohortlake
from cohortlake import report
from cohortlake.history import image_sets
from cohortlake.privacy import built_in
from cohortlake.publish import publisher
from cohortlake.report.scanners import WITH_HEADER, WITHOUT_HEADER, scanners
from cohortlake.storage.root import Root

START = datetime(2026, 1, 1, tzinfo=UTC)
MAKERS = ("SIEMENS", "GE MEDICAL SYSTEMS", "TOSHIBA", "Dr. Doe's own")


def maker(number: int) -> str:
    if number % 3:
        return MAKERS[0]
    return MAKERS[1] if number % 2 else MAKERS[2 + number // 6 % 2]


def year(number: int) -> int:
    return 2021 + number // 7 % 4


def tags(number: int) -> dict[str, Any]:
    return {
        "DICOMPatientId": f"P{number}",
        "DICOMStudyInstanceUID": f"1.{number}",
        "DICOMSeriesInstanceUID": f"1.{number}.1",
        "DICOMStudyDate": f"{year(number)}0115",
        "DICOMSeriesModality": "CT",
    }


def lake_with_headers(folder: str, policy: str, patients: int = 480, headers: int = 440) -> None:
    root = Root(folder)
    root.prepare()
    found = [
        {
            "imageSetId": f"{number:032x}",
            "version": 1,
            "createdAt": START,
            "updatedAt": START,
            "isPrimary": True,
            "DICOMTags": tags(number),
        }
        for number in range(patients)
    ]
    image_sets.apply(root, write(root, [Looked(START + timedelta(minutes=1), found)]))
    for one in range(2021, 2025):
        own = {
            (f"{number:032x}", 1): read(
                {"Manufacturer": maker(number), "ManufacturerModelName": "SENSATION 64"}
            )
            for number in range(headers)
            if year(number) == one
        }
        write_headers(root, DATASTORE, f"{one}-01", own)
    publisher.publish(root, built_in(policy))


@pytest.fixture(scope="module", params=["limited", "safe"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = str(tmp_path_factory.mktemp("scanners") / "lake")
    lake_with_headers(folder, request.param)
    return folder


def test_counts_are_those_of_the_tables(folder: str) -> None:
    with cohortlake.open(folder) as lake:
        found = scanners(lake.opened, 0)
    assert found
    assert {value.label: value.n for value in found.with_header.shown} == {
        WITH_HEADER: 440,
        WITHOUT_HEADER: 40,
    }
    assert found.models
    assert [(value.label, value.n) for value in found.models.shown] == [("SENSATION 64", 440)]
    assert found.makers
    by_maker = Counter[str]()
    for (_, row), n in found.makers.cells.items():
        by_maker[row] += n or 0
    own = Counter(map(maker, range(440)))
    withheld = own.pop(MAKERS[3])
    named = by_maker.pop("withheld", None) or by_maker.pop(MAKERS[3])
    assert (named, by_maker) == (withheld, own)


def test_small_cells_are_hidden(folder: str) -> None:
    with cohortlake.open(folder) as lake:
        found = scanners(lake.opened, 11)
    assert found
    assert found.makers
    assert found.makers.n_hidden
    assert all(n is None or n >= 11 for n in found.makers.cells.values())
    assert all(value.n >= 11 for value in found.with_header.shown)


def test_few_series_without_a_header_are_not_counted(tmp_path: Path) -> None:
    lake_with_headers(str(tmp_path), "limited", patients=445)
    with cohortlake.open(str(tmp_path)) as lake:
        found = scanners(lake.opened, 11)
    assert found
    assert found.with_header.shown == (), "the one could be computed from the other"


def test_a_lake_without_headers_says_nothing_of_scanners(tmp_path: Path) -> None:
    lake_with_headers(str(tmp_path), "limited", headers=0)
    with cohortlake.open(str(tmp_path)) as lake:
        assert scanners(lake.opened, 11) is None
        report.write(lake, tmp_path / "report.html")
    assert "Scanners" not in (tmp_path / "report.html").read_text("utf-8")


def test_the_page_draws_them(folder: str, tmp_path: Path, browser: Browser) -> None:
    path = tmp_path / "report.html"
    with cohortlake.open(folder) as lake:
        report.write(lake, path)
    page = browser.new_page(viewport={"width": 1000, "height": 800})
    page.goto(path.as_uri())
    assert page.locator("h2").all_inner_texts().count("Scanners") == 1
    assert page.locator("#scanners svg").count() == 3
    drawn = page.eval_on_selector_all(
        "#scanners svg",
        """charts => charts.map(svg => [...svg.querySelectorAll('path')].filter(path => {
            const box = path.getBoundingClientRect();
            return path.style.fill.startsWith('var(--series') && box.width && box.height;
        }).length)""",
    )
    assert all(drawn)
    assert "Dr. Doe" not in page.inner_text("#scanners") or "limited" in page.content()
    page.close()
