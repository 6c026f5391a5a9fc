"""The CONSORT flow diagram: drawn once with matplotlib, written as SVG, PNG or PDF.

Boxes down the left hold who is left, boxes to the right who was left out. Nothing here counts.
"""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cohortlake.optional_dependencies import matplotlib_figure

if TYPE_CHECKING:
    from cohortlake.cohort.describe.attrition import Attrition, Counts

_WIDTH_INCHES = 10.0
_LEFT, _RIGHT, _BOX = 0.2, 5.5, (4.7, 4.3)
_LINE, _GAP, _PAD = 0.19, 0.34, 0.11
_WRAP = 60
_ONE = {"patients": "patient", "studies": "study", "series": "series"}
_KEPT = {"boxstyle": "square,pad=0", "facecolor": "#eef3f8", "edgecolor": "#274c77"}
_OUT = {"boxstyle": "square,pad=0", "facecolor": "#ffffff", "edgecolor": "#8a8a8a"}
_ARROW = {"arrowstyle": "-|>", "color": "#274c77", "linewidth": 1, "shrinkA": 0, "shrinkB": 0}


def figure(attrition: Attrition) -> Any:
    """Draw the diagram.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    texts = [textwrap.wrap(left.criterion, _WRAP) or [""] for left in attrition.steps]
    heights = [(len(lines) + 1) * _LINE + 2 * _PAD for lines in texts]
    parts_height = 2 * _LINE + 2 * _PAD + _GAP if attrition.parts else 0
    height = sum(heights) + _GAP * len(heights) + parts_height + 0.3
    drawn = matplotlib_figure(_WIDTH_INCHES, height)
    axes = drawn.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH_INCHES), ylim=(height, 0))
    axes.axis("off")
    top, before = 0.25, None
    for left, lines, box in zip(attrition.steps, texts, heights, strict=True):
        _box(axes, _LEFT, top, (_BOX[0], box), lines, _words(left.counts), _KEPT)
        if before is not None:
            _left_out(axes, top, before - left.counts)
        before, top = left.counts, top + box + _GAP
    _parts(axes, top, attrition.parts)
    return drawn


def save(attrition: Attrition, path: Path) -> None:
    """Write the diagram; the same one gives the same file.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    drawn = figure(attrition)
    import matplotlib

    # Text stays text, and neither a date nor a random id is part of the file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": attrition.cohort}):
        dated = {".svg": "Date", ".pdf": "CreationDate"}.get(path.suffix)
        drawn.savefig(path, dpi=150, metadata={dated: None} if dated else None)


def _words(counts: Counts) -> str:
    return ", ".join(_counted(number, level) for level, number in vars(counts).items())


def _box(
    axes: Any,
    x: float,
    y: float,
    size: tuple[float, float],
    lines: list[str],
    counts: str,
    style: dict[str, Any],
) -> None:
    from matplotlib.patches import FancyBboxPatch

    axes.add_patch(FancyBboxPatch((x, y), *size, linewidth=1, **style))
    for number, line in enumerate(lines):
        axes.text(x + _PAD, y + _PAD + _LINE * (number + 0.5), line, va="center", fontsize=8.5)
    below = y + _PAD + _LINE * (len(lines) + 0.5)
    axes.text(x + _PAD, below, counts, va="center", fontsize=8.5, fontweight="bold")


def _left_out(axes: Any, top: float, counts: Counts) -> None:
    """Draw who was left out on the way to the box that begins at `top`."""
    middle, down = _LEFT + _BOX[0] / 2, top - _GAP / 2
    height = 2 * _LINE + 2 * _PAD
    axes.annotate("", (middle, top), (middle, top - _GAP), arrowprops=_ARROW)
    axes.annotate("", (_RIGHT, down), (middle, down), arrowprops=_ARROW)
    _box(axes, _RIGHT, down - height / 2, (_BOX[1], height), ["Excluded"], _words(counts), _OUT)


def _parts(axes: Any, top: float, parts: dict[str, int]) -> None:
    middle, fork = _LEFT + _BOX[0] / 2, top - _GAP / 2
    width = (_WIDTH_INCHES - 2 * _LEFT) / max(len(parts), 1)
    for number, (name, patients) in enumerate(parts.items()):
        x = _LEFT + width * number
        center = x + width / 2 - 0.05
        line = [middle, middle, center], [top - _GAP, fork, fork]
        axes.plot(*line, color=_ARROW["color"], linewidth=_ARROW["linewidth"])
        axes.annotate("", (center, top), (center, fork), arrowprops=_ARROW)
        size = (width - 0.1, 2 * _LINE + 2 * _PAD)
        _box(axes, x, top, size, [name], _counted(patients, "patients"), _KEPT)


def _counted(number: int, things: str) -> str:
    return f"{number:,} {_ONE[things] if number == 1 else things}"
