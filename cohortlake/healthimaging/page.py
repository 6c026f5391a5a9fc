"""One answer of SearchImageSets: its bytes, and the few members that paging needs."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from cohortlake.errors import ServiceUnavailable


class Head(msgspec.Struct):
    """The members of a summary that paging reads; the tags stay undecoded."""

    image_set_id: Annotated[str, msgspec.Meta(min_length=1)] = msgspec.field(name="imageSetId")
    updated_at: Any = msgspec.field(name="updatedAt", default=None)
    created_at: Any = msgspec.field(name="createdAt", default=None)
    tags: msgspec.Raw = msgspec.field(name="DICOMTags", default=msgspec.Raw(b"null"))


class _Answer(msgspec.Struct):
    summaries: list[Head] = msgspec.field(name="imageSetsMetadataSummaries")
    next_token: str | None = msgspec.field(name="nextToken", default=None)


_decode = msgspec.json.Decoder(_Answer).decode
_KNOWN_ID = re.compile(r"[0-9a-z]{32}")


class BrokenAnswer(ServiceUnavailable):
    """A 200 answer is cut short or lacks a required member.

    Fix: Ask again.
    """


@dataclass(frozen=True)
class Page:
    """One answer of SearchImageSets.

    Attributes:
        body: The response body as sent.
        heads: Its summaries' ids and instants, in the order sent.
        next_token: The token of the next page, or None at the end.
        skip: Ids of this page that came before, or that lie outside the window searched.
    """

    body: bytes
    heads: tuple[Head, ...]
    next_token: str | None
    skip: frozenset[str] = frozenset()

    @property
    def new_rows(self) -> int:
        """How many of its rows count."""
        return len(self.heads) - len(self.skip)

    @classmethod
    def checked(cls, body: bytes) -> Page:
        """Check a body: complete JSON with the summaries, an id for each, and a token of text.

        These are required. Everything else is kept as sent. An id of another form than today's
        is kept too, with one warning, because other tools may rely on the form.

        Raises:
            BrokenAnswer: It is not a whole page. botocore would return an empty one for it.
        """
        try:
            answer = _decode(body)
        except msgspec.DecodeError:
            raise BrokenAnswer("SearchImageSets kept answering with broken pages") from None
        if not all(_KNOWN_ID.fullmatch(head.image_set_id) for head in answer.summaries):
            warnings.warn(
                "SearchImageSets gives image set ids that are not 32 lower-case letters and "
                "digits; they are kept as they are",
                stacklevel=1,
            )
        return cls(body, tuple(answer.summaries), answer.next_token or None)
