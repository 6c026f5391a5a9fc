"""What requests to HealthImaging cost: their price, and how long the quota makes them take.

Sources: https://aws.amazon.com/healthimaging/pricing for the price of a request, and
https://docs.aws.amazon.com/healthimaging/latest/devguide/throttling-limits.html for the quotas that
an account has by default. AWS raises them on request.
"""

from __future__ import annotations

from dataclasses import dataclass

DOLLARS_PER_REQUEST = 0.005 / 1000
FRAMES_PER_SECOND = 1000.0
"""The default quota of GetImageFrame."""
DICOMWEB_PER_SECOND = 50.0
"""The default quota of each operation of DICOMweb that retrieves something."""


@dataclass(frozen=True)
class Bill:
    """What requests cost.

    Attributes:
        requests: How many.
        tps: Requests per second.
    """

    requests: int
    tps: float

    @property
    def hours(self) -> float:
        """How long they take at the quota."""
        return self.requests / self.tps / 3600

    @property
    def dollars(self) -> float:
        """Their price, in USD."""
        return self.requests * DOLLARS_PER_REQUEST

    def __str__(self) -> str:
        return (
            f"{self.requests:,} requests, {self.hours:,.2f} hours at {self.tps:g} requests/s, "
            f"{self.dollars:,.2f} USD"
        )
