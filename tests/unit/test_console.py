"""What the commands print of data: values as they are, in tables and as JSON."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from cohortlake import cli, cohort_commands
from cohortlake.console import add_row, out
from cohortlake.flatten import to_frame

ODD = ["chest [contrast] x", "chest [/w contrast]", "[red]", ":smile:", r"\\[b]"]


@given(st.lists(st.sampled_from([*ODD, "[", "]", "[/", "a", "\\"]), min_size=1, max_size=4))
def test_a_cell_says_what_the_value_says(parts: list[str]) -> None:
    value, console = " ".join(parts), Console(width=200)
    table = Table("value", "none")
    add_row(table, value, None)
    with console.capture() as captured:
        console.print(table)
    assert value in captured.get()


def test_tables_of_rows_show_values_as_they_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for dimension in ("_width", "_height"):  # whatever the terminal's are
        monkeypatch.setattr(out, dimension, 400)
    names = ["image_set_id", "version", "updated_at", "PatientID", "StudyDate", "Modality",
             "BodyPartExamined"]  # fmt: skip
    frame = pd.DataFrame({name: ["x"] * len(ODD) for name in names} | {"StudyDescription": ODD})
    cli._print_frame(frame)
    cohort_commands._print_rows(pd.DataFrame({"criterion": ODD}), as_json=False)
    printed = capsys.readouterr().out
    for value in ODD:
        assert printed.count(value) == 2


def test_json_holds_instants_and_days_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    values: dict[str, tuple[pa.DataType, Any, Any]] = {
        "updated_at": (
            pa.timestamp("us", "UTC"),
            datetime(2026, 1, 1, 0, 0, 0, 123456, UTC),
            "2026-01-01T00:00:00.123456Z",
        ),
        "StudyDate": (pa.date32(), date(1880, 1, 1), "1880-01-01"),
        "StudyTime": (pa.time64("us"), time(10, 1, 2, 345678), "10:01:02.345678"),
        "version": (pa.int64(), 2**62 + 1, 2**62 + 1),
    }
    rows = pa.table({name: pa.array([v, None], kind) for name, (kind, v, _) in values.items()})
    cli._give(to_frame(rows), None, True, lambda _: None)
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {name: said for name, (_, _, said) in values.items()}
    assert second == dict.fromkeys(values)
