"""Looks at figures as pictures: their size, and whether a text is cut."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from matplotlib import image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


def texts_of(figure: Any) -> list[Text]:
    """The texts that are drawn, after it was drawn once."""
    FigureCanvasAgg(figure).draw()
    return [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def cut_texts(figure: Any) -> list[str]:
    """The texts that reach over the edge of the figure."""
    edge = figure.bbox
    found = []
    for text in texts_of(figure):
        box = text.get_window_extent()
        inside = edge.x0 <= box.x0 and box.x1 <= edge.x1 and edge.y0 <= box.y0 and box.y1 <= edge.y1
        if not inside and _is_shown(text):
            found.append(text.get_text())
    return found


def _is_shown(text: Text) -> bool:
    # Ticks beyond the limits of an axis have texts that are never drawn.
    axes = text.axes
    if axes is None:
        return True
    for axis, (low, high) in ((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim())):
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if text in (tick.label1, tick.label2):
                return bool(min(low, high) <= tick.get_loc() <= max(low, high))
    return True


def border(png: Path) -> np.ndarray:
    """The pixels at the four edges of a picture."""
    pixels = image.imread(png)[..., :3]
    return np.concatenate((pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]))


def size_inches(path: Path, dpi: int) -> tuple[float, float]:
    """The width and height of an SVG, a PNG or a page of a PDF."""
    if path.suffix == ".png":
        height, width = image.imread(path).shape[:2]
        return width / dpi, height / dpi
    if path.suffix == ".svg":
        root = ElementTree.parse(path).getroot()  # noqa: S314
        return float(root.attrib["width"][:-2]) / 72, float(root.attrib["height"][:-2]) / 72
    (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ([\d.]+) \]", path.read_bytes())
    return float(box[0]) / 72, float(box[1]) / 72
