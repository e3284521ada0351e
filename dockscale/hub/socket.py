"""A client's WebSocket (RFC 6455). The frames are the websockets package's work; the pace is ours."""

import asyncio
import json
from collections import deque
from typing import cast

import structlog
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from dockscale.hub import frames
from dockscale.hub.clients import Client, Link
from dockscale.hub.hub import Hub, Refused, Taken
from dockscale.hub.wire import MOST_BYTES, Malformed, Value

log = structlog.get_logger()

HELLO_S = 10.0
"""Within this a client must say who it is."""
PING_AFTER_S = 30.0
DEAD_AFTER_S = 90.0
"""Silence after which a client is asked whether it is there, and after which it is taken for dead."""
LOOK_S = 10.0
ALIVE_S = 2.0
"""Within this the holder of a client id must answer when another one wants it."""
MOST_WAITING_BYTES = 2**24
"""What may wait for a client; then who sends to it is not read from."""
MOST_KEPT_BYTES = 4 * MOST_WAITING_BYTES
"""What may wait for a client at all, whoever sent it; then it is cut off."""
STALLED_S = 15.0
LEAST_TAKEN_BYTES = 2**16
"""What a client for which too much waits must take of it each `STALLED_S`; else it is cut off."""
AT_ONCE = 64
"""Messages of one client that are dealt with before others have their turn."""
PIECE_BYTES = 2**15
"""Bytes of one client that are taken apart before others have their turn."""
_LINGER_S = 2.0


class Door:
    """What all sockets share: the hub, and one timer."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.loop = asyncio.get_running_loop()
        self.sockets: set[Socket] = set()
        self._timer = self.loop.call_later(LOOK_S, self._look)

    def socket(self, head: bytes, address: str) -> "Socket":
        """Return what takes over a connection from `address` on which this head of a WebSocket handshake came."""
        return Socket(self, head, address)

    def close(self) -> None:
        """Tell every client to come back later: it reconnects by itself."""
        self._timer.cancel()
        for socket in list(self.sockets):
            socket.close(CloseCode.GOING_AWAY, "the server is restarting")

    def _look(self) -> None:
        self._timer = self.loop.call_later(LOOK_S, self._look)
        for socket in list(self.sockets):
            socket.look(self.loop.time())


class Socket(asyncio.Protocol):
    """One WebSocket: a `Link` for the client at its other end."""

    transport: asyncio.Transport

    def __init__(self, door: Door, head: bytes, address: str) -> None:
        self._door = door
        self._head = head
        self._address = address
        self._base_url = ""
        self._frames = ServerProtocol(max_size=MOST_BYTES)
        self._client: Client | None = None
        self._heard_at = self._began_at = door.loop.time()
        self._begun = bytearray()
        self._in_parts = False
        """The latest frame of data was not its message's last."""
        self._out: list[bytes] = []
        self._kind = Opcode.BINARY
        self._unread: deque[bytes] = deque()
        self._todo: deque[tuple[Opcode, bytes]] = deque()
        self._over = False
        """Nothing of the client is heard any more."""
        self._holds = 0
        self._flushes = False
        """What is to be sent will be, as soon as what has come has been dealt with."""
        self._full = False
        self._written = 0
        self._held: set[Link] = set()
        self._stalled: asyncio.TimerHandle | None = None
        self._ends = False
        """Both sides have closed the WebSocket, or it broke."""
        self._end: asyncio.TimerHandle | None = None
        self._pong: asyncio.Future[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self._written = self.transport.get_write_buffer_size()
        self.transport.set_write_buffer_limits(high=MOST_WAITING_BYTES, low=MOST_WAITING_BYTES // 2)
        self._door.sockets.add(self)
        self.data_received(self._head)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.sockets.discard(self)
        self._forget()
        self.resume_writing()
        if self._end is not None:
            self._end.cancel()
        for task in self._tasks:
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._door.loop.time()
        self._unread += (data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES))
        self._work()

    def eof_received(self) -> bool:
        self._frames.receive_eof()
        self._flush()
        return False

    def pause_writing(self) -> None:
        self._full = True
        self.hold()  # what it asks for would come on top
        self._check_pace(-LEAST_TAKEN_BYTES)

    def resume_writing(self) -> None:
        if not self._full:
            return
        self._full = False
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        held, self._held = self._held, set()
        for link in (*held, self):
            link.release()

    def _check_pace(self, taken_before: int) -> None:
        """Cut off a client that takes too little of what waits for it."""
        taken = self._written - self.transport.get_write_buffer_size()
        if taken - taken_before < LEAST_TAKEN_BYTES:
            self._cut_off()
        else:
            self._stalled = self._door.loop.call_later(STALLED_S, self._check_pace, taken)

    def _cut_off(self) -> None:
        log.warning(
            "rpc_client_stalled", client=repr(self._client), waiting_bytes=self.transport.get_write_buffer_size()
        )
        self.transport.abort()

    # Messages.

    def _collect(self, frame: Frame) -> None:
        """Put the parts of a message together (RFC 6455 section 5.4)."""
        if frame.opcode is Opcode.PONG:
            if self._pong is not None and not self._pong.done():
                self._pong.set_result(None)
            return
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._kind = frame.opcode
        self._in_parts = not frame.fin
        if frame.fin and not self._begun:
            self._todo.append((self._kind, bytes(frame.data)))
            return
        self._begun += frame.data
        if frame.fin:
            self._todo.append((self._kind, bytes(self._begun)))
            self._begun.clear()

    def _work(self) -> None:
        """Deal with what has come, a bounded part of it at once and none while it is held."""
        if not self._holds and not self._todo and self._unread:
            self._take_apart(self._unread.popleft())
        for _ in range(AT_ONCE):
            if self._holds or not self._todo:
                break
            self._try(*self._todo.popleft())
        self._flush()
        if not self._holds and (self._todo or self._unread):
            self.hold()
            self._door.loop.call_soon(self.release)

    def _take_apart(self, data: bytes) -> None:
        at = 0
        if self._between_messages:
            while (taken := frames.take(data, at)) is not None:
                payload, at = taken
                self._todo.append((Opcode.BINARY, payload))
            if at == len(data):
                return
        self._frames.receive_data(data[at:])
        for event in self._frames.events_received():
            if isinstance(event, Request):
                scheme = event.headers.get_all("X-Forwarded-Proto") or ["http"]
                host = event.headers.get_all("Host") or [""]
                self._base_url = f"{scheme[0]}://{host[0]}"
                self._frames.send_response(self._frames.accept(event))
            elif isinstance(event, Frame) and not self._over:
                self._collect(event)

    @property
    def _between_messages(self) -> bool:
        """What comes next is the beginning of a message."""
        return self._open and not (self._over or self._in_parts or self._frames.reader.buffer)

    def _try(self, kind: Opcode, data: bytes) -> None:
        try:
            self._take(kind, data)
        except Malformed as error:
            self.close(CloseCode.INVALID_DATA, str(error))
        except Exception:
            log.exception("rpc_message_failed", client=repr(self._client))
            self.close(CloseCode.INTERNAL_ERROR, "a bug in dockscale")

    def _take(self, kind: Opcode, data: bytes) -> None:
        if self._client is not None and kind is Opcode.BINARY:
            self._door.hub.receive(self._client, data)
        elif self._client is not None:
            self._hear(data)
        elif kind is Opcode.TEXT:
            self._greet(_read_json(data))
        else:
            raise Malformed("the first message must be JSON text that says who connects")

    def _hear(self, data: bytes) -> None:
        assert self._client is not None
        match _read_json(data).get("type"):
            case "ping":
                self.tell({"type": "pong"})
            case "refresh_token":
                token = self._door.hub.reconnection_token(self._client)
                self.tell({"type": "reconnection_token", "reconnection_token": token})

    def _greet(self, hello: dict[str, Value], dead: Client | None = None) -> None:
        try:
            self._client, welcome = self._door.hub.connect(self, hello, self._base_url, dead=dead)
        except Taken as error:
            if dead is not None:
                self._refuse(error)  # somebody else was faster
                return
            self.hold()
            task = self._door.loop.create_task(self._dispute(hello, error), name="rpc dispute")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        except Refused as error:
            self._refuse(error)
        else:
            self.tell(welcome)

    async def _dispute(self, hello: dict[str, Value], taken: Taken) -> None:
        """Let a client have the id of another one that does not answer any more."""
        if await taken.holder.link.answers():
            self._refuse(taken)
        elif not self._over:
            self._greet(hello, taken.holder)
        self.release()

    def _refuse(self, error: Refused) -> None:
        log.info("rpc_client_refused", address=self._address, why=str(error))
        self.tell({"type": "error", "message": str(error)})
        self.close(CloseCode.POLICY_VIOLATION, str(error))

    # What the hub does.

    def send(self, frame: bytes) -> None:
        if self._open:
            self._out += (*self._frames.data_to_send(), frames.head(len(frame)), frame)
            if not self._flushes:
                self._flushes = True
                self._door.loop.call_soon(self._flush)

    def tell(self, said: dict[str, Value]) -> None:
        if self._open:
            self._frames.send_text(json.dumps(said).encode())
            self._flush()

    @property
    def _open(self) -> bool:
        return self._frames.state is State.OPEN and not self.transport.is_closing()

    def throttle(self, sender: Link) -> None:
        if self._full and sender is not self and sender not in self._held:
            self._held.add(sender)
            sender.hold()

    def hold(self) -> None:
        self._holds += 1
        if self._holds == 1 and not self.transport.is_closing():
            self.transport.pause_reading()

    def release(self) -> None:
        self._holds -= 1
        if self._holds == 0 and not self.transport.is_closing():
            self.transport.resume_reading()
            self._work()

    def close(self, code: int, why: str) -> None:
        self._forget()
        if self._open:
            self._frames.send_close(code, why.encode(errors="replace")[:120].decode(errors="ignore"))
            self._flush()
        self._linger()

    def _forget(self) -> None:
        """Hear the client no more."""
        self._over = True
        self._unread.clear()
        self._todo.clear()
        client, self._client = self._client, None
        if client is not None:
            self._door.hub.disconnect(client)

    def _linger(self) -> None:
        """Leave the client a little time to take what was written."""
        if self._end is None:
            self._end = self._door.loop.call_later(_LINGER_S, self.transport.abort)

    async def answers(self) -> bool:
        """Tell whether the client still answers."""
        if self._holds:
            return True  # it spoke, and is not heard only because of others
        if self._pong is None or self._pong.done():
            self._pong = self._door.loop.create_future()
            self._ping()
        done, _ = await asyncio.wait([self._pong], timeout=ALIVE_S)
        return bool(done)

    def look(self, now: float) -> None:
        """Ask a silent client whether it is there, and give up one that is dead."""
        silent = now - self._heard_at
        if self._client is None:
            if now - self._began_at > HELLO_S:
                # No error is told: for a client that comes back, which may only be slow, it would be the end.
                self.close(CloseCode.TRY_AGAIN_LATER, f"nothing said who connects within {HELLO_S:g} s")
        elif self._holds or (self._client.place is not None and self._client.place[1].frozen):
            self._heard_at = now
        elif silent > DEAD_AFTER_S:
            self.close(CloseCode.GOING_AWAY, f"nothing was heard for {silent:.0f} s")
        elif silent > PING_AFTER_S:
            self._ping()

    def _ping(self) -> None:
        if self._open:
            self._frames.send_ping(b"")
            self._flush()

    def _flush(self) -> None:
        """Write what is there to be sent in one go: to write each frame by itself costs more than to route it."""
        self._flushes = False
        parts, self._out = [*self._out, *self._frames.data_to_send()], []
        if parts and not self.transport.is_closing():
            data = b"".join(parts)
            self._written += len(data)
            self.transport.write(data)
            self._ends = self._ends or not parts[-1]  # the package's sign that nothing more will come
        if self._full and self.transport.get_write_buffer_size() > MOST_KEPT_BYTES:
            self._cut_off()
        if self._ends and not self._todo and not self._unread and not self.transport.is_closing():
            self.transport.close()
            self._linger()

    def __repr__(self) -> str:
        return f"<Socket {self._client!r} {self._frames.state.name}>"


def _read_json(data: bytes) -> dict[str, Value]:
    try:
        said = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"text that is no JSON: {error}") from None
    if not isinstance(said, dict):
        raise Malformed("JSON text that is no object")
    return said
