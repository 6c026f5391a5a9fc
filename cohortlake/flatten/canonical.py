"""Gives each text of a column its canonical value, and keeps the text as sent where it differs.

See `dicom_values` for the rules. There are millions of texts, and nearly all are canonical. A look
at their bytes finds those that may not be, and only these are read one by one.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cohortlake.dicom_values import PADDING, SEPARATOR, canonical_text

_LOWER_CASE = (ord("a"), ord("z"))


def canonical_texts(vr: str, texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the canonical values of some texts, and the texts as sent where they differ.

    Args:
        vr: Their value representation: LO, SH, PN, CS or UI.
        texts: Strings.
    """
    odd = _may_differ(vr, texts)
    if not odd.any():  # nearly always: nothing is copied then
        return texts, pa.nulls(len(texts), pa.string())
    is_odd = pa.array(odd)
    encoded = texts.filter(is_odd).dictionary_encode()
    read = [canonical_text(vr, text) for text in encoded.dictionary.to_pylist()]
    values = pc.replace_with_mask(texts, is_odd, pa.array(read, pa.string()).take(encoded.indices))
    differs = pc.invert(pc.fill_null(pc.equal(values, texts), fill_value=False))
    return values, pc.if_else(differs, texts, None)


def _may_differ(vr: str, texts: pa.Array) -> np.ndarray:
    """Return which texts may not be canonical."""
    offsets, data = _bytes_of(texts)
    starts, ends = offsets[:-1], offsets[1:]
    is_empty = starts == ends
    odd: np.ndarray = is_empty.copy()
    if len(data):
        firsts, lasts = data[np.minimum(starts, len(data) - 1)], data[ends - 1]
        odd |= _is_one_of(firsts, PADDING) | _is_one_of(lasts, PADDING)
        special = data == ord(SEPARATOR)
        if vr == "CS":
            special |= (data >= _LOWER_CASE[0]) & (data <= _LOWER_CASE[1])
        elif vr == "PN":
            odd |= _is_one_of(lasts, "^=")
            special |= _blanks_in_names(data)
        rows = np.searchsorted(offsets, np.flatnonzero(special), "right") - 1
        odd[rows] = True
    if texts.null_count:
        odd &= pc.is_valid(texts).to_numpy(zero_copy_only=False)
    return odd


def _blanks_in_names(data: np.ndarray) -> np.ndarray:
    """Return which bytes are a delimiter of a name beside a blank or another delimiter."""
    is_delimiter = _is_one_of(data, "^=")
    before = is_delimiter | _is_one_of(data, PADDING)
    odd = np.zeros(len(data), bool)
    odd[1:] = is_delimiter[1:] & before[:-1]
    odd[:-1] |= is_delimiter[:-1] & before[1:]
    return odd


def _is_one_of(data: np.ndarray, characters: str) -> np.ndarray:
    one, other = characters.encode()
    found: np.ndarray = (data == one) | (data == other)
    return found


def _bytes_of(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return where each text starts and ends, and the bytes of all of them."""
    _, offsets, data = texts.buffers()
    if not len(texts) or offsets is None or data is None:
        return np.zeros(len(texts) + 1, np.int64), np.array([], np.uint8)
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    first, last = int(bounds[0]), int(bounds[-1])
    return bounds.astype(np.int64) - first, np.frombuffer(data, np.uint8)[first:last]
