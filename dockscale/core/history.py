"""How busy an app was, and how many instances it had, over the last hour: one point for each ten seconds."""

from array import array
from collections.abc import Iterator
from typing import NamedTuple

from dockscale.core.load import Load

EVERY_S = 10
POINTS = 360
_UNSEEN = -1
_MOST = 2**31 - 1
"""What four bytes hold."""


class Point(NamedTuple):
    """An app as it was last seen within `EVERY_S` seconds from `at`."""

    at: float
    """Seconds, by the app's clock."""
    requests: int
    """Requests that reached it in the minute before."""
    ready: int

    @property
    def per_instance(self) -> float:
        return self.requests / self.ready if self.ready else float(self.requests)


class History:
    """A ring of points: 3 kB for an app, however long it lives. Where nobody looked, there is no point."""

    __slots__ = ("_ready", "_requests", "_slot")

    def __init__(self) -> None:
        self._requests = array("i", [_UNSEEN]) * POINTS
        self._ready = array("i", [0]) * POINTS
        self._slot = -POINTS
        """Number of the newest point since the clock's zero."""

    def add(self, now: float, load: Load) -> None:
        """Note how it is at `now` (seconds). A clock that steps back changes nothing."""
        slot = int(now) // EVERY_S
        if slot < self._slot:
            return
        for passed in range(max(self._slot + 1, slot - POINTS + 1), slot):
            self._requests[passed % POINTS] = _UNSEEN
        self._slot = slot
        self._requests[slot % POINTS] = min(load.requests, _MOST)
        self._ready[slot % POINTS] = load.ready

    def points(self, now: float) -> Iterator[Point]:
        """Those of the last hour, the oldest first."""
        oldest = int(now) // EVERY_S - POINTS + 1
        for slot in range(max(oldest, self._slot - POINTS + 1), self._slot + 1):
            requests = self._requests[slot % POINTS]
            if requests != _UNSEEN:
                yield Point(slot * EVERY_S, requests, self._ready[slot % POINTS])
