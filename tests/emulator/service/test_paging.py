"""The law of paging: in any order the pages add up to all rows, each once; and what it costs."""

from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws import examples

from emulator import Options
from emulator.data.records import from_summary
from emulator.service import search as searching
from emulator.wire import encode
from emulator.world import build

FIELDS = ("updatedAt", "createdAt", "DICOMStudyDateAndTime")


def criteria(**given):
    return searching.criteria_of(given)


def paged(store, datastore, wanted, behaviour, size):
    token, rows, pages = None, [], 0
    while token is not None or pages == 0:
        page = searching.search(store, datastore, wanted, behaviour, limit=size, token=token)
        assert len(page.summaries) <= size
        rows += page.summaries
        pages += 1
        token = page.next_token
    return rows, pages


@pytest.fixture(scope="module")
def crowded():
    """Rows of which many share their sort keys."""
    world = build(Options(now="2024-06-03T09:00:00Z", clock="stopped"))
    datastore = world.store.datastores()[0]
    summaries = [
        {
            "imageSetId": f"{number * 7919 % 997:032d}",
            "createdAt": number % 5,
            "updatedAt": number % 3 + 0.001 * (number % 2),
            "DICOMTags": {"DICOMStudyDate": f"202401{10 + number % 4}"} if number % 6 else {},
        }
        for number in range(240)
    ]
    world.store.load(from_summary(datastore.number, one) for one in summaries)
    yield world, datastore, summaries
    world.close()


@settings(max_examples=examples(80, quick=12), deadline=None)
@given(
    field=st.sampled_from(FIELDS),
    order=st.sampled_from(["ASC", "DESC"]),
    size=st.integers(1, 50),
    low=st.none() | st.integers(0, 4),
    span=st.integers(0, 4),
)
def test_pages_add_up(crowded, field, order, size, low, span):
    world, datastore, summaries = crowded
    given_filters = {}
    expected = summaries
    if low is not None:
        ends = [{"createdAt": low}, {"createdAt": low + span}]
        given_filters = {"filters": [{"operator": "BETWEEN", "values": ends}]}
        expected = [row for row in summaries if low <= row["createdAt"] <= low + span]
    wanted = criteria(sort={"sortField": field, "sortOrder": order}, **given_filters)
    rows, pages = paged(world.store, datastore, wanted, world.options.behaviour, size)

    def key(row):
        if field == "DICOMStudyDateAndTime":
            return row["DICOMTags"].get("DICOMStudyDate", ""), row["imageSetId"]
        return row[field], row["imageSetId"]

    ordered = sorted(expected, key=key, reverse=order == "DESC")
    assert rows == [encode(row) for row in ordered]
    assert pages == max(1, -(-len(ordered) // size))


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("order", ["ASC", "DESC"])
def test_pages_add_up_over_http(hospital, field, order):
    rows = hospital.search(sort={"sortField": field, "sortOrder": order}, size=37)
    ids = [row["imageSetId"] for row in rows]
    assert sorted(ids) == [row["imageSetId"] for row in hospital.emulator.admin.truth()]
    if field in rows[0]:
        keys = [row[field] for row in rows]
        assert keys == sorted(keys, reverse=order == "DESC")


def test_a_token_belongs_to_its_search(hospital):
    _, first = hospital.post(maxResults=10)
    token = first["nextToken"]
    assert hospital.post(nextToken=token, maxResults=50)[0] == 200
    other = {"sort": {"sortField": "createdAt", "sortOrder": "ASC"}}
    assert hospital.post(other, nextToken=token)[0] == 400
    path = f"/datastore/{hospital.emulator.datastores[1]}/searchImageSets?nextToken={quote(token)}"
    assert hospital.post(path=path)[0] == 400


def test_a_token_outlives_the_row_it_points_at(exactly):
    service = exactly(*({} for _ in range(6)))
    _, page = service.post(maxResults=3)
    service.emulator.admin.delete(page["imageSetsMetadataSummaries"][-1]["imageSetId"])
    _, rest = service.post(maxResults=50, nextToken=page["nextToken"])
    assert len(rest["imageSetsMetadataSummaries"]) == 3


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("order", ["ASC", "DESC"])
@pytest.mark.parametrize("after", [None, (63_000, "0" * 32)])
def test_a_page_is_one_seek_along_an_index(crowded, field, order, after):
    world, datastore, _ = crowded
    wanted = criteria(sort={"sortField": field, "sortOrder": order})
    column = searching._KEYS[field]
    index = searching._INDEX_OF[column]
    sql, parameters = searching.statement(
        wanted, world.options.behaviour, (-1, 2**62), after, index
    )
    assert "OFFSET" not in sql
    plan = world.store.query(f"EXPLAIN QUERY PLAN {sql}", [datastore.number, *parameters, 51])
    [step] = [row[3] for row in plan]
    assert step.startswith(f"SEARCH image_sets USING INDEX {index} (datastore=?")
    if after is not None:
        assert f"({column},image_set_id)" in step


def test_a_selective_filter_takes_its_own_index(crowded):
    world, datastore, _ = crowded
    values = [{"DICOMPatientId": "A"}]
    wanted = criteria(filters=[{"operator": "EQUAL", "values": values}])
    behaviour = world.options.behaviour
    assert searching._driving_index(world.store, datastore, wanted, behaviour) == "by_patient"


def test_a_filter_that_matches_much_walks_the_sort_index(crowded, monkeypatch):
    world, datastore, _ = crowded
    values = [{"createdAt": 0}, {"createdAt": 9}]
    wanted = criteria(filters=[{"operator": "BETWEEN", "values": values}])
    behaviour = world.options.behaviour
    assert searching._driving_index(world.store, datastore, wanted, behaviour) == "by_created"
    monkeypatch.setattr(searching, "SELECTIVE", 100)
    assert searching._driving_index(world.store, datastore, wanted, behaviour) == "by_updated"
