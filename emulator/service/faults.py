"""Injected faults: latency, quota and errors of the service, drawn from a seed.

It holds the settings and draws the faults of each request. `server` carries them out on the
connection.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import typer

from emulator.seeded import generator

Cut = Literal["short", "truncated", "empty"]
BetweenEnds = Literal["inclusive", "half-open", "open", "exclusive-start"]
CUTS: tuple[Cut, ...] = get_args(Cut)


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
        for name in ("error_rate", "reset_rate", "cut_rate", "token_refusal_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1")
        for name in ("latency_ms", "jitter_ms", "quota", "burst", "index_lag_ms"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.between not in get_args(BetweenEnds):
            raise ValueError(f"between must be one of {', '.join(get_args(BetweenEnds))}")


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

    def _take(self, operation: str) -> bool:
        """Takes a token from the operation's bucket, in real time. Returns False if it is empty."""
        quota = self.behaviour.quota
        if not quota:
            return True
        now, size = time.monotonic(), float(self.behaviour.burst) or max(1.0, quota)
        tokens, since = self._buckets.get(operation, (size, now))
        tokens = min(size, tokens + (now - since) * quota)
        allowed = tokens >= 1
        self._buckets[operation] = (tokens - allowed, now)
        return allowed
