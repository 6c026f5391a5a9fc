"""The synthetic hospital: repeatable, skewed, and odd where real data is odd."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from emulator import Options
from emulator.data.records import from_summary
from emulator.datetimes import UNSORTABLE
from emulator.world import build

NOW = datetime(2024, 6, 3, 9, tzinfo=UTC)


def lines(**options):
    world = build(Options(now="2024-06-03T09:00:00Z", clock="stopped", **options))
    try:
        return [
            record.summary
            for datastore in world.store.datastores()
            for record in world.store.truth(datastore, limit=100_000)
        ]
    finally:
        world.close()


@pytest.fixture(scope="module")
def world():
    world = build(Options(now="2024-06-03T09:00:00Z", clock="stopped", synthetic=12_000, seed=1))
    yield world
    world.close()


@pytest.fixture(scope="module")
def records(world):
    return world.store.truth(world.store.datastores()[0], limit=100_000)


@pytest.fixture(scope="module")
def rows(records):
    return [record.wire() for record in records]


def tags(rows, name):
    return [row["DICOMTags"].get(name) for row in rows]


def test_equal_seeds_give_equal_bytes():
    assert lines(synthetic=300, seed=7) == lines(synthetic=300, seed=7)
    assert lines(synthetic=300, seed=7) != lines(synthetic=300, seed=8)


@pytest.mark.parametrize("size", [0, 1, 2, 11, 12, 13, 100, 301])
def test_the_size_is_exact(size):
    assert len(lines(synthetic=size, seed=size)) == size
    assert len(lines(synthetic=size, seed=size, datastores=3)) == size


def test_search_keys_follow_from_the_summary(records):
    for record in records[::50]:
        parsed = from_summary(record.datastore, record.wire(), text=record.summary)
        assert parsed == record._replace(instances=1)


def test_three_years_of_imports_with_a_rhythm(rows):
    created = [datetime.fromtimestamp(row["createdAt"], UTC) for row in rows]
    assert max(created) <= NOW
    assert min(created) >= NOW.replace(year=2021)
    assert {moment.year for moment in created} == {2021, 2022, 2023, 2024}
    minutes = Counter(row["createdAt"] // 60 for row in rows)
    assert minutes.most_common(1)[0][1] > 500
    trickle = [moment for moment in created if minutes[moment.timestamp() // 60] < 20]
    working = sum(moment.weekday() < 5 and 7 <= moment.hour < 18 for moment in trickle)
    assert working > 0.7 * len(trickle)


def test_studies_lie_before_their_import_and_bulk_brings_old_ones(records):
    ages = [
        record.created_ms / 86_400_000 + 719_163 - record.study_key / 86_400_000_000
        for record in records
        if record.study_key != UNSORTABLE
    ]
    assert min(ages) > -1
    assert sum(age < 2 for age in ages) > 0.4 * len(ages)
    assert max(ages) > 8 * 365


def test_studies_have_one_to_twelve_series_of_matching_kind(rows):
    studies = {}
    for row in rows:
        studies.setdefault(row["DICOMTags"]["DICOMStudyInstanceUID"], []).append(row)
    assert set(map(len, studies.values())) == set(range(1, 13))
    for members in studies.values():
        series = set(tags(members, "DICOMSeriesInstanceUID"))
        assert set(tags(members, "DICOMNumberOfStudyRelatedSeries")) == {len(series)}
        assert len(set(tags(members, "DICOMPatientId"))) == 1
    modalities, parts = tags(rows, "DICOMSeriesModality"), tags(rows, "DICOMSeriesBodyPart")
    pairs = set(zip(modalities, parts, strict=True))
    assert ("MG", "BREAST") in pairs
    assert ("MG", "CHEST") not in pairs
    assert ("CT", None) in pairs


def test_patients_come_back(rows):
    studies = {
        (row["DICOMTags"]["DICOMPatientId"], row["DICOMTags"]["DICOMStudyInstanceUID"])
        for row in rows
    }
    assert max(Counter(patient for patient, _ in studies).values()) > 2


def test_odd_values_are_there(rows):
    dates, times = set(tags(rows, "DICOMStudyDate")), set(tags(rows, "DICOMStudyTime"))
    assert dates >= {None, "", "20240230", "2024", "2019.03.07"}
    assert times >= {None, "0930", "093000.123456", "99"}
    assert set(tags(rows, "DICOMPatientSex")) == {"M", "F", "O", "", None}
    assert set(tags(rows, "DICOMPatientBirthDate")) >= {None, "", "19700230", "1962", "1958.11.02"}
    assert "" not in {row["DICOMTags"].get("DICOMStudyInstanceUID") for row in rows}


@pytest.mark.parametrize("script", ["太", "ま", "洪", "홍", "Λ", "Л", "ق", "ß"])
def test_names_of_the_world(rows, script):
    names = "".join(filter(None, tags(rows, "DICOMPatientName")))
    assert script in names


def test_one_in_a_hundred_repeats_a_series(rows):
    repeated = [row for row in rows if not row["isPrimary"]]
    assert 0.003 * len(rows) < len(repeated) < 0.03 * len(rows)
    primary = {row["DICOMTags"]["DICOMSeriesInstanceUID"] for row in rows if row["isPrimary"]}
    assert {row["DICOMTags"]["DICOMSeriesInstanceUID"] for row in repeated} <= primary


def test_archived_is_what_nobody_read_for_a_month(rows):
    for row in rows:
        unread_s = NOW.timestamp() - row["lastAccessedAt"]
        assert unread_s >= 0
        assert (row["storageTier"] == "ARCHIVE_INSTANT_ACCESS") == (unread_s > 30 * 86_400)


def test_corrected_image_sets_have_their_first_version(world, records):
    datastore = world.store.datastores()[0]
    corrected = [record for record in records if record.version == 2]
    assert len(corrected) > 100
    for record in corrected[:20]:
        newest, first = world.store.versions(datastore, record.image_set_id)
        assert newest == record
        assert (first.version, first.created_ms) == (1, record.created_ms)
        assert first.updated_ms == first.created_ms < record.updated_ms
        assert (first.current, first.searchable) == (0, 0)
