"""The instances of one app, the leases on them and the line in front of them. The only owner of `in_flight`.

Choosing an instance and counting the request on it happen in one step that never waits, and so does choosing one to
leave. That is the lock: a request cannot land on an instance that has been told to go.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from enum import StrEnum
from hashlib import blake2s

from dockscale.core.balance import CHOICES, Chance
from dockscale.core.load import WINDOW_S, Meter, Window
from dockscale.core.spec import SelectionMode

Address = tuple[str, int]
Clock = Callable[[], float]
"""Time as an argument: seconds on a clock that never steps back."""

EJECT_AFTER = 5
"""Connections in a row that fail until an instance is ejected."""


class NoPlace(Exception):
    """A request that cannot have a place. Each kind has its status in `proxy.exchange`."""


class LineFull(NoPlace):
    """As many requests wait as may."""


class SeveralInstances(NoPlace):
    """`exact` was asked for and there is more than one instance (seed: Available Selection Modes)."""


class State(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    STANDBY = "standby"


# Naming a member costs as much as the rest of a release (Python 3.11), so those that each request asks for are kept.
_DRAINING = State.DRAINING
_EXACT = SelectionMode.EXACT


def client_id(name: str) -> str:
    """Name the RPC client that an instance of this name is."""
    return f"{name}__rlb"


class Instance:
    """One running copy of an app. `managed`: made by dockscale, so removed in the end."""

    __slots__ = (
        "_requests",
        "acknowledged_at",
        "address",
        "changed",
        "container_id",
        "ejected",
        "failed_connections",
        "frozen",
        "goodbyes",
        "in_flight",
        "last_chosen",
        "lost",
        "managed",
        "memory",
        "name",
        "on_loss",
        "parks",
        "pinned",
        "ready_at",
        "revision",
        "set_aside",
        "spare",
        "started_at",
        "state",
        "token",
        "unplugged",
        "why",
    )

    def __init__(
        self,
        name: str,
        *,
        revision: str = "",
        managed: bool = True,
        pinned: bool = False,
        memory: int = 0,
        now: float = 0.0,
    ) -> None:
        self.name = name
        self.token = blake2s(name.encode(), digest_size=8).hexdigest()
        """Names the instance to clients that stay with it. It comes from the name, so it outlasts a restart."""
        self.revision = revision
        self.managed = managed
        self.pinned = pinned
        """Never chosen to be stopped, because stopping it would remove what it was made from."""
        self.memory = memory
        """Bytes that its container may use; 0 if that is not bounded."""
        self.state = State.STARTING
        self.address: Address = ("", 0)
        self.container_id = ""
        self.acknowledged_at: float | None = None
        """When the engine said that it runs; older listings know nothing about it."""
        self.in_flight = 0
        self.last_chosen = 0
        """Which of the pool's claims the latest one on it was."""
        self.failed_connections = 0
        """Connections that failed since one was made."""
        self.ejected = False
        """It leaves because there is no connection to it."""
        self.unplugged = False
        """It was ready and its RPC connection broke: it is on its way to prove itself anew."""
        self.lost = False
        """Its container is gone or dead: nothing to wait for."""
        self.why = ""
        """Why it is leaving."""
        self.spare = False
        """It is meant for standby: it does not serve, and does not count as one that will."""
        self.parks = False
        """It leaves for standby."""
        self.set_aside = False
        """It leaves to make room for one of a newer template, and comes back if that one fails."""
        self.frozen = False
        """It is paused, or is being paused or unpaused: a listing may show either."""
        self.started_at = now
        """Since when it is wanted: its start, its way to standby or back."""
        self.ready_at: float | None = None
        """When it got ready, the latest time, or was found running; None before."""
        self.changed: Callable[[], None] = _nothing
        """Called after each change that whoever looks after this instance may wait for."""
        self.goodbyes: set[Callable[[], None]] = set()
        """What ends the open sockets that would outlast a drain."""
        self.on_loss: set[Callable[[], None]] = set()
        """What interrupts requests that wait for an answer which will not come."""
        self._requests = Window(WINDOW_S)

    @property
    def client_id(self) -> str:
        """Its name as an RPC client."""
        return client_id(self.name)

    @property
    def starting(self) -> bool:
        """It is on its way to serve."""
        return self.state is State.STARTING and not self.spare

    def per_minute(self, now: float) -> int:
        """Requests it got in the last minute."""
        return self._requests.count(now)

    def __repr__(self) -> str:
        return f"<Instance {self.name} {self.state} in_flight={self.in_flight}>"


def _nothing() -> None:
    pass


class Lease:
    """One request's place on one instance; a context manager that gives it back once."""

    __slots__ = ("_pool", "instance")

    def __init__(self, pool: "Pool", instance: Instance) -> None:
        self.instance = instance
        self._pool: Pool | None = pool

    def release(self) -> None:
        pool = self._pool
        if pool is not None:
            self._pool = None
            pool._release(self.instance)

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


class Turn:
    """A request that waits in the line. Ends with `lease` or with `error`, then `called` is called.

    `token` is that of the instance it would like (mode `sticky`); it does not wait for that one when another is free.
    """

    __slots__ = ("called", "error", "lease", "mode", "token")

    def __init__(self, called: Callable[[], None], token: str = "", mode: SelectionMode | None = None) -> None:
        self.lease: Lease | None = None
        self.error: Exception | None = None
        self.called = called
        self.token = token
        self.mode = mode


class Pool:
    """Who serves, who waits. Instances are kept oldest first."""

    def __init__(self, clock: Clock, chance: Chance) -> None:
        self.instances: dict[str, Instance] = {}
        self.gone: list[Instance] = []
        """Instances that died or were ejected while they served, and that no decision knows of yet."""
        self.mode = SelectionMode.RANDOM
        self.max_concurrency: int | None = None
        self.max_queue = 1000
        self._clock = clock
        self._chance = chance
        self._claims = 0
        self._meter: Meter | None = None
        self._lined_up_at = 0.0
        self._used_s = 0.0
        self._used_until = clock()
        self._ready: list[Instance] = []
        self._line: OrderedDict[Turn, None] = OrderedDict()

    @property
    def mode(self) -> SelectionMode:
        return self._mode

    @mode.setter
    def mode(self, mode: SelectionMode) -> None:
        self._mode = mode
        self._choose = CHOICES[mode]

    def measure(self, wanted: bool) -> None:
        """Measure how many are in flight or wait, on average, or stop doing so."""
        if not wanted:
            self._meter = None
        elif self._meter is None:
            self._meter = Meter(self._clock())
            self._meter.change(self._clock(), self.in_flight + self.waiting)

    # What a request does.

    def claim(self, avoid: Instance | None = None, token: str = "", mode: SelectionMode | None = None) -> Lease | None:
        """Give a place on a ready instance, or None if there is none.

        `avoid` is taken only if no other is free. `token` is that of the instance that the request would like, if the
        mode is `sticky`. With `mode`, the choice is made by that one and not by the pool's.

        Raises:
            SeveralInstances: the mode is `exact` and more than one is ready.
        """
        free = self._ready
        if len(free) > 1 and (self._mode if mode is None else mode) is _EXACT:
            raise SeveralInstances(f"{len(free)} instances are ready, and the selection mode is exact")
        if self.max_concurrency is not None or avoid is not None:
            free = self._free(avoid)
        if not free:
            return None
        now = self._clock()
        if len(free) == 1:
            instance = free[0]
        else:
            choose = self._choose if mode is None else CHOICES[mode]
            instance = choose(free, now, self._chance, token)
        return self._lease(instance, now)

    def join(self, instance: Instance) -> Lease:
        """Count a request that is for this instance and no other. It is let in whatever the instance's state is."""
        return self._lease(instance, self._clock())

    def _lease(self, instance: Instance, now: float) -> Lease:
        instance.in_flight += 1
        if self._meter is not None:
            self._meter.change(now, 1)
        instance._requests.hit(now)
        self._claims += 1
        instance.last_chosen = self._claims
        return Lease(self, instance)

    def _free(self, avoid: Instance | None) -> list[Instance]:
        cap, free = self.max_concurrency, self._ready
        if cap is not None:
            free = [instance for instance in free if instance.in_flight < cap]
        if avoid is None:
            return free
        return [instance for instance in free if instance is not avoid] or free

    def needs_token(self, instance: Instance, token: str) -> bool:
        """Tell whether a client that sent `token` (empty: none) is to stay with `instance`, which it was given.

        Then the answer tells it `instance.token`. It keeps its own while the instance of that is ready, which was only
        full, or has failed this one request. Never unless the mode is `sticky`.
        """
        if self._mode is not SelectionMode.STICKY or instance.token == token:
            return False
        return all(ready.token != token for ready in self._ready)

    def connected(self, instance: Instance) -> None:
        """Note that a connection to an instance was made."""
        instance.failed_connections = 0

    def connect_failed(self, instance: Instance) -> bool:
        """Note that a connection to an instance failed, and tell whether it was ejected for it.

        After `EJECT_AFTER` in a row it is out of rotation, unless it is the only one that is ready. Then a decision is
        due, which replaces it.
        """
        instance.failed_connections += 1
        if instance.failed_connections < EJECT_AFTER or instance.state is not State.READY or len(self._ready) == 1:
            return False
        self.eject(instance, f"{instance.failed_connections} connections in a row failed")
        return True

    def wait(self, turn: Turn) -> None:
        """Stand in line.

        Raises:
            LineFull: `max_queue` requests wait already.
        """
        if len(self._line) >= self.max_queue:
            raise LineFull(f"{len(self._line)} requests are waiting already (autoscaling.max_queue)")
        if not self._line:
            self._lined_up_at = self._clock()
        self._line[turn] = None
        self._count(1)

    def leave(self, turn: Turn) -> None:
        """Leave the line, and give back a place that has just been given."""
        if turn in self._line:
            del self._line[turn]
            self._count(-1)
        if turn.lease is not None:
            turn.lease.release()

    # What the life of an instance does.

    def launch(self, instance: Instance) -> None:
        """Count an instance from the moment it was decided on, so that no bound can be raced past."""
        if instance.name in self.instances:
            raise ValueError(f"{instance.name} is in the pool already")
        self.used_s()
        self.instances[instance.name] = instance

    def ready(self, instance: Instance, address: Address) -> None:
        """Put a started instance into rotation and serve the line."""
        if instance.lost or instance.state is not State.STARTING:
            return
        instance.state = State.READY
        instance.address = address
        instance.failed_connections = 0
        instance.unplugged = False
        instance.ready_at = self._clock()
        self._ready = [each for each in self.instances.values() if each.state is State.READY]
        self.serve_line()

    def unplug(self, instance: Instance) -> None:
        """Take an instance whose RPC connection broke out of rotation until it is ready anew.

        It counts as starting meanwhile, so that nobody starts another one for it.
        """
        if instance.state is not State.READY:
            return
        instance.unplugged = True
        instance.state = State.STARTING
        instance.started_at = self._clock()
        self._ready.remove(instance)
        instance.changed()

    def park(self, instance: Instance) -> None:
        """Count a paused instance as standby. It has no address to serve at before it is ready again."""
        if instance.lost:
            return
        instance.state = State.STANDBY
        instance.spare, instance.parks = True, False
        instance.why = ""
        instance.started_at = self._clock()

    def promote(self, instance: Instance) -> None:
        """Let a spare serve: it counts as starting from now on, and whoever looks after it makes it ready."""
        instance.spare = False
        if instance.state is State.STANDBY:
            instance.state = State.STARTING
            instance.started_at = self._clock()
        instance.changed()

    def bring_back(self, instance: Instance) -> None:
        """Count an instance that was set aside as starting again."""
        instance.set_aside = instance.lost = False
        instance.state = State.STARTING
        instance.acknowledged_at = None
        instance.why = ""
        instance.started_at = self._clock()
        self.launch(instance)
        instance.changed()

    def drain(self, instance: Instance, why: str) -> None:
        """Take an instance out of rotation for good; what is in flight may end."""
        if instance.state is State.DRAINING:
            return
        instance.state = State.DRAINING
        instance.unplugged = False
        instance.why = why
        if instance in self._ready:
            self._ready.remove(instance)
        instance.changed()

    def eject(self, instance: Instance, why: str) -> None:
        """Take an instance to which there is no connection out of rotation. A decision is due then: it is replaced."""
        instance.ejected = True
        self.gone.append(instance)
        self.drain(instance, why)

    def lose(self, instance: Instance, why: str) -> None:
        """Its container is gone: out of rotation, and nothing to wait for.

        One that was still starting counts as starting until that failure is noted, so that nobody starts another
        before.
        """
        instance.lost = True
        if instance.state is not State.DRAINING:
            instance.why = why
        if instance.state is State.READY or instance.unplugged:
            self.gone.append(instance)
        if instance.state in (State.READY, State.STANDBY) or instance.unplugged:
            self.drain(instance, why)
        for interrupt in list(instance.on_loss):
            interrupt()
        instance.changed()

    def finish(self, instance: Instance) -> None:
        """Forget an instance whose life has ended."""
        self.drain(instance, instance.why)
        self.used_s()
        self.instances.pop(instance.name, None)

    def used_s(self) -> float:
        """Seconds that instances have been here, all together, whatever their states."""
        since, self._used_until = self._used_until, self._clock()
        self._used_s += len(self.instances) * (self._used_until - since)
        return self._used_s

    def serve_line(self) -> None:
        """Give places to those who wait, in the order they came, while there are any."""
        while self._line:
            turn = next(iter(self._line))
            try:
                lease = self.claim(token=turn.token, mode=turn.mode)
            except SeveralInstances as error:
                self.dismiss(error)
                return
            if lease is None:
                return
            del self._line[turn]
            self._count(-1)
            turn.lease = lease
            turn.called()

    def dismiss(self, error: Exception) -> None:
        """Tell everyone in the line that there will be no place."""
        line, self._line = self._line, OrderedDict()
        self._count(-len(line))
        for turn in line:
            turn.error = error
            turn.called()

    def _release(self, instance: Instance) -> None:
        instance.in_flight -= 1
        self._count(-1)
        if self._line:
            self.serve_line()
        if instance.in_flight == 0 and instance.state is _DRAINING:
            instance.changed()

    def _count(self, by: int) -> None:
        if self._meter is not None:
            self._meter.change(self._clock(), by)

    # What others read.

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def level(self) -> int:
        """In flight and waiting, if that is measured; else 0."""
        return self._meter.level if self._meter is not None else 0

    @property
    def lined_up_s(self) -> float:
        """Seconds for which there has been somebody in the line."""
        return self._clock() - self._lined_up_at if self._line else 0.0

    def concurrency(self, seconds: int) -> float:
        """In flight and waiting on average over the last `seconds`; 0 if that is not measured."""
        return self._meter.average(self._clock(), seconds) if self._meter is not None else 0.0

    def forget_crowd(self) -> None:
        """Measure anew from now on."""
        if self._meter is not None:
            self._meter.forget(self._clock())

    @property
    def in_flight(self) -> int:
        return sum(instance.in_flight for instance in self.instances.values())

    def candidates(self) -> list[Instance]:
        """Those that serve or will, and are not going already."""
        return [each for each in self.instances.values() if each.state is not State.DRAINING and not each.spare]

    def spares(self) -> list[Instance]:
        """Those on standby or started for it; those that are there already first, the oldest first."""
        spares = [each for each in self.instances.values() if each.spare and each.state is not State.DRAINING]
        return sorted(spares, key=lambda each: each.state is not State.STANDBY)

    def counts(self) -> dict[State, int]:
        """How many instances are in each state; those started for standby are starting."""
        counts = dict.fromkeys(State, 0)
        for instance in self.instances.values():
            counts[instance.state] += 1
        return counts

    def __iter__(self) -> Iterator[Instance]:
        return iter(self.instances.values())

    def __repr__(self) -> str:
        states = " ".join(f"{state}={n}" for state, n in self.counts().items() if n)
        return f"<Pool {states or 'empty'} | in_flight={self.in_flight} waiting={self.waiting}>"
