"""Plots of a cohort, as matplotlib figures: dates, ages and sexes, modalities and body parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from cohortlake import schema
from cohortlake.cohort.select import withheld
from cohortlake.cohort.select.selected import Selected
from cohortlake.optional_dependencies import matplotlib_figure

_MAIN, _OTHER, _GREY = "#274c77", "#c8553d", "#8a8a8a"
_BAND_YEARS, _OLDEST = 10, 90
_MOST_PARTS = 15
_MONTHS_SHOWN = 48


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
        axes.set(ylabel="studies", xlabel=f"{column}, by {unit}")
        return figure

    def age_sex_pyramid(self) -> Any:
        """Draw the patients by age, at their first study in the cohort, and by sex.

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
        for sex, sign, color in (("F", -1, _OTHER), ("M", 1, _MAIN)):
            counts = [sign * known.get((band, sex), 0) for band in bands]
            axes.barh(list(bands), counts, color=color, label=sex)
        names = [f"{b * _BAND_YEARS}-{b * _BAND_YEARS + _BAND_YEARS - 1}" for b in bands]
        names[-1] = f"{_OLDEST}+"
        axes.set_yticks(list(bands), names)
        axes.axvline(0, color="white", linewidth=1)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.xaxis.set_major_formatter(lambda number, _: f"{abs(number):,.0f}")
        others = sum(n for band, sex, n in rows if band is None or sex not in ("F", "M"))
        axes.set(xlabel=_with_others("patients", others), ylabel="age at first study, years")
        axes.legend(frameon=False)
        return figure

    def modality_by_body_part(self) -> Any:
        """Draw how many series there are of each modality and body part.

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
        parts, modalities = _most(rows, 0), _most(rows, 1)
        shown = {(part, modality): n for part, modality, n in rows}
        grid = [[shown.get((part, modality), 0) for modality in modalities] for part in parts]
        figure, axes = _axes(1.5 + 0.6 * len(modalities), 1 + 0.32 * len(parts))
        most = max((n for line in grid for n in line), default=0)
        axes.imshow(grid or [[0]], cmap="Blues", aspect="auto", vmin=0, vmax=max(most, 1))
        axes.set_xticks(range(len(modalities)), modalities)
        axes.set_yticks(range(len(parts)), parts)
        for y, line in enumerate(grid):
            for x, n in enumerate(line):
                if n:
                    color = "white" if n > most / 2 else "black"
                    axes.text(x, y, f"{n:,}", ha="center", va="center", color=color, fontsize=8)
        others = sum(
            n for part, modality, n in rows if part not in parts or modality not in modalities
        )
        axes.set(xlabel=_with_others("series", others))
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


def _most(rows: list[tuple[Any, ...]], position: int) -> list[str]:
    """Return the values that most series have, the most first."""
    totals: dict[str, int] = {}
    for row in rows:
        totals[row[position]] = totals.get(row[position], 0) + row[2]
    return sorted(totals, key=lambda value: (-totals[value], value))[:_MOST_PARTS]


def _with_others(things: str, others: int) -> str:
    return f"{things} ({others:,} more not shown)" if others else things
