"""The worker behind both servers: an ordinary hypha_rpc program that registers an echo and an ASGI app.

Run: `python -m bench.rpc.worker http://host:port`. It prints its full client id, `workspace/client`, once both services
are registered, and ends when its standard input does.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvloop
from hypha_rpc import connect_to_server

from bench.load import SMALL

ECHO, WEB = "bench", "bench-web"
"""Ids of its services."""

Message = dict[str, Any]


def echo(value: object) -> object:
    return value


async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Any]) -> None:
    """Answer every request with the same few bytes: plain ASGI, without a framework."""
    headers = [[b"content-type", b"text/plain"], [b"content-length", str(len(SMALL)).encode()]]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": SMALL, "more_body": False})


async def serve(call: Message) -> None:
    await app(call["scope"], call["receive"], call["send"])


async def work(url: str) -> None:
    api = await connect_to_server({"server_url": url})
    public = {"visibility": "public"}
    await api.register_service({"id": ECHO, "config": public, "echo": echo})
    await api.register_service({"id": WEB, "type": "asgi", "config": public, "serve": serve})
    print(f"{api.config['workspace']}/{api.config['client_id']}", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await api.disconnect()


if __name__ == "__main__":
    uvloop.run(work(sys.argv[1]))
