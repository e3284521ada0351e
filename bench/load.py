"""The loads: wrk for closed loops, and two small programs for what wrk has not, on sockets of their own.

- Closed loop: `wrk -t1 -c32`. Each connection sends its next request when the last one is answered. Before wrk tells
  its percentiles, it adds the requests that a long one kept its connection from sending at the mean pace.
- Open loop: one request every 1/rate seconds, whatever happens to the others, on the first idle connection (a new one
  if none is idle). Latency runs from the moment a request was due, so a stall counts for all that it held up.
- WebSocket echo: 32 connections, each with one masked message of 32 bytes on its way.
- Idle: connections that have each made one request and stay open.
- One body: a single large one, down or up, with 256 KiB a call.
"""

import asyncio
import gc
import select
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import cast

import uvloop

from bench.peers import HOST, Address

CONNECTIONS = 32
SMALL = b"Hello, bench"
_GET = b"GET %s HTTP/1.1\r\nHost: " + HOST.encode() + b"\r\n\r\n"
_UPLOAD = b"POST /swallow HTTP/1.1\r\nHost: " + HOST.encode() + b"\r\nContent-Length: %d\r\n\r\n"
_UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: " + HOST.encode() + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_PAYLOAD = bytes(range(32))
_MASK = b"\x12\x34\x56\x78"
_FRAME = b"\x82" + bytes((0x80 | len(_PAYLOAD),)) + _MASK + bytes(b ^ _MASK[i % 4] for i, b in enumerate(_PAYLOAD))
_ECHO = b"\x82" + bytes((len(_PAYLOAD),)) + _PAYLOAD
_PART = 1 << 18
_PATIENCE_S = 60.0


class LoadFailed(Exception):
    """What came back is not what has to come back."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a load saw: how many were answered in how long, and how long one took."""

    done: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int = 0


def percentile(values: list[float], share: float) -> float:
    """The smallest value that at least this share does not exceed."""
    return sorted(values)[max(0, ceil(share * len(values)) - 1)]


def closed_loop(
    address: Address, path: str, seconds: int, upload: int = 0, connections: int = CONNECTIONS, host: str = HOST
) -> Counted:
    """Run wrk on this process's core."""
    ip, port = address
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-H", f"Host: {host}"]
    argv += ["-s", str(Path(__file__).with_name("wrk.lua")), f"http://{ip}:{port}{path}"]
    argv += ["--", str(upload)] if upload else []
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=seconds + 30)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            count, took_us, p50_us, p99_us, errors = (int(word) for word in line.split()[1:])
            return Counted(count, took_us / 1e6, p50_us / 1e3, p99_us / 1e3, errors)
    raise LoadFailed(f"wrk said: {done.stdout}")


def open_loop(address: Address, rate: float, seconds: float) -> Counted:
    """GET 12 bytes at a fixed rate."""
    request = _GET % b"/12"
    idle = [_connected(address, request) for _ in range(16)]
    busy: dict[int, tuple[socket.socket, float, bytes]] = {}
    latencies: list[float] = []
    total = int(rate * seconds)
    sent = 0
    began = time.perf_counter() + 0.05
    gc.disable()
    try:
        while len(latencies) < total:
            due = began + sent / rate
            now = time.perf_counter()
            if sent < total and now >= due:
                it = idle.pop() if idle else _connected(address)
                it.send(request)
                busy[it.fileno()] = (it, due, b"")
                sent += 1
                continue
            wait = due - now if sent < total else _PATIENCE_S
            readable = select.select(list(busy), (), (), wait)[0]
            if not readable and sent == total:
                raise LoadFailed(f"{len(busy)} requests got no answer")
            for number in readable:
                it, since, earlier = busy.pop(number)
                told = earlier + it.recv(4096)
                if told.endswith(SMALL):
                    latencies.append((time.perf_counter() - since) * 1000)
                    _check(told)
                    idle.append(it)
                elif told == earlier:
                    raise LoadFailed("a connection was closed without an answer")
                else:
                    busy[number] = (it, since, told)
    finally:
        gc.enable()
        for it in [*idle, *(each[0] for each in busy.values())]:
            it.close()
    return Counted(total, total / rate, percentile(latencies, 0.5), percentile(latencies, 0.99))


def _connected(address: Address, first: bytes = b"") -> socket.socket:
    """Connect, and make one request if there is one to make."""
    it = socket.create_connection(address, timeout=_PATIENCE_S)
    it.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if first:
        it.sendall(first)
        _take_small(it)
    return it


def _take_small(it: socket.socket) -> None:
    told = b""
    while not told.endswith(SMALL):
        part = it.recv(4096)
        if not part:
            raise LoadFailed(f"closed after {told!r}")
        told += part
    _check(told)


def _check(answer: bytes) -> None:
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise LoadFailed(f"answered {answer[:200]!r}")


@contextmanager
def idle(address: Address, count: int) -> Iterator[None]:
    """Hold this many connections open, each of which has made one request."""
    sockets = []
    try:
        for _ in range(count):
            sockets.append(_connected(address, _GET % b"/12"))  # one by one: those made must be closed
        yield
    finally:
        for it in sockets:
            it.close()


def download(address: Address, path: str, size: int) -> None:
    """GET one large body."""
    with _connected(address) as it:
        it.sendall(_GET % path.encode())
        buffer = bytearray(_PART)
        told = b""
        while b"\r\n\r\n" not in told:
            told += it.recv(4096)
        _check(told)
        left = size - len(told.partition(b"\r\n\r\n")[2])
        while left > 0:
            got = it.recv_into(buffer)
            if not got:
                raise LoadFailed(f"cut off, {left} bytes before the end")
            left -= got


def upload(address: Address, size: int) -> None:
    """POST one large body."""
    with _connected(address) as it:
        it.sendall(_UPLOAD % size)
        part = bytes(_PART)
        for _ in range(size // _PART):
            it.sendall(part)
        _take_small(it)


class _Chatter(asyncio.Protocol):
    """One WebSocket that sends its message again whenever it has come back."""

    def __init__(self) -> None:
        self.open = asyncio.get_running_loop().create_future()
        self.lost = False
        self.count = 0
        self.got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.transport.write(_UPGRADE)

    def data_received(self, data: bytes) -> None:
        self.got += data
        if not self.open.done():
            if b"\r\n\r\n" in self.got:
                self.open.set_result(self.got.startswith(b"HTTP/1.1 101 "))
                self.got = b""
        elif len(self.got) >= len(_ECHO):
            self.lost |= self.got != _ECHO
            self.got = b""
            self.count += 1
            self.transport.write(_FRAME)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        if not self.open.done():
            self.open.set_result(False)


async def _echo(address: Address, seconds: float) -> Counted:
    loop = asyncio.get_running_loop()
    chatters = [(await loop.create_connection(_Chatter, *address))[1] for _ in range(CONNECTIONS)]
    if not all([await it.open for it in chatters]):
        raise LoadFailed("a WebSocket was not opened")
    began = time.perf_counter()
    for it in chatters:
        it.transport.write(_FRAME)
    await asyncio.sleep(seconds)
    done = sum(it.count for it in chatters)
    took = time.perf_counter() - began
    broken = sum(it.lost for it in chatters)
    for it in chatters:
        it.transport.abort()
    mean_ms = took / max(1, done) * CONNECTIONS * 1000
    return Counted(done, took, mean_ms, mean_ms, broken)


def echo(address: Address, seconds: float) -> Counted:
    """Exchange WebSocket messages. Of the times only the mean is known."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_echo(address, seconds))
