"""How busy an app is: arrivals over sliding windows and, from them, a `Load` that a decision can be made of."""

from dataclasses import dataclass

WINDOW_S = 60
BURST_S = 6
CROWD_S = 1
UNBOUNDED = 1_000_000
"""Stands for "as many as you like" where a number is needed."""


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


class Meter:
    """How many there were at once, averaged over time: what counts is how long each stayed.

    Exact, but for the oldest second, of which only a part is in the window: it counts by that part as if it were even.
    """

    __slots__ = ("_areas", "_at", "_second", "level")

    def __init__(self, now: float) -> None:
        self.level = 0
        """How many there are now."""
        self._at = now
        self._second = int(now)
        # Seconds × how many, for each of the last WINDOW_S whole seconds and the current one.
        self._areas = [0.0] * (WINDOW_S + 1)

    def change(self, now: float, by: int) -> None:
        """Note that `by` came (or, if negative, went) at `now` (seconds)."""
        self._advance(now)
        self.level = max(0, self.level + by)

    def average(self, now: float, seconds: int) -> float:
        """How many there were on average in the last `seconds`, `WINDOW_S` at most."""
        self._advance(now)
        slots = len(self._areas)
        area = 0.0
        for ago in range(seconds):
            area += self._areas[(self._second - ago) % slots]
        oldest = self._areas[(self._second - seconds) % slots]
        return (area + oldest * (self._second + 1 - self._at)) / seconds

    def forget(self, now: float) -> None:
        """Start anew from how many there are now."""
        self._advance(now)
        self._areas = [0.0] * len(self._areas)

    def _advance(self, now: float) -> None:
        """Bring the areas up to `now`. A clock that steps back changes nothing."""
        if now <= self._at:
            return
        slots, second = len(self._areas), int(now)
        if second - self._second >= slots:
            self._areas = [0.0] * slots
            self._second = second - slots
            self._at = float(self._second)
        while self._second < second:
            self._areas[self._second % slots] += self.level * (self._second + 1 - self._at)
            self._second += 1
            self._at = float(self._second)
            self._areas[self._second % slots] = 0.0
        self._areas[self._second % slots] += self.level * (now - self._at)
        self._at = now

    def __repr__(self) -> str:
        return f"<Meter {self.level}>"


@dataclass(frozen=True, slots=True)
class Load:
    """One app at one moment: the facts that a decision rests on."""

    ready: int = 0
    starting: int = 0
    draining: int = 0
    stale: int = 0
    """Those of `ready` and `starting` that were made from an earlier template."""
    stale_ready: int = 0
    """Those of `stale` that serve, or did before they were found or started again."""
    pinned: int = 0
    """Those that must not be stopped, because stopping them would remove what they were made from."""
    standby: int = 0
    """Paused ones that can be put into service."""
    spent: int = 0
    """Paused ones that are to be replaced: too old, or made from an earlier template."""
    warming: int = 0
    """Those that are started for standby."""
    parking: int = 0
    """Those of `draining` that will be on standby."""
    in_flight: int = 0
    waiting: int = 0
    requests: int = 0
    """Requests that reached the app in the last `WINDOW_S` seconds."""
    burst: int = 0
    """Requests that reached the app in the last `BURST_S` seconds."""
    concurrency: float = 0.0
    """In flight and waiting, on average over the last `WINDOW_S` seconds. Measured for `target_concurrency` only."""
    crowd: float = 0.0
    """The same over the last `CROWD_S` seconds."""
    line_s: float = 0.0
    """Seconds that those who wait will take at the pace so far; 0 if there is none to tell it from."""
    lined_up_s: float = 0.0
    """Seconds for which there has been somebody in the line."""
    start_s: float = 0.0
    """Seconds that a start takes; 0 before one was seen."""
    gauge: float | None = None
    """The app's own metric, shared by its ready instances; None if it has none, or none could be read."""
    scheduled: int | None = None
    """Minimum by the schedule; None: there is none, or it has not begun."""
    asked: int | None = None
    """How many instances a person asks for in this moment; None: nobody does."""
    floor: int = 0
    """Fewest by what a person asked for lately; 0 where nobody did."""
    room: int = UNBOUNDED
    """Instances that the host's budget has room for."""
    idle_s: float = 0.0
    """Seconds since the last request or open socket ended; 0 while there is one."""
    observed_s: float = 0.0
    """Seconds that dockscale has watched this app."""
    adopted: bool = False
    """Some of what runs ran before dockscale watched."""

    @property
    def have(self) -> int:
        """Instances that serve or will."""
        return self.ready + self.starting

    @property
    def held(self) -> int:
        """All that count towards the maximum."""
        return self.have + self.draining + self.standby + self.spent + self.warming

    @property
    def per_instance(self) -> float:
        """Requests per minute and ready instance (seed: Load Monitoring)."""
        return self.requests / self.ready if self.ready else float(self.requests)
