"""The instances of one app, the leases on them and the line in front of them. The only owner of `in_flight`.

Choosing an instance and counting the request on it happen in one step that never waits, and so does choosing one to
leave. That is the lock: a request cannot land on an instance that has been told to go.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from enum import StrEnum

from dockscale.core.balance import Chance, choose
from dockscale.core.load import WINDOW_S, Window
from dockscale.core.spec import SelectionMode

Address = tuple[str, int]
Clock = Callable[[], float]
"""Time as an argument: seconds on a clock that never steps back."""


class NoPlace(Exception):
    """A request that cannot have a place. Each kind has its status in `proxy.entry`."""


class LineFull(NoPlace):
    """As many requests wait as may."""


class SeveralInstances(NoPlace):
    """`exact` was asked for and there is more than one instance (seed: Available Selection Modes)."""


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Instance:
    """One running copy of an app. `managed`: made by dockscale, so removed in the end."""

    __slots__ = (
        "_requests",
        "acknowledged_at",
        "address",
        "changed",
        "container_id",
        "goodbyes",
        "in_flight",
        "lost",
        "managed",
        "name",
        "on_loss",
        "pinned",
        "ready_at",
        "revision",
        "started_at",
        "state",
        "why",
    )

    def __init__(
        self, name: str, *, revision: str = "", managed: bool = True, pinned: bool = False, now: float = 0.0
    ) -> None:
        self.name = name
        self.revision = revision
        self.managed = managed
        self.pinned = pinned
        """Never chosen to be stopped, because stopping it would remove what it was made from."""
        self.state = State.STARTING
        self.address: Address = ("", 0)
        self.container_id = ""
        self.acknowledged_at: float | None = None
        """When the engine said that it runs; older listings know nothing about it."""
        self.in_flight = 0
        self.lost = False
        """Its container is gone or dead: nothing to wait for."""
        self.why = ""
        """Why it is leaving."""
        self.started_at = now
        self.ready_at: float | None = None
        self.changed: Callable[[], None] = _nothing
        """Called after each change that whoever looks after this instance may wait for."""
        self.goodbyes: set[Callable[[], None]] = set()
        """What ends the open sockets that would outlast a drain."""
        self.on_loss: set[Callable[[], None]] = set()
        """What interrupts requests that wait for an answer which will not come."""
        self._requests = Window(WINDOW_S)

    @property
    def starting(self) -> bool:
        return self.state is State.STARTING

    def per_minute(self, now: float) -> int:
        """Requests it got in the last minute."""
        return self._requests.count(now)

    def __repr__(self) -> str:
        return f"<Instance {self.name} {self.state} in_flight={self.in_flight}>"


def _nothing() -> None:
    pass


class Lease:
    """One request's place on one instance; a context manager that gives it back once."""

    __slots__ = ("_held", "_pool", "instance")

    def __init__(self, pool: "Pool", instance: Instance) -> None:
        self.instance = instance
        self._pool = pool
        self._held = True

    def release(self) -> None:
        if self._held:
            self._held = False
            self._pool._release(self.instance)

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Turn:
    """A request that waits in the line. Ends with `lease` or with `error`, then `called` is called."""

    __slots__ = ("called", "error", "lease")

    def __init__(self, called: Callable[[], None]) -> None:
        self.lease: Lease | None = None
        self.error: Exception | None = None
        self.called = called


class Pool:
    """Who serves, who waits. Instances are kept oldest first."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self.instances: dict[str, Instance] = {}
        self.mode = SelectionMode.RANDOM
        self.max_concurrency: int | None = None
        self.max_queue = 1000
        self._clock = clock
        self._chance = chance
        self._ready: list[Instance] = []
        self._line: OrderedDict[Turn, None] = OrderedDict()

    # What a request does.

    def claim(self, avoid: Instance | None = None) -> Lease | None:
        """Give a place on a ready instance, or None if there is none. `avoid` is taken only if no other is free.

        Raises:
            SeveralInstances: the mode is `exact` and more than one is ready.
        """
        if not self._ready:
            return None
        if self.mode is SelectionMode.EXACT and len(self._ready) > 1:
            raise SeveralInstances(f"{len(self._ready)} instances are ready, and the selection mode is exact")
        free = self._ready
        if self.max_concurrency is not None:
            free = [instance for instance in free if instance.in_flight < self.max_concurrency]
        if avoid is not None:
            free = [instance for instance in free if instance is not avoid] or free
        if not free:
            return None
        now = self._clock()
        instance = free[0] if len(free) == 1 else choose(self.mode, free, now, self._chance)
        instance.in_flight += 1
        instance._requests.hit(now)
        return Lease(self, instance)

    def wait(self, turn: Turn) -> None:
        """Stand in line.

        Raises:
            LineFull: `max_queue` requests wait already.
        """
        if len(self._line) >= self.max_queue:
            raise LineFull(f"{len(self._line)} requests are waiting already (autoscaling.max_queue)")
        self._line[turn] = None

    def leave(self, turn: Turn) -> None:
        """Leave the line, and give back a place that has just been given."""
        self._line.pop(turn, None)
        if turn.lease is not None:
            turn.lease.release()

    # What the life of an instance does.

    def launch(self, instance: Instance) -> None:
        """Count an instance from the moment it was decided on, so that no bound can be raced past."""
        if instance.name in self.instances:
            raise ValueError(f"{instance.name} is in the pool already")
        self.instances[instance.name] = instance

    def ready(self, instance: Instance, address: Address) -> None:
        """Put a started instance into rotation and serve the line."""
        if instance.lost or instance.state is not State.STARTING:
            return
        instance.state = State.READY
        instance.address = address
        instance.ready_at = self._clock()
        self._ready = [each for each in self.instances.values() if each.state is State.READY]
        self.serve_line()

    def drain(self, instance: Instance, why: str) -> None:
        """Take an instance out of rotation for good; what is in flight may end."""
        if instance.state is State.DRAINING:
            return
        instance.state = State.DRAINING
        instance.why = why
        if instance in self._ready:
            self._ready.remove(instance)
        instance.changed()

    def lose(self, instance: Instance, why: str) -> None:
        """Its container is gone: out of rotation, and nothing to wait for.

        One that was still starting counts as starting until that failure is noted, so that nobody starts another
        before.
        """
        instance.lost = True
        instance.why = why
        if instance.state is State.READY:
            self.drain(instance, why)
        for interrupt in list(instance.on_loss):
            interrupt()
        instance.changed()

    def finish(self, instance: Instance) -> None:
        """Forget an instance whose life has ended."""
        self.drain(instance, instance.why)
        self.instances.pop(instance.name, None)

    def serve_line(self) -> None:
        """Give places to those who wait, in the order they came, while there are any."""
        while self._line:
            try:
                lease = self.claim()
            except SeveralInstances as error:
                self.dismiss(error)
                return
            if lease is None:
                return
            turn, _ = self._line.popitem(last=False)
            turn.lease = lease
            turn.called()

    def dismiss(self, error: Exception) -> None:
        """Tell everyone in the line that there will be no place."""
        line, self._line = self._line, OrderedDict()
        for turn in line:
            turn.error = error
            turn.called()

    def _release(self, instance: Instance) -> None:
        instance.in_flight -= 1
        if self._line:
            self.serve_line()
        if instance.in_flight == 0 and instance.state is State.DRAINING:
            instance.changed()

    # What others read.

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def in_flight(self) -> int:
        return sum(instance.in_flight for instance in self.instances.values())

    def candidates(self) -> list[Instance]:
        """Those that could be told to go: all that are not going already."""
        return [instance for instance in self.instances.values() if instance.state is not State.DRAINING]

    def counts(self) -> dict[State, int]:
        """How many instances are in each state."""
        counts = dict.fromkeys(State, 0)
        for instance in self.instances.values():
            counts[instance.state] += 1
        return counts

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances.values())

    def __repr__(self) -> str:
        states = " ".join(f"{state}={n}" for state, n in self.counts().items() if n)
        return f"<Pool {states or 'empty'} | in_flight={self.in_flight} waiting={self.waiting}>"
