"""What only the extra `notebook` brings, imported when it is first asked for."""

from __future__ import annotations

import importlib
from typing import Any

from cohortlake.errors import MissingExtra


def module(name: str) -> Any:
    """Import a module of the extra.

    Raises:
        MissingExtra: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        raise MissingExtra(name.split(".", 1)[0]) from None


def matplotlib_figure(width: float, height: float) -> Any:
    """Return an empty `matplotlib.figure.Figure`, which no pyplot keeps alive.

    Args:
        width: In inches.
        height: In inches.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    return module("matplotlib.figure").Figure(figsize=(width, height))
