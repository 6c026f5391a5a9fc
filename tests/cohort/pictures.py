"""Looks at figures as pictures: their size, and whether something is cut at the edge."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from matplotlib import image
from matplotlib.backends.backend_agg import FigureCanvasAgg


def is_whole(figure: Any) -> bool:
    """Whether all that is drawn lies inside the figure, after it was drawn once."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn, (width, height) = (
        figure.get_tightbbox(canvas.get_renderer()),
        figure.get_size_inches(),
    )
    return bool(
        drawn.x0 >= 0 and drawn.y0 >= 0 and drawn.x1 <= width + 0.01 and drawn.y1 <= height + 0.01
    )


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
