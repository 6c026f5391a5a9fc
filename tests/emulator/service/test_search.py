"""What a search finds: AWS's four uses, every attribute, both operators, and their odd corners."""

from datetime import UTC, datetime

import pytest

STUDY_DATE = "DICOMStudyDateAndTime"


def at(*parts):
    return datetime(*parts, tzinfo=UTC)


def summary(patient, study_date=None, study_time=None, **more):
    tags = {
        "DICOMPatientId": patient,
        "DICOMStudyDate": study_date,
        "DICOMStudyTime": study_time,
    }
    return {"DICOMTags": {k: v for k, v in tags.items() if v is not None}} | more


def patients(rows):
    return [row["DICOMTags"]["DICOMPatientId"] for row in rows]


def study(date, time=None):
    value = {"DICOMStudyDate": date} | ({} if time is None else {"DICOMStudyTime": time})
    return {STUDY_DATE: value}


def where(operator, *values):
    return {"operator": operator, "values": list(values)}


def by(field, order="ASC"):
    return {"sortField": field, "sortOrder": order}


def test_use_1_equal_on_a_patient(hospital):
    wanted = hospital.search()[3]["DICOMTags"]["DICOMPatientId"]
    found = hospital.search([where("EQUAL", {"DICOMPatientId": wanted})])
    truth = list(hospital.emulator.admin.truth())
    assert len(found) == patients(truth).count(wanted) > 0
    assert set(patients(found)) == {wanted}


def test_use_2_between_study_dates_and_times(exactly):
    service = exactly(
        summary("before", "20240101", "115959.999999"),
        summary("start", "20240101", "12"),
        summary("odd time", "20240102", "99"),
        summary("end", "20240131", "000000"),
        summary("later that day", "20240131", "0930"),
        summary("undated"),
    )
    span = where("BETWEEN", study("20240101", "120000.000000"), study("20240131"))
    found = service.search([span], by(STUDY_DATE))
    assert patients(found) == ["start", "odd time", "end"]


def test_use_3_between_created(exactly):
    service = exactly(
        summary("early", createdAt=at(2024, 1, 1).timestamp()),
        summary("wanted", createdAt=at(2024, 2, 1).timestamp() + 0.123),
    )
    moment = at(2024, 2, 1, 0, 0, 0, 123_000)
    found = service.search([where("BETWEEN", {"createdAt": moment}, {"createdAt": moment})])
    assert patients(found) == ["wanted"]


def test_use_4_series_updated_in_a_span_ascending(hospital):
    repeated = hospital.search([where("EQUAL", {"isPrimary": False})])[0]
    series = repeated["DICOMTags"]["DICOMSeriesInstanceUID"]
    filters = [
        where("EQUAL", {"DICOMSeriesInstanceUID": series}),
        where("BETWEEN", {"updatedAt": at(2000, 1, 1)}, {"updatedAt": at(2030, 1, 1)}),
    ]
    found = hospital.search(filters, by("updatedAt"))
    assert [row["isPrimary"] for row in found] == [True, False]
    assert found[0]["updatedAt"] <= found[1]["updatedAt"]
    filters[1] = where("BETWEEN", {"updatedAt": at(2000, 1, 1)}, {"updatedAt": at(2001, 1, 1)})
    assert hospital.search(filters) == []


@pytest.mark.parametrize(
    "attribute",
    [
        "DICOMPatientId", "DICOMAccessionNumber", "DICOMStudyId", "DICOMStudyInstanceUID",
        "DICOMSeriesInstanceUID",
    ],
)  # fmt: skip
def test_equal_on_each_tag(hospital, attribute):
    truth = [row["DICOMTags"].get(attribute) for row in hospital.emulator.admin.truth()]
    for wanted in {value for value in truth if value is not None and value > "2"}:
        found = hospital.search([where("EQUAL", {attribute: wanted})])
        assert len(found) == truth.count(wanted)
        break
    assert hospital.search([where("EQUAL", {attribute: "0"})]) == []


@pytest.mark.parametrize("attribute", ["createdAt", "updatedAt"])
def test_equal_on_each_timestamp(hospital, attribute):
    wanted = hospital.search()[0][attribute]
    found = hospital.search([where("EQUAL", {attribute: wanted})])
    assert {row[attribute] for row in found} == {wanted}


def test_equal_on_a_study_date_means_that_moment(exactly):
    service = exactly(summary("midnight", "20240101"), summary("noon", "20240101", "1200"))
    assert patients(service.search([where("EQUAL", study("20240101"))])) == ["midnight"]
    assert patients(service.search([where("EQUAL", study("20240101", "12"))])) == ["noon"]


def test_equal_on_is_primary(hospital):
    truth = [row["isPrimary"] for row in hospital.emulator.admin.truth()]
    for primary in (True, False):
        found = hospital.search([where("EQUAL", {"isPrimary": primary})])
        assert len(found) == truth.count(primary) > 0


def test_two_filters_must_both_match(exactly):
    service = exactly(summary("A", "20240101"), summary("A", "20240601"), summary("B", "20240101"))
    span = where("BETWEEN", study("20240101"), study("20240102"))
    both = [where("EQUAL", {"DICOMPatientId": "A"}), span]
    assert len(service.search(both)) == 1
    assert len(service.search([span, span])) == 2
    apart = where("BETWEEN", study("20240501"), study("20240701"))
    assert service.search([span, apart]) == []


def test_data_stores_are_apart(hospital):
    first, second = hospital.emulator.datastores
    rows = [
        {row["imageSetId"] for row in hospital.emulator.admin.truth(datastore_id=one)}
        for one in (first, second)
    ]
    assert rows[0].isdisjoint(rows[1])
    assert [len(one) for one in rows] == [350, 350]


@pytest.mark.parametrize(
    ("between", "found"),
    [
        ("inclusive", ["low", "middle", "high"]),
        ("half-open", ["low", "middle"]),
        ("open", ["middle"]),
        ("exclusive-start", ["middle", "high"]),
    ],
)
@pytest.mark.parametrize("attribute", ["createdAt", "updatedAt", STUDY_DATE])
@pytest.mark.parametrize("order", ["ASC", "DESC"])
def test_the_ends_of_between(exactly, between, found, attribute, order):
    stamps = [at(2024, 1, 1, 0, 0, 0, 1000 * millisecond) for millisecond in (0, 1, 2)]
    service = exactly(
        *(
            summary(name, "20240101", f"00000{number}.000001")
            | {"createdAt": stamp.timestamp(), "updatedAt": stamp.timestamp()}
            for number, (name, stamp) in enumerate(
                zip(("low", "middle", "high"), stamps, strict=True)
            )
        ),
        between=between,
    )
    ends = [{attribute: stamps[0]}, {attribute: stamps[2]}]
    if attribute == STUDY_DATE:
        ends = [study("20240101", "000000.000001"), study("20240101", "000002.000001")]
    expected = found if order == "ASC" else found[::-1]
    assert patients(service.search([where("BETWEEN", *ends)], by(attribute, order))) == expected
    # The same when another attribute gives the order.
    assert sorted(patients(service.search([where("BETWEEN", *ends)]))) == sorted(found)


UNUSABLE = [None, "", "20240230", "2024", "2019.03.07", "2024011", "not a date"]


@pytest.mark.parametrize("match", [False, True])
@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("order", ["ASC", "DESC"])
def test_unusable_study_dates(exactly, match, listed, order):
    service = exactly(
        *(summary("undated", date) for date in UNUSABLE),
        *(summary(f"day {day}", f"202401{day}") for day in (10, 11, 12)),
        undated_match=match,
        undated_sort=listed,
    )

    def turned(rows):
        return rows if order == "ASC" else rows[::-1]

    low = ["undated"] * len(UNUSABLE)
    dated = ["day 10", "day 11", "day 12"]
    every = service.search(sort=by(STUDY_DATE, order), size=2)
    assert patients(every) == turned((low if listed else []) + dated)
    span = where("BETWEEN", study("20240110"), study("20240111"))
    found = service.search([span], by(STUDY_DATE, order), size=2)
    assert patients(found) == turned((low if listed and match else []) + dated[:2])
    found = service.search([span], by("updatedAt", order), size=2)
    assert sorted(patients(found)) == dated[:2] + (low if match else [])


def test_absent_tags_are_absent_keys(exactly):
    service = exactly(summary("A"))
    [row] = service.search()
    assert row["DICOMTags"] == {"DICOMPatientId": "A"}
