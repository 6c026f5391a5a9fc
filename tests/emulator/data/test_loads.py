"""What a world is loaded with: NDJSON as it is, and state kept in a file."""

import json

import pytest

from emulator import Options
from emulator.world import build

ODD = [
    b'{"imageSetId": "one", "unknown": {"a": [1, null]}, "version": 3, "updatedAt": 17e8}',
    b'{"updatedAt":"soon","imageSetId":"two","DICOMTags":{"DICOMPatientId":5,"Future":"x"}}',
    b'{"imageSetId":"three","createdAt":1e3,"DICOMTags":null,"isPrimary":"yes"}',
    '{"imageSetId":"four","DICOMTags":{"DICOMPatientName":"山田^太郎"},"updatedAt":true}'.encode(),
]


def test_summaries_are_served_byte_for_byte(fresh, tmp_path):
    path = tmp_path / "odd.ndjson"
    path.write_bytes(b"\n\n".join(ODD))
    service = fresh(load=[path])
    assert sorted(service.emulator.admin.truth_lines()) == sorted(line + b"\n" for line in ODD)
    _, _, body = service.raw("POST", f"/datastore/{service.datastore}/searchImageSets")
    assert all(line in body for line in ODD)
    ids = [row["imageSetId"] for row in json.loads(body)["imageSetsMetadataSummaries"]]
    # What has no usable updatedAt sorts as the oldest.
    assert ids[0] == "one"


def test_truth_loads_again(fresh, tmp_path):
    first = fresh(synthetic=120, seed=4)
    path = tmp_path / "truth.ndjson"
    path.write_bytes(b"".join(first.emulator.admin.truth_lines()))
    second = fresh(load=[path])
    assert first.search(size=50) == second.search(size=7)


def test_odd_summaries_live_on(fresh, tmp_path):
    path = tmp_path / "odd.ndjson"
    path.write_bytes(ODD[2].replace(b"three", b"3" * 32))
    service = fresh(load=[path])
    service.emulator.admin.update("3" * 32, {"DICOMPatientId": "A"})
    [row] = service.emulator.admin.truth()
    assert row["DICOMTags"] == {"DICOMPatientId": "A"}
    assert (row["createdAt"], row["isPrimary"], row["version"]) == (1e3, "yes", 2)


@pytest.mark.parametrize("line", ["{", "[]", "{}", '{"imageSetId": 5}'])
def test_lines_that_are_no_summary(tmp_path, line):
    path = tmp_path / "bad.ndjson"
    path.write_text('{"imageSetId":"a"}\n' + line)
    with pytest.raises(ValueError, match="line 2"):
        build(Options(load=[path]))


def test_an_image_set_twice(tmp_path):
    path = tmp_path / "twice.ndjson"
    path.write_text('{"imageSetId":"a"}\n' * 2)
    with pytest.raises(ValueError, match="twice"):
        build(Options(load=[path]))


def test_state_survives_in_a_file(fresh, tmp_path):
    db = tmp_path / "state.sqlite"
    first = fresh(synthetic=80, seed=1, db=db)
    first.emulator.admin.live(2, seed=1)
    truth = list(first.emulator.admin.truth_lines())
    now = first.emulator.admin.clock()["epochSeconds"]
    second = fresh(db=db)
    assert second.emulator.datastores == first.emulator.datastores
    assert list(second.emulator.admin.truth_lines()) == truth
    # No row lies in the future of the clock that starts again.
    newest = max(json.loads(line)["updatedAt"] for line in truth)
    assert newest < second.emulator.admin.clock()["epochSeconds"] <= now
    with pytest.raises(ValueError, match="already holds"):
        build(Options(db=db, synthetic=1))


def test_a_load_that_fails_leaves_the_file_as_it_was(tmp_path):
    bad, db = tmp_path / "bad.ndjson", tmp_path / "state.sqlite"
    bad.write_text("{")
    with pytest.raises(ValueError, match="line 1"):
        build(Options(load=[bad], db=db))
    world = build(Options(synthetic=3, db=db))
    assert world.store.row_count() >= 3
    world.close()


def test_data_stores_have_fixed_ids(fresh):
    service = fresh(datastores=3, datastore_id="d" * 32, seed=9)
    assert service.datastore == "d" * 32
    assert fresh(datastores=3, seed=9).emulator.datastores[1:] == service.emulator.datastores[1:]


@pytest.mark.parametrize(
    "options",
    [
        {"datastores": 0},
        {"synthetic": -1},
        {"datastore_id": "X"},
        {"now": "yesterday"},
        {"clock": "slow"},
    ],
)
def test_options_that_are_no_good(options):
    with pytest.raises(ValueError, match=r"."):
        build(Options(**options))
