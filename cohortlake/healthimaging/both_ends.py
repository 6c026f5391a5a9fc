"""Two chains of pages that read one instant from its two ends until they meet.

A cut in time cannot divide thousands of image sets of the same millisecond, and the pages of one
chain come one after another. A second chain in descending order halves the time: when one chain
reaches the row that the other one saw last, both together have seen all rows.

This holds only if the service's descending order is the exact reverse of its ascending order, also
within one instant. That is not documented. So the rows that both chains saw must lie in exactly
reversed order, beginning with the other chain's last row. If they do not, the rows of the
descending chain count as seen, and the ascending chain continues alone to its last token.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence


class BothEnds:
    """What the ascending and the descending chain of one instant have seen.

    Attributes:
        have_met: Whether both together have seen all rows.
        are_unordered: Whether the two orders are not each other's reverse.

    Args:
        seen: The rows of the instant that the ascending chain has seen, in its order.
    """

    def __init__(self, seen: Iterable[str]) -> None:
        self.have_met = False
        self.are_unordered = False
        self._lock = threading.Lock()
        self._ascending = {image_set_id: index for index, image_set_id in enumerate(seen)}
        self._descending: dict[str, int] = {}

    def follow(self, ids: Sequence[str], *, is_descending: bool) -> frozenset[str]:
        """Record a page of one of the chains.

        Args:
            ids: Its rows, in the order sent.
            is_descending: Whether the descending chain brought it.

        Returns:
            The rows that the other chain has seen.
        """
        own, other = self._ascending, self._descending
        if is_descending:
            own, other = other, own
        with self._lock:
            known = [image_set_id for image_set_id in ids if image_set_id in other]
            if known and not self.have_met and not self.are_unordered:
                indexes = [other[image_set_id] for image_set_id in known]
                reverse = range(len(other) - 1, len(other) - 1 - len(known), -1)
                if indexes == list(reverse) and known == list(ids[-len(known) :]):
                    self.have_met = True
                else:
                    self.are_unordered = True
            for image_set_id in ids:
                own.setdefault(image_set_id, len(own))
        return frozenset(known)

    def finish(self) -> None:
        """Record that one of the chains has seen all rows by itself."""
        self.have_met = True
