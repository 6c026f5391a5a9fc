"""One answer of SearchImageSets: its bytes, and as little of it as paging needs decoded."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec

from cohortlake.errors import ServiceUnavailable


class Head(msgspec.Struct):
    """The members of a summary that paging looks at; the tags stay undecoded."""

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
    """A 200 answer that is cut short or lacks a required member: ask again."""


@dataclass(frozen=True)
class Page:
    """One answer of SearchImageSets.

    Attributes:
        body: The response body as sent.
        heads: Its summaries' ids and instants, in the order sent.
        next_token: The token of the next page, or None at the end.
        skip: Ids of this page that came before, or that lie outside of what was searched.
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

        Nothing can be done without these. Everything else is kept as sent, also an id that does
        not look like those of today: that is said once, because other tools may rely on it.

        Raises:
            BrokenAnswer: It is not a whole page. botocore would make an empty one of it.
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
