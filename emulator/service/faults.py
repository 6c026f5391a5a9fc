"""Injected faults: latency, quota and errors of the service, drawn from a seed.

It holds the settings and draws the faults of each request. `server` carries them out on the
connection.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal, get_args

import typer

from emulator.seeded import generator
from emulator.service.bad_documents import AT_RANDOM, BadDocument

Cut = Literal["short", "truncated", "empty"]
BetweenEnds = Literal["inclusive", "half-open", "open", "exclusive-start"]
CUTS: tuple[Cut, ...] = get_args(Cut)
DOCUMENTED_QUOTAS: Mapping[str, float] = {
    "SearchImageSets": 25,
    "GetImageSet": 25,
    "GetImageSetMetadata": 50,
    "ListImageSetVersions": 25,
    "GetDatastore": 10,
    "ListDatastores": 5,
    "GetImageFrame": 1000,
    "ListDICOMImportJobs": 10,
}
"""Requests per second that AWS's guide documents. Its bursts are twice as many."""


@dataclass(frozen=True, kw_only=True)
class Behaviour:
    """The behaviour of the service. All of it may change while the emulator runs.

    Raises:
        ValueError: If a rate is not between 0 and 1, or any other number is negative.
    """

    latency_ms: Annotated[float, typer.Option(help="Latency of every answer.")] = 0.0
    jitter_ms: Annotated[
        float, typer.Option(help="Largest random change of the latency, up or down.")
    ] = 0.0
    quota: Annotated[
        float,
        typer.Option(help="Requests per second and operation; above it 429. 0: no limit."),
    ] = 0.0
    burst: Annotated[
        int, typer.Option(help="Requests allowed at once. 0: the same number as the quota.")
    ] = 0
    quotas: Annotated[
        str,
        typer.Option(
            help="Quotas of single operations instead of --quota, such as GetImageSetMetadata=50,"
            "GetImageFrame=1000. `documented`: those of AWS's guide, with bursts of twice as many."
        ),
    ] = ""
    error_rate: Annotated[float, typer.Option(help="Share of requests answered with a 500.")] = 0.0
    reset_rate: Annotated[
        float, typer.Option(help="Share of requests whose connection is reset.")
    ] = 0.0
    cut_rate: Annotated[
        float,
        typer.Option(
            help="Share of good answers cut: shorter than Content-Length, truncated, or empty."
        ),
    ] = 0.0
    token_refusal_rate: Annotated[
        float, typer.Option(help="Share of nextTokens refused with a ValidationException.")
    ] = 0.0
    bad_document_rate: Annotated[
        float,
        typer.Option(
            help="Share of metadata documents that are cut, empty, no gzip, no JSON, or of "
            "another image set."
        ),
    ] = 0.0
    huge_document_mb: Annotated[
        float, typer.Option(help="Megabytes of JSON in a document that the admin API made huge.")
    ] = 200.0
    import_ms: Annotated[
        int, typer.Option(help="Simulated time from the start of an import job to its end.")
    ] = 60_000
    index_lag_ms: Annotated[
        int, typer.Option(help="Simulated time after which a search finds a change.")
    ] = 0
    between: Annotated[
        BetweenEnds,
        typer.Option(help="Which of its two ends BETWEEN includes."),
    ] = "inclusive"
    undated_match: Annotated[
        bool, typer.Option(help="A filter on the study date also matches unusable study dates.")
    ] = False
    undated_sort: Annotated[
        bool, typer.Option(help="A sort by study date also lists unusable study dates, as lowest.")
    ] = True
    deleted_found: Annotated[
        bool,
        typer.Option(
            help="GetImageSet and ListImageSetVersions return a deleted image set as DELETED "
            "instead of 404."
        ),
    ] = False

    def __post_init__(self) -> None:
        for name in (
            "error_rate",
            "reset_rate",
            "cut_rate",
            "token_refusal_rate",
            "bad_document_rate",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1")
        for name in (
            "latency_ms",
            "jitter_ms",
            "quota",
            "burst",
            "index_lag_ms",
            "import_ms",
            "huge_document_mb",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.between not in get_args(BetweenEnds):
            raise ValueError(f"between must be one of {', '.join(get_args(BetweenEnds))}")
        _quotas(self.quotas)

    def limit(self, operation: str) -> tuple[float, float]:
        """Returns requests per second and burst of an operation. A quota of 0 is no limit."""
        own = _quotas(self.quotas).get(operation)
        quota = self.quota if own is None else own
        usual = 2 * quota if self.quotas == "documented" else quota
        return quota, float(self.burst) or max(1.0, usual)


@dataclass(frozen=True, slots=True)
class RequestFaults:
    """The latency and the faults of one request."""

    delay_s: float
    throttled: bool
    failed: bool
    reset: bool
    token_refused: bool
    cut: Cut | None


class Faults:
    """Draws the faults of every request."""

    def __init__(self, behaviour: Behaviour, seed: int) -> None:
        self.behaviour = behaviour
        self._random = generator("faults", seed)
        self._documents = generator("documents", seed)
        self._spoiled: dict[tuple[str, str], tuple[BadDocument, int]] = {}
        self._buckets: dict[str, tuple[float, float]] = {}

    def draw(self, operation: str) -> RequestFaults:
        """Draws the faults of the next request."""
        behaviour, number = self.behaviour, self._random.random
        # Always six numbers, so that a change of one rate does not change the other faults.
        jitter, error, reset, cut, token, which = (number() for _ in range(6))
        delay_ms = behaviour.latency_ms + behaviour.jitter_ms * (2 * jitter - 1)
        return RequestFaults(
            delay_s=max(0.0, delay_ms) / 1000,
            throttled=not self._take(operation),
            failed=error < behaviour.error_rate,
            reset=reset < behaviour.reset_rate,
            token_refused=token < behaviour.token_refusal_rate,
            cut=CUTS[int(which * len(CUTS))] if cut < behaviour.cut_rate else None,
        )

    def spoil(
        self, datastore_id: str, image_set_ids: Iterable[str], kind: BadDocument, times: int
    ) -> None:
        """Makes the metadata document of image sets bad.

        Args:
            datastore_id: Their data store.
            image_set_ids: The image sets.
            kind: What is wrong with it.
            times: For how many requests; 0 for all.
        """
        for image_set_id in image_set_ids:
            self._spoiled[datastore_id, image_set_id] = (kind, times)

    def mend(self) -> None:
        """Makes all documents good again that `spoil` made bad."""
        self._spoiled.clear()

    def bad_document(self, datastore_id: str, image_set_id: str) -> BadDocument | None:
        """Returns what is wrong with the next document of an image set, if anything is."""
        rate = self.behaviour.bad_document_rate
        key = (datastore_id, image_set_id)
        if key in self._spoiled:
            kind, times = self._spoiled[key]
            if times == 1:
                del self._spoiled[key]
            elif times:
                self._spoiled[key] = (kind, times - 1)
            return kind
        if rate and self._documents.random() < rate:
            return self._documents.choice(AT_RANDOM)
        return None

    def is_gone(self, datastore_id: str, image_set_id: str) -> bool:
        """Returns whether an image set is gone for all who read it, although a search finds it."""
        spoiled = self._spoiled.get((datastore_id, image_set_id))
        return spoiled is not None and spoiled[0] == "gone"

    def _take(self, operation: str) -> bool:
        """Takes a token from the operation's bucket, in real time. Returns False if it is empty."""
        quota, size = self.behaviour.limit(operation)
        if not quota:
            return True
        now = time.monotonic()
        tokens, since = self._buckets.get(operation, (size, now))
        tokens = min(size, tokens + (now - since) * quota)
        allowed = tokens >= 1
        self._buckets[operation] = (tokens - allowed, now)
        return allowed


@lru_cache
def _quotas(text: str) -> Mapping[str, float]:
    """Reads the option `quotas`.

    Raises:
        ValueError: If it is neither empty, `documented`, nor a list of operation=number.
    """
    if text == "documented":
        return DOCUMENTED_QUOTAS
    quotas: dict[str, float] = {}
    for item in filter(None, text.split(",")):
        name, _, number = item.partition("=")
        try:
            quotas[name.strip()] = float(number)
        except ValueError:
            quotas[name.strip()] = -1
        if not 0 <= quotas[name.strip()] < 10**9:
            raise ValueError(
                "quotas must be documented, or a list such as GetImageSet=9,GetImageFrame=1000"
            )
    return quotas
