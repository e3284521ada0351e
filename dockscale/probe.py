"""Does it answer? Asks the real port, each millisecond at first. Never asks the engine."""

import asyncio
import socket

import aiohttp

FIRST_PAUSE_S = 0.001
# Each pause is then about 3 % of the time waited so far, which is what it adds to a start at most.
GROWTH = 1.03
LONGEST_PAUSE_S = 0.1
# A SYN that is lost while the network of a new container comes up is sent again only after a second.
CONNECT_S = 0.25
ANSWER_S = 5.0


async def until_ready(host: str, port: int, health_path: str | None) -> None:
    """Return when the port accepts a connection or, with `health_path`, answers it with 2xx or 3xx. Never gives up."""
    pause = FIRST_PAUSE_S
    while not await (accepts(host, port) if health_path is None else is_healthy(host, port, health_path)):
        await asyncio.sleep(pause)
        pause = min(pause * GROWTH, LONGEST_PAUSE_S)


async def accepts(host: str, port: int) -> bool:
    """Tell whether the port takes a connection within `CONNECT_S`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            connection.connect_ex((host, port))
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return False  # a closed port on this machine refuses at once; to wait for that costs four times as much
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().sock_connect(connection, (host, port))
    except OSError:  # also when dockscale itself can open no socket now: the next try may
        return False
    return True


async def is_healthy(host: str, port: int, path: str) -> bool:
    """Tell whether `GET path` is answered with 2xx or 3xx within `ANSWER_S`."""
    if not await accepts(host, port):
        return False
    name = f"[{host}]" if ":" in host else host
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as session,
            session.get(f"http://{name}:{port}{path}", allow_redirects=False) as answer,
        ):
            return 200 <= answer.status < 400
    except (aiohttp.ClientError, OSError):
        return False
