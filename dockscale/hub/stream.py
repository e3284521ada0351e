"""Clients that cannot have a WebSocket: what is for them streams out of one GET, what they say comes in POSTs.

Each frame of the stream has its length before it, in four bytes, the highest first.
"""

import asyncio
from collections import deque
from urllib.parse import parse_qsl

from dockscale.hub.clients import Client, Link
from dockscale.hub.hub import Hub, Refused, Taken
from dockscale.hub.socket import MOST_WAITING_BYTES
from dockscale.hub.tokens import User, from_header
from dockscale.hub.web import Request
from dockscale.hub.wire import MOST_BYTES, Malformed, Value, pack

PING_S = 20.0
"""How often a silent stream says that it lives."""


class Streams:
    """The streams of all such clients."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._by_client: dict[str, _Stream] = {}

    async def serve(self, request: Request, query: str, user: User) -> None:
        """Answer a request to `/rpc`."""
        asked = dict(parse_qsl(query))
        match request.method:
            case "GET":
                await self._open(request, asked)
            case "POST":
                await self._take(request, asked, user)
            case method:
                request.fail(405, "method_not_allowed", f"{method} is neither GET nor POST")

    async def _open(self, request: Request, asked: dict[str, str]) -> None:
        stream = _Stream()
        token = from_header(request.first(b"authorization"), request.first(b"cookie"))
        hello: dict[str, Value] = {**asked, "token": token or asked.get("token")}
        try:
            client, welcome = self._hub.connect(stream, hello, f"{request.scheme}://{request.host}")
        except Taken as error:
            request.fail(409, "client_id_taken", str(error))
            return
        except Refused as error:
            request.fail(403, "refused", str(error))
            return
        stream.client = client
        self._by_client[client.full_id] = stream
        try:
            request.start(200, [(b"Content-Type", b"application/octet-stream"), (b"Cache-Control", b"no-cache")])
            stream.tell(welcome)
            await stream.run(request)
            request.end()
        finally:
            if self._by_client.get(client.full_id) is stream:
                del self._by_client[client.full_id]
            stream.over()
            self._hub.disconnect(client)

    async def _take(self, request: Request, asked: dict[str, str], user: User) -> None:
        workspace = asked.get("workspace") or user.current_workspace
        stream = self._by_client.get(f"{workspace}/{asked.get('client_id', '')}")
        if stream is None or stream.client is None or stream.client.user.id != user.id:
            request.fail(400, "no_stream", "no such client has a stream open; GET /rpc first")
            return
        frame = await request.read_all(MOST_BYTES)
        await stream.free()
        try:
            self._hub.receive(stream.client, frame)
        except Malformed as error:
            request.fail(400, "malformed", str(error))
            return
        request.reply_json(200, {"success": True})


class _Stream:
    """A `Link` over an answer that does not end."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._held: set[Link] = set()
        self._holds = 0
        self._free = asyncio.Event()
        self._free.set()
        self._closed = False

    async def run(self, request: Request) -> None:
        """Send what is for the client until it is closed."""
        while not self._closed:
            self._changed.clear()
            try:
                async with asyncio.timeout(PING_S):
                    while not self._waiting and not self._closed:
                        self._changed.clear()
                        await self._changed.wait()
            except TimeoutError:
                self.tell({"type": "ping"})
            while self._waiting:
                data = b"".join(self._waiting)
                self._waiting.clear()
                self._size = 0
                self._let_go()
                await request.write(data)

    def send(self, frame: bytes) -> None:
        self._waiting += (len(frame).to_bytes(4), frame)
        self._size += len(frame)
        self._changed.set()

    def tell(self, said: dict[str, Value]) -> None:
        self.send(pack(said))

    def throttle(self, sender: Link) -> None:
        if self._size > MOST_WAITING_BYTES and sender is not self and sender not in self._held:
            self._held.add(sender)
            sender.hold()

    def hold(self) -> None:
        self._holds += 1
        self._free.clear()

    def release(self) -> None:
        self._holds -= 1
        if not self._holds:
            self._free.set()

    async def free(self) -> None:
        """Wait until the client may be heard."""
        await self._free.wait()

    def close(self, code: int, why: str) -> None:
        self._closed = True
        self._changed.set()

    def over(self) -> None:
        """Nothing more will be sent."""
        self._closed = True
        self._let_go()

    def _let_go(self) -> None:
        held, self._held = self._held, set()
        for sender in held:
            sender.release()

    async def answers(self) -> bool:
        return not self._closed
