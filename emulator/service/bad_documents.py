"""Metadata documents that a healthy service never sends: cut, of another image set, or huge.

It makes the body of a bad answer. See `faults` for which image set gets one, and `operations` for
the good answer.
"""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator
from random import Random
from typing import Literal, get_args

from emulator.data import metadata
from emulator.seeded import generator, identifier

BadDocument = Literal[
    "cut",
    "empty",
    "not-gzip",
    "not-json",
    "not-metadata",
    "other-image-set",
    "huge",
    "huge-body",
    "gone",
]
BAD_DOCUMENTS: tuple[BadDocument, ...] = get_args(BadDocument)
AT_RANDOM: tuple[BadDocument, ...] = ("cut", "empty", "not-gzip", "not-json", "other-image-set")
"""The bad documents that a rate draws from. The others come on demand only."""

HUGE: tuple[BadDocument, ...] = ("huge", "huge-body")

_MEGABYTE = 1_000_000
_ERROR_PAGE = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
# A document ends with its last instance, then Instances, the series, Series, Study and itself.
_END = b"}}}}}"
_INSTANCE = (
    b',"2.25.%d":{"DICOM":{"SOPInstanceUID":"2.25.%d","InstanceNumber":"%d","Rows":512,'
    b'"Columns":512,"SliceThickness":"1 ","ImagePositionPatient":["-200","-200","%d"],'
    b'"ImageComments":%b},"DICOMVRs":{},"ImageFrames":[{"ID":"%032x","FrameSizeInBytes":%d}],'
    b'"StoredTransferSyntaxUID":"1.2.840.10008.1.2.4.202"}'
)


def body(kind: BadDocument, document: bytes, image_set_id: str) -> bytes:
    """Returns the body of a bad answer.

    Args:
        kind: What is wrong with it; not one of the `HUGE`, and not `gone`.
        document: The right document as JSON.
        image_set_id: The image set that was asked for.
    """
    if kind == "cut":
        whole = metadata.pack(document)
        return whole[: len(whole) // 2]
    if kind == "empty":
        return b""
    if kind == "not-gzip":
        return document
    if kind == "not-json":
        return metadata.pack(_ERROR_PAGE)
    if kind == "not-metadata":
        return metadata.pack(b'{"message":"Internal failure"}')
    other = identifier("another image set", image_set_id).encode()
    return metadata.pack(document.replace(image_set_id.encode(), other, 1))


def huge(kind: BadDocument, document: bytes, megabytes: float) -> Iterator[bytes]:
    """Yields the gzip pieces of a document with so many megabytes of JSON, in constant memory.

    Args:
        kind: `huge` is small as gzip, and `huge-body` nearly as large as its JSON.
        document: The right document as JSON.
        megabytes: The size of its JSON, in 10^6 bytes.
    """
    packer = zlib.compressobj(level=1, wbits=31)
    for piece in _enlarged(document, megabytes, noisy=kind == "huge-body"):
        packed = packer.compress(piece)
        if packed:
            yield packed
    yield packer.flush()


def _enlarged(document: bytes, megabytes: float, *, noisy: bool) -> Iterable[bytes]:
    """Yields a document with more instances, in pieces of less than 1 MB.

    Args:
        document: The document.
        megabytes: The size that it gets.
        noisy: Whether the instances hold random text, which no compression makes small.
    """
    chance = generator("noise")
    yield document.removesuffix(_END)
    size = len(document)
    number = 1
    while size < megabytes * _MEGABYTE:
        # Numbers above all of the hospital's, so that no UID occurs twice.
        numbers = range(10**9 + number, 10**9 + number + 500)
        comments = (_noise(chance) if noisy else b"null" for _ in numbers)
        piece = b"".join(
            _INSTANCE % (n, n, n, n, comment, n, 150_000)
            for n, comment in zip(numbers, comments, strict=True)
        )
        yield piece
        number, size = number + 500, size + len(piece)
    yield _END


def _noise(chance: Random) -> bytes:
    return b'"%b"' % b64encode(chance.randbytes(900))
