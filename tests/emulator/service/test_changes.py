"""UpdateImageSetMetadata and CopyImageSet: versions, headers, summaries, conflicts."""

import gzip
import json

import pytest

TAGS = {
    "DICOMPatientId": "P1",
    "DICOMPatientName": "Old^Name",
    "DICOMStudyInstanceUID": "1.2",
    "DICOMStudyDescription": "CT CHEST",
    "DICOMSeriesInstanceUID": "1.2.3",
    "DICOMSeriesModality": "CT",
    "DICOMSeriesNumber": 2,
}


@pytest.fixture
def service(fresh):
    service = fresh()
    given = [
        {"imageSetId": "a" * 32, "DICOMTags": TAGS},
        {"imageSetId": "b" * 32, "DICOMTags": TAGS | {"DICOMSeriesInstanceUID": "1.2.4"}},
        {"imageSetId": "c" * 32, "DICOMTags": TAGS},
    ]
    for summary in given:
        service.emulator.admin.import_summaries([summary], instances=3)
    service.emulator.admin.advance(seconds=10)
    return service


PRIMARY, OTHER_SERIES, COPY = "a" * 32, "b" * 32, "c" * 32


def row(service, image_set_id):
    return next(one for one in service.search() if one["imageSetId"] == image_set_id)


def document(service, image_set_id, **version):
    answer = service.client.get_image_set_metadata(
        datastoreId=service.datastore, imageSetId=image_set_id, **version
    )
    with answer["imageSetMetadataBlob"] as blob:
        return json.loads(gzip.decompress(blob.read()))


def series(found):
    [one] = found["Study"]["Series"].values()
    return one


def update(service, image_set_id, version="1", *, updates=None, removals=None, revert=None, **more):
    changes = {}
    if updates is not None:
        changes["updatableAttributes"] = json.dumps(updates).encode()
    if removals is not None:
        changes["removableAttributes"] = json.dumps(removals).encode()
    return service.client.update_image_set_metadata(
        datastoreId=service.datastore,
        imageSetId=image_set_id,
        latestVersionId=version,
        updateImageSetMetadataUpdates=(
            {"revertToVersionId": revert} if revert else {"DICOMUpdates": changes}
        ),
        **more,
    )


def study_level(**attributes):
    return {"SchemaVersion": 1.1, "Study": {"DICOM": attributes}}


def instance_level(service, image_set_id, **attributes):
    [(uid, one)] = document(service, image_set_id)["Study"]["Series"].items()
    first = next(iter(one["Instances"]))
    return {"Study": {"Series": {uid: {"Instances": {first: {"DICOM": attributes}}}}}}


def test_an_update_is_a_new_version_with_a_new_header_and_summary(service):
    before = row(service, PRIMARY)
    answer = update(
        service, PRIMARY, updates=study_level(StudyDescription="New", StudyID="7"), force=True
    )
    assert (answer["latestVersionId"], answer["imageSetWorkflowStatus"]) == ("2", "UPDATING")
    assert answer["imageSetState"] == "LOCKED"
    after = row(service, PRIMARY)
    assert after["version"] == 2
    assert (after["createdAt"], after["updatedAt"]) == (before["createdAt"], answer["updatedAt"])
    assert answer["updatedAt"] > before["updatedAt"]
    changed = {"DICOMStudyDescription": "New", "DICOMStudyId": "7"}
    assert after["DICOMTags"] == before["DICOMTags"] | changed
    found = document(service, PRIMARY)
    assert found["Study"]["DICOM"]["StudyDescription"] == "New"
    old = document(service, PRIMARY, versionId="1")
    assert old["Study"]["DICOM"]["StudyDescription"] == "CT CHEST"
    assert series(found) == series(old)
    assert row(service, OTHER_SERIES)["version"] == 1


def test_attributes_that_are_in_no_summary(service):
    updates = instance_level(service, PRIMARY, KVP="140", ImageComments="seen")
    update(service, PRIMARY, updates=updates)
    first, second, _ = (
        one["DICOM"] for one in series(document(service, PRIMARY))["Instances"].values()
    )
    assert (first["KVP"], first["ImageComments"]) == ("140", "seen")
    assert second["ImageComments"] is None
    service.emulator.admin.update(PRIMARY, {"DICOMPatientName": "Later^Name"})
    found = document(service, PRIMARY)
    assert found["Patient"]["DICOM"]["PatientName"] == "Later^Name"
    assert next(iter(series(found)["Instances"].values()))["DICOM"]["KVP"] == "140"


def test_removal_of_an_attribute_needs_its_value(service):
    errors = service.client.exceptions
    with pytest.raises(errors.ValidationException, match="StudyDescription") as caught:
        update(service, PRIMARY, removals=study_level(StudyDescription="canary"))
    assert "canary" not in str(caught.value)
    assert row(service, PRIMARY)["version"] == 1
    update(service, PRIMARY, removals=study_level(StudyDescription="CT CHEST"))
    assert "DICOMStudyDescription" not in row(service, PRIMARY)["DICOMTags"]
    assert "StudyDescription" not in document(service, PRIMARY)["Study"]["DICOM"]


def test_removal_of_an_instance(service):
    [(uid, one)] = document(service, PRIMARY)["Study"]["Series"].items()
    gone, *kept = one["Instances"]
    frame = one["Instances"][gone]["ImageFrames"][0]
    removal = {"Study": {"Series": {uid: {"Instances": {gone: {}}}}}}
    update(service, PRIMARY, removals=removal)
    assert list(series(document(service, PRIMARY))["Instances"]) == kept
    assert len(series(document(service, PRIMARY, versionId="1"))["Instances"]) == 3
    frame_of = {"imageFrameInformation": {"imageFrameId": frame["ID"]}}
    ids = {"datastoreId": service.datastore, "imageSetId": PRIMARY}
    service.client.get_image_frame(**ids, **frame_of)["imageFrameBlob"].close()
    with pytest.raises(service.client.exceptions.ValidationException, match="at least one"):
        update(service, PRIMARY, "2", removals={"Study": {"Series": {uid: {}}}})


def test_the_version_must_be_the_latest(service):
    conflict = service.client.exceptions.ConflictException
    for version in ("0", "2", "9" * 30):
        with pytest.raises(conflict):
            update(service, PRIMARY, version, updates=study_level(StudyDescription="New"))
    update(service, PRIMARY, updates=study_level(StudyDescription="New"))
    with pytest.raises(conflict):
        update(service, PRIMARY, updates=study_level(StudyDescription="Newer"))


def test_the_whole_study(service):
    patient = {"Patient": {"DICOM": {"PatientName": "New^Name"}}}
    with pytest.raises(service.client.exceptions.ValidationException, match="whole study"):
        update(service, PRIMARY, updates=patient)
    update(service, PRIMARY, updates=patient, includeStudyImageSets=True)
    for found in service.search():
        assert (found["version"], found["DICOMTags"]["DICOMPatientName"]) == (2, "New^Name")
        assert (
            document(service, found["imageSetId"])["Patient"]["DICOM"]["PatientName"] == "New^Name"
        )


def test_reverting(service):
    update(service, PRIMARY, updates=study_level(StudyDescription="New"))
    update(service, PRIMARY, "2", updates=instance_level(service, PRIMARY, KVP="140"))
    update(service, PRIMARY, "3", revert="1")
    assert row(service, PRIMARY)["version"] == 4
    assert row(service, PRIMARY)["DICOMTags"] == TAGS
    first = document(service, PRIMARY, versionId="1")
    assert document(service, PRIMARY) == first != document(service, PRIMARY, versionId="3")
    errors = service.client.exceptions
    with pytest.raises(errors.ResourceNotFoundException):
        update(service, PRIMARY, "4", revert="9")
    with pytest.raises(errors.ValidationException, match="earlier"):
        update(service, PRIMARY, "4", revert="4")


WRONG = {
    "no JSON": (b"{SchemaVersion:1.1}", "not JSON"),
    "no levels": ({"Study": {"DICOM": []}}, "levels"),
    "another member": ({"DatastoreID": "x"}, "only"),
    "another level": ({"Patient": {"DICOM": {"StudyID": "1"}}}, "whole study"),
    "patient in study": (study_level(PatientName="A"), "PatientName belongs"),
    "instance in study": (study_level(StudyInstanceUID="1.9"), "StudyInstanceUID"),
    "study id": (study_level(StudyID="5"), "StudyID changes with force"),
    "unknown": (study_level(Nonsense="5"), "DICOM standard"),
    "private": (study_level(**{"00091001": "5"}), "Private"),
    "sequence": (study_level(ProcedureCodeSequence=[{}]), "sequence"),
    "several values": (study_level(PhysiciansOfRecord=["a", "b"]), "several"),
    "not of the VR": (study_level(StudyDate="canary"), "StudyDate"),
    "no such series": ({"Study": {"Series": {"9.9": {"DICOM": {}}}}}, "SeriesInstanceUID"),
    "no such instance": (
        {"Study": {"Series": {"1.2.3": {"Instances": {"9": {"DICOM": {}}}}}}},
        "SOPInstanceUID",
    ),
    "series of a primary one": (
        {"Study": {"Series": {"1.2.3": {"DICOM": {"SeriesDescription": "x"}}}}},
        "Series level",
    ),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG.keys())
def test_updates_that_are_refused(service, given, message):
    text = given if isinstance(given, bytes) else json.dumps(given).encode()
    with pytest.raises(service.client.exceptions.ValidationException, match=message) as caught:
        service.client.update_image_set_metadata(
            datastoreId=service.datastore,
            imageSetId=PRIMARY,
            latestVersionId="1",
            updateImageSetMetadataUpdates={"DICOMUpdates": {"updatableAttributes": text}},
        )
    assert "canary" not in str(caught.value)
    assert row(service, PRIMARY)["version"] == 1


def test_force_breaks_the_constraints_of_what_is_not_primary(service):
    assert row(service, COPY)["isPrimary"] is False
    updates = {
        "Study": {
            "DICOM": {"StudyDate": "unknown", "StudyInstanceUID": "7.7"},
            "Series": {
                "1.2.3": {
                    "DICOM": {"SeriesInstanceUID": "7.8", "SeriesNumber": "9 "},
                    "Instances": {"1.2.3.1": {"DICOM": {"SOPInstanceUID": "7.9", "00091001": "x"}}},
                }
            },
        }
    }
    with pytest.raises(service.client.exceptions.ValidationException):
        update(service, COPY, updates=updates)
    update(service, COPY, updates=updates, force=True)
    tags = row(service, COPY)["DICOMTags"]
    assert (tags["DICOMStudyInstanceUID"], tags["DICOMSeriesInstanceUID"]) == ("7.7", "7.8")
    assert (tags["DICOMStudyDate"], tags["DICOMSeriesNumber"]) == ("unknown", 9)
    instances = document(service, COPY)["Study"]["Series"]["7.8"]["Instances"]
    assert set(instances) == {"7.9", "1.2.3.2", "1.2.3.3"}
    assert instances["7.9"]["DICOM"]["00091001"] == "x"
    assert instances["7.9"]["DICOMVRs"]["00091001"]


def copy(service, source, version="1", *, into=None, instances=None, **more):
    information = {"sourceImageSet": {"latestVersionId": version}}
    if into:
        information["destinationImageSet"] = {"imageSetId": into[0], "latestVersionId": into[1]}
    if instances is not None:
        named = {uid: {} for uid in instances}
        chosen = {"Study": {"Series": {"imageSetId": {"Instances": named}}}}
        information["sourceImageSet"]["DICOMCopies"] = {"copiableAttributes": json.dumps(chosen)}
    return service.client.copy_image_set(
        datastoreId=service.datastore,
        sourceImageSetId=source,
        copyImageSetInformation=information,
        **more,
    )


def frame_ids(found):
    return [
        frame["ID"]
        for instance in series(found)["Instances"].values()
        for frame in instance["ImageFrames"]
    ]


def test_a_copy_is_a_new_image_set_with_its_own_frames(service):
    answer = copy(service, PRIMARY)
    made = answer["destinationImageSetProperties"]
    assert answer["sourceImageSetProperties"]["imageSetId"] == PRIMARY
    assert (made["latestVersionId"], made["imageSetWorkflowStatus"]) == ("1", "COPYING")
    assert made["imageSetArn"].endswith(f"/imageset/{made['imageSetId']}")
    found = row(service, made["imageSetId"])
    assert (found["version"], found["isPrimary"], found["DICOMTags"]) == (1, False, TAGS)
    assert found["createdAt"] > row(service, PRIMARY)["createdAt"]
    copied, source = document(service, made["imageSetId"]), document(service, PRIMARY)
    assert copied | {"ImageSetID": PRIMARY} == source
    service.client.delete_image_set(datastoreId=service.datastore, imageSetId=PRIMARY)
    for frame in frame_ids(copied):
        service.client.get_image_frame(
            datastoreId=service.datastore,
            imageSetId=made["imageSetId"],
            imageFrameInformation={"imageFrameId": frame},
        )["imageFrameBlob"].close()


def test_a_copy_of_some_instances(service):
    made = copy(service, PRIMARY, instances=["1.2.3.1", "1.2.3.3"])["destinationImageSetProperties"]
    found = document(service, made["imageSetId"])
    assert list(series(found)["Instances"]) == ["1.2.3.1", "1.2.3.3"]
    left_out = frame_ids(document(service, PRIMARY))[1]
    with pytest.raises(service.client.exceptions.ResourceNotFoundException):
        service.client.get_image_frame(
            datastoreId=service.datastore,
            imageSetId=made["imageSetId"],
            imageFrameInformation={"imageFrameId": left_out},
        )
    for instances in ([], ["9.9"]):
        with pytest.raises(service.client.exceptions.ValidationException, match="instances"):
            copy(service, PRIMARY, instances=instances)


def test_a_copy_into_another_image_set(service):
    errors = service.client.exceptions
    [first] = [copy(service, PRIMARY, instances=["1.2.3.1"])["destinationImageSetProperties"]]
    into = (first["imageSetId"], "1")
    answer = copy(service, PRIMARY, into=into, instances=["1.2.3.2"])
    assert answer["destinationImageSetProperties"]["latestVersionId"] == "2"
    assert row(service, into[0])["version"] == 2
    assert list(series(document(service, into[0]))["Instances"]) == ["1.2.3.1", "1.2.3.2"]
    for frame in frame_ids(document(service, into[0])):
        service.client.get_image_frame(
            datastoreId=service.datastore,
            imageSetId=into[0],
            imageFrameInformation={"imageFrameId": frame},
        )["imageFrameBlob"].close()
    with pytest.raises(errors.ConflictException):
        copy(service, PRIMARY, into=into, instances=["1.2.3.3"])
    with pytest.raises(errors.ValidationException, match="same SOPInstanceUID"):
        copy(service, PRIMARY, into=(into[0], "2"), instances=["1.2.3.2"])
    with pytest.raises(errors.ConflictException):
        copy(service, PRIMARY, "7")


def test_a_copy_of_what_disagrees_needs_force(service):
    update(service, COPY, updates=study_level(StudyDescription="Other"))
    [part] = [copy(service, COPY, "2", instances=["1.2.3.1"])["destinationImageSetProperties"]]
    into = (part["imageSetId"], "1")
    with pytest.raises(service.client.exceptions.ValidationException, match="disagree"):
        copy(service, PRIMARY, into=into, instances=["1.2.3.2"])
    copy(service, PRIMARY, into=into, instances=["1.2.3.2"], force=True)
    assert row(service, part["imageSetId"])["DICOMTags"]["DICOMStudyDescription"] == "Other"


def test_promotion(service):
    errors = service.client.exceptions
    with pytest.raises(errors.ValidationException, match="is primary"):
        copy(service, COPY, promoteToPrimary=True)
    service.client.delete_image_set(datastoreId=service.datastore, imageSetId=PRIMARY)
    made = copy(service, COPY, promoteToPrimary=True)["destinationImageSetProperties"]
    assert row(service, made["imageSetId"])["isPrimary"] is True
    with pytest.raises(errors.ValidationException, match="no destination"):
        copy(service, COPY, into=(OTHER_SERIES, "1"), promoteToPrimary=True)


def test_the_index_lag_holds_for_changes(service):
    service.emulator.admin.behave(index_lag_ms=5000)
    update(service, PRIMARY, updates=study_level(StudyDescription="New"))
    made = copy(service, PRIMARY, "2")["destinationImageSetProperties"]["imageSetId"]
    assert row(service, PRIMARY)["version"] == 1
    assert made not in {one["imageSetId"] for one in service.search()}
    service.emulator.admin.advance(seconds=5)
    assert row(service, PRIMARY)["version"] == 2
    assert row(service, made)["DICOMTags"]["DICOMStudyDescription"] == "New"
