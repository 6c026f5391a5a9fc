"""Draws the CONSORT flow diagram with matplotlib, and writes it as SVG, PNG or PDF.

Boxes on the left hold who is left, boxes on the right who was left out and why. See `attrition` for
the counts. The diagram has the width of a page, and each box grows with its text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cohortlake.cohort.describe.attrition_step import AttritionStep, Counts
from cohortlake.errors import ExportError
from cohortlake.optional_dependencies import matplotlib_figure, module

SUFFIXES = (".svg", ".png", ".pdf")
_WIDTH, _MARGIN = 7.0, 0.15  # inches, as all sizes here
_KEPT_WIDTH, _OUT_WIDTH = 3.7, 2.7
_LINE, _GAP, _PAD, _BETWEEN = 0.17, 0.3, 0.1, 0.1
_POINTS, _DPI = 8.5, 200
_ONE = {"patients": "patient", "studies": "study", "series": "series"}
_NOBODY = Counts(0, 0, 0)
_KEPT = {"boxstyle": "square,pad=0", "facecolor": "#eef3f8", "edgecolor": "#274c77"}
_OUT = {"boxstyle": "square,pad=0", "facecolor": "#ffffff", "edgecolor": "#8a8a8a"}
_ARROW = {"arrowstyle": "-|>", "color": "#274c77", "linewidth": 1, "shrinkA": 0, "shrinkB": 0}


@dataclass(frozen=True)
class _Box:
    """A box: its text, broken into lines, with the counts in bold below."""

    lines: list[str]
    counts: list[str]

    @property
    def height(self) -> float:
        return _LINE * (len(self.lines) + len(self.counts)) + 2 * _PAD


@dataclass
class _Diagram:
    """Measures texts and places boxes, from top to bottom."""

    renderer: Any
    placed: list[tuple[float, float, float, _Box, dict[str, Any]]] = field(default_factory=list)
    arrows: list[tuple[tuple[float, float], tuple[float, float]]] = field(default_factory=list)
    lines: list[tuple[list[float], list[float]]] = field(default_factory=list)
    bottom: float = _MARGIN

    def box(self, text: str, counts: str, width: float) -> _Box:
        room = width - 2 * _PAD
        return _Box(self._broken(text, room, "normal"), self._broken(counts, room, "bold"))

    def add_first(self, text: str, counts: Counts) -> None:
        self._add_kept(self.box(text, _words(counts), _KEPT_WIDTH))

    def add(self, text: str, counts: Counts, reason: str, lost: Counts) -> None:
        """Add a step: the box of who is left, and that of who was left out if anybody was."""
        middle, top = _MARGIN + _KEPT_WIDTH / 2, self.bottom
        gap = _GAP
        if lost != _NOBODY:
            out = self.box(f"Excluded: {reason}", _words(lost), _OUT_WIDTH)
            gap = out.height + 2 * _BETWEEN
            right = _WIDTH - _MARGIN - _OUT_WIDTH
            self.placed.append((right, top + _BETWEEN, _OUT_WIDTH, out, _OUT))
            self.arrows.append(((middle, top + gap / 2), (right, top + gap / 2)))
        self.arrows.append(((middle, top), (middle, top + gap)))
        self.bottom += gap
        self._add_kept(self.box(text, _words(counts), _KEPT_WIDTH))

    def add_parts(self, parts: Mapping[str, int]) -> None:
        """Add a row of boxes of one height, one for each part of the split."""
        if not parts:
            return
        step = (_WIDTH - 2 * _MARGIN + _BETWEEN) / len(parts)
        width = step - _BETWEEN
        boxes = [self.box(p, _counted(n, "patients"), width) for p, n in parts.items()]
        most = max(len(box.lines) for box in boxes)
        below = max(len(box.counts) for box in boxes)
        boxes = [_Box(_filled(box.lines, most), _filled(box.counts, below)) for box in boxes]
        middle, fork, top = _MARGIN + _KEPT_WIDTH / 2, self.bottom + _GAP / 2, self.bottom + _GAP
        for number, box in enumerate(boxes):
            left = _MARGIN + step * number
            center = left + width / 2
            self.lines.append(([middle, middle, center], [self.bottom, fork, fork]))
            self.arrows.append(((center, fork), (center, top)))
            self.placed.append((left, top, width, box, _KEPT))
        self.bottom = top + max(box.height for box in boxes)

    def _add_kept(self, box: _Box) -> None:
        self.placed.append((_MARGIN, self.bottom, _KEPT_WIDTH, box, _KEPT))
        self.bottom += box.height

    def _broken(self, text: str, room: float, weight: str) -> list[str]:
        """Break a text into lines that fit; a word that is too long is broken too."""
        font = module("matplotlib.font_manager").FontProperties(size=_POINTS, weight=weight)

        def fits(line: str) -> bool:
            width, _, _ = self.renderer.get_text_width_height_descent(line, font, ismath=False)
            return bool(width <= room * self.renderer.dpi)

        lines = [""]
        for word in text.split():
            longer = f"{lines[-1]} {word}".lstrip()
            if fits(longer):
                lines[-1] = longer
                continue
            lines += [word] if lines[-1] else []
            lines[-1] = lines[-1] or word
            while not fits(lines[-1]) and len(lines[-1]) > 1:
                most = next(n for n in range(len(lines[-1]) - 1, 0, -1)
                            if n == 1 or fits(lines[-1][:n]))  # fmt: skip
                lines[-1:] = [lines[-1][:most], lines[-1][most:]]
        return lines


def figure(steps: Sequence[AttritionStep], parts: Mapping[str, int]) -> Any:
    """Draw the diagram.

    Args:
        steps: Who is left after each step; the first is the whole lake.
        parts: Part of the split -> patients in it.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    drawn = matplotlib_figure(_WIDTH, _WIDTH)
    renderer = module("matplotlib.backends.backend_agg").FigureCanvasAgg(drawn).get_renderer()
    diagram = _Diagram(renderer)
    first, *others = steps
    diagram.add_first(first.words, first.counts)
    before = first.counts
    for step in others:
        lost, before = before - step.counts, step.counts
        if step.kind == "kept":
            diagram.add(step.words, step.counts, "all others", lost)
        elif lost != _NOBODY:
            diagram.add("Remaining", step.counts, step.words, lost)
        elif step.kind == "excluded":
            diagram.add(f"None excluded: {step.words}", step.counts, step.words, lost)
    diagram.add_parts(parts)
    height = diagram.bottom + _MARGIN
    drawn.set_size_inches(_WIDTH, height)
    axes = drawn.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH), ylim=(height, 0))
    axes.axis("off")
    _draw(axes, diagram)
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
        ExportError: Its suffix is another one, or it cannot be written.
        MissingExtra: matplotlib is not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ExportError(
            f"{path.name!r} must end in {', '.join(SUFFIXES)}, such as "
            f"{path.stem.rstrip('.') or 'consort'}{SUFFIXES[0]}"
        )
    drawn = figure(steps, parts)
    # Text stays text, and neither a date nor a random id is part of the file.
    as_text = {"svg.fonttype": "none", "svg.hashsalt": seed, "pdf.fonttype": 42}
    with module("matplotlib").rc_context(as_text):
        dated = {".svg": "Date", ".pdf": "CreationDate"}.get(suffix)
        try:
            drawn.savefig(path, dpi=_DPI, metadata={dated: None} if dated else None)
        except OSError as error:
            raise ExportError(
                f"cannot write {path}: {error.strerror}; name a folder that is there and that "
                "this user may write"
            ) from None


def _draw(axes: Any, diagram: _Diagram) -> None:
    patch = module("matplotlib.patches").FancyBboxPatch
    for xs, ys in diagram.lines:
        axes.plot(xs, ys, color=_ARROW["color"], linewidth=_ARROW["linewidth"])
    for start, end in diagram.arrows:
        axes.annotate("", end, start, arrowprops=_ARROW)
    for left, top, width, box, style in diagram.placed:
        axes.add_patch(patch((left, top), width, box.height, linewidth=1, **style))
        for number, line in enumerate((*box.lines, *box.counts)):
            weight = "bold" if number >= len(box.lines) else "normal"
            below = top + _PAD + _LINE * (number + 0.5)
            axes.text(
                left + _PAD, below, line, va="center_baseline", fontsize=_POINTS, fontweight=weight
            )


def _filled(lines: list[str], number: int) -> list[str]:
    return lines + [""] * (number - len(lines))


def _words(counts: Counts) -> str:
    return ", ".join(_counted(number, level) for level, number in vars(counts).items())


def _counted(number: int, things: str) -> str:
    return f"{number:,} {_ONE[things] if number == 1 else things}"
