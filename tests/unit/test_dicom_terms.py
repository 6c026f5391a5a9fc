"""What is read from coded values as they come: only what is sure."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cohortlake import dicom_terms

SEXES = {
    "M": "M",
    "f": "F",
    " O ": "O",
    "Female": "F",
    "MALE": "M",
    "other": "O",
    "U": None,
    "X": None,
    "MF": None,
    "M\\F": None,
    "M\n.": None,
}
BODY_PARTS = {
    "CHEST": "CHEST",
    "chest ": "CHEST",
    "THORAX": "THORAX",  # a term of its own, so no other word for CHEST
    "Head and Neck": "HEADNECK",
    "HEAD_NECK": "HEADNECK",
    "HEAD/NECK": "HEADNECK",
    "C-SPINE": "CSPINE",
    "Cervical spine": "CSPINE",
    "T.M.J.": "TMJ",
    "Lumbo-sacral spine": "LSSPINE",
    "CHEST,ABDOMEN&PELVIS": "CHESTABDPELVIS",
    "entire body": "WHOLEBODY",
    "SACRUM": "SSPINE",
    "mandible": "JAW",
    "KNEES": "KNEE",
    "Feet": "FOOT",
    "PELVIS": "PELVIS",
    "CTSPINE": "CTSPINE",
    "Cervico-thoracic spine": "CTSPINE",
    "CT SPINE": None,  # more likely the modality
    "CT-SPINE": None,
    "LEFT KNEE": None,  # a term would not say which
    "KNEE?": None,
    "CHEST\\ABDOMEN": "CHEST\\ABDOMEN",
    "hips\\KNEE": "HIP\\KNEE",
    "CHEST\\chest\\": "CHEST",
    "CHEST\\left knee": None,
    "CHEST\0": "CHEST",
    "CHEST\tABDOMEN": None,
    "CHEST*": None,
    "SKELETON": None,
    "UPPER ABDOMEN": None,
    "hıp": None,  # noqa: RUF001 - the dotless i, which is an I in upper case
    "ＣＨＥＳＴ": None,  # noqa: RUF001 - full width
    "AND": None,
    "S": None,
    "-": None,
}


def _status(sent: str, value: str | None) -> str:
    if value is None:
        return "invalid"
    if "\\" in value:
        return "several"
    return "ok" if sent.strip(" \0\\") == value else "respelled"


@pytest.mark.parametrize(("sent", "value"), SEXES.items())
def test_sexes(sent: str, value: str | None) -> None:
    assert dicom_terms.sex(sent) == (value, _status(sent, value))


@pytest.mark.parametrize(("sent", "value"), BODY_PARTS.items())
def test_body_parts(sent: str, value: str | None) -> None:
    assert dicom_terms.body_part(sent) == (value, _status(sent, value))


@pytest.mark.parametrize("sent", [None, "", "   "])
def test_what_nobody_sent_is_missing(sent: str | None) -> None:
    assert dicom_terms.sex(sent) == dicom_terms.body_part(sent) == (None, "missing")


def test_the_terms_are_what_a_code_string_may_be() -> None:
    assert len(dicom_terms.BODY_PARTS) == 311  # Table L-1 has 312 rows with one: JAW stands twice
    for term in dicom_terms.BODY_PARTS:
        assert term.isascii()
        assert term.isalnum()
        assert term == term.upper()
        assert len(term) <= 16  # PS3.5 section 6.2, CS
        assert dicom_terms.body_part(term) == (term, "ok")


@given(st.sampled_from(sorted(dicom_terms.BODY_PARTS - {"CTSPINE"})), st.data())
def test_case_and_blanks_do_not_matter(term: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(term)))
    assume(term[cut:] != "AND")
    blank = data.draw(st.sampled_from([" ", "_", "-", "  "]))
    case = data.draw(st.sampled_from([str.lower, str.title, str.upper]))
    assert dicom_terms.body_part(case(term[:cut] + blank + term[cut:])).value == term


@given(st.text())
def test_what_was_read_is_a_term(sent: str) -> None:
    for read, values in (
        (dicom_terms.sex, set("MFO")),
        (dicom_terms.body_part, dicom_terms.BODY_PARTS),
    ):
        value, status = read(sent)
        assert (value is None) is (status in ("missing", "invalid"))
        if value is not None:
            assert set(value.split("\\")) <= values
            assert (len(value.split("\\")) > 1) is (status == "several")
        assert (status == "missing") is (not sent.strip(" \0\\"))
