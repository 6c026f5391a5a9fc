"""Shows a few facts as a table of two columns, in text and in HTML, as notebooks print objects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape


def text(title: str, facts: Mapping[str, object]) -> str:
    """Return a title, and a line for each fact."""
    width = max(map(len, facts), default=0)
    lines = (f"  {name:<{width}}  {_shown(value)}" for name, value in facts.items())
    return "\n".join((title, *lines))


def html(title: str, facts: Mapping[str, object]) -> str:
    """Return a table of HTML with the title as its caption, and a row for each fact."""
    rows = "".join(
        f'<tr><th style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(_shown(value))}</td></tr>'
        for name, value in facts.items()
    )
    return f"<table><caption>{escape(title)}</caption><tbody>{rows}</tbody></table>"


def minute(instant: str | None) -> str:
    """Return an instant as ISO writes it, to the minute; a dash where there is none."""
    return f"{instant[:16].replace('T', ' ')} UTC" if instant else "-"


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Mapping):
        return _shown([f"{name} {_shown(n)}" for name, n in value.items()])
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None or value == "" else str(value)
