"""Plots of a cohort, as matplotlib figures: dates, ages and sexes, modalities and body parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cohortlake import schema
from cohortlake.cohort.define.sentences import column_words
from cohortlake.cohort.select import withheld
from cohortlake.cohort.select.selected import Selected
from cohortlake.optional_dependencies import matplotlib_figure

_MAIN, _OTHER, _GREY = "#274c77", "#c8553d", "#8a8a8a"
_BAND_YEARS, _OLDEST = 10, 90
_SEXES = {"F": "female", "M": "male"}
_MONTHS_SHOWN, _LEAST_BARS = 48, 8

# The heat map has the width of a column of a paper, and text that can be read there.
_COLUMN_INCHES, _POINTS = 3.5, 7
_MOST_MODALITIES, _MOST_PARTS, _MOST_LETTERS = 6, 15, 18
_MOST_DIGITS = 100_000


@dataclass(frozen=True)
class Plots:
    """Draws a cohort; each method gives a `matplotlib.figure.Figure`, to show or to save.

    Attributes:
        selected: The members of the cohort.
    """

    selected: Selected

    def studies_over_time(self) -> Any:
        """Draw how many studies there are by month, or by year over more than four years.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        day = self._date
        ((months,),) = self._ask(
            f"SELECT date_diff('month', min({day}), max({day})) FROM left_over"
        )
        unit = "month" if (months or 0) < _MONTHS_SHOWN else "year"
        rows = self._ask(f"""
            SELECT date_trunc('{unit}', {day}) AS start,
                   count(DISTINCT (datastore_id, StudyInstanceUID)) AS studies
            FROM left_over WHERE {day} IS NOT NULL GROUP BY start ORDER BY start
        """)
        figure, axes = _axes(8, 3.2)
        width = {"month": 25, "year": 330}[unit]
        axes.bar([start for start, _ in rows], [n for _, n in rows], width=width, color=_MAIN)
        column = self.selected.tables.study_date
        axes.set(ylabel="studies", xlabel=f"{column_words(column)}, by {unit}")
        tick_whole_numbers(axes.yaxis)
        axes.set_ylim(bottom=0)
        # A few bars get the room of several, so that the ticks are months.
        left, right = axes.get_xlim()
        axes.set_xlim(left, max(right, left + _LEAST_BARS * width))
        return figure

    def age_sex_pyramid(self) -> Any:
        """Draw the patients by age, at their first study in the cohort, and by sex.

        Patients of one sex have one side.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        day = self._date
        rows = self._ask(f"""
            SELECT age // {_BAND_YEARS} AS band, sex, count(*) AS patients FROM (
                SELECT arg_min_null(age_at_study_years, (day, StudyInstanceUID)) AS age,
                       arg_min_null(sex, (day, StudyInstanceUID)) AS sex
                FROM (SELECT {day} AS day, * FROM left_over)
                GROUP BY patient_key
            ) GROUP BY ALL
        """)
        figure, axes = _axes(6.5, 4)
        known = {(band, sex): n for band, sex, n in rows if band is not None}
        bands = range(_OLDEST // _BAND_YEARS + 1)
        sexes = [sex for sex in _SEXES if any(key[1] == sex for key in known)]
        for sex, color in zip(_SEXES, (_OTHER, _MAIN), strict=True):
            if sex in sexes:
                sign = -1 if sex == "F" and len(sexes) > 1 else 1
                counts = [sign * known.get((band, sex), 0) for band in bands]
                axes.barh(list(bands), counts, color=color, label=_SEXES[sex])
        names = [f"{b * _BAND_YEARS}-{b * _BAND_YEARS + _BAND_YEARS - 1}" for b in bands]
        names[-1] = f"{_OLDEST}+"
        axes.set_yticks(list(bands), names)
        axes.axvline(0, color="white", linewidth=1)
        tick_whole_numbers(axes.xaxis)
        others = sum(n for band, sex, n in rows if band is None or sex not in ("F", "M"))
        axes.set(xlabel=_with_others("patients", others), ylabel="age at first study, years")
        if len(sexes) > 1:  # both sides alike
            most = max(map(abs, axes.get_xlim()))
            axes.set_xlim(-most, most)
        if sexes:
            figure.legend(frameon=False, loc="outside upper right", ncols=len(sexes))
        return figure

    def modality_by_body_part(self) -> Any:
        """Draw how many series there are of each modality and body part.

        It has the width of a column of a paper, and the most frequent values.

        Raises:
            MissingExtra: matplotlib is not installed.
        """
        known, text = self.selected.tables.columns("series"), pa.string()
        part, modality = (
            withheld.value_or_withheld(c, text, known) for c in ("BodyPartExamined", "Modality")
        )
        rows = self._ask(f"""
            SELECT coalesce({part}, 'missing') AS part,
                   coalesce({modality}, 'missing') AS modality, count(*) AS series
            FROM left_over GROUP BY ALL
        """)
        parts, modalities = _most(rows, 0, _MOST_PARTS), _most(rows, 1, _MOST_MODALITIES)
        shown = {(part, modality): n for part, modality, n in rows}
        grid = [[shown.get((part, modality), 0) for modality in modalities] for part in parts]
        figure, axes = _axes(_COLUMN_INCHES, 0.8 + 0.2 * len(parts))
        axes.tick_params(labelsize=_POINTS)
        most = max((n for line in grid for n in line), default=0)
        axes.imshow(grid or [[0]], cmap="Blues", aspect="auto", vmin=0, vmax=max(most, 1))
        axes.set_xticks(range(len(modalities)), map(_short, modalities))
        axes.set_yticks(range(len(parts)), map(_short, parts))
        for y, line in enumerate(grid):
            for x, n in enumerate(line):
                if n:
                    color = "white" if n > most / 2 else "black"
                    axes.text(
                        x, y, _number(n), ha="center", va="center", color=color, fontsize=_POINTS
                    )
        others = sum(
            n for part, modality, n in rows if part not in parts or modality not in modalities
        )
        axes.set_xlabel(_with_others("series", others), fontsize=_POINTS)
        return figure

    @property
    def _date(self) -> str:
        """SQL for the date of a study; the first of January where only its year is shown."""
        column = self.selected.tables.study_date
        is_year = column == schema.year_of(schema.STUDY_DATE).name
        return f"make_date({column}, 1, 1)" if is_year else column

    def _ask(self, query: str) -> list[tuple[Any, ...]]:
        series = f"FROM ({self.selected.query.series})"
        return self.selected.ask(query.replace("FROM left_over", series)).fetchall()


def _axes(width: float, height: float) -> tuple[Any, Any]:
    figure = matplotlib_figure(width, height)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(color=_GREY)
    return figure, axes


def tick_whole_numbers(axis: Any) -> None:
    """Give an axis of counts ticks at whole numbers only, without a sign.

    Args:
        axis: The x axis or the y axis of a matplotlib `Axes`.
    """
    axis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axis.set_major_formatter(lambda number, _: f"{abs(number):,.0f}")


def _short(text: str) -> str:
    return text if len(text) <= _MOST_LETTERS else text[: _MOST_LETTERS - 1] + "…"


def _number(n: int) -> str:
    return f"{n:,}" if n < _MOST_DIGITS else f"{n / 1000:,.0f}k"


def _most(rows: list[tuple[Any, ...]], position: int, number: int) -> list[str]:
    """Return the values that most series have, the most first."""
    totals: dict[str, int] = {}
    for row in rows:
        totals[row[position]] = totals.get(row[position], 0) + row[2]
    return sorted(totals, key=lambda value: (-totals[value], value))[:number]


def _with_others(things: str, others: int) -> str:
    return f"{things} ({others:,} more not shown)" if others else things
