"""One value has one spelling; and columns of texts are read as each text by itself is."""

from __future__ import annotations

from datetime import date, time

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cohortlake.dicom_values import canonical_text, number_of, read_da, read_tm
from cohortlake.flatten.canonical import canonical_texts

VRS = ("LO", "SH", "PN", "CS", "UI")


@pytest.mark.parametrize(
    ("vr", "sent", "value"),
    [
        ("LO", "P1", "P1"),
        ("LO", "P1 ", "P1"),
        ("LO", "  P1", "P1"),
        ("LO", "P1\0", "P1"),
        ("LO", "P1\\", "P1"),
        ("LO", "P1 \\P1", "P1"),
        ("LO", "\\P1", "P1"),
        ("LO", "P1\\P2", "P1\\P2"),
        ("LO", "p1", "p1"),
        ("LO", "P 1", "P 1"),
        ("LO", "\tP1", "\tP1"),
        ("SH", " A\\B \\A", "A\\B"),
        ("UI", "1.2.10\0", "1.2.10"),
        ("UI", "1.2.10 ", "1.2.10"),
        ("UI", "1.2.10 \0", "1.2.10"),
        ("UI", "1.2.10\\1.2.10\0", "1.2.10"),
        ("CS", "CT ", "CT"),
        ("CS", "ct", "CT"),
        ("CS", "PT\\CT", "PT\\CT"),
        ("CS", "CT\\ct ", "CT"),
        ("CS", "ı", "ı"),  # noqa: RUF001 - the dotless i, which is an I in upper case
        ("PN", "Doe^John^^^", "Doe^John"),
        ("PN", " Doe ^ John", "Doe^John"),
        ("PN", "Doe^John==", "Doe^John"),
        ("PN", "^John", "^John"),
        ("PN", "=Doe", "=Doe"),
        *((vr, blank, None) for vr in VRS for blank in ("", "  ", "\0", "\\", " \\ ")),
        ("PN", "^^", None),
    ],
)
def test_the_canonical_text(vr: str, sent: str, value: str | None) -> None:
    assert canonical_text(vr, sent) == value


@pytest.mark.parametrize(
    ("sent", "value", "raw"),
    [
        ("20240105", date(2024, 1, 5), None),
        ("20240105 ", date(2024, 1, 5), "20240105 "),
        ("20240105\0", date(2024, 1, 5), "20240105\0"),
        ("20240105\\", date(2024, 1, 5), "20240105\\"),
        ("20240105\\2024.01.05", date(2024, 1, 5), "20240105\\2024.01.05"),
        ("20240105\\20240106", None, "20240105\\20240106"),
        ("20240105\\none", None, "20240105\\none"),
        ("20240230", None, "20240230"),
        ("202413", None, "202413"),
        ("", None, ""),
    ],
)
def test_a_date(sent: str, value: date | None, raw: str | None) -> None:
    assert read_da(sent) == (value, raw)


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("0930", time(9, 30)),
        ("09:30", time(9, 30)),
        ("093000\\0930", time(9, 30)),
        ("093000.5\0", time(9, 30, 0, 500000)),
        ("093000\\093001", None),
        ("2460", None),
        ("\\", None),
    ],
)
def test_a_time(sent: str, value: time | None) -> None:
    assert read_tm(sent) == (value, sent)


_TEXTS = st.text(alphabet=" \0\\^=aAé.1", max_size=8) | st.text(max_size=6)


@given(st.sampled_from(VRS), st.lists(st.none() | _TEXTS, max_size=12), st.integers(0, 3))
def test_a_column_is_read_as_each_text_is(vr: str, sent: list[str | None], skipped: int) -> None:
    texts = pa.array(sent, pa.string())[skipped:]  # perhaps a slice, with an offset
    values, raw = canonical_texts(vr, texts)
    read = [None if text is None else canonical_text(vr, text) for text in texts.to_pylist()]
    assert values.to_pylist() == read
    assert raw.to_pylist() == [
        text if text != value else None for text, value in zip(texts.to_pylist(), read, strict=True)
    ]


@given(st.sampled_from(VRS), _TEXTS)
def test_what_is_canonical_stays(vr: str, sent: str) -> None:
    value = canonical_text(vr, sent)
    assert value is None or canonical_text(vr, value) == value


@pytest.mark.parametrize(
    ("sent", "number"),
    [
        *(("1", 1.0), (" -1.5E2\0", -150.0), (".5", 0.5), ("5.", 5.0), (3, 3.0), (2.5, 2.5)),
        ("0.12345678901234567", 0.12345678901234567),
    ],
)
def test_a_number(sent: object, number: float) -> None:
    assert number_of(sent) == number


NO_NUMBERS = (
    "1_0", "\u0665", "0x10", "nan", "inf", "1e999", "", " ", "1,5", "1 2", "\n1", "1.2.3",
    "e5", "+", 10**400, True, None, [], {}, float("nan"),
)  # fmt: skip


@pytest.mark.parametrize("sent", NO_NUMBERS)
def test_what_is_no_number(sent: object) -> None:
    assert number_of(sent) is None
