"""Every frame of a cohort is fetched from the emulator by a manifest of each format.

Nothing of the library is used to read a manifest: each is read as its tool reads it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import urllib.request
from collections import Counter
from dataclasses import replace

import boto3
import pyarrow.parquet as pq
import pytest
from botocore.config import Config
from emulated import emulated, fill_lake
from unpublished import unpublished

import cohortlake
from cohortlake import Sync
from cohortlake.cohort.pixels.write import FORMATS
from cohortlake.errors import PixelsNotReachable
from cohortlake.ingest.headers.choice import HeaderChoice

EVERYTHING = HeaderChoice(include_archived=True)


@pytest.fixture(scope="module")
def hospital():
    with emulated(
        synthetic=80,
        seed=5,
        series_size=0.03,
        imported_years=3,
        archive_years=1,
        now="2026-06-01T12:00:00Z",
    ) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def sync(hospital, tmp_path_factory):
    """A lake of which all headers but those of MR were fetched, published under `limited`."""
    sync = fill_lake(hospital, tmp_path_factory.mktemp("pixels") / "lake")
    modalities = {row["DICOMTags"].get("DICOMSeriesModality") for row in hospital.admin.truth()}
    named = frozenset(m for m in modalities if isinstance(m, str)) - {"MR"}
    sync.fetch_headers(replace(EVERYTHING, modalities=named))
    sync.publish()
    return sync


@pytest.fixture(autouse=True)
def at_the_hospital(hospital, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_MEDICAL_IMAGING", hospital.endpoint)


@pytest.fixture
def lake(sync):
    with cohortlake.open(sync.root.uri) as opened:
        yield opened


@pytest.fixture
def cohort(lake):
    return lake.cohort("thorax", level="series").where(Modality=["CT", "DX", "MR", "US"])


def with_header(lake):
    """The image sets of the cohort that have a header: id -> version, frames and bytes."""
    rows = lake.sql("""
        SELECT image_set_id, h.version, frame_count, size_bytes FROM series
        JOIN series_headers h USING (datastore_id, image_set_id)
        WHERE Modality IN ('CT', 'DX', 'MR', 'US') AND series.patient_key IS NOT NULL
          AND series.StudyInstanceUID IS NOT NULL
    """).fetchall()
    return {image_set_id: tuple(rest) for image_set_id, *rest in rows}


@pytest.fixture(scope="module")
def fetch(hospital):
    """Fetch a frame by GetImageFrame; a client is made once."""
    client = boto3.client(
        "medical-imaging",
        region_name="us-east-1",
        endpoint_url=hospital.endpoint,
        config=Config(inject_host_prefix=False),
    )

    def frame(datastore_id, image_set_id, frame_id):
        answer = client.get_image_frame(
            datastoreId=datastore_id,
            imageSetId=image_set_id,
            imageFrameInformation={"imageFrameId": frame_id},
        )
        return answer["imageFrameBlob"].read()

    return frame


def read_as_ahi_retrieve(path):
    """Yield the requests that the tool makes of a file: see makeDownloadRequest in its source."""
    document = json.loads(path.read_bytes())
    for series in document["Study"]["Series"].values():
        for instance in series["Instances"].values():
            for frame in instance["ImageFrames"]:
                size = float(frame["FrameSizeInBytes"])
                yield document["DatastoreID"], document["ImageSetID"], frame["ID"], size


def test_ahi_retrieve(lake, cohort, fetch, tmp_path):
    written = cohort.manifest(tmp_path / "pixels", format="ahi-retrieve")
    expected = with_header(lake)
    frames, sizes = Counter(), Counter()
    for path in (tmp_path / "pixels").glob("*/*.json"):
        for datastore_id, image_set_id, frame_id, size in read_as_ahi_retrieve(path):
            assert path.parts[-2:] == (datastore_id, f"{image_set_id}.json")
            assert len(fetch(datastore_id, image_set_id, frame_id)) == size
            frames[image_set_id] += 1
            sizes[image_set_id] += int(size)
    assert frames == {i: n for i, (_, n, _) in expected.items()}
    assert sizes == {i: n for i, (_, _, n) in expected.items()}
    assert len(expected) > 20
    assert (written.series, written.frames) == (len(expected), sum(frames.values()))
    assert (written.bytes, written.requests) == (sum(sizes.values()), sum(frames.values()))
    assert written.hours == pytest.approx(written.requests / 1000 / 3600)
    assert written.dollars == pytest.approx(written.requests * 0.005 / 1000)

    without = len(cohort) - len(expected)
    assert written.left_out == {"no header fetched": without}
    assert without > 0
    told = json.loads((tmp_path / "pixels/manifest.json").read_bytes())["cohortlake"]
    assert told["series"] == len(expected)
    assert len(told["left_out"]) == without
    assert {row["image_set_id"] for row in told["left_out"]}.isdisjoint(expected)
    some = json.loads(next((tmp_path / "pixels").glob("*/*.json")).read_bytes())
    assert some["cohortlake"]["version"] == expected[some["ImageSetID"]][0]


def web(url):
    with urllib.request.urlopen(url) as answer:  # noqa: S310
        return answer.read()


def test_dicomweb(cohort, lake, tmp_path):
    written = cohort.manifest(tmp_path / "urls.json", format="dicomweb")
    document = json.loads((tmp_path / "urls.json").read_bytes())
    assert len(document["series"]) == written.series == len(cohort)
    assert (written.left_out, written.without_header) == ({}, len(cohort) - len(with_header(lake)))
    frames = Counter()
    for series in document["series"]:
        instances = json.loads(web(series["metadata_url"]))
        for instance in instances:
            uid = instance["00080018"]["Value"][0]
            count = int(instance.get("00280008", {}).get("Value", [1])[0])
            numbers = ",".join(str(number) for number in range(1, count + 1))
            query = f"imageSetId={series['image_set_id']}"
            url = f"{series['url']}/instances/{uid}/frames/{numbers}?{query}"
            assert web(url).count(b"Content-Type") == count
            frames[series["image_set_id"]] += count
    expected = {i: n for i, (_, n, _) in with_header(lake).items()}
    assert expected.items() <= frames.items()
    burned = {s["image_set_id"] for s in document["series"] if s["burned_in_annotation"] == "YES"}
    asked = lake.sql("SELECT image_set_id FROM series_headers WHERE BurnedInAnnotation = 'YES'")
    assert burned == {image_set_id for (image_set_id,) in asked.fetchall()} & {*frames}
    assert written.burned_in == len(burned) > 0
    assert all(s["frames"] in (None, frames[s["image_set_id"]]) for s in document["series"])


def test_monai(lake, cohort, fetch, tmp_path):
    keys = cohort.to_pandas()["patient_key"].unique()
    labels = {"patient_key": keys, "grade": [number % 3 for number in range(len(keys))]}
    lake.attach("registry", labels)
    labelled = cohort.join("registry").split(train=0.6, validation=0.2, test=0.2)
    written = labelled.manifest(tmp_path / "datalist.json", format="monai", label="grade")
    labelled.manifest(tmp_path / "frames", format="ahi-retrieve")
    document = json.loads((tmp_path / "datalist.json").read_bytes())
    assert list(document) == ["test", "training", "validation", "cohortlake"]
    members = labelled.to_pandas().set_index("image_set_id")
    patients = {}
    for part in ("training", "validation", "test"):
        for item in document[part]:
            row = members.loc[item["image_set_id"]]
            assert item["label"] == row["grade"]
            assert item["split"] == row["split"]
            assert {"training": "train"}.get(part, part) == row["split"]
            patients.setdefault(item["patient_key"], set()).add(part)
            if item["frames"] is None:
                continue
            # `image` is where ahi-retrieve saves the frames of the file of the same name.
            requests = read_as_ahi_retrieve(tmp_path / f"frames/{item['image']}.json")
            sizes = [len(fetch(*request[:3])) for request in requests]
            assert (len(sizes), sum(sizes)) == (item["frames"], item["bytes"])
    assert all(len(parts) == 1 for parts in patients.values())
    # Keys are drawn for each lake, so one part of a few patients may be empty.
    assert len(set.union(*patients.values())) > 1
    assert written.parts == members["split"].value_counts().to_dict()
    assert written.series == len(members)


def test_croissant(lake, cohort, fetch, tmp_path):
    cohort.split(train=0.8, test=0.2).manifest(tmp_path / "dataset", format="croissant")
    document = json.loads((tmp_path / "dataset/croissant.json").read_text())
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    tables = {}
    for file in document["distribution"]:
        content = (tmp_path / "dataset" / file["contentUrl"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert file["contentSize"] == f"{len(content)} B"
        tables[file["@id"]] = pq.read_table(tmp_path / "dataset" / file["contentUrl"])
    # mlcroissant reads no value that is not in the vocabulary of the context.
    known = {*document["@context"], "@context", "@type", "datePublished", "version", "distribution"}
    assert {*document} <= known
    ids = Counter(i["@id"] for i in identified(document))
    assert set(ids.values()) == {1}
    for node in identified(document):
        if source := node.get("source"):
            table = tables[source["fileObject"]["@id"]]
            assert source["extract"]["column"] in table.column_names
    for record_set in document["recordSet"]:
        assert record_set["key"]["@id"] in {field["@id"] for field in record_set["field"]}
        if record_set["name"] != "splits":
            names = [field["name"] for field in record_set["field"]]
            assert names == tables[f"{record_set['name']}.parquet"].column_names

    sizes = Counter()
    for row in tables["frames.parquet"].to_pylist():
        fetched = fetch(row["datastore_id"], row["image_set_id"], row["frame_id"])
        assert len(fetched) == row["bytes"]
        sizes[row["image_set_id"]] += len(fetched)
    expected = with_header(lake)
    assert sizes == {i: n for i, (_, _, n) in expected.items()}
    for row in tables["series.parquet"].to_pylist():
        own = (row["version"], row["frames"], row["bytes"])
        assert own == expected[row["image_set_id"]]
        assert row["split"] in ("train", "test")


def identified(node):
    if isinstance(node, dict):
        if "@type" in node and "@id" in node:
            yield node
        values = [value for key, value in node.items() if key != "@context"]
    else:
        values = node if isinstance(node, list) else []
    for value in values:
        yield from identified(value)


@pytest.mark.parametrize("level", ["patient", "study", "series"])
def test_one_maker_of_scanners_is_held_out_at_each_level(lake, level, tmp_path):
    (maker,) = lake.sql("""
        SELECT Manufacturer FROM series_headers JOIN series USING (datastore_id, image_set_id)
        WHERE series.Modality = 'CT' GROUP BY 1 ORDER BY count(DISTINCT series.patient_key) LIMIT 1
    """).fetchall()[0]
    known = lake.cohort("known", level=level).where(Modality="CT").where("Manufacturer IS NOT NULL")
    one = known.first_study_per_patient()
    split = one.split(train=0.7, val=0.3, test={"Manufacturer": maker})
    written = split.manifest(tmp_path / "list.json", format="monai")
    document = json.loads((tmp_path / "list.json").read_bytes())
    makers = dict(lake.sql("SELECT image_set_id, Manufacturer FROM series_headers").fetchall())
    found = {
        part: {makers[item["image_set_id"]] for item in document[part]}
        for part in ("training", "validation", "test")
    }
    assert found["test"] == {maker}
    assert maker not in found["training"] | found["validation"]
    assert found["training"]
    series = (
        lake.cohort("all", level="series").where(Modality="CT").where("Manufacturer IS NOT NULL")
    )
    assert written.series == len(series.first_study_per_patient())


def test_safe_gives_no_manifest(sync, tmp_path):
    root = tmp_path / "lake"
    shutil.copytree(sync.root.uri, root)
    Sync(replace(sync.settings, root=str(root), privacy="safe")).publish()
    with cohortlake.open(str(root)) as lake:
        assert "image_set_id" in lake.columns("series")
        for name in FORMATS:
            with pytest.raises(PixelsNotReachable, match=r"'safe' replaces UIDs.*`limited` shows"):
                lake.cohort("all").manifest(tmp_path / "out", format=name)
    assert not (tmp_path / "out").exists()


def test_verify_names_what_changed_in_a_week_and_nothing_else(sync, hospital, tmp_path):
    """Last in this module, because the hospital lives on."""
    root = tmp_path / "lake"
    shutil.copytree(sync.root.uri, root)
    later = Sync(replace(sync.settings, root=str(root)))
    with cohortlake.open(str(root)) as lake:
        lake.cohort("all", level="patient").freeze()
        members = {*lake.cohort("all", level="series").to_pandas()["image_set_id"]}
        versions = lake.sql("SELECT image_set_id, version FROM image_sets").fetchall()
        frozen = {i: version for i, version in versions if i in members}
    hospital.admin.live(7, seed=11)
    with unpublished():
        later.run()
    later.reconcile(accept_deletions=True)
    now = {row["imageSetId"]: row["version"] for row in hospital.admin.truth()}
    expected = {i: (v, now.get(i)) for i, v in frozen.items() if now.get(i) != v}
    with cohortlake.open(str(root)) as lake:
        found = lake.verify("all").image_sets
        written = lake.manifest("all", tmp_path / "then.json", format="monai")
    named = found.astype(object).where(found.notna(), None).set_index("image_set_id")
    rows = zip(named.index, named["frozen_version"], named["version"], strict=True)
    assert {i: (v, w) for i, v, w in rows} == expected
    gone = sum(w is None for _, w in expected.values())
    assert 0 < gone < len(expected) < len(frozen)
    assert written.left_out == {"gone from the data store": gone}
    assert (written.changed, written.series) == (len(expected) - gone, len(frozen) - gone)
