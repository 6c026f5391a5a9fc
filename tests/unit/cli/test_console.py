"""What the commands print of data: values as they are, in tables and as JSON."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table

from cohortlake.cli import cohort_commands, read_commands
from cohortlake.cli.console import _Uncut, add_row, new_table, out
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
    read_commands._print_frame(frame)
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
    read_commands._give(to_frame(rows), None, True, lambda _: None)
    printed = capsys.readouterr().out
    first, second = json.loads(printed)
    assert len(printed.splitlines()) == 4, "a line for each row"
    assert first == {name: said for name, (_, _, said) in values.items()}
    assert second == dict.fromkeys(values)


def test_json_of_no_rows_is_an_empty_list(capsys: pytest.CaptureFixture[str]) -> None:
    read_commands._give(pd.DataFrame({"image_set_id": []}), None, True, lambda _: None)
    cohort_commands._print_rows(pd.DataFrame({"cohort": []}), as_json=True)
    assert capsys.readouterr().out == "[]\n[]\n"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _printed(table: Table, *, terminal: bool) -> str:
    file = _Terminal() if terminal else io.StringIO()
    _Uncut(file=file, markup=False).print(table)
    return file.getvalue()


def test_what_is_piped_is_not_cut_and_ids_are_whole_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "xterm")
    table, long = new_table("id", "about"), "0123456789abcdef" * 8
    add_row(table, long, "words " * 100)
    piped = _printed(table, terminal=False)
    assert max(map(len, piped.splitlines())) > 700
    assert long in piped
    shown = _printed(table, terminal=True)
    assert max(len(re.sub(r"\x1b\[\d*m", "", line)) for line in shown.splitlines()) <= 40
    assert "\u2026" not in shown
    cells = [line.split("\u2502")[1].strip() for line in shown.splitlines() if "\u2502" in line]
    assert "".join(cells) == long


PRINTS = """
from cohortlake.cli.console import add_row, new_table, out
table = new_table("id", "about")
add_row(table, "0123456789abcdef" * 8, "words " * 100)
out.print(table)
"""


@pytest.mark.parametrize("color", ["", "1"])
def test_a_table_goes_whole_through_a_pipe_and_into_a_file(tmp_path: Path, color: str) -> None:
    env = os.environ | {"COLUMNS": "80", "FORCE_COLOR": color}
    run = [sys.executable, "-c", PRINTS]
    piped = subprocess.run(run, env=env, check=True, stdout=subprocess.PIPE).stdout
    with (tmp_path / "table.txt").open("wb") as file:
        subprocess.run(run, env=env, check=True, stdout=file)
    for printed in (piped, (tmp_path / "table.txt").read_bytes()):
        assert ("words " * 99 + "words").encode() in printed
        assert ("0123456789abcdef" * 8).encode() in printed
        assert "\u2026".encode() not in printed
