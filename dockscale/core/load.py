"""How busy an app is: arrivals over sliding windows and, from them, a `Load` that a decision can be made of."""

from dataclasses import dataclass

WINDOW_S = 60
BURST_S = 6


class Window:
    """Arrivals in the last `seconds` whole seconds, the current one included.

    An arrival costs a comparison and two additions: those of the current second stay out of the buckets until it ends.
    """

    __slots__ = ("_buckets", "_current", "_ends", "_second", "_total", "seconds")

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        self._buckets = [0] * seconds
        self._second = 0
        self._ends = 1.0
        self._current = 0
        self._total = 0

    def hit(self, now: float) -> int:
        """Count one arrival at `now` (seconds) and return how many the window holds."""
        if now >= self._ends:
            self._advance(int(now))
        self._current += 1
        self._total += 1
        return self._total

    def count(self, now: float) -> int:
        """Arrivals that the window holds at `now`. A clock that steps back changes nothing."""
        if now >= self._ends:
            self._advance(int(now))
        return self._total

    def clear(self) -> None:
        self._buckets = [0] * self.seconds
        self._current = self._total = 0

    def _advance(self, second: int) -> None:
        if second - self._second >= self.seconds:
            self.clear()
        else:
            self._buckets[self._second % self.seconds] = self._current
            self._current = 0
            for passed in range(self._second + 1, second + 1):
                slot = passed % self.seconds
                self._total -= self._buckets[slot]
                self._buckets[slot] = 0
        self._second = second
        self._ends = second + 1.0

    def __repr__(self) -> str:
        return f"<Window {self._total} in {self.seconds} s>"


@dataclass(frozen=True, slots=True)
class Load:
    """One app at one moment: the facts that a decision rests on."""

    ready: int = 0
    starting: int = 0
    draining: int = 0
    stale: int = 0
    """Those of `ready` and `starting` that were made from an earlier template."""
    stale_ready: int = 0
    pinned: int = 0
    """Those that must not be stopped, because stopping them would remove what they were made from."""
    in_flight: int = 0
    waiting: int = 0
    requests: int = 0
    """Requests that reached the app in the last `WINDOW_S` seconds."""
    burst: int = 0
    """Requests that reached the app in the last `BURST_S` seconds."""
    idle_s: float = 0.0
    """Seconds since the last request or open socket ended; 0 while there is one."""
    observed_s: float = 0.0
    """Seconds that dockscale has watched this app."""

    @property
    def have(self) -> int:
        """Instances that serve or will."""
        return self.ready + self.starting

    @property
    def per_instance(self) -> float:
        """Requests per minute and ready instance (seed: Load Monitoring)."""
        return self.requests / self.ready if self.ready else float(self.requests)
