"""Image frames: their entries in a metadata document, and their bytes.

The frames of a DICOM file have the bytes of the file. HealthImaging would compress most of them
again, as HTJ2K. The frames of synthetic image sets are random bytes of the size that is
in the document.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import get_expected_length

from emulator.seeded import generator, identifier

_PIECE = 65_536
_SYNTHETIC = "image/jph"
_CONTENT_TYPES = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/j2c",
    "1.2.840.10008.1.2.4.91": "image/j2c",
    "1.2.840.10008.1.2.4.201": "image/jph",
    "1.2.840.10008.1.2.4.202": "image/jph",
    "1.2.840.10008.1.2.4.203": "image/jph",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
_OTHER = "application/octet-stream"
_UNREADABLE = (AttributeError, ValueError, TypeError, KeyError, NotImplementedError, IndexError)


@dataclass(frozen=True)
class Frame:
    """One image frame.

    Attributes:
        path: The file that it lies in; `None` for a synthetic frame.
        number: Its place in the file, counted from 0.
    """

    id: str
    size: int
    path: str | None = None
    number: int = 0

    def content(self) -> tuple[str, Iterator[bytes]]:
        """Returns the media type of its bytes, and the bytes in pieces.

        Raises:
            OSError: If its file is gone.
        """
        if self.path is None:
            return _SYNTHETIC, _random(self.id, self.size)
        dataset = read_file(Path(self.path))
        syntax = str(dataset.file_meta.get("TransferSyntaxUID", ""))
        whole = next(islice(_pixels(dataset), self.number, None))
        pieces = (whole[start : start + _PIECE] for start in range(0, len(whole), _PIECE))
        return _CONTENT_TYPES.get(syntax, _OTHER), pieces


def read_file(path: Path) -> FileDataset:
    """Reads a DICOM file. Unusual values give no warnings, because test data has many on purpose.

    Raises:
        InvalidDicomError: If it is not a DICOM file.
        OSError: If it cannot be read.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path)


def of_file(dataset: Dataset, path: Path) -> tuple[list[Frame], list[dict[str, Any]]]:
    """Returns the frames of a DICOM file, and their entries in `ImageFrames`.

    Args:
        dataset: The file as read, with its pixels.
        path: Where it lies.
    """
    frames, entries = [], []
    try:
        contents = list(_pixels(dataset))
    except _UNREADABLE:
        contents = []
    is_native = not _is_compressed(dataset)
    for number, content in enumerate(contents):
        own = identifier(dataset.SOPInstanceUID, "frame", number)
        frames.append(Frame(own, len(content), str(path.resolve()), number))
        entry: dict[str, Any] = {"ID": own, "FrameSizeInBytes": len(content)}
        if is_native:
            entry["PixelDataChecksumFromBaseToFullResolution"] = [
                {
                    "Width": dataset.Columns,
                    "Height": dataset.Rows,
                    "Checksum": zlib.crc32(content),
                }
            ]
        entries.append(entry)
    return frames, entries


def of_document(document: dict[str, Any]) -> list[Frame]:
    """Returns the frames that a metadata document names, as synthetic ones."""
    return [
        Frame(str(entry["ID"]), int(entry.get("FrameSizeInBytes") or 0))
        for series in document["Study"]["Series"].values()
        for instance in series.get("Instances", {}).values()
        for entry in instance.get("ImageFrames") or ()
        if "ID" in entry
    ]


def _is_compressed(dataset: Dataset) -> bool:
    syntax = dataset.file_meta.get("TransferSyntaxUID") if "file_meta" in vars(dataset) else None
    return bool(syntax and not syntax.is_private and syntax.is_compressed)


def _pixels(dataset: Dataset) -> Iterator[bytes]:
    """Yields the bytes of each frame of a data set, as they lie in the file."""
    pixels = next(
        (
            dataset[name].value
            for name in _PIXEL_KEYWORDS
            if name in dataset and dataset[name].value
        ),
        None,
    )
    if pixels is None:
        return
    count = int(dataset.get("NumberOfFrames") or 1)
    if _is_compressed(dataset):
        yield from generate_frames(pixels, number_of_frames=count)
        return
    size = get_expected_length(dataset) // count
    for number in range(count):
        yield pixels[number * size : (number + 1) * size]


_PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def _random(frame_id: str, size: int) -> Iterator[bytes]:
    chance = generator("pixels", frame_id)
    for start in range(0, size, _PIECE):
        yield chance.randbytes(min(_PIECE, size - start))
