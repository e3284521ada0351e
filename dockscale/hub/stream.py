"""Clients that cannot have a WebSocket: what is for them streams out of one GET, what they say comes in POSTs.

Each frame of the stream has its length before it, in four bytes, the highest first.
"""

import asyncio
from collections import deque
from contextlib import suppress
from secrets import compare_digest
from urllib.parse import parse_qsl

from dockscale.hub.clients import Client, Link
from dockscale.hub.hub import SHARED, Hub, Refused, Taken
from dockscale.hub.socket import MOST_WAITING_BYTES
from dockscale.hub.tokens import from_header
from dockscale.hub.web import Request
from dockscale.hub.wire import MOST_BYTES, Malformed, Value, pack

PING_S = 5.0
"""How often a silent stream says that it lives: clients wait as long as for any answer."""


class Streams:
    """The streams of all such clients."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._by_client: dict[str, _Stream] = {}

    def close(self) -> None:
        """End every stream: its client comes back by itself."""
        for stream in self._by_client.values():
            stream.close(1001, "the server is restarting")

    async def serve(self, request: Request, query: str) -> None:
        """Answer a request to `/rpc`."""
        asked = dict(parse_qsl(query))
        token = from_header(request.first(b"authorization"), request.first(b"cookie")) or asked.get("token", "")
        match request.method:
            case "GET":
                await self._open(request, asked, token)
            case "POST":
                await self._take(request, asked, token)
            case method:
                request.fail(405, "method_not_allowed", f"{method} is neither GET nor POST")

    async def _open(self, request: Request, asked: dict[str, str], token: str) -> None:
        stream = _Stream(request, token)
        try:
            client, welcome = await self._connect(
                stream, {**asked, "token": token}, f"{request.scheme}://{request.host}"
            )
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
            await stream.run()
            request.end()
        finally:
            if self._by_client.get(client.full_id) is stream:
                del self._by_client[client.full_id]
            stream.over()
            self._hub.disconnect(client)

    async def _connect(
        self, stream: "_Stream", hello: dict[str, Value], base_url: str
    ) -> tuple[Client, dict[str, Value]]:
        """Admit a client; who has its id and does not answer any more makes room. Raises as `Hub.connect`."""
        try:
            return self._hub.connect(stream, hello, base_url)
        except Taken as taken:
            if await taken.holder.link.answers():
                raise
            return self._hub.connect(stream, hello, base_url, dead=taken.holder)

    async def _take(self, request: Request, asked: dict[str, str], token: str) -> None:
        frame = await request.read_all(MOST_BYTES)
        stream = self._find(asked, token)
        if stream is not None:
            await stream.free()
            stream = self._find(asked, token)
        if stream is None or stream.client is None:
            request.fail(400, "no_stream", "no stream is open for this client id and token; GET /rpc first")
            return
        try:
            self._hub.receive(stream.client, frame)
        except Malformed as error:
            request.fail(400, "malformed", str(error))
            return
        request.reply_json(200, {"success": True})

    def _find(self, asked: dict[str, str], token: str) -> "_Stream | None":
        """The stream of who sends this: it has the token with which the stream was opened, be it expired since."""
        stream = self._by_client.get(f"{asked.get('workspace', SHARED)}/{asked.get('client_id', '')}")
        return stream if stream is not None and compare_digest(stream.token.encode(), token.encode()) else None


class _Stream:
    """A `Link` over an answer that does not end."""

    def __init__(self, request: Request, token: str) -> None:
        self.client: Client | None = None
        self.token = token
        self._request = request
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._changed = asyncio.Event()
        self._held: set[Link] = set()
        self._holds = 0
        self._free = asyncio.Event()
        self._free.set()
        self._closed = False

    async def run(self) -> None:
        """Send what is for the client until it is closed."""
        while not self._closed:
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
                await self._request.write(data)

    def send(self, frame: bytes) -> None:
        if self._closed:
            return
        self._waiting += (len(frame).to_bytes(4), frame)
        self._size += len(frame)
        self._changed.set()
        if self._size > 2 * MOST_WAITING_BYTES:  # what dockscale itself sends is not held back
            self._closed = True
            with suppress(ConnectionResetError):
                self._request.fail(503, "too_slow", "the client does not read what it asks for")

    def tell(self, said: dict[str, Value]) -> None:
        self.send(pack(said))

    def throttle(self, sender: Link) -> None:
        if self._size > MOST_WAITING_BYTES and not self._closed and sender is not self and sender not in self._held:
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
