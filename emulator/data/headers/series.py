"""The header of one series: its levels and its instances, made from the tags of the summary.

It joins what `ct`, `mr` and the other modalities give with what every image has. The attributes
that all instances share become JSON once, because a series may have a thousand instances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from emulator.data.headers import ct, faults, mr, pet, private, projection, ultrasound
from emulator.data.headers.images import Images, Scan
from emulator.data.headers.plan import Plan, plan
from emulator.data.headers.scanners import Scanner, scanner
from emulator.data.headers.values import Attributes, ds, integer
from emulator.seeded import generator, identifier
from emulator.wire import encode

_MODALITIES: Mapping[str, Callable[[Scan], Images]] = {
    "CT": ct.images,
    "MR": mr.images,
    "PT": pet.images,
    "MG": projection.mammography,
    "DX": projection.radiography,
    "CR": projection.radiography,
    "XA": projection.angiography,
    "US": ultrasound.ultrasound,
    "NM": ultrasound.nuclear_medicine,
}
_HTJ2K_LOSSLESS = "1.2.840.10008.1.2.4.202"
_EXPLICIT_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_LONGEST_UID = 64


@dataclass(frozen=True)
class Header:
    """The header of a series without the tags of the summary.

    Attributes:
        plan: What is special about the series.
        patient: Attributes at the patient level.
        study: Attributes at the study level.
        series: Attributes at the series level.
        instances: The members of `Instances` as JSON texts, `"uid":{...}`.
    """

    plan: Plan
    patient: Attributes
    study: Attributes
    series: Attributes
    instances: Iterator[bytes]


def header(tags: Mapping[str, Any], image_set_id: str, instances: int) -> Header:
    """Makes the header of a series. Equal arguments give equal headers.

    Args:
        tags: `DICOMTags` of the summary.
        image_set_id: Stands for a study or a series that has no UID.
        instances: The number of instances.
    """
    scan = _scan(tags, image_set_id, instances)
    study_uid = _text(tags, "DICOMStudyInstanceUID") or image_set_id
    images = _MODALITIES.get(scan.modality, ultrasound.secondary_capture)(scan)
    device, number = scanner(study_uid, scan.modality)
    operator = generator("operator", study_uid).choice((None, ["Tech^Robin"], ["RTA^MB"]))
    own_series: Attributes = {
        **device.attributes(number),
        "SeriesDate": scan.study_date or None,
        "SeriesTime": scan.study_time,
        "FrameOfReferenceUID": f"2.25.{int(identifier('frame of reference', study_uid), 16)}",
        "PositionReferenceIndicator": None,
        "OperatorsName": operator,
        "PerformedProcedureStepID": f"PPS{number}{scan.number:03d}",
        "RequestAttributesSequence": [
            {"ScheduledProcedureStepID": f"SPS{number}", "RequestedProcedureID": f"RP{number}"}
        ],
        **images.series,
    }
    return Header(
        plan=scan.plan,
        patient={"IssuerOfPatientID": "NORTHCOTE", "PatientComments": None},
        study=_study(study_uid),
        series=own_series,
        instances=_instances(scan, device, images),
    )


def sop_instance_uid(series_uid: str, number: int) -> str:
    """Returns the SOPInstanceUID of an instance, counted from 1."""
    uid = f"{series_uid}.{number}"
    if len(uid) <= _LONGEST_UID:
        return uid
    return f"2.25.{int(identifier('instance', series_uid, number), 16)}"


def frame_id(series_uid: str, number: int, frame: int, size: int) -> str:
    """Returns the id of an image frame. It holds the frame's size, so that no table is needed."""
    place = f"{size:08x}{number & 0xFFFF:04x}{frame & 0xFFFF:04x}"
    return identifier("frame", series_uid, place)[:16] + place


def frame_size(series_uid: str, frame: str) -> int | None:
    """Returns the size in bytes of a frame of a series; `None` if the id belongs to no such."""
    place = frame[16:]
    # The hash proves that the place is hexadecimal.
    if identifier("frame", series_uid, place)[:16] != frame[:16]:
        return None
    return int(place[:8], 16)


def _scan(tags: Mapping[str, Any], image_set_id: str, instances: int) -> Scan:
    modality, body = _text(tags, "DICOMSeriesModality"), _text(tags, "DICOMSeriesBodyPart")
    study_uid = _text(tags, "DICOMStudyInstanceUID") or image_set_id
    series_uid = _text(tags, "DICOMSeriesInstanceUID") or image_set_id
    number = tags.get("DICOMSeriesNumber")
    number = number if type(number) is int else 1
    return Scan(
        modality=modality,
        body=body,
        number=number,
        instances=instances,
        study_date=_text(tags, "DICOMStudyDate"),
        study_time=_text(tags, "DICOMStudyTime") or "120000",
        series_uid=series_uid,
        scanner=scanner(study_uid, modality)[0],
        plan=plan(study_uid, series_uid, modality, body, number, instances),
        chance=generator("series", series_uid),
    )


def _study(study_uid: str) -> Attributes:
    chance = generator("study", study_uid)
    return {
        "ReferringPhysicianName": chance.choice(("Referrer^Ada", "Ward^Seven", None)),
        "PatientAge": f"{chance.randrange(1, 95):03d}Y",
        "PatientSize": ds(round(chance.uniform(1.5, 1.98), 2)),
        "PatientWeight": ds(chance.randrange(45, 120)),
        "AdmittingDiagnosesDescription": None,
        "AdditionalPatientHistory": None,
    }


def _instances(scan: Scan, device: Scanner, images: Images) -> Iterator[bytes]:
    """Yields each instance as a member of a JSON object."""
    chance, shared = scan.chance, dict(images.shared)
    varying = [
        {
            "SOPInstanceUID": sop_instance_uid(scan.series_uid, number),
            "InstanceNumber": integer(number),
            "AcquisitionNumber": integer(1 + number // 400),
            **own,
        }
        for number, own in enumerate(images.varying, 1)
    ]
    faults.add(scan.plan.fault, shared, varying, chance)
    own_elements = private.elements(device, scan.modality, chance)
    shared |= {
        "SpecificCharacterSet": ["ISO_IR 192"],
        "AcquisitionDate": scan.study_date or None,
        "AcquisitionTime": scan.study_time,
        "ContentDate": scan.study_date or None,
        "ContentTime": scan.study_time,
        "InstanceCreationDate": scan.study_date or None,
        "ImageComments": chance.choice((None, None, None, "patient moved", "2nd attempt")),
        "TransferSyntaxUID": _EXPLICIT_LITTLE_ENDIAN,
        "ImplementationClassUID": "1.2.276.0.7230010.3.0.3.6.7",
        **{key: value for key, value in own_elements.items() if key not in varying[0]},
    }
    shared_text = encode(shared)[1:]
    vrs = encode(private.vrs({**shared, **varying[0]}))
    full = _frame_bytes(shared)
    for number, own in enumerate(varying, 1):
        uid = own["SOPInstanceUID"]
        frames = int(own.get("NumberOfFrames") or shared.get("NumberOfFrames") or 1)
        listed = [_frame(scan.series_uid, number, frame, shared, full) for frame in range(frames)]
        yield (
            b'"%b":{"DICOM":%b,%b,"DICOMVRs":%b,"ImageFrames":[%b],"StoredTransferSyntaxUID":"%b"}'
            % (
                uid.encode(),
                encode(own)[:-1],
                shared_text,
                vrs,
                b",".join(listed),
                _HTJ2K_LOSSLESS.encode(),
            )
        )


def _frame_bytes(shared: Attributes) -> int:
    samples = int(shared["Rows"]) * int(shared["Columns"]) * int(shared["SamplesPerPixel"])
    return samples * int(shared["BitsAllocated"]) // 8


def _frame(series_uid: str, number: int, frame: int, shared: Attributes, full: int) -> bytes:
    """Returns an item of ImageFrames. Its checksum is invented, as its pixels are."""
    # Lossless compression leaves a quarter to a half of the bytes.
    size = full * (25 + (number * 7 + frame * 13) % 20) // 100
    own = frame_id(series_uid, number, frame, size)
    return (
        b'{"ID":"%b","PixelDataChecksumFromBaseToFullResolution":[{"Width":%d,"Height":%d,'
        b'"Checksum":%d}],"MinPixelValue":0,"MaxPixelValue":%d,"FrameSizeInBytes":%d}'
    ) % (
        own.encode(),
        int(shared["Columns"]),
        int(shared["Rows"]),
        int(own[:8], 16),
        1000 + number * 7 % 3000,
        size,
    )


def _text(tags: Mapping[str, Any], name: str) -> str:
    value = tags.get(name)
    return value if isinstance(value, str) else ""
