"""The clock, the admin API's changes, and simulated days."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from emulator import AdminError

KINDS = {"imported", "corrected", "updated", "reimported", "moved", "deleted"}
START = datetime(2024, 6, 3, 9, tzinfo=UTC)


def by_id(rows):
    return {row["imageSetId"]: row for row in rows}


def test_a_stopped_clock_moves_only_on_request(fresh):
    admin = fresh().emulator.admin
    assert admin.clock()["now"] == "2024-06-03T09:00:00.000+00:00"
    assert admin.advance(seconds=1.5, days=1)["now"] == "2024-06-04T09:00:01.500+00:00"
    with pytest.raises(AdminError, match="zero or more"):
        admin.advance(seconds=-1)


def test_a_running_clock_runs(fresh):
    admin = fresh(clock="running").emulator.admin
    first = admin.clock()["epochSeconds"]
    assert START.timestamp() <= first < START.timestamp() + 60
    later = admin.clock()["epochSeconds"]
    while later == first:
        later = admin.clock()["epochSeconds"]
    assert later > first


def test_import_fills_in_what_is_left_out(exactly):
    service = exactly()
    tags = {"DICOMPatientId": "A", "DICOMSeriesInstanceUID": "1.2"}
    given = {"imageSetId": "f" * 32, "extra": [1], "DICOMTags": tags}
    service.emulator.admin.import_summaries([given])
    [row] = service.emulator.admin.truth()
    assert row.items() >= given.items()
    assert row["createdAt"] == row["updatedAt"] == START.timestamp()
    assert (row["version"], row["isPrimary"]) == (1, True)
    with pytest.raises(AdminError, match="already taken"):
        service.emulator.admin.import_summaries([given])


def test_a_series_imported_again_is_not_primary(exactly):
    service = exactly({"DICOMTags": {"DICOMSeriesInstanceUID": "1.2"}})
    service.emulator.admin.import_summaries([{"DICOMTags": {"DICOMSeriesInstanceUID": "1.2"}}])
    assert sorted(row["isPrimary"] for row in service.search()) == [False, True]


def test_an_update_is_a_new_version(exactly):
    service = exactly({"DICOMTags": {"DICOMPatientId": "A", "DICOMStudyId": "7"}, "extra": 1})
    admin = service.emulator.admin
    [before] = admin.truth()
    admin.advance(seconds=60)
    changes = {"DICOMPatientId": "B", "DICOMStudyId": None}
    assert admin.update(before["imageSetId"], changes) == [before["imageSetId"]]
    [after] = admin.truth()
    assert after == before | {
        "version": 2,
        "updatedAt": before["updatedAt"] + 60,
        "DICOMTags": {"DICOMPatientId": "B"},
    }
    # At the very same moment there is still a later updatedAt.
    admin.update(before["imageSetId"], {})
    [again] = admin.truth()
    assert again["updatedAt"] == pytest.approx(after["updatedAt"] + 0.001, abs=1e-6)


def test_a_cascade_touches_the_study(exactly):
    uids = ["1.1", "1.1", "2.2"]
    service = exactly(*({"DICOMTags": {"DICOMStudyInstanceUID": uid}} for uid in uids))
    admin = service.emulator.admin
    one = next(row for row in admin.truth() if row["DICOMTags"]["DICOMStudyInstanceUID"] == "1.1")
    touched = admin.update(one["imageSetId"], {"DICOMPatientSex": "O"}, cascade=True)
    assert len(touched) == 2
    changed = [row for row in admin.truth() if row["version"] == 2]
    assert {row["DICOMTags"]["DICOMStudyInstanceUID"] for row in changed} == {"1.1"}
    assert len({row["updatedAt"] for row in changed}) == 1


def test_admin_refuses_what_it_cannot_do(fresh):
    service = fresh()
    admin = service.emulator.admin
    for call, message in (
        (lambda: admin.update("0" * 32, {}), "does not exist"),
        (lambda: admin.delete("0" * 32), "does not exist"),
        (lambda: admin.live(1, datastore_id="x"), "does not exist"),
        (lambda: admin.live(-1), "zero or more"),
        (lambda: admin.behave(nonsense=1), "not a setting"),
        (lambda: admin.behave(quota="fast"), "must be a float"),
        (lambda: admin.behave(error_rate=2), "between 0 and 1"),
        (lambda: admin.import_summaries([{"imageSetId": 5}]), "string"),
        (lambda: admin.import_summaries(["x"]), "list of objects"),
    ):
        with pytest.raises(AdminError, match=message):
            call()
    assert service.raw("POST", "/_emulator/clock", b"[]")[0] == 400
    assert service.raw("POST", "/_emulator/clock", b'{"seconds": "1"}')[0] == 400
    assert service.raw("POST", "/_emulator/update", b'{"tags": 1}')[0] == 400


def test_days_change_everything_within_their_time(fresh):
    service = fresh(synthetic=2000, seed=1)
    admin = service.emulator.admin
    before = by_id(admin.truth())
    counts = admin.live(7, seed=3)
    after = by_id(admin.truth())
    assert set(counts) == KINDS
    assert all(count >= 7 for count in counts.values())
    assert admin.clock()["now"] == (START + timedelta(days=7)).isoformat(timespec="milliseconds")

    new = [row for id_, row in after.items() if id_ not in before]
    changed = [row for id_, row in after.items() if id_ in before and row != before[id_]]
    gone = before.keys() - after.keys()
    assert gone
    assert any(row["isPrimary"] for row in new)
    assert any(not row["isPrimary"] for row in new)
    for row in new + changed:
        assert START.timestamp() <= row["updatedAt"] <= START.timestamp() + 7 * 86_400
    for row in changed:
        old = before[row["imageSetId"]]
        assert row["createdAt"] == old["createdAt"]
        assert row["version"] > old["version"]
    days = {int((row["updatedAt"] - START.timestamp()) // 86_400) for row in new + changed}
    assert days == set(range(7))
    assert by_id(_wire(service)) == after


def test_moved_studies_move_together(fresh):
    service = fresh(synthetic=500, seed=2)
    admin = service.emulator.admin
    admin.live(3, seed=1)
    dates = {}
    for row in admin.truth():
        tags = row["DICOMTags"]
        dates.setdefault(tags["DICOMStudyInstanceUID"], set()).add(tags.get("DICOMStudyDate"))
    assert all(len(found) == 1 for found in dates.values())


def test_a_seed_repeats_the_days(fresh):
    truths = []
    for seed in (3, 3, 4):
        admin = fresh(synthetic=300, seed=1).emulator.admin
        admin.live(2, seed=seed)
        truths.append(list(admin.truth_lines()))
    assert truths[0] == truths[1] != truths[2]


def test_an_empty_data_store_comes_to_life(fresh):
    service = fresh()
    counts = service.emulator.admin.live(3, seed=1)
    assert counts["imported"] > 0
    assert len(service.search()) > 0


def test_only_the_data_store_asked_for_lives(fresh):
    service = fresh(datastores=2)
    first, second = service.emulator.datastores
    service.emulator.admin.live(3, datastore_id=second)
    assert list(service.emulator.admin.truth(datastore_id=first)) == []
    assert list(service.emulator.admin.truth(datastore_id=second))


def test_searches_are_answered_while_days_pass(fresh):
    service = fresh(synthetic=200, seed=1)
    admin = service.emulator.admin
    thread = threading.Thread(target=lambda: admin.live(5, seed=1, over_s=1))
    thread.start()
    moments = set()
    while thread.is_alive():
        service.search()
        moments.add(admin.clock()["now"])
    thread.join()
    assert len(moments) > 3


def _wire(service):
    """Every row as a search sends it, without botocore's reading."""
    token, rows = None, []
    while True:
        query = {} if token is None else {"nextToken": token}
        _, page = service.post(maxResults=50, **query)
        rows += page["imageSetsMetadataSummaries"]
        token = page.get("nextToken")
        if token is None:
            return rows
