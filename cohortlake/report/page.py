"""Writes the report as one HTML file that loads nothing from the network and runs no script.

Jinja escapes all text from tags, and the content security policy of the page forbids scripts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cohortlake.cohort import Cohort, Lake
from cohortlake.errors import BadCriteria, SettingError
from cohortlake.optional_dependencies import module
from cohortlake.report import charts
from cohortlake.report.gather import gather
from cohortlake.settings import Settings
from cohortlake.storage.disk import whole_file

_WORD_BEGINS = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=_)")

SUPPRESS_BELOW = 11
"""Many data releases hide counts of fewer patients; 0 hides nothing."""


def write(
    lake: Lake,
    path: str | Path,
    cohort: Cohort | None = None,
    *,
    suppress_below: int = SUPPRESS_BELOW,
    settle: timedelta = Settings.settle,
) -> None:
    """Write the report on a lake, and replace an earlier one.

    Args:
        lake: The lake.
        path: An .html file.
        cohort: A cohort of the lake, to describe as well.
        suppress_below: Counts of fewer patients are left out, and others that would reveal them.
        settle: How long the search index may lag.

    Raises:
        MissingExtra: Jinja or matplotlib is not installed.
        BadCriteria: `suppress_below` is negative.
        SettingError: The file cannot be written.
    """
    if suppress_below < 0:
        raise BadCriteria("suppress_below is a number of patients, 0 or more")
    template = _environment().get_template("report.html")
    selected = cohort.selected if cohort is not None else None
    facts = gather(lake.opened, selected, suppress_below, settle)
    page = template.render(report=facts)
    _replace(Path(path), page)


def _environment() -> Any:
    jinja2 = module("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cohortlake.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "breakable": _breakable,
        "instant": _instant,
        "number": _number,
        "share": _share,
    }
    drawn = (charts.bars, charts.stacked, charts.pyramid)
    environment.globals |= {draw.__name__: _as_markup(draw) for draw in drawn}
    environment.globals["colors"] = charts.colors
    return environment


def _as_markup(draw: Callable[..., str]) -> Callable[..., Any]:
    markup = module("markupsafe").Markup

    def drawn(*arguments: Any) -> Any:
        return markup(draw(*arguments))

    return drawn


def _breakable(name: str) -> Any:
    """Return the name of a column with places where a narrow page may break it."""
    escaped = str(module("markupsafe").escape(name))
    return module("markupsafe").Markup(_WORD_BEGINS.sub("<wbr>", escaped))


def _number(value: float, digits: int = 0) -> str:
    return f"{value:,.{digits}f}"


def _share(part: float, whole: float = 1) -> str:
    percent = 100 * part / whole if whole else 0
    return "< 0.1 %" if 0 < percent < 0.05 else f"{percent:.1f} %"


def _instant(value: datetime | str) -> str:
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return f"{at:%Y-%m-%d %H:%M} UTC"


def _replace(path: Path, page: str) -> None:
    try:
        with whole_file(path) as draft:
            draft.write_text(page, "utf-8")
    except OSError as error:
        raise SettingError(f"cannot write {path}: {error.strerror}") from None
