"""Each call is placed on an instance like a request: it takes a lease, or waits in the line for one.

A service of an app is called at a virtual client, `workspace/<app_id>__lb`. The call goes on to the instance that was
chosen for it, and all that this instance says in the course of it comes back in the name of the virtual client: callers
accept nothing from anyone else.
"""

import asyncio
import re
from collections import defaultdict
from collections.abc import Coroutine, Mapping
from math import inf
from typing import Protocol

import structlog

from dockscale.claim import TooLate, Wake, claim
from dockscale.core.app import App, AppGone, Failing, StartFailed
from dockscale.core.pool import Clock, Instance, Lease, LineFull, NoPlace, SeveralInstances
from dockscale.core.spec import SelectionMode
from dockscale.hub.clients import Client, Peer
from dockscale.hub.local import beating
from dockscale.hub.wire import (
    Malformed,
    Message,
    Value,
    body,
    error_value,
    maps_in,
    method_value,
    promised_every,
    read,
    unpack,
)

log = structlog.get_logger()

SUFFIX = "__lb"
_VIRTUAL = re.compile(rf"(?P<workspace>[^/]*)/(?P<app_id>.+?){SUFFIX}(?:_(?P<mode>\w+))?")
USUAL_BEAT_S = 15.0
"""How often a caller wants a sign of life when its call does not say."""
GRACE_S = 5.0
"""What a caller may take longer than it said until it gives up."""
SWEEP_S = 5.0
GENERATOR_IDLE_S = 60.0
"""A generator that nobody asks for so long keeps its instance no longer."""
PARTS_S = 60.0
"""The next part of a large message must come within this."""
RETRIES = 2
STATUS: dict[type[NoPlace], int] = {
    AppGone: 404, SeveralInstances: 409, StartFailed: 502, LineFull: 503, Failing: 503, TooLate: 504,
}  # fmt: skip
"""What a call that got no place is counted as: the status that a request would have got."""
GONE = 499
"""What a call is counted as whose caller has left."""
_PROTECTED = "PermissionError: what is called is protected, and in another workspace"
_BUILT_IN = "services.built-in."
_PARTS = f"{_BUILT_IN}message_cache."
_DEEPEST = 8
"""Sessions within sessions that are looked for in the name of a method."""
_GENERATOR = b"\xa6_rtype\xa9generator"
_STOPPED = b"\xa6_rtype\xaestop_iteration"

Key = tuple[str, str]
"""A caller's full id, and a session or a method of it."""


class Switch(Protocol):
    """How messages reach whom they are for."""

    @property
    def peers(self) -> Mapping[str, Peer]: ...
    def refuse(self, message: Message, sender: Peer, why: str) -> None: ...


class Call:
    """A call that an instance works on."""

    __slots__ = (
        "app", "asks", "beats", "began", "caller", "ending", "every", "instance", "lease", "placed", "status", "until",
        "virtual",
    )  # fmt: skip

    def __init__(
        self, app: App, caller: Peer, instance: Client, virtual: str, lease: Lease | None, began: float, asks: str
    ) -> None:
        self.app = app
        self.caller = caller
        self.instance = instance
        self.virtual = virtual
        """In whose name the instance answers; empty: in its own."""
        self.lease = lease
        """None: it belongs to a call that has one."""
        self.began = self.placed = began
        self.asks = asks
        """The method that is called."""
        self.every = USUAL_BEAT_S
        self.beats = 0
        self.ending = ""
        """`resolve` or `reject`, if its large answer is on its way in parts."""
        self.status = 200
        """What it is counted as when it succeeds."""
        self.until = inf
        """When the caller has given up."""

    def goes_on(self, now: float) -> None:
        """Note a sign of life: the caller waits anew."""
        self.until = now + 2 * self.every + GRACE_S


class Parts:
    """A large call on its way to a virtual client in parts: they all go to one instance."""

    __slots__ = ("call", "last", "session")

    def __init__(self, call: Call) -> None:
        self.call = call
        self.last = -1
        """The highest number of a part so far."""
        self.session = ""
        """Where its answer is wanted, once that is known."""


class Back:
    """What an instance asks its caller: the answer goes back to that instance."""

    __slots__ = ("every", "instance", "until")

    def __init__(self, instance: Client, every: float, now: float) -> None:
        self.instance = instance
        self.every = every
        self.goes_on(now)

    def goes_on(self, now: float) -> None:
        """Note a sign of life: the instance waits anew."""
        self.until = now + 2 * self.every + GRACE_S


class Generator:
    """A generator that a caller has got from an instance, which must not go before its last item."""

    __slots__ = ("keys", "lease", "until")

    def __init__(self, lease: Lease, keys: "tuple[Key, Key]", until: float) -> None:
        self.lease = lease
        self.keys = keys
        """What asks for the next item, and what closes it."""
        self.until = until

    def closes(self, method: str) -> bool:
        """Tell whether this method closes it."""
        return method == self.keys[1][1]


def virtual_id(app: App, mode: SelectionMode | None = None) -> str:
    """Where the services of an app are called, by its own selection mode or another one."""
    return f"{app.spec.workspace}/{app.app_id}{SUFFIX}{f'_{mode}' if mode else ''}"


class Calls:
    """The books of all calls to instances."""

    def __init__(
        self, apps: Mapping[str, App], switch: Switch, wake: Wake, clock: Clock, tasks: asyncio.TaskGroup
    ) -> None:
        self._apps = apps
        self._wake = wake
        self._clock = clock
        self._tasks = tasks
        self._switch = switch
        self.open: dict[Key, Call] = {}
        """By caller and session."""
        self.backs: dict[Key, Back] = {}
        """Who hears the answers to what an instance asked its caller: by caller and the instance's session."""
        self.parts: dict[Key, Parts] = {}
        """Large messages to virtual clients, by caller and key."""
        self.generators: dict[Key, Generator] = {}
        """By caller and each of its two methods."""
        self._waiting: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._tokens: dict[Key, str] = {}
        """Which instance a caller of a sticky app was with, by caller and app id."""
        self._one_ended = asyncio.Event()
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep_again)

    def answers(self, caller: str, session: str, status: int) -> None:
        """A call is a request, and this its answer's status: what it is counted as when it is over."""
        call = self.open.get((caller, session))
        if call is not None:
            call.status = status

    async def ended(self) -> None:
        """Wait until no call is open."""
        while self.open:
            self._one_ended.clear()
            await self._one_ended.wait()

    def close(self) -> None:
        self._timer.cancel()

    def pass_on(self, message: Message, sender: Peer, target: Peer | None) -> bool:
        """Deal with a message to a virtual client, or to or from an instance; False if it is none of these."""
        if isinstance(sender, Client) and sender.place is not None and self._from_instance(message, sender, target):
            return True
        if target is None:
            return self._to_virtual(message, sender)
        if isinstance(target, Client) and target.place is not None:
            return self._to_instance(message, sender, target)
        return False

    # To an app: any of its instances.

    def _to_virtual(self, message: Message, sender: Peer) -> bool:
        meant = _VIRTUAL.fullmatch(message.header["to"])
        if meant is None:
            return False
        app, mode = self._meant(meant)
        if message.method.startswith(_PARTS):
            self._take_part(message, sender, app, mode)
        elif message.method.startswith(_BUILT_IN):
            self._answer_itself(message, sender)
        elif not message.method.startswith("services."):
            self._pass_back(message, sender)
        elif app is not None:
            self._place(message, sender, app, mode)
        else:
            return False
        return True

    def _meant(self, meant: re.Match[str]) -> tuple[App | None, SelectionMode | None]:
        """The app behind a virtual client's id, and the selection mode that is part of it."""
        app, mode = self._apps.get(meant["app_id"]), meant["mode"]
        if app is None or app.spec.workspace != meant["workspace"]:
            return None, None
        try:
            return app, SelectionMode(mode) if mode else None
        except ValueError:
            return None, None

    def _place(self, message: Message, sender: Peer, app: App, mode: SelectionMode | None) -> None:
        """Choose an instance and count the call on it, in one step; wait for one only if there is none."""
        began = self._clock()
        if app.arrive():
            self._wake(app)
        try:
            lease = app.pool.claim(token=self._token(sender, app), mode=mode)
        except NoPlace as error:
            self._no_place(message, sender, app, error, began)
            return
        if lease is None or not self._give(message, sender, app, lease, began):
            self._wait(sender, self._place_later(message, sender, app, mode, began))

    async def _place_later(
        self, message: Message, sender: Peer, app: App, mode: SelectionMode | None, began: float
    ) -> None:
        avoid: Instance | None = None
        try:
            every = (promised_every(message) or USUAL_BEAT_S) if message.session else 0.0
            with beating(every, lambda: _reply(message, sender, "heartbeat")):
                for _ in range(RETRIES + 1):
                    lease = await claim(app, self._wake, avoid, self._token(sender, app), mode)
                    if self._give(message, sender, app, lease, began):
                        return
                    avoid = lease.instance
            raise NoPlace("its instances are not connected")
        except NoPlace as error:
            self._no_place(message, sender, app, error, began)
        except asyncio.CancelledError:
            self._count(app, GONE, began)  # its caller has left
            raise
        except Exception:  # no call may end dockscale, whatever is wrong here
            log.exception("rpc_call_failed", app=app.app_id, method=message.method)
            self._switch.refuse(message, sender, "a bug in dockscale")

    def _wait(self, sender: Peer, placing: Coroutine[None, None, None]) -> None:
        task = self._tasks.create_task(placing, name="rpc call")
        waiting = self._waiting[sender.full_id]
        waiting.add(task)
        task.add_done_callback(waiting.discard)

    def _give(self, message: Message, sender: Peer, app: App, lease: Lease, began: float) -> bool:
        """Send a call to the instance of a lease; False, and the lease is over, if that is not connected."""
        client = self._client_of(app, lease.instance)
        if client is None:
            lease.release()
            return False
        call = Call(app, sender, client, message.header["to"], lease, began, message.method)
        call.placed = self._clock()
        if not message.method.startswith(_PARTS) and not _may_call(sender, client, message.method):
            self._end(call, 403)
            self._switch.refuse(message, sender, _PROTECTED)
            return True
        _acquaint(sender, client)
        if app.pool.mode is SelectionMode.STICKY:
            self._tokens[sender.full_id, app.app_id] = lease.instance.token
        if message.method.startswith(_PARTS):
            self._begin_parts(call, message)
        else:
            self._begin(call, message)
        return True

    def _begin(self, call: Call, message: Message) -> None:
        """Note a call and send it on."""
        if message.session:
            call.every = promised_every(message) or USUAL_BEAT_S
            call.goes_on(self._clock())
            self._open(call, message.session)
        else:
            self._end(call, 200)  # nobody will hear when it is over
        message.header["to"] = call.instance.full_id
        call.instance.deliver(message, call.caller)

    def _open(self, call: Call, session: str) -> None:
        key = call.caller.full_id, session
        former = self.open.get(key)
        self.open[key] = call
        if former is not None and former is not call:
            self._end(former, GONE)  # its caller can hear of one only

    def _no_place(self, message: Message, sender: Peer, app: App, error: NoPlace, began: float) -> None:
        self._count(app, status_of(error), began)
        self._switch.refuse(message, sender, f"{type(error).__name__}: {error}")

    def _count(self, app: App, status: int, began: float) -> None:
        app.leave()
        app.stats.requests[status] += 1
        app.stats.duration.add(self._clock() - began)

    def _token(self, sender: Peer, app: App) -> str:
        return self._tokens.get((sender.full_id, app.app_id), "") if app.pool.mode is SelectionMode.STICKY else ""

    def _client_of(self, app: App, instance: Instance) -> Client | None:
        client = self._switch.peers.get(f"{app.spec.workspace}/{instance.client_id}")
        return client if isinstance(client, Client) and client.place is not None else None

    def _answer_itself(self, message: Message, sender: Peer) -> None:
        """What clients ask any peer before they send it something large."""
        virtual = message.header["to"]
        try:
            args = message.arguments()[0] or [None]
        except Malformed as error:
            self._switch.refuse(message, sender, str(error))
            return
        match message.method.rpartition(".")[2], args[0]:
            case "ping", said:
                self._resolve(message, sender, "pong" if said == "ping" else said)
            case "get_service", "built-in":
                self._resolve(message, sender, _built_in(virtual))
            case "get_service", name:
                self._switch.refuse(message, sender, f"ask the manager for {name}@{virtual.partition('/')[2]}")
            case _:
                self._switch.refuse(message, sender, f"KeyError: Method not found: {message.method}")

    def _resolve(self, message: Message, sender: Peer, value: Value) -> None:
        _reply(message, sender, "resolve", body([value]))

    # To one instance.

    def _to_instance(self, message: Message, sender: Peer, target: Client) -> bool:
        """Count a call that is meant for this instance and no other."""
        if _is_app_call(message):
            self._begin(self._pinned(sender, target, message.method), message)
            return True
        if message.method == f"{_PARTS}set":
            self._begin_pinned_parts(message, sender, target)
        return False

    def _begin_pinned_parts(self, message: Message, sender: Peer, target: Client) -> None:
        try:
            args = _part(message)
        except Malformed:
            return
        inner = _inner(args)
        if inner is not None and _is_app_call(inner):
            call = self._pinned(sender, target, inner.method)
            call.until = self._clock() + PARTS_S
            self._open(call, inner.session)

    def _pinned(self, sender: Peer, target: Client, asks: str) -> Call:
        app, instance = _place(target)
        if app.arrive():
            self._wake(app)
        generator = self.generators.get((sender.full_id, asks))
        if generator is not None:
            generator.until = inf  # as long as the next item is being made
        return Call(app, sender, target, "", app.pool.join(instance), self._clock(), asks)

    # From an instance.

    def _from_instance(self, message: Message, sender: Client, target: Peer | None) -> bool:
        """Put what an instance says in the course of a call under the name that its caller knows."""
        if target is None:
            return False
        if message.method.startswith(_PARTS):
            return self._part_from_instance(message, sender, target)
        key, call = self._course(message, sender)
        if call is None:
            return False
        call.goes_on(self._clock())
        self._rename(message, call)
        _, _, name = message.method.removeprefix(key[1]).partition(".")
        if name == "heartbeat":
            call.beats += 1
            if call.beats == 1 and self._clock() - call.began < call.every / 2:
                return True  # its caller has only just begun to wait
        elif name in ("resolve", "reject"):
            self._answered(call, key, message.body, failed=name == "reject")
        target.deliver(message, sender)
        return True

    def _course(self, message: Message, sender: Client) -> tuple[Key, Call | None]:
        """The call in whose course an instance says this: functions are named `session.….name`."""
        caller, owner = message.header["to"], message.method
        if not owner.startswith("services."):
            for _ in range(_DEEPEST):
                owner = owner.rpartition(".")[0]
                call = self.open.get((caller, owner))
                if call is not None and call.instance is sender:
                    return (caller, owner), call
        return (caller, ""), None

    def _rename(self, message: Message, call: Call) -> None:
        if not call.virtual:
            return
        message.header["from"] = call.virtual
        if message.session:
            self._expect_back(call, message.session, promised_every(message))

    def _expect_back(self, call: Call, session: str, every: float) -> None:
        self.backs[call.caller.full_id, session] = Back(call.instance, every or USUAL_BEAT_S, self._clock())

    def _answered(self, call: Call, key: Key, data: bytes, *, failed: bool) -> None:
        del self.open[key]
        generator = self.generators.get((call.caller.full_id, call.asks))
        if generator is not None and (failed or _STOPPED in data or generator.closes(call.asks)):
            self._drop_generator(generator)
        if not failed and _GENERATOR in data:
            self._keep_generators(call, data)
        self._end(call, 500 if failed and call.status != GONE else call.status)

    def _end(self, call: Call, status: int) -> None:
        """Count how a call ended, and give its place back."""
        self._one_ended.set()
        generator = self.generators.get((call.caller.full_id, call.asks))
        if generator is not None:
            generator.until = self._clock() + GENERATOR_IDLE_S
        if call.lease is None:
            return
        call.lease.release()
        call.lease = None
        call.app.stats.rpc_calls += 1
        call.app.stats.queue_wait.add(call.placed - call.began)
        self._count(call.app, status, call.began)

    # Generators.

    def _keep_generators(self, call: Call, data: bytes) -> None:
        try:
            values = [value for value in maps_in(unpack(data)) if value.get("_rtype") == "generator"]
        except Malformed:
            return  # its caller cannot read it either
        app, instance = _place(call.instance)
        caller = call.caller.full_id
        for value in values:
            keys = (caller, str(value.get("_rmethod"))), (caller, str(value.get("_rclose_method")))
            for key in keys:
                if key in self.generators:
                    self._drop_generator(self.generators[key])
            generator = Generator(app.pool.join(instance), keys, self._clock() + GENERATOR_IDLE_S)
            self.generators |= dict.fromkeys(keys, generator)

    def _drop_generator(self, generator: Generator) -> None:
        for key in generator.keys:
            self.generators.pop(key, None)
        generator.lease.release()

    # Answers to what an instance asked its caller.

    def _pass_back(self, message: Message, sender: Peer) -> None:
        owner, _, name = message.method.rpartition(".")
        key = (sender.full_id, owner)
        back = self.backs.get(key)
        if back is None:
            self._switch.refuse(message, sender, f"Session not found: {message.method}")
            return
        back.goes_on(self._clock())
        if name in ("resolve", "reject"):
            del self.backs[key]
        message.header["to"] = back.instance.full_id
        back.instance.deliver(message, sender)

    # Large messages in parts.

    def _take_part(self, message: Message, sender: Peer, app: App | None, mode: SelectionMode | None) -> None:
        """Pass a part on to the instance that has the others."""
        try:
            args = _part(message)
        except Malformed as error:
            self._switch.refuse(message, sender, str(error))
            return
        what, key = message.method.removeprefix(_PARTS), (sender.full_id, args[0])
        back, parts = self.backs.get(key), self.parts.get(key)
        if back is not None:  # an answer to what that one asked
            back.until = self._clock() + PARTS_S
            if what == "process":
                del self.backs[key]
            self._forward_part(message, sender, back.instance)
        elif parts is not None:
            self._add_part(message, parts, key, what, args)
        elif what == "create" and app is not None:
            self._place(message, sender, app, mode)
        else:
            self._switch.refuse(message, sender, f"KeyError: no message with the key {args[0]} was begun")

    def _begin_parts(self, call: Call, message: Message) -> None:
        key = call.caller.full_id, _part(message)[0]
        former = self.parts.get(key)
        if former is not None:
            self._end(former.call, GONE)
        self.parts[key] = Parts(call)
        call.until = self._clock() + PARTS_S
        self._forward_part(message, call.caller, call.instance)

    def _add_part(self, message: Message, parts: Parts, key: Key, what: str, args: list[Value]) -> None:
        call = parts.call
        call.until = self._clock() + PARTS_S
        if what == "set" and not self._look_into(parts, args):
            del self.parts[key]
            self._end(call, 403)
            self._switch.refuse(message, call.caller, _PROTECTED)
            return
        if what in ("process", "remove"):
            del self.parts[key]
            if what == "remove":
                self.open.pop((call.caller.full_id, parts.session), None)
            elif parts.session:
                call.goes_on(self._clock())
            if what == "remove" or not parts.session:
                self._end(call, 200)
        self._forward_part(message, call.caller, call.instance)

    def _look_into(self, parts: Parts, args: list[Value]) -> bool:
        """Learn from the first part what is called, and from the last one how long its caller waits.

        False if the caller may not call that, or hides what it is.
        """
        call = parts.call
        if args[1] >= parts.last:
            parts.last = args[1]
            call.every = promised_every(Message({}, args[2])) or USUAL_BEAT_S
        if args[1] != 0:
            return True
        inner = _inner(args)
        if inner is None or not _may_call(call.caller, call.instance, inner.method):
            return False
        if inner.session and not parts.session:
            parts.session, call.asks = inner.session, inner.method
            self._open(call, inner.session)
        return True

    def _forward_part(self, message: Message, sender: Peer, instance: Client) -> None:
        app, virtual = _place(instance)[0], message.header["to"]
        self._begin(Call(app, sender, instance, virtual, None, self._clock(), message.method), message)

    def _part_from_instance(self, message: Message, sender: Client, target: Peer) -> bool:
        """Part of what an instance says in the course of a call: its answer, or a call of what it was given."""
        try:
            args = _part(message)
        except Malformed:
            return False
        key = (message.header["to"], args[0])
        call = self.open.get(key)
        if call is None or call.instance is not sender:
            return False
        self._rename(message, call)
        call.until = self._clock() + PARTS_S
        what, inner = message.method.removeprefix(_PARTS), _inner(args)
        if inner is not None:
            name = inner.method.removeprefix(f"{args[0]}.")
            call.ending = name if name in ("resolve", "reject") else ""
            if inner.session and call.virtual:
                self._expect_back(call, inner.session, call.every)
        elif what == "process":
            if call.ending:
                self._answered(call, key, b"", failed=call.ending == "reject")
            else:
                call.goes_on(self._clock())
        target.deliver(message, sender)
        return True

    # Who has gone.

    def left(self, client: Client) -> None:
        """A client is gone: so is all that it asked for, and all that it was asked."""
        full_id = client.full_id
        for task in self._waiting.pop(full_id, ()):
            task.cancel()
        for key, call in [(key, call) for key, call in self.open.items() if client in (call.caller, call.instance)]:
            del self.open[key]
            if call.instance is client:
                self._tell_lost(call, key[1])
            self._end(call, _status_without(client, call))
        for key, parts in list(self.parts.items()):
            if client in (parts.call.caller, parts.call.instance):
                del self.parts[key]
                self._end(parts.call, _status_without(client, parts.call))
        instance = client.place[1] if client.place is not None else None
        for generator in set(self.generators.values()):
            if full_id == generator.keys[0][0] or generator.lease.instance is instance:
                self._drop_generator(generator)
        self.backs = {
            key: back for key, back in self.backs.items() if back.instance is not client and key[0] != full_id
        }
        self._tokens = {key: token for key, token in self._tokens.items() if key[0] != full_id}

    def _tell_lost(self, call: Call, session: str) -> None:
        header = {
            "type": "method", "from": call.virtual or call.instance.full_id, "to": call.caller.full_id,
            "method": f"{session}.reject", "parent": session,
        }  # fmt: skip
        why = f"the instance {call.instance.client_id} left while it worked on {call.asks}"
        call.caller.deliver(Message(header, body([error_value(f"ConnectionError: {why}")])), call.caller)

    def _sweep_again(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep_again)
        self.sweep()

    def sweep(self) -> None:
        """Forget what nobody waits for any more."""
        now = self._clock()
        for key in [key for key, parts in self.parts.items() if parts.call.until <= now]:
            self._end(self.parts.pop(key).call, GONE)
        for key, call in [(key, call) for key, call in self.open.items() if call.until <= now]:
            del self.open[key]
            self._end(call, 504)
        for generator in {each for each in self.generators.values() if each.until <= now}:
            self._drop_generator(generator)
        self.backs = {key: back for key, back in self.backs.items() if back.until > now}

    def __repr__(self) -> str:
        waiting = sum(map(len, self._waiting.values()))
        return f"<Calls open={len(self.open)} waiting={waiting} backs={len(self.backs)} parts={len(self.parts)}>"


def _reply(message: Message, sender: Peer, how: str, data: bytes = b"") -> None:
    """Answer in the name of whom the message is for."""
    header = {
        "type": "method", "from": message.header["to"], "to": sender.full_id,
        "method": f"{message.session}.{how}", "parent": message.session,
    }  # fmt: skip
    if message.session:
        sender.deliver(Message(header, data), sender)


def _is_app_call(message: Message) -> bool:
    """It wants an answer of the app, and not of the RPC library in it."""
    return bool(message.session) and not message.method.startswith(_BUILT_IN)


def _may_call(sender: Peer, instance: Client, method: str) -> bool:
    """Tell whether a caller may call a service of an instance. Calls from another workspace need a public one."""
    if not isinstance(sender, Client) or sender.workspace == instance.workspace:
        return True
    service = instance.services.get(method.split(".")[1]) if method.startswith("services.") else None
    return (service is not None and service.public) or sender.user.may(instance.workspace, "r")


def _acquaint(sender: Peer, instance: Client) -> None:
    """Let a caller from another workspace, and the instance that it is given, answer each other."""
    if isinstance(sender, Client) and sender.workspace != instance.workspace:
        sender.acquainted.add(instance.full_id)
        instance.acquainted.add(sender.full_id)


def _place(instance: Client) -> tuple[App, Instance]:
    assert instance.place is not None, "only instances are asked to work"
    return instance.place


def _status_without(gone: Client, call: Call) -> int:
    return 502 if call.instance is gone else GONE


def _part(message: Message) -> list[Value]:
    """The arguments of a call that has to do with a part; the first one is the key.

    Raises:
        Malformed: they are not those of such a call.
    """
    args = message.read_body().get("args")
    if not isinstance(args, list) or not args or not isinstance(args[0], str):
        raise Malformed("a part needs a key")
    if message.method.endswith(".set") and (
        len(args) < 3 or not isinstance(args[1], int) or not isinstance(args[2], bytes)
    ):
        raise Malformed("a part needs a number and bytes")
    return args


def _inner(args: list[Value]) -> Message | None:
    """The message that begins in this part, if it is the first one. It need not be whole, but its header must be."""
    if len(args) < 3 or args[1] != 0:
        return None
    try:
        return read(args[2])
    except Malformed:
        return None


def _built_in(virtual: str) -> Value:
    def value(name: str) -> Value:
        return method_value(virtual, f"services.built-in.{name}", name.rpartition(".")[2], "", "")

    parts = ("create", "set", "process", "remove")
    return {
        "id": "built-in", "name": "built-in", "type": "built-in",
        "config": {
            "api_version": 3, "visibility": "public", "require_context": True, "workspace": virtual.partition("/")[0],
        },
        "ping": value("ping"),
        "get_service": value("get_service"),
        "message_cache": {name: value(f"message_cache.{name}") for name in parts},
    }  # fmt: skip


def status_of(error: NoPlace) -> int:
    """The status that a request without a place gets."""
    return next((status for kind, status in STATUS.items() if isinstance(error, kind)), 502)
