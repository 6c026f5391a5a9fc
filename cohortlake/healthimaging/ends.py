"""Two chains of pages through the same instant, from both of its ends, until they meet.

Thousands of image sets within one millisecond cannot be cut by time, and a chain of tokens
is serial. A second chain in descending order halves it: when one comes upon the row that
the other saw last, all rows between the two ends have been seen.

That holds only where the service's descending order is the ascending one reversed, also
among rows of the same instant, which is not documented. So the rows that both have seen
must lie in exactly reversed order, beginning with the other's last; where they do not, the
helper's rows count as seen, and the first chain goes on to its last token alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence


class BothEnds:
    """What the two chains have seen.

    Attributes:
        have_met: Whether all rows between them have been seen.
        are_unordered: Whether the two orders turned out not to be each other's reverse.

    Args:
        seen: The rows of the instant that the first chain has seen, in its order.
    """

    def __init__(self, seen: Iterable[str]) -> None:
        self.have_met = False
        self.are_unordered = False
        self._lock = threading.Lock()
        self._first = {image_set_id: place for place, image_set_id in enumerate(seen)}
        self._helper: dict[str, int] = {}

    def follow(self, ids: Sequence[str], *, is_helper: bool) -> frozenset[str]:
        """Take note of a page of one of the chains.

        Args:
            ids: Its rows, in the order sent.
            is_helper: Whether it is the descending chain's.

        Returns:
            Those of them that the other chain has seen.
        """
        own, other = (self._helper, self._first) if is_helper else (self._first, self._helper)
        with self._lock:
            known = [image_set_id for image_set_id in ids if image_set_id in other]
            if known and not self.have_met and not self.are_unordered:
                places = [other[image_set_id] for image_set_id in known]
                reverse = range(len(other) - 1, len(other) - 1 - len(known), -1)
                if places == list(reverse) and known == list(ids[-len(known) :]):
                    self.have_met = True
                else:
                    self.are_unordered = True
            for image_set_id in ids:
                own.setdefault(image_set_id, len(own))
        return frozenset(known)

    def finish(self) -> None:
        """Take note that one of the chains has seen all rows by itself."""
        self.have_met = True
