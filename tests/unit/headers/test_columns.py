"""Typed columns of a header: what is right is read, and what is wrong is null, never a guess."""

import msgspec
import pytest
from documents import read

from cohortlake import schema
from cohortlake.headers import columns, terms
from cohortlake.headers.shown_values import HeaderValues
from cohortlake.ingest.headers.fetch import row_of
from cohortlake.privacy import built_in
from cohortlake.schema import header_columns


def row(*instances, **series):
    return columns.read([row_of(read(*instances, **series))]).to_pylist()[0]


@pytest.mark.parametrize(
    ("sent", "value"),
    [
        ("1.25", 1.25),
        (" 1.25 ", 1.25),
        ("1.25\0", 1.25),
        ("0.12345678901234567", 0.12345678901234567),  # 19 characters where DS allows 16
        (2, 2.0),
        (["5", "5.0"], 5.0),
        ("5\\5", 5.0),
        (["5", "6"], None),
        ("1,25", None),
        ("5 mm", None),
        ("", None),
        (None, None),
        ("nan", None),
        ([], None),
        ({}, None),
        (True, None),
    ],
)
def test_a_decimal(sent, value):
    assert row({"SliceThickness": sent})["SliceThickness"] == value


@pytest.mark.parametrize(
    ("sent", "value"), [("120", 120), ("120.0", 120), ("120.5", None), (120, 120), ("1e30", None)]
)
def test_an_integer(sent, value):
    assert row({"ExposureTime": sent})["ExposureTime"] == value


@pytest.mark.parametrize(
    ("sent", "rows", "cols"),
    [
        (["0.5", "0.7"], 0.5, 0.7),
        ("0.5\\0.7", 0.5, 0.7),
        ("0.5", None, None),
        (["0.5"], None, None),
        (["0.5", "0.5", "0.5"], None, None),
    ],
)
def test_the_spacing_of_pixels(sent, rows, cols):
    found = row({"PixelSpacing": sent})
    assert (found["PixelSpacing_row_mm"], found["PixelSpacing_col_mm"]) == (rows, cols)


def test_where_instances_differ_there_is_no_value_but_a_range():
    found = row(
        {"SliceThickness": "5", "PixelSpacing": ["0.5", "0.6"]},
        {"SliceThickness": "1.25", "PixelSpacing": ["0.7", "0.4"]},
        {"PixelSpacing": ["0.7", "0.4"]},
    )
    assert found["SliceThickness"] is None
    assert (found["SliceThickness_min"], found["SliceThickness_max"]) == (1.25, 5.0)
    assert found["SliceThickness_n_distinct"] == 2
    assert (found["PixelSpacing_row_mm_min"], found["PixelSpacing_row_mm_max"]) == (0.5, 0.7)
    assert (found["PixelSpacing_col_mm_min"], found["PixelSpacing_col_mm_max"]) == (0.4, 0.6)


def test_values_inside_sequences_and_at_other_levels():
    found = row(
        {
            "RadiopharmaceuticalInformationSequence": [
                {"Radiopharmaceutical": "FDG", "RadionuclideTotalDose": "3.7E+08 "}
            ],
            "AnatomicRegionSequence": [{"CodeValue": "39607008", "CodeMeaning": "Lung"}],
            "ImageLaterality": "l",
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.128",
        },
        Manufacturer="SIEMENS",
    )
    assert (found["Radiopharmaceutical"], found["RadionuclideTotalDose"]) == ("FDG", 3.7e8)
    assert (found["anatomic_region_code"], found["anatomic_region_meaning"]) == ("39607008", "Lung")
    assert (found["Laterality"], found["Manufacturer"]) == ("L", "SIEMENS")
    assert found["SOPClassUID"] == "1.2.840.10008.5.1.4.1.1.128"


def test_a_private_sop_class_may_hold_anything():
    assert row({"SOPClassUID": "1.3.12.2.19600101.5"})["SOPClassUID"] is None


@pytest.mark.parametrize(
    "instances",
    [
        [{"ContrastBolusAgent": "OMNIPAQUE"}],
        [{"ContrastBolusRoute": "IV"}, {}],
        [{"ContrastBolusVolume": "80"}, {"ContrastBolusVolume": "81"}],
    ],
)
def test_contrast(instances):
    assert row(*instances)["has_contrast"]
    assert not row({"ContrastBolusAgent": ""})["has_contrast"]


def test_every_column_is_described():
    assert len(header_columns.FROM_ATTRIBUTES) >= 60
    names = [column.name for column in schema.PUBLISHED["series_headers"]]
    assert len(names) == len({*map(str.casefold, names)})
    for each in header_columns.FROM_ATTRIBUTES:
        assert each.column.tag
        assert each.column.vr
        assert each.column.description.endswith(".")
    assert terms.OF_COLUMNS.keys() == {
        each.column.name
        for each in header_columns.FROM_ATTRIBUTES
        if each.column.identifies is schema.Identifies.CODED
    }
    for known in terms.OF_COLUMNS.values():
        assert all(term == term.upper().strip() for term in known)


@pytest.mark.parametrize("policy", ["safe", "limited"])
def test_what_people_type_is_withheld_unless_it_is_a_term(policy):
    typed = {
        each.keyword: "CANARY DOE"
        for each in header_columns.FROM_ATTRIBUTES
        if each.column.identifies not in (schema.Identifies.NO, schema.Identifies.UID)
        and len(each.path) == 1
    }
    shown = HeaderValues(built_in(policy), b"k" * 32)
    table = shown.treat(columns.read([row_of(read(typed))]))
    assert "CANARY" not in str(table.drop_columns(["withheld_fields"]).to_pylist())
    assert {"Manufacturer", "ImageType"} <= {*table["withheld_fields"][0].as_py()}
    assert not {"InstitutionName", "StationName"} & {*table.column_names}


def test_terms_are_shown_however_they_are_written():
    sent = {"Manufacturer": "Siemens", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]}
    shown = HeaderValues(built_in("safe"), b"k" * 32)
    found = shown.treat(columns.read([row_of(read(sent))])).to_pylist()[0]
    assert (found["Manufacturer"], found["ImageType"]) == ("Siemens", "ORIGINAL\\PRIMARY\\AXIAL")
    assert found["withheld_fields"] == []


def test_a_header_that_is_stored_is_read_again():
    header = read({"SliceThickness": "1"}, {"SliceThickness": "2"}).header()
    assert msgspec.json.decode(msgspec.json.encode(header), type=type(header)) == header


WRONG = {
    "0.12345678901234567": ("SliceThickness", 0.12345678901234567),  # 19 characters, DS allows 16
    "+1.5E+00": ("SliceThickness", 1.5),
    ".5": ("SliceThickness", 0.5),
    "1.0": ("ExposureTime", 1),
    "1.": ("ExposureTime", 1),
    "+1 ": ("ExposureTime", 1),
    "-0": ("ExposureTime", 0),
}
UNREADABLE = [
    ("SliceThickness", ["5", "6"]),
    ("SliceThickness", "5\\6"),
    ("SliceThickness", "1,25"),
    ("SliceThickness", "5 mm"),
    ("SliceThickness", "1e999"),
    ("SliceThickness", "0x1p3"),
    ("SliceThickness", "1_0"),
    ("SliceThickness", "\u0665"),
    ("SliceThickness", {}),
    ("SliceThickness", ["5", "x"]),
    ("ExposureTime", "1.5"),
    ("ExposureTime", "12345678901234567890"),
    ("ExposureTime", "one"),
    ("Manufacturer", 5),
    ("Manufacturer", {"Alphabetic": "x"}),
    ("ImageType", ["ORIGINAL", 1]),
]
BLANK = [None, "", " ", "\0", [], [None], ["", " "], "\\"]


@pytest.mark.parametrize("sent", WRONG)
def test_what_has_one_meaning_is_read_though_it_is_written_wrongly(sent):
    name, value = WRONG[sent]
    found = row({name: sent})
    assert (found[name], found["invalid_fields"]) == (value, [])


@pytest.mark.parametrize(("name", "sent"), UNREADABLE)
def test_what_cannot_be_read_is_null_and_the_row_names_its_column(name, sent):
    found = row({name: sent})
    assert (found[name], found["invalid_fields"]) == (None, [name])


@pytest.mark.parametrize("sent", BLANK)
@pytest.mark.parametrize("name", ["SliceThickness", "ExposureTime", "Manufacturer", "PixelSpacing"])
def test_what_is_blank_is_missing_and_not_invalid(name, sent):
    assert row({name: sent})["invalid_fields"] == []


@pytest.mark.parametrize("sent", ["0.5", ["0.5"], ["0.5"] * 3, "0.5\\x", ["0.5", None]])
def test_a_spacing_that_is_no_pair_of_numbers(sent):
    found = row({"PixelSpacing": sent})
    bad = {name for name in ("PixelSpacing_row_mm", "PixelSpacing_col_mm") if found[name] is None}
    assert bad == {*found["invalid_fields"]}
    assert "PixelSpacing_col_mm" in bad


def test_values_that_differ_and_are_no_numbers_are_invalid():
    found = row({"SliceThickness": "thin"}, {"SliceThickness": "thick"})
    assert found["SliceThickness_min"] is None
    assert found["invalid_fields"] == ["SliceThickness"]
    assert row({"SliceThickness": "1"}, {"SliceThickness": "2"})["invalid_fields"] == []


@pytest.mark.parametrize(
    ("name", "sent", "value"),
    [
        ("ImageType", ["DERIVED", "SECONDARY", None, "MPR"], "DERIVED\\SECONDARY\\MPR"),
        ("ImageType", ["DERIVED", "", "mpr"], "DERIVED\\MPR"),
        ("SliceThickness", ["5", None], 5.0),
        ("SliceThickness", "5\\", 5.0),
        ("ExposureTime", ["100", ""], 100),
    ],
)
def test_an_empty_value_among_others_counts_as_not_sent(name, sent, value):
    found = row({name: sent})
    assert (found[name], found["invalid_fields"]) == (value, [])


def test_a_private_sop_class_is_not_invalid():
    assert row({"SOPClassUID": "1.3.12.2.19600101.5"})["invalid_fields"] == []


def test_an_attribute_that_a_sequence_lacks_is_missing():
    sent = {"RadiopharmaceuticalInformationSequence": [{"Radiopharmaceutical": "FDG"}]}
    assert row(sent)["invalid_fields"] == []
    sent["RadiopharmaceuticalInformationSequence"][0]["RadionuclideTotalDose"] = "much"
    assert row(sent)["invalid_fields"] == ["RadionuclideTotalDose"]
