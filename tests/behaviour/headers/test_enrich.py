"""Fetching whole headers from the emulator over HTTP: what is asked for, kept and shown."""

import shutil
from collections import Counter
from dataclasses import replace

import pytest
from command import command
from emulated import emulated, fill_lake

import cohortlake
from cohortlake import Sync
from cohortlake.errors import SettingError, Stopped
from cohortlake.headers import files
from cohortlake.healthimaging import client
from cohortlake.ingest.headers import fetch
from cohortlake.ingest.headers.choice import HeaderChoice
from cohortlake.ingest.progress import Progress
from cohortlake.stop import Stop

IMAGE_SETS = 150
EVERYTHING = HeaderChoice(include_archived=True)


@pytest.fixture(scope="module")
def hospital():
    with emulated(
        synthetic=IMAGE_SETS, seed=5, series_size=0.1, now="2026-06-01T12:00:00Z"
    ) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def without_headers(hospital, tmp_path_factory):
    return fill_lake(hospital, tmp_path_factory.mktemp("headers") / "lake")


def copied(sync, folder):
    shutil.copytree(sync.root.uri, folder)
    return Sync(replace(sync.settings, root=str(folder)))


@pytest.fixture(scope="module")
def filled(without_headers, tmp_path_factory):
    """A lake with all headers, published under `limited`."""
    sync = copied(without_headers, tmp_path_factory.mktemp("headers") / "filled")
    estimate = sync.estimate_headers(EVERYTHING)
    result = sync.fetch_headers(EVERYTHING)
    sync.publish()
    return sync, estimate, result


@pytest.fixture
def lake(hospital, without_headers, tmp_path):
    """A lake without headers, of the same hospital."""
    yield copied(without_headers, tmp_path / "lake")
    hospital.admin.mend_documents()


@pytest.fixture(autouse=True)
def at_the_hospital(hospital, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", hospital.endpoint)


def rows_of(root):
    tables = (rows for path in files.paths(root) for rows in files.read(root, path))
    return [row for rows in tables for row in rows.to_pylist()]


def test_the_bill_is_what_then_happens(filled):
    _, estimate, result = filled
    assert estimate.requests == estimate.wanted == result.headers == result.requests == IMAGE_SETS
    assert estimate.archived == result.archived > 0
    assert estimate.dollars == pytest.approx(IMAGE_SETS * 0.005 / 1000)
    assert estimate.hours == pytest.approx(IMAGE_SETS / 50 / 3600)
    assert not result.failed


def test_each_version_is_fetched_once(filled):
    sync, *_ = filled
    assert sync.estimate_headers(EVERYTHING).requests == 0
    again = sync.fetch_headers(EVERYTHING)
    assert (again.headers, again.requests) == (0, 0)


def test_each_series_shows_its_header(filled, hospital):
    sync, *_ = filled
    with cohortlake.open(sync.root.uri) as lake:
        rows = lake.sql("FROM series_headers").to_arrow().to_pylist()
        series = lake.sql("SELECT count(*) FROM series").fetchall()[0][0]
    assert len(rows) == len({row["SeriesInstanceUID"] for row in rows}) == series
    kinds = Counter()
    for row in rows:
        plan = hospital.admin.plan(row["image_set_id"])
        kinds[plan["geometry"]] += 1
        reason = row["not_regularly_spaced_because"]
        assert row["regularly_spaced_3d_volume"] == (reason is None)
        if plan["kind"] == "usual" and plan["fault"] == "none" and row["instance_count"] > 3:
            expected = {
                "tilted": "gantry tilt",
                "missing slices": "missing slices",
                "repeated positions": "several slices at one place",
            }.get(plan["geometry"])
            # Several echoes lie at one place, whatever else is wrong.
            assert expected is None or reason in (expected, "several slices at one place")
    assert len(kinds) > 2


def test_archived_image_sets_are_left_alone(lake, hospital):
    before = hospital.admin.stats()["moved_to_frequent"]
    estimate = lake.estimate_headers(HeaderChoice())
    result = lake.fetch_headers(HeaderChoice())
    assert hospital.admin.stats()["moved_to_frequent"] == before
    assert result.left_alone == estimate.archived
    assert result.headers == estimate.requests == IMAGE_SETS - estimate.archived
    assert result.archived == 0


def test_modalities_and_months(lake):
    choice = replace(EVERYTHING, modalities=frozenset(("CT",)), first_month="2025-01")
    with cohortlake.open(lake.root.uri) as opened:
        wanted = "Modality = 'CT' AND StudyDate >= '2025-01-01'"
        expected = opened.sql(f"SELECT count(*) FROM image_sets WHERE {wanted}").fetchall()[0][0]
    assert lake.fetch_headers(choice).headers == expected > 0
    assert all(files.month_of(path) >= "2025-01" for path in files.paths(lake.root))


BAD = {
    "cut": "cut",
    "empty": "cut",
    "not-gzip": "cut",
    "not-json": "no metadata document",
    "not-metadata": "no metadata document",
    "other-image-set": "document of another image set",
    "gone": "not found",
}


def test_bad_documents_are_counted_and_nothing_else_is_lost(lake, hospital, monkeypatch):
    monkeypatch.setattr(client, "_ATTEMPTS", 2)
    ids = sorted(row["imageSetId"] for row in hospital.admin.truth())
    for place, kind in enumerate(BAD):
        hospital.admin.spoil_documents([ids[place]], kind)
    result = lake.fetch_headers(EVERYTHING)
    assert result.failed == Counter(BAD.values())
    assert result.headers == IMAGE_SETS - len(BAD)
    assert lake.estimate_headers(EVERYTHING).failed == len(BAD)
    hospital.admin.mend_documents()
    mended = lake.fetch_headers(EVERYTHING)
    assert (mended.headers, mended.failed) == (len(BAD), Counter())
    assert lake.estimate_headers(EVERYTHING).failed == 0


def test_a_run_that_is_stopped_keeps_what_came(lake, monkeypatch):
    stop = Stop()
    run = Sync(lake.settings, stop=stop)
    monkeypatch.setattr(fetch, "_FILE_BYTES", 1)

    class StopsSoon(Progress):
        def headers_read(self, so_far):
            if so_far.headers > 20:
                stop.ask()

    with pytest.raises(Stopped):
        run.fetch_headers(EVERYTHING, StopsSoon())
    left = lake.estimate_headers(EVERYTHING).requests
    assert 0 < left < IMAGE_SETS - 20
    assert lake.fetch_headers(EVERYTHING).requests == left


def test_an_erased_patient_has_no_header(lake):
    lake.fetch_headers(EVERYTHING)
    with cohortlake.open(lake.root.uri) as opened:
        query = "SELECT patient_key FROM series GROUP BY 1 ORDER BY count(*) DESC LIMIT 1"
        key = opened.sql(query).fetchall()[0][0]
        ids = opened.sql("SELECT image_set_id FROM image_sets WHERE patient_key = $k", {"k": key})
        own = {row[0] for row in ids.fetchall()}
    stored = rows_of(lake.root)
    patient = next(row["PatientID"] for row in stored if row["image_set_id"] in own)
    datastore_id = lake.settings.datastores[0]
    lake.erase(patient, datastore_id)
    left = rows_of(lake.root)
    assert len(left) == len(stored) - len(own)
    assert not own & {row["image_set_id"] for row in left}
    with cohortlake.open(lake.root.uri) as opened:
        shown = opened.sql("SELECT image_set_id FROM series_headers").fetchall()
    assert {row[0] for row in shown} <= {row["image_set_id"] for row in left}
    assert len(shown) > len(left) - 10
    assert lake.fetch_headers(EVERYTHING).requests == 0


def test_a_cohort_by_slice_thickness(filled):
    sync, *_ = filled
    with cohortlake.open(sync.root.uri) as lake:
        thin = (
            lake.cohort("thin", level="series")
            .where(Modality="CT")
            .where("SliceThickness <= 2 AND regularly_spaced_3d_volume")
        )
        rows = thin.to_pandas()
        expected = lake.sql("""
            SELECT count(*) FROM series JOIN series_headers USING (datastore_id, image_set_id)
            WHERE Modality = 'CT' AND SliceThickness <= 2 AND regularly_spaced_3d_volume
        """).fetchall()[0][0]
        assert len(rows) == expected > 0
        assert (rows["SliceThickness"] <= 2).all()
        counts = thin.count("Manufacturer")
        assert counts["members"].sum() == expected


def test_series_without_a_header_are_a_step_of_their_own(lake):
    lake.fetch_headers(replace(EVERYTHING, modalities=frozenset(("CT",))))
    lake.publish()
    with cohortlake.open(lake.root.uri) as opened:
        total = opened.sql("SELECT count(*) FROM series").fetchall()[0][0]
        with_header = opened.sql("SELECT count(*) FROM series_headers").fetchall()[0][0]
        table = opened.cohort("c", level="series").exclude("Rows > 10000").attrition().to_pandas()
    step = table[table["criterion"].str.contains("no header fetched")].iloc[0]
    assert (step["excluded_series"], step["series"]) == (total - with_header, with_header)
    assert 0 < with_header < total


def test_the_command_asks_whose_headers(filled):
    sync, *_ = filled
    options = ["--root", sync.root.uri, "--datastore", sync.settings.datastores[0]]
    assert command("enrich", *options).exit_code == 2
    told = command("enrich", *options, "--all", "--include-archived", "--dry-run")
    assert told.exit_code == 0
    assert "0 requests, 0.00 hours at 50 requests/s, 0.00 USD" in told.stdout
    wrong = command("enrich", *options, "--from", "2024-13")
    assert (wrong.exit_code, "not a month" in wrong.stderr) == (2, True)


def test_dagster_s_way_is_off_until_a_setting_names_modalities(filled):
    sync, *_ = filled
    with pytest.raises(SettingError, match="COHORTLAKE_HEADERS"):
        sync.fetch_headers_of_months(dict.fromkeys(sync.settings.datastores))
    named = Sync(replace(sync.settings, headers=frozenset(("CT",))))
    assert named.fetch_headers_of_months({sync.settings.datastores[0]: ["2025-01"]}).headers == 0
