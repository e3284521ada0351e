"""A client that knows frames and nothing else, so that it can send what no library would."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgpack
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from dockscale.hub.clients import Client
from tests.support.world import BOUND_S, World


class Failed(Exception):
    """What was called answered with an error."""


class Bare:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.info: dict[str, Any] = {}
        self.heard: list[dict[str, Any]] = []
        """Messages that were no answer to `call`."""

    @property
    def full_id(self) -> str:
        return f"{self.info['workspace']}/{self.info['client_id']}"

    @property
    def manager(self) -> str:
        return f"*/{self.info['manager_id']}"

    async def hello(self, **said: Any) -> dict[str, Any]:
        """Say who connects; what is answered."""
        await self.socket.send(json.dumps(said))
        self.info = json.loads(await self.socket.recv())
        return self.info

    async def send(self, header: dict[str, Any], body: Any = None) -> None:
        await self.socket.send(msgpack.packb(header) + (b"" if body is None else msgpack.packb(body)))

    async def receive(self) -> dict[str, Any]:
        """The next message, header and body in one."""
        reader = msgpack.Unpacker(strict_map_key=False, max_buffer_size=2**24)
        async with asyncio.timeout(BOUND_S):
            reader.feed(await self.socket.recv(decode=False))
        message: dict[str, Any] = {}
        for part in reader:
            message |= part
        return message

    async def ask(self, to: str, method: str, args: Any, session: str, **more: Any) -> None:
        header = {"type": "method", "to": to, "method": method, "session": session}
        await self.send(header, {"args": args, "promise": "*", "t": 15.0, **more})

    async def answer(self, session: str) -> Any:
        """Wait for the answer to what was asked in a session.

        Raises:
            Failed: it is an error.
        """
        while True:
            message = await self.receive()
            match message.get("method"):
                case str(method) if method == f"{session}.resolve":
                    return (message.get("args") or [None])[0]
                case str(method) if method == f"{session}.reject":
                    raise Failed(message["args"][0]["_rvalue"])
                case _:
                    self.heard.append(message)

    async def call(self, to: str, method: str, *args: Any, session: str = "") -> Any:
        session = session or uuid.uuid4().hex  # nobody else may guess it
        await self.ask(to, method, list(args), session)
        return await self.answer(session)

    async def manage(self, function: str, *args: Any) -> Any:
        """Call a function of the manager."""
        return await self.call(self.manager, f"services.default.{function}", *args)

    async def register(self, name: str, **more: Any) -> None:
        await self.manage("register_service", {"id": name, **more})

    async def closed(self) -> int:
        """Read until the connection ends; the code of its end."""
        try:
            async with asyncio.timeout(BOUND_S):
                while True:
                    await self.socket.recv()
        except ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else 1006


@asynccontextmanager
async def socket(it: World, **more: Any) -> AsyncIterator[Bare]:
    """Open a WebSocket and say nothing."""
    url = it.base.replace("http", "ws", 1) + "/ws"
    async with connect(url, max_size=2**25, compression=None, proxy=None, close_timeout=1.0, **more) as opened:
        yield Bare(opened)


@asynccontextmanager
async def bare(it: World, **said: Any) -> AsyncIterator[Bare]:
    """Connect as a client."""
    async with socket(it) as opened:
        info = await opened.hello(**said)
        assert info["type"] == "connection_info", info
        yield opened


def books(it: World) -> list[object]:
    """What the hub still remembers of clients; empty when all have gone."""
    rpc = it.dockscale.rpc
    peer, calls = rpc.manager._peer, rpc.calls
    clients = [each for each in rpc.hub.peers.values() if isinstance(each, Client)]
    kept = (rpc.hub.services, peer.sessions, peer.parts, peer.working, calls.open, calls.backs, calls.parts)
    return [*clients, *rpc.hub._by_workspace, *rpc.door.sockets, *(each for each in kept if len(each))]
