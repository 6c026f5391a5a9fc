"""Describes the columns of the table `series_headers`, and where each stands in a header.

The names are IDC's: the DICOM keyword, with the unit behind it where IDC has one. A column holds a
value only if all instances of the series have it. Where they differ it is null, and for some
numbers the least, the greatest and the number of different values stand beside it. See
`headers.columns` for how a value is read.

Units are the standard's: mm, degrees, ms, kV, mA, s. Source of tags, VRs and units: DICOM PS3.6 and
PS3.3; of `basic_profile`: PS3.15 table E.1-1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from cohortlake.schema.column import Column, Identifies

_TYPES = {
    "DS": pa.float64(),
    "FD": pa.float64(),
    "FL": pa.float64(),
    "IS": pa.int64(),
    "US": pa.int64(),
    "CS": pa.string(),
    "LO": pa.string(),
    "SH": pa.string(),
    "UI": pa.string(),
}


@dataclass(frozen=True)
class HeaderColumn:
    """A column, and where its value stands.

    Attributes:
        column: The column.
        path: The keyword of the attribute; behind the keywords of the sequences it stands in, of
            which the first item counts.
        place: Which of several values it is, from 0; None for the only one.
        spread: Whether the least, the greatest and the number of different values stand beside it.
    """

    column: Column
    path: tuple[str, ...]
    place: int | None = None
    spread: bool = False

    @property
    def keyword(self) -> str:
        """The attribute that the value stands in, at the level of instances, series or study."""
        return self.path[0]

    @property
    def spread_columns(self) -> tuple[Column, ...]:
        """The columns of the least, the greatest and the number of different values."""
        if not self.spread:
            return ()
        name, own = self.column.name, "if its instances differ; else null."
        return (
            Column(f"{name}_min", self.column.type, f"Least {name} of the series, {own}"),
            Column(f"{name}_max", self.column.type, f"Greatest {name} of the series, {own}"),
            Column(
                f"{name}_n_distinct", pa.int64(), f"Different values of {name}, without missing "
                "ones, if its instances differ; else null.",
            ),
        )  # fmt: skip


_NO, _CODED, _FREE = Identifies.NO, Identifies.CODED, Identifies.FREE_TEXT
_DEVICE, _UID = Identifies.DIRECTLY, Identifies.UID


def _column(
    name: str,
    tag: str,
    vr: str,
    description: str,
    identifies: Identifies = _NO,
    basic_profile: str | None = None,
    path: tuple[str, ...] = (),
    place: int | None = None,
    *,
    spread: bool = False,
) -> HeaderColumn:
    column = Column(name, _TYPES[vr], description, identifies, None, tag, vr, basic_profile)
    return HeaderColumn(column, path or (name,), place, spread)


_RADIO = "RadiopharmaceuticalInformationSequence"
_REGION = "AnatomicRegionSequence"

GENERAL = (
    _column("ImageType", "(0008,0008)", "CS", "Where the image comes from: ORIGINAL or DERIVED, "
            "PRIMARY or SECONDARY, then what it shows, with \\ between.", _CODED),
    _column("SOPClassUID", "(0008,0016)", "UI", "The kind of object. Null if it is not one of the "
            "standard's."),
    _column("TransferSyntaxUID", "(0002,0010)", "UI", "How the pixels were encoded when they were "
            "imported. Null if it is not one of the standard's.",
            path=("StoredTransferSyntaxUID",)),
    _column("Manufacturer", "(0008,0070)", "LO", "Who made the device.", _CODED),
    _column("ManufacturerModelName", "(0008,1090)", "LO", "The device's model.", _CODED),
    _column("SoftwareVersions", "(0018,1020)", "LO", "Its software.", _FREE),
    _column("DeviceSerialNumber", "(0018,1000)", "LO", "Its serial number.", _DEVICE, "X/Z/D"),
    _column("StationName", "(0008,1010)", "SH", "The name of the device in the department.",
            _DEVICE, "X/Z/D"),
    _column("InstitutionName", "(0008,0080)", "LO", "Where it stands.", _FREE, "X/Z/D"),
    _column("SeriesDescription", "(0008,103E)", "LO", "What people or the device call the series.",
            _FREE, "X"),
    _column("ProtocolName", "(0018,1030)", "LO", "The protocol of the acquisition.", _FREE, "X/D"),
    _column("FrameOfReferenceUID", "(0020,0052)", "UI", "The coordinate system of the positions.",
            _UID, "U"),
    _column("Laterality", "(0020,0060)", "CS", "R or L, of the series or of the image.", _CODED),
    _column("PatientPosition", "(0018,5100)", "CS", "How the patient lies: HFS is head first, on "
            "the back.", _CODED),
    _column("ViewPosition", "(0018,5101)", "CS", "The view of a projection: AP, PA, CC, MLO.",
            _CODED),
    _column("anatomic_region_code", "(0008,2218)", "SH", "Code value of the anatomic region.",
            _FREE, path=(_REGION, "CodeValue")),
    _column("anatomic_region_meaning", "(0008,2218)", "LO", "Meaning of that code.", _FREE,
            path=(_REGION, "CodeMeaning")),
    _column("BurnedInAnnotation", "(0028,0301)", "CS", "YES if text in the pixels may identify the "
            "patient.", _CODED),
    _column("LossyImageCompression", "(0028,2110)", "CS", "01 if it was ever compressed with "
            "loss.", _CODED),
    _column("PhotometricInterpretation", "(0028,0004)", "CS", "What pixel values mean.", _CODED),
    _column("SamplesPerPixel", "(0028,0002)", "US", "Samples of a pixel: 3 for colours."),
    _column("Rows", "(0028,0010)", "US", "Rows of an image.", spread=True),
    _column("Columns", "(0028,0011)", "US", "Columns of an image.", spread=True),
    _column("BitsStored", "(0028,0101)", "US", "Bits of a sample."),
    _column("PixelSpacing_row_mm", "(0028,0030)", "DS", "Distance between rows, mm.",
            path=("PixelSpacing",), place=0, spread=True),
    _column("PixelSpacing_col_mm", "(0028,0030)", "DS", "Distance between columns, mm.",
            path=("PixelSpacing",), place=1, spread=True),
    _column("SliceThickness", "(0018,0050)", "DS", "Thickness of a slice, mm.", spread=True),
    _column("SpacingBetweenSlices", "(0018,0088)", "DS", "Distance between slices, mm.",
            spread=True),
)  # fmt: skip

CONTRAST = (
    _column("ContrastBolusAgent", "(0018,0010)", "LO", "The contrast agent.", _FREE, "Z/D"),
    _column("ContrastBolusRoute", "(0018,1040)", "LO", "How it was given.", _CODED),
    _column("ContrastBolusVolume", "(0018,1041)", "DS", "How much was given, ml."),
)  # fmt: skip

CT = (
    _column("KVP", "(0018,0060)", "DS", "Peak voltage of the tube, kV.", spread=True),
    _column("XRayTubeCurrent", "(0018,1151)", "IS", "Current of the tube, mA.", spread=True),
    _column("ExposureTime", "(0018,1150)", "IS", "Time of exposure, ms.", spread=True),
    _column("Exposure", "(0018,1152)", "IS", "Exposure, mAs.", spread=True),
    _column("ConvolutionKernel", "(0018,1210)", "SH", "The kernel of the reconstruction.", _CODED),
    _column("SpiralPitchFactor", "(0018,9311)", "FD", "Movement of the table in a turn, in total "
            "collimation widths."),
    _column("CTDIvol", "(0018,9345)", "FD", "Volume CT dose index, mGy.", spread=True),
    _column("ReconstructionDiameter", "(0018,1100)", "DS", "Diameter of the reconstruction, mm.",
            spread=True),
    _column("DataCollectionDiameter", "(0018,0090)", "DS", "Diameter of data collection, mm."),
    _column("GantryDetectorTilt", "(0018,1120)", "DS", "Tilt of the gantry, degrees.",
            spread=True),
    _column("ScanOptions", "(0018,0022)", "CS", "Options of the scan.", _CODED),
    _column("FilterType", "(0018,1160)", "SH", "Filter in the beam.", _FREE),
    _column("RevolutionTime", "(0018,9305)", "FD", "Time of a turn, s."),
    _column("TableSpeed", "(0018,9309)", "FD", "Speed of the table, mm/s."),
    _column("SingleCollimationWidth", "(0018,9306)", "FD", "Width of one detector row, mm."),
    _column("TotalCollimationWidth", "(0018,9307)", "FD", "Width of all detector rows, mm."),
)  # fmt: skip

MR = (
    _column("MagneticFieldStrength", "(0018,0087)", "DS", "Field strength, T."),
    _column("EchoTime", "(0018,0081)", "DS", "Echo time, ms.", spread=True),
    _column("RepetitionTime", "(0018,0080)", "DS", "Repetition time, ms.", spread=True),
    _column("InversionTime", "(0018,0082)", "DS", "Inversion time, ms.", spread=True),
    _column("FlipAngle", "(0018,1314)", "DS", "Flip angle, degrees.", spread=True),
    _column("EchoNumbers", "(0018,0086)", "IS", "Number of the echo.", spread=True),
    _column("EchoTrainLength", "(0018,0091)", "IS", "Lines for each excitation."),
    _column("NumberOfAverages", "(0018,0083)", "DS", "How often each point was measured."),
    _column("ImagingFrequency", "(0018,0084)", "DS", "Precession frequency, MHz."),
    _column("PixelBandwidth", "(0018,0095)", "DS", "Bandwidth of a pixel, Hz."),
    _column("ScanningSequence", "(0018,0020)", "CS", "Kind of data taken: SE, GR, EP, IR.", _CODED),
    _column("SequenceVariant", "(0018,0021)", "CS", "Variant of the sequence.", _CODED),
    _column("SequenceName", "(0018,0024)", "SH", "The maker's name for it.", _FREE),
    _column("MRAcquisitionType", "(0018,0023)", "CS", "2D or 3D.", _CODED),
    _column("InPlanePhaseEncodingDirection", "(0018,1312)", "CS", "ROW or COL.", _CODED),
    _column("ReceiveCoilName", "(0018,1250)", "SH", "The receive coil.", _FREE),
    _column("DiffusionBValue", "(0018,9087)", "FD", "b-value, s/mm2.", spread=True),
)  # fmt: skip

PET = (
    _column("Units", "(0054,1001)", "CS", "Unit of pixel values.", _CODED),
    _column("DecayCorrection", "(0054,1102)", "CS", "Decay correction.", _CODED),
    _column("SeriesType", "(0054,1000)", "CS", "Kind of series.", _CODED),
    _column("CorrectedImage", "(0028,0051)", "CS", "Corrections that were applied.", _CODED),
    _column("AttenuationCorrectionMethod", "(0054,1101)", "LO", "Attenuation correction.", _FREE),
    _column("ReconstructionMethod", "(0054,1103)", "LO", "Reconstruction.", _FREE),
    _column("ActualFrameDuration", "(0018,1242)", "IS", "Duration of a frame, ms.", spread=True),
    _column("Radiopharmaceutical", "(0018,0031)", "LO", "The radiopharmaceutical.", _CODED,
            path=(_RADIO, "Radiopharmaceutical")),
    _column("RadionuclideTotalDose", "(0018,1074)", "DS", "Dose given, Bq.",
            path=(_RADIO, "RadionuclideTotalDose")),
    _column("RadionuclideHalfLife", "(0018,1075)", "DS", "Half-life, s.",
            path=(_RADIO, "RadionuclideHalfLife")),
)  # fmt: skip

PROJECTION = (
    _column("CompressionForce", "(0018,11A2)", "DS", "Force on the breast, N.", spread=True),
    _column("BodyPartThickness", "(0018,11A0)", "DS", "Thickness in the beam, mm.", spread=True),
    _column("ExposureInuAs", "(0018,1153)", "IS", "Exposure, uAs.", spread=True),
    _column("OrganDose", "(0040,0316)", "DS", "Average dose of the organ, dGy.", spread=True),
    _column("EntranceDoseInmGy", "(0040,8302)", "DS", "Dose at the skin, mGy.", spread=True),
    _column("AnodeTargetMaterial", "(0018,1191)", "CS", "Material of the anode.", _CODED),
    _column("FilterMaterial", "(0018,7050)", "CS", "Material of the filter.", _CODED),
    _column("Grid", "(0018,1166)", "CS", "The grid.", _CODED),
    _column("DetectorType", "(0018,7004)", "CS", "The kind of detector.", _CODED),
    _column("PositionerType", "(0018,1508)", "CS", "The kind of positioner.", _CODED),
    _column("DistanceSourceToDetector", "(0018,1110)", "DS", "Source to detector, mm."),
    _column("DistanceSourceToPatient", "(0018,1111)", "DS", "Source to patient, mm."),
    _column("ImagerPixelSpacing_row_mm", "(0018,1164)", "DS", "Distance between rows at the "
            "detector, mm.", path=("ImagerPixelSpacing",), place=0),
    _column("ImagerPixelSpacing_col_mm", "(0018,1164)", "DS", "Distance between columns at the "
            "detector, mm.", path=("ImagerPixelSpacing",), place=1),
)  # fmt: skip

FROM_ATTRIBUTES: tuple[HeaderColumn, ...] = (*GENERAL, *CONTRAST, *CT, *MR, *PET, *PROJECTION)
"""The columns that hold an attribute."""

DERIVED = (
    Column("has_contrast", pa.bool_(), "Whether a contrast agent, its route or its volume is given "
           "in any instance."),
    Column("instance_count", pa.int64(), "Instances of the image set."),
    Column("frame_count", pa.int64(), "Their frames."),
    Column("size_bytes", pa.int64(), "Bytes of all frames, as GetImageFrame returns them; null "
           "where the service does not say."),
    Column("regularly_spaced_3d_volume", pa.bool_(), "Whether its slices are a volume: two or "
           "more, one orientation, one size, one pixel spacing, at equal distances."),
    Column("not_regularly_spaced_because", pa.string(), "Why they are not; null where they are."),
    Column("slice_spacing_mm", pa.float64(), "Median distance between slices along the normal."),
    Column("invalid_fields", pa.list_(pa.string()), "The columns that are null because what was "
           "sent is not what their VR asks for, such as a text for a number."),
)  # fmt: skip
"""The columns that are computed from the whole document."""


def _all() -> Iterator[Column]:
    for header in FROM_ATTRIBUTES:
        yield header.column
        yield from header.spread_columns
    yield from DERIVED


COLUMNS: tuple[Column, ...] = tuple(_all())
"""All columns of a header, in their order in the table."""
