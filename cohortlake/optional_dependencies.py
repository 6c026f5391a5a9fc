"""Imports libraries that an extra installs, when they are first needed."""

from __future__ import annotations

import importlib
import io
from typing import Any

from cohortlake.errors import MissingExtra

_EXTRAS = {
    "apprise": "notify",
    "jinja2": "report",
    "matplotlib": "report",
    "openpyxl": "xlsx",
    "pyiceberg": "iceberg",
    "tableone": "notebook",
}
"""Library -> the smallest extra that installs it."""


def module(name: str) -> Any:
    """Import a module of a library that an extra installs.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        library = name.partition(".")[0]
        raise MissingExtra(library, _EXTRAS[library]) from None


def matplotlib_figure(width: float, height: float) -> Any:
    """Return an empty `matplotlib.figure.Figure` that pyplot does not know.

    A notebook shows it even if pyplot was never imported. Text is drawn as it is: a $ in a value or
    a criterion begins no formula.

    Args:
        width: In inches.
        height: In inches.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    plain = {"text.parse_math": False}

    class Figure(module("matplotlib.figure").Figure):  # type: ignore[misc]
        def draw(self, renderer: Any) -> None:
            for text in self.findobj(module("matplotlib.text").Text):
                text.set_parse_math(False)
            with module("matplotlib").rc_context(plain):  # ticks are made while it is drawn
                super().draw(renderer)

        def _repr_png_(self) -> bytes:
            picture = io.BytesIO()
            self.savefig(picture, format="png", dpi=110)
            return picture.getvalue()

    return Figure(figsize=(width, height))
