"""The flow diagram as a picture: words, boxes, sizes, and the same bytes each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from cohort import pictures

from cohortlake.cohort.describe.attrition import Attrition
from cohortlake.cohort.describe.attrition_step import AttritionStep, Counts
from cohortlake.errors import ExportError

LONG = "Women of 50 to 69 years with a mammogram in the last two years of data, and no implant"
STEPS = (
    AttritionStep("All series in the lake", Counts(12_345_678, 23_456_789, 345_678_901)),
    AttritionStep(LONG, Counts(3_345, 5_456, 56_789)),
    AttritionStep("patient or study unknown", Counts(3_345, 5_456, 56_789), "checked"),
    AttritionStep("prior mastectomy", Counts(3_300, 5_400, 56_000), "excluded"),
    AttritionStep("no report", Counts(3_300, 5_400, 56_000), "excluded"),
    AttritionStep("W" * 150, Counts(3_300, 3_300, 36_000)),
    AttritionStep("Chest", Counts(3_300, 3_300, 36_000)),
    AttritionStep("First study", Counts(1, 1, 1)),
)
PARTS = {"train": 1, "validation": 0, "test_of_another_hospital": 12_345_678}


@pytest.fixture(scope="module")
def drawn() -> Any:
    return Attrition("chests", STEPS, PARTS).figure()


def texts_in(path: Path) -> list[str]:
    return [e.text for e in ElementTree.parse(path).iter() if e.text and e.text.strip()]  # noqa: S314


def test_every_text_lies_in_a_box_and_no_box_is_empty_or_over_another(drawn: Any) -> None:
    assert pictures.is_whole(drawn)
    (axes,) = drawn.axes
    boxes = [patch.get_window_extent() for patch in axes.patches]
    filled = set()
    for text in filter(lambda text: text.get_text(), axes.texts):
        extent = text.get_window_extent()
        around = [
            i for i, box in enumerate(boxes)
            if box.x0 < extent.x0 and extent.x1 < box.x1 and box.y0 < extent.y0
            and extent.y1 < box.y1
        ]  # fmt: skip
        assert len(around) == 1, text.get_text()
        filled.update(around)
    assert filled == set(range(len(boxes)))
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
    corners = [(box.x0, box.x1, box.y0, box.y1) for box in boxes]
    assert all(x0 > 0 and x1 < drawn.bbox.x1 and y0 > 0 for x0, x1, y0, _ in corners)


def test_it_says_in_words_who_is_left_and_who_is_not(tmp_path: Path) -> None:
    Attrition("chests", STEPS, PARTS).save(tmp_path / "a.svg")
    lines = texts_in(tmp_path / "a.svg")
    for text in (
        "All series in the lake", "Excluded: all others", "Excluded: prior mastectomy",
        "45 patients, 56 studies, 789 series", "Remaining", "None excluded: no report", "Chest",
        "1 patient, 1 study, 1 series", "train", "1 patient", "0 patients",
    ):  # fmt: skip
        assert text in lines
    assert LONG in " ".join(lines)
    assert not any("unknown" in line for line in lines)  # it left out nobody
    assert "0 patients, 0 studies, 0 series" not in lines
    assert lines.count("Excluded: all others") == 3


@pytest.mark.parametrize("pattern", ["^CT$|^MR$", "^CT_$ ^M{R$", r"^$\\frac$", "<b>&amp;"])
def test_a_label_is_drawn_as_it_was_written(tmp_path: Path, pattern: str) -> None:
    steps = (STEPS[0], AttritionStep(pattern, Counts(1, 1, 1)))
    for suffix in ("svg", "png", "pdf"):
        Attrition("a", steps, {}).save(tmp_path / f"a.{suffix}")
    assert pattern in texts_in(tmp_path / "a.svg")


def test_the_files_have_one_size_white_borders_and_the_same_bytes(
    drawn: Any, tmp_path: Path
) -> None:
    found = Attrition("chests", STEPS, PARTS)
    for suffix in (".svg", ".png", ".pdf"):
        first, second = (tmp_path / f"{name}{suffix}" for name in "ab")
        found.save(first)
        found.save(second)
        assert first.read_bytes() == second.read_bytes()
        size = pictures.size_inches(first, 200)
        assert size == pytest.approx(tuple(drawn.get_size_inches()), abs=0.01)
        assert size[0] == pytest.approx(7)  # the width of a page's text
    assert (pictures.border(tmp_path / "a.png") == 1).all()
    assert b"/FontFile2" in (tmp_path / "a.pdf").read_bytes()  # letters, not outlines


@pytest.mark.parametrize("name", ["consort", "consort.jpg", "consort.", "folder.svg/consort"])
def test_another_suffix_is_refused_with_those_that_there_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(ExportError, match=r"must end in \.svg, \.png, \.pdf, such as consort\.svg"):
        Attrition("a", STEPS, {}).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_suffix_in_capitals_and_a_missing_folder(tmp_path: Path) -> None:
    Attrition("a", STEPS[:1], {}).save(str(tmp_path / "A.PDF"))
    assert (tmp_path / "A.PDF").read_bytes().startswith(b"%PDF")
    with pytest.raises(ExportError, match=r"cannot write .*none/a.svg.*folder"):
        Attrition("a", STEPS, {}).save(tmp_path / "none" / "a.svg")
