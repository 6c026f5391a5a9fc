"""Draws the CONSORT flow diagram with matplotlib, and writes it as SVG, PNG or PDF.

Boxes on the left hold who is left, boxes on the right who was left out. See `attrition` for the
counts.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cohortlake.cohort.describe.attrition_step import AttritionStep, Counts
from cohortlake.optional_dependencies import matplotlib_figure

_WIDTH_INCHES = 10.0
_LEFT, _RIGHT, _BOX = 0.2, 5.5, (4.7, 4.3)
_LINE, _GAP, _PAD = 0.19, 0.34, 0.11
_WRAP = 60
_ONE = {"patients": "patient", "studies": "study", "series": "series"}
_KEPT = {"boxstyle": "square,pad=0", "facecolor": "#eef3f8", "edgecolor": "#274c77"}
_OUT = {"boxstyle": "square,pad=0", "facecolor": "#ffffff", "edgecolor": "#8a8a8a"}
_ARROW = {"arrowstyle": "-|>", "color": "#274c77", "linewidth": 1, "shrinkA": 0, "shrinkB": 0}


def figure(steps: Sequence[AttritionStep], parts: Mapping[str, int]) -> Any:
    """Draw the diagram.

    Args:
        steps: Who is left after each step; the first is the whole lake.
        parts: Part of the split -> patients in it.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    texts = [textwrap.wrap(step.criterion, _WRAP) or [""] for step in steps]
    heights = [(len(lines) + 1) * _LINE + 2 * _PAD for lines in texts]
    parts_height = 2 * _LINE + 2 * _PAD + _GAP if parts else 0
    height = sum(heights) + _GAP * len(heights) + parts_height + 0.3
    drawn = matplotlib_figure(_WIDTH_INCHES, height)
    axes = drawn.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH_INCHES), ylim=(height, 0))
    axes.axis("off")
    top, before = 0.25, None
    for step, lines, box in zip(steps, texts, heights, strict=True):
        _box(axes, _LEFT, top, (_BOX[0], box), lines, _words(step.counts), _KEPT)
        if before is not None:
            _left_out(axes, top, before - step.counts)
        before, top = step.counts, top + box + _GAP
    _parts(axes, top, parts)
    return drawn


def save(
    steps: Sequence[AttritionStep], parts: Mapping[str, int], path: Path, *, seed: str
) -> None:
    """Write the diagram. The same counts give the same file.

    Args:
        steps: See `figure`.
        parts: See `figure`.
        path: An .svg, a .png or a .pdf file.
        seed: The ids in an SVG are derived from it.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    drawn = figure(steps, parts)
    import matplotlib

    # Text stays text, and neither a date nor a random id is part of the file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": seed}):
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


def _parts(axes: Any, top: float, parts: Mapping[str, int]) -> None:
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
