"""A peer that dockscale itself plays: it answers calls, makes calls, and gives and takes large messages in parts."""

import asyncio
import inspect
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import structlog

from dockscale.hub.clients import Client, Peer
from dockscale.hub.parts import Parts
from dockscale.hub.tokens import EVERY, User
from dockscale.hub.wire import (
    PART_BYTES,
    WHOLE_BYTES,
    Message,
    Value,
    beat_s,
    body,
    error_value,
    method_value,
    read,
    vouch,
)

log = structlog.get_logger()

PARTS_AT_ONCE = 16
MOST_ASKED = 500
"""Calls of one client, or in the course of one call, that are worked on at once; more are refused."""
CALL_S = 30.0
"""Seconds without an answer or a heartbeat until a call has failed."""
API_VERSION = 3

_OWN = User("dockscale", {EVERY: "a"}, current_workspace=EVERY)


@lru_cache(maxsize=256)
def _own(workspace: str) -> bytes:
    """What a client is told of one of dockscale's own peers: it is at home in every workspace."""
    return vouch(workspace, _OWN.shown())


Function = Callable[..., Any]
"""Takes a `Context` and what the caller gave; returns a value, or an awaitable of one."""
Functions = Mapping[str, "Function | Functions"]


class Busy(Exception):
    """A client asks for too much at once."""


class RemoteError(Exception):
    """The peer that was called says that it failed. `trace` is where in its own program; empty: it was not reached."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class CallTimeout(Exception):
    """The peer that was called neither answered nor said that it still works on it."""


@contextmanager
def beating(every: float, beat: Callable[[], None]) -> Iterator[None]:
    """Give a caller a sign of life each `every` seconds; with 0, none is wanted."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle | None = None

    def again() -> None:
        nonlocal timer
        timer = loop.call_later(every, again)
        beat()

    if every > 0:
        timer = loop.call_later(every, again)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


@dataclass(frozen=True, slots=True)
class Context:
    """Who calls."""

    caller: str
    """Full id."""
    workspace: str
    user: User
    client: Client | None
    """None: another peer of dockscale itself."""


class Session:
    """A call that is under way, and the functions that the other side may call as long as it is."""

    def __init__(self, peer: "LocalPeer", target: str, timeout: float) -> None:
        self.id = uuid.uuid4().hex
        self.target = target
        self.functions: dict[str, Function] = {}
        self.answer: asyncio.Future[Value] = asyncio.get_running_loop().create_future()
        self._peer = peer
        self._timeout = timeout
        self._timer: asyncio.TimerHandle | None = None
        self.beat()

    def offer(self, name: str, function: Function) -> dict[str, Value]:
        """Give out a function, which is called as `function(context, *args)`."""
        self.functions[name] = function
        return method_value(self._peer.full_id, f"{self.id}.{name}", name, "", "")

    def beat(self) -> None:
        """It goes on: wait anew."""
        self.cancel_timer()
        if self._timeout:
            self._timer = asyncio.get_running_loop().call_later(self._timeout, self._late)

    def cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def settle(self, value: Value) -> None:
        if not self.answer.done():
            self.answer.set_result(value)

    def fail(self, error: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)

    def _late(self) -> None:
        self.fail(CallTimeout(f"{self.target} neither answered nor said that it goes on within {self._timeout:g} s"))


class LocalPeer:
    """One peer of dockscale's own, under a fixed address. `post` sends a message on its way."""

    def __init__(
        self, workspace: str, client_id: str, post: Callable[[Message, Peer], None], tasks: asyncio.TaskGroup
    ) -> None:
        self.workspace = workspace
        self.client_id = client_id
        self.full_id = f"{workspace}/{client_id}"
        self.sessions: dict[str, Session] = {}
        self._post = post
        self._tasks = tasks
        self.parts = Parts()
        self.working: dict[str, set[asyncio.Task[None]]] = {}
        """Calls that are worked on, by who called, or by the session of ours that they belong to."""
        self._services: dict[str, Functions] = {
            "built-in": {
                "ping": lambda _, message: "pong" if message == "ping" else message,
                "get_service": lambda context, name: self.describe(name, context),
                "message_cache": {
                    "create": self._create,
                    "set": self._set,
                    "append": lambda context, key, part, *_: self.parts.append(context.caller, key, part),
                    "remove": lambda context, key: self.parts.drop(context.caller, key),
                    "process": self._process,
                },
            }
        }
        self._infos: dict[str, dict[str, Value]] = {}
        self._lasting: set[str] = set()

    def serve(self, name: str, functions: Functions, /, *, lasts: bool = False, **info: Value) -> None:
        """Offer a service. `info` is what its description says besides the functions.

        With `lasts`, what it does goes on when the caller goes.
        """
        if lasts:
            self._lasting.add(name)
        self._services[name] = functions
        self._infos[name] = info

    def describe(self, name: str, _: Context | None = None) -> dict[str, Value]:
        """A service as a value, as `get_service` gives it.

        Raises:
            KeyError: there is none of that name.
        """
        if name not in self._services:
            raise KeyError(f"Service not found: {name}")
        info = self._infos.get(name, {})
        config = {
            "visibility": "public",
            "require_context": True,
            "workspace": self.workspace,
            "api_version": API_VERSION,
        }
        return {
            "id": name,
            "name": name,
            "type": "built-in" if name == "built-in" else "generic",
            **info,
            "config": config | info.get("config", {}),
            **self.values(self._services[name], f"services.{name}"),
        }

    def values(self, functions: Functions, path: str) -> dict[str, Value]:
        """Functions as values, by which clients call what is below `path` here."""
        return {
            name: method_value(
                self.full_id, f"{path}.{name}", name, inspect.getdoc(each) or "", "", schema=_schema(name, each)
            )
            if callable(each)
            else self.values(each, f"{path}.{name}")
            for name, each in functions.items()
        }

    # What comes.

    def deliver(self, message: Message, sender: Peer) -> None:
        """Take a message: a call, an answer, a sign of life."""
        owner, _, name = message.method.rpartition(".")
        if message.header["type"] != "method":
            return
        session = self.sessions.get(owner)
        if session is not None and message.header["from"] == session.target:
            self._hear(session, name, message, sender)
        elif message.method.startswith("services."):
            service = message.method.split(".")[1]
            owner = f"{sender.full_id}:{service}" if service in self._lasting else sender.full_id
            self._run(self._find(message.method), message, sender, owner)
        elif message.session:
            self.refuse(message, f"Session not found: {message.method}")

    def _hear(self, session: Session, name: str, message: Message, sender: Peer) -> None:
        session.beat()
        if name == "heartbeat":
            return
        if name not in ("resolve", "reject"):
            self._run(session.functions.get(name), message, sender, session.id)
            return
        try:
            [value] = message.arguments()[0] or [None]
        except ValueError as error:
            session.fail(RemoteError(f"the answer cannot be read: {error}"))
            return
        if name == "resolve":
            session.settle(value)
        else:
            told = value if isinstance(value, dict) else {"_rvalue": value}
            session.fail(RemoteError(str(told.get("_rvalue")), str(told.get("_rtrace") or "")))

    def _find(self, method: str) -> Function | None:
        found: Any = self._services
        for name in method.split(".")[1:]:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if callable(found) else None

    def _run(self, function: Function | None, message: Message, sender: Peer, owner: str) -> None:
        try:
            if function is None:
                raise KeyError(f"Method not found: {message.method}")
            args, kwargs = message.arguments()
            value = function(_context(message, sender), *args, **kwargs)
            if inspect.isawaitable(value):
                self._work(value, message, owner)
                return
        except Exception as error:
            self.refuse(message, _told(error))
            return
        self.resolve(message, value)

    def _work(self, value: Awaitable[Value], message: Message, owner: str) -> None:
        """Work on a call while others have their turn."""
        if len(self.working.get(owner, ())) >= MOST_ASKED:
            if inspect.iscoroutine(value):
                value.close()
            raise Busy(f"{MOST_ASKED} calls of {owner} are worked on already")
        self._start(self._await(value, message), f"rpc {message.method}", owner, value)

    def _start(self, work: Coroutine[None, None, None], name: str, owner: str, within: object = None) -> None:
        """Begin what is cancelled when `owner` is gone. `within` is what `work` awaits."""

        async def safely() -> None:
            try:
                await work
            except Exception:  # no client may end dockscale, whatever is wrong here
                log.exception("rpc_failed", work=name)

        def over(task: asyncio.Task[None]) -> None:
            self.working[owner].discard(task)
            if not self.working[owner]:
                del self.working[owner]
            for each in (work, within):
                if inspect.iscoroutine(each):
                    each.close()  # it may have been cancelled before it began

        task = self._tasks.create_task(safely(), name=name)
        self.working.setdefault(owner, set()).add(task)
        task.add_done_callback(over)

    async def _await(self, value: Awaitable[Value], message: Message) -> None:
        call = message.read_body()
        promise = call.get("promise")
        message.body = b""  # what was large is not kept for as long as it is worked on
        every = beat_s(promise.get("interval") if isinstance(promise, dict) else call.get("t"))
        with beating(every if message.session else 0.0, lambda: self._reply(message, "heartbeat", b"")):
            try:
                result = await value
            except Exception as error:
                self.refuse(message, _told(error))
                return
        self.resolve(message, result)

    # What goes.

    def resolve(self, message: Message, value: Value) -> None:
        """Answer a call."""
        if not message.session:
            return
        try:
            answer = body([value])
        except (TypeError, ValueError, OverflowError) as error:
            self.refuse(message, f"the result cannot be sent: {error}")
            return
        self._reply(message, "resolve", answer)

    def refuse(self, message: Message, why: str) -> None:
        """Answer a call with an error. Nobody hears of it if no answer was wanted."""
        if message.session:
            self._reply(message, "reject", body([error_value(why)]))

    def _reply(self, message: Message, how: str, data: bytes) -> None:
        header = {
            "type": "method", "to": message.header["from"], "method": f"{message.session}.{how}",
            "parent": message.session,
        }  # fmt: skip
        self.send(Message(header, data), message.session)

    def send(self, message: Message, session: str = "") -> None:
        """Send a message, in parts if it is large. `session` is that of the call that it belongs to."""
        message.header["from"] = self.full_id
        if len(message.body) <= WHOLE_BYTES:  # a part with its own call around it is no larger
            self._post(message, self)
        else:
            self._start(self._send_parts(message, session), "rpc parts", message.header["to"])

    async def _send_parts(self, message: Message, session: str) -> None:
        target, frame = message.header["to"], message.frame()
        key = session or uuid.uuid4().hex
        limit = asyncio.Semaphore(PARTS_AT_ONCE)

        async def give(index: int, part: bytes) -> None:
            async with limit:
                await self.call(target, "services.built-in.message_cache.set", key, index, part, bool(session))

        parts = [frame[at : at + PART_BYTES] for at in range(0, len(frame), PART_BYTES)]
        try:
            await self.call(target, "services.built-in.message_cache.create", key, bool(session))
            await asyncio.gather(*(give(index, part) for index, part in enumerate(parts)))
            await self.call(target, "services.built-in.message_cache.process", key, bool(session))
        except (RemoteError, CallTimeout) as error:
            log.warning("rpc_parts_failed", to=target, error=str(error))
            failed = self.sessions.get(message.session)
            if failed is not None:
                failed.fail(error)

    async def call(
        self, target: str, method: str, *args: Value, timeout: float = CALL_S, vouched: bytes = b"", **kwargs: Value
    ) -> Value:
        """Call a function of a peer and return what it answers. `vouched` says in whose name, as for `ask`.

        Raises:
            RemoteError: it failed, or there is no such peer.
            CallTimeout: neither an answer nor a heartbeat came within `timeout` seconds.
        """
        with self.session(target, timeout) as session:
            self.ask(session, method, [*args], kwargs, vouched)
            return await session.answer

    @contextmanager
    def session(self, target: str, timeout: float = CALL_S) -> Iterator[Session]:
        """A session for one call to `target`, which can be given functions to call back."""
        session = Session(self, target, timeout)
        self.sessions[session.id] = session
        try:
            yield session
        finally:
            del self.sessions[session.id]
            session.cancel_timer()
            session.answer.cancel()

    def ask(
        self, session: Session, method: str, args: list[Value], kwargs: dict[str, Value] | None = None,
        vouched: bytes = b"",
    ) -> None:  # fmt: skip
        """Send the call of a session; `vouched` says in whose name if it is not the peer's own."""
        more: dict[str, Value] = {"with_kwargs": True} if kwargs else {}
        data = body([*args, kwargs] if kwargs else args, **more, promise="*", t=CALL_S / 2)
        message = Message({"type": "method", "to": session.target, "method": method, "session": session.id}, data)
        message.vouched = vouched or _own(session.target.partition("/")[0])
        self.send(message)

    def tell(self, target: str, method: str, *args: Value) -> None:
        """Call a function of a peer and do not wait for its answer, which is wanted all the same: calls are counted."""
        header = {"type": "method", "to": target, "method": method, "session": uuid.uuid4().hex}
        self.send(Message(header, body([*args], promise="*", t=CALL_S / 2)))

    def callback(self, context: Context, value: Value) -> Callable[..., None]:
        """A function that a caller gave along with its call, as one that does not wait for it; None does nothing.

        Raises:
            TypeError: it is no function, or one that the caller did not make for its call.
        """
        if value is None:
            return lambda *_: None
        method = value.get("_rmethod") if isinstance(value, dict) else None
        # Whatever it says, only the caller itself is called, and no service: dockscale may call more than its callers.
        if not isinstance(method, str) or method.startswith("services."):
            raise TypeError("a callback must be a function of the caller")
        return partial(self.tell, context.caller, method)

    def peer_left(self, full_id: str) -> None:
        """Forget a peer: its calls, and ours to it."""
        self.parts.forget(full_id)
        ours = [session for session in self.sessions.values() if session.target == full_id]
        for owner in (full_id, *(session.id for session in ours)):
            for task in self.working.get(owner, ()):
                task.cancel()
        for session in ours:
            session.fail(RemoteError(f"Target peer {full_id} is not connected"))

    # Large messages that come in parts.

    def _create(self, context: Context, key: Value, _beat: Value = False, overwrite: Value = False) -> None:
        self.parts.begin(context.caller, key, overwrite=bool(overwrite))

    def _set(self, context: Context, key: Value, index: Value, part: Value, _beat: Value = False) -> None:
        self.parts.put(context.caller, key, index, part)
        session = self.sessions.get(key)
        if session is not None and session.target == context.caller:
            session.beat()

    def _process(self, context: Context, key: Value, _beat: Value = False) -> None:
        assert isinstance(context, _Called)
        message = read(self.parts.whole(context.caller, key))
        outer = context.message.header
        message.header |= {"from": outer["from"], "to": outer["to"]}
        self.deliver(message, context.sender)


@dataclass(frozen=True, slots=True)
class _Called(Context):
    """With what the functions need that take large messages apart."""

    message: Message
    sender: Peer


def _context(message: Message, sender: Peer) -> _Called:
    caller = message.header["from"]
    client = sender if isinstance(sender, Client) else None
    return _Called(caller, caller.partition("/")[0], client.user if client else _OWN, client, message, sender)


def _told(error: Exception) -> str:
    """An error as the caller sees it: what kind it is, and its message."""
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    return f"{type(error).__name__}: {message}"


def _schema(name: str, function: Function) -> dict[str, Value]:
    """What clients are told of a function's arguments, as JSON schema inside the form that language models know."""
    found = [each for each in inspect.signature(function).parameters.values() if not each.name.startswith("_")]
    names = (each.name for each in found if each.name != "context" and each.kind is not each.VAR_KEYWORD)
    properties: dict[str, Value] = {each: {} for each in names}
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": inspect.getdoc(function) or "",
            "parameters": {"type": "object", "properties": properties},
        },
    }
