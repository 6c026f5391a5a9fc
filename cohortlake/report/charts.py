"""Draws charts as SVG inside the page, with text as text and in the colours of the page.

matplotlib draws them at the width of a phone, so that their text can be read there.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from cohortlake.cohort.describe.plot import tick_whole_numbers
from cohortlake.optional_dependencies import matplotlib_figure, module
from cohortlake.report.cells import Breakdown, Grid

_WIDTH_INCHES, _FONT_POINTS = 4.0, 10.5
_MOST_LETTERS, _LONGEST_LABEL = 32, 18
_LEAST_COLUMNS = 6
HIDDEN = "*"
_INK, _LINE = "#0000b0", "#0000b1"
_SERIES = tuple(f"#0000a{i}" for i in range(8))
# A chart holds only these placeholders: each theme of the page has its own colours.
_VARIABLES = {
    _INK: "var(--ink)",
    _LINE: "var(--line)",
    **{color: f"var(--series-{i})" for i, color in enumerate(_SERIES)},
}
_SETTINGS = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cohortlake",  # otherwise its ids differ each time
    "font.size": _FONT_POINTS,
    "font.family": "sans-serif",
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _LINE,
    "xtick.color": _LINE,
    "ytick.color": _LINE,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_NOT_OF_A_PAGE = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>", re.DOTALL)
_HEAD = re.compile(r'^<svg [^>]*viewBox="([^"]+)"[^>]*>')
_ID = re.compile(r'(\bid="|url\(#|href="#)')


def bars(name: str, counts: Breakdown) -> str:
    """Draw a bar for each value, the longest first.

    Args:
        name: The id of the chart's caption.
        counts: The values.
    """
    values = [(_short(value.label), value.n) for value in counts.shown]
    if counts.others and counts.n_others is not None:
        values.append((f"{counts.others} others", counts.n_others))

    def draw(axes: Any) -> None:
        labels, numbers = zip(*values[::-1], strict=True)
        # Positions, not labels: two long values may be cut to the same text.
        axes.barh(range(len(numbers)), numbers, color=_SERIES[0], height=0.7)
        axes.set_yticks(range(len(numbers)), labels)
        for y, number in enumerate(numbers):
            place = {"xytext": (3, 0), "textcoords": "offset points", "va": "center"}
            axes.annotate(f"{number:,}", (number, y), **place)
        axes.set_xlim(0, max(numbers) * 1.22)
        axes.xaxis.set_visible(False)
        axes.spines["bottom"].set_visible(False)

    return _svg(name, 0.3 + 0.27 * len(values), draw)


def stacked(name: str, counts: Grid) -> str:
    """Draw a column for each value along the axis, with the groups on top of each other.

    Args:
        name: The id of the chart's caption.
        counts: The cells; hidden ones are not drawn.
    """

    def draw(axes: Any) -> None:
        places = range(len(counts.columns))
        bottom = [0] * len(counts.columns)
        for color, row in zip(_SERIES, counts.rows, strict=False):
            heights = [counts.cells.get((column, row)) or 0 for column in counts.columns]
            axes.bar(places, heights, bottom=bottom, color=color, width=0.8)
            bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
        _mark_hidden(axes, counts, bottom)
        labels = [_short(column.removesuffix(" and before").removesuffix(" and after"))
                  for column in counts.columns]  # fmt: skip
        every = -(-len(labels) * max(map(len, labels)) // _MOST_LETTERS)
        shown = places[::-every][::-1]
        axes.set_xticks(shown, [labels[i] for i in shown])
        axes.set_xlim(-0.6, max(len(labels), _LEAST_COLUMNS) - 0.4)
        tick_whole_numbers(axes.yaxis)
        axes.grid(axis="y", color=_LINE, linewidth=0.5)
        axes.set_axisbelow(True)

    return _svg(name, 2.4, draw)


def pyramid(name: str, counts: Grid) -> str:
    """Draw two rows of a grid to the left and to the right of an axis; one row to the right.

    Args:
        name: The id of the chart's caption.
        counts: The cells, by the values along the axis and by `F` and `M`.
    """

    def draw(axes: Any) -> None:
        bands = range(len(counts.columns))
        is_one = len({"F", "M"} & {*counts.rows}) < 2
        for row, color in (("F", _SERIES[1]), ("M", _SERIES[0])):
            sign = 1 if row == "M" or is_one else -1
            if row not in counts.rows:
                continue
            widths = [sign * (counts.cells.get((band, row)) or 0) for band in counts.columns]
            axes.barh(bands, widths, color=color, height=0.8)
            for place, band in enumerate(counts.columns):
                if counts.cells.get((band, row), 0) is None:
                    axes.annotate(HIDDEN, (0, place), (sign * 8, -3), textcoords="offset points",
                                  ha="center", va="center")  # fmt: skip
        axes.set_yticks(bands, counts.columns)
        axes.axvline(0, color=_LINE, linewidth=1)
        axes.locator_params(axis="x", nbins=6)
        tick_whole_numbers(axes.xaxis)
        axes.spines["left"].set_visible(False)

    return _svg(name, 0.7 + 0.22 * len(counts.columns), draw)


def colors(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the groups of a stacked chart, each with its colour."""
    return [(name, _VARIABLES[color]) for name, color in zip(names, _SERIES, strict=False)]


def _mark_hidden(axes: Any, counts: Grid, tops: Sequence[int]) -> None:
    for place, column in enumerate(counts.columns):
        if any(counts.cells.get((column, row), 0) is None for row in counts.rows):
            axes.text(place, tops[place], HIDDEN, ha="center", va="bottom")


def _svg(name: str, height: float, draw: Callable[[Any], None]) -> str:
    matplotlib = module("matplotlib")
    drawing = io.StringIO()
    with matplotlib.rc_context(_SETTINGS), warnings.catch_warnings():
        # The font of the page writes the text; that of matplotlib may lack a letter.
        warnings.filterwarnings("ignore", message="Glyph")
        figure = matplotlib_figure(_WIDTH_INCHES, height)
        figure.set_layout_engine("constrained")
        axes = figure.add_subplot()
        axes.tick_params(length=0)
        draw(axes)
        figure.savefig(drawing, format="svg", transparent=True)
    return _for_a_page(name, drawing.getvalue())


def _for_a_page(name: str, svg: str) -> str:
    """Return a drawing without the parts that only a file needs, and with unique ids."""
    svg = _NOT_OF_A_PAGE.sub("", svg[svg.index("<svg") :])
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    svg = _ID.sub(rf"\g<1>{name}-", svg)
    return _HEAD.sub(rf'<svg viewBox="\1" role="img" aria-labelledby="{name}">', svg)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"
