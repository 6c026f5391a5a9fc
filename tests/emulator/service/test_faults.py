"""Each fault as a client meets it, and that a seed repeats them."""

import http.client
import json
import time

import pytest
from botocore.exceptions import ClientError

from emulator import Behaviour
from emulator.service.faults import CUTS, Faults


def outcome(service, **query):
    """What one raw search comes to."""
    try:
        status, _ = service.post(**query)
    except http.client.IncompleteRead:
        return "cut_short"
    except ConnectionResetError:
        return "reset"
    except json.JSONDecodeError as error:
        return "cut_truncated" if error.doc else "cut_empty"
    if status == 200:
        return "fine"
    return {429: "throttled", 500: "failed", 400: "token_refused"}[status]


def test_errors(fresh):
    service = fresh(error_rate=1)
    with pytest.raises(ClientError) as caught:
        service.search()
    assert caught.value.response["Error"]["Code"] == "InternalServerException"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 500
    assert service.emulator.admin.stats()["faults"] == {"failed": 1}


def test_quota_and_burst(fresh):
    service = fresh(quota=0.001, burst=3)
    outcomes = [outcome(service) for _ in range(5)]
    assert outcomes == ["fine"] * 3 + ["throttled"] * 2
    throttling = service.client.exceptions.ThrottlingException
    with pytest.raises(throttling):
        service.client.search_image_sets(datastoreId=service.datastore)
    # Each operation has a bucket of its own.
    service.client.get_datastore(datastoreId=service.datastore)
    assert service.emulator.admin.stats()["errors"] == {"ThrottlingException": 3}


def test_quota_refills(fresh):
    service = fresh(quota=100, burst=1)
    served = 0
    until = time.monotonic() + 0.3
    while time.monotonic() < until:
        served += outcome(service) == "fine"
    assert 2 <= served <= 32


def test_quotas_of_single_operations(fresh):
    service = fresh(quota=1000, quotas="SearchImageSets=0.001, GetDatastore=0")
    assert [outcome(service) for _ in range(2)] == ["fine", "throttled"]
    for _ in range(20):
        service.client.get_datastore(datastoreId=service.datastore)
    service.emulator.admin.behave(quotas="SearchImageSets=500")
    assert outcome(service) == "fine"


def test_a_whole_number_does_not_change_the_type_of_a_setting(fresh):
    admin = fresh().emulator.admin
    admin.behave(quota=25)
    assert admin.behave(quota=0.5)["quota"] == 0.5


def test_documented_quotas_have_twice_the_burst():
    behaviour = Behaviour(quota=7, quotas="documented")
    assert behaviour.limit("GetImageSetMetadata") == (50, 100)
    assert behaviour.limit("SearchImageSets") == (25, 50)
    assert behaviour.limit("DeleteImageSet")[0] == 7


def test_resets(fresh):
    assert outcome(fresh(reset_rate=1)) == "reset"


def test_cuts_come_in_all_three_forms(fresh):
    service = fresh(synthetic=60, cut_rate=1)
    outcomes = {outcome(service) for _ in range(40)}
    assert outcomes == {f"cut_{cut}" for cut in CUTS}
    assert set(service.emulator.admin.stats()["faults"]) == outcomes


def test_errors_are_not_cut(fresh):
    service = fresh(cut_rate=1)
    assert service.post(maxResults=51)[0] == 400


def test_refused_tokens(fresh):
    service = fresh(synthetic=60, token_refusal_rate=1)
    status, page = service.post()
    assert status == 200
    assert outcome(service, nextToken=page["nextToken"]) == "token_refused"


def test_latency_and_jitter(fresh):
    service = fresh(latency_ms=60, jitter_ms=20)
    started = time.monotonic()
    service.client.get_datastore(datastoreId=service.datastore)
    assert time.monotonic() - started >= 0.04
    service.emulator.admin.behave(latency_ms=2000)
    started = time.monotonic()
    service.emulator.admin.clock()
    assert time.monotonic() - started < 1.9


def test_jitter_stays_within_its_bounds():
    faults = Faults(Behaviour(latency_ms=10, jitter_ms=10), seed=1)
    delays = [faults.draw("SearchImageSets").delay_s for _ in range(500)]
    assert 0 <= min(delays) < 0.002
    assert 0.018 < max(delays) <= 0.02


def test_index_lag(exactly):
    service = exactly({"DICOMTags": {"DICOMPatientId": "old"}})
    admin = service.emulator.admin
    [row] = service.search()
    admin.behave(index_lag_ms=10_000)
    admin.update(row["imageSetId"], {"DICOMPatientId": "new"})
    [added] = admin.import_summaries([{"DICOMTags": {"DICOMPatientId": "added"}}])

    def found():
        return sorted(row["DICOMTags"]["DICOMPatientId"] for row in service.search())

    assert found() == ["old"]
    assert sorted(row["DICOMTags"]["DICOMPatientId"] for row in admin.truth()) == ["added", "new"]
    admin.advance(seconds=9.999)
    assert found() == ["old"]
    admin.advance(seconds=0.001)
    assert found() == ["added", "new"]
    admin.delete(added)
    assert found() == ["added", "new"]
    admin.advance(seconds=10)
    assert found() == ["new"]


def test_a_shorter_lag_does_not_bring_back_what_was_before(exactly):
    service = exactly({"DICOMTags": {"DICOMPatientId": "1"}})
    admin = service.emulator.admin
    [row] = service.search()
    admin.behave(index_lag_ms=60_000)
    admin.update(row["imageSetId"], {"DICOMPatientId": "2"})
    admin.behave(index_lag_ms=0)
    admin.update(row["imageSetId"], {"DICOMPatientId": "3"})
    for _ in range(2):
        assert [row["DICOMTags"]["DICOMPatientId"] for row in service.search()] == ["3"]
        admin.advance(days=1)


def test_a_seed_repeats_the_faults(fresh):
    rates = {"error_rate": 0.2, "reset_rate": 0.2, "cut_rate": 0.3}
    first, second, other = (fresh(synthetic=60, seed=seed, **rates) for seed in (5, 5, 6))
    outcomes = [[outcome(service) for _ in range(60)] for service in (first, second, other)]
    assert outcomes[0] == outcomes[1] != outcomes[2]
    assert {"failed", "reset", "fine"} <= set(outcomes[0])


def test_one_rate_leaves_the_luck_of_the_others_alone():
    def failures(**rates):
        faults = Faults(Behaviour(error_rate=0.3, **rates), seed=2)
        return [faults.draw("SearchImageSets").failed for _ in range(100)]

    assert failures() == failures(cut_rate=0.5, reset_rate=0.1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("error_rate", 1.5),
        ("cut_rate", -0.1),
        ("latency_ms", -1),
        ("quota", -1),
        ("between", "x"),
        ("quotas", "GetImageSet"),
        ("quotas", "GetImageSet=-1"),
        ("bad_document_rate", 2),
    ],
)
def test_behaviour_out_of_range(name, value):
    with pytest.raises(ValueError, match=name):
        Behaviour(**{name: value})


def test_stats_count_requests_and_can_be_reset(fresh):
    service = fresh()
    service.search()
    service.client.get_datastore(datastoreId=service.datastore)
    service.post(maxResults=99)
    stats = service.emulator.admin.stats()
    assert stats["requests"] == {"SearchImageSets": 2, "GetDatastore": 1}
    assert stats["errors"] == {"ValidationException": 1}
    service.emulator.admin.clear_stats()
    assert service.emulator.admin.stats() == {
        "requests": {},
        "most_in_10_s": {},
        "errors": {},
        "faults": {},
        "moved_to_frequent": 0,
    }


def test_a_failure_of_the_emulator_tells_no_values(fresh, monkeypatch, caplog):
    from emulator.service import operations

    value = "canary"

    def fail(*_, **__):
        raise KeyError(value)

    monkeypatch.setattr(operations, "search", fail)
    service = fresh()
    status, body = service.post()
    assert status == 500
    assert "KeyError" in caplog.text
    assert "canary" not in caplog.text + body["message"]
