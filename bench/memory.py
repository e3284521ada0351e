"""What a proxy holds in memory: for each idle client connection, and while one large body passes.

Each proxy is started anew and warmed up by a few requests. *idle*: its resident size with many connections open, each
of which has made one request, less the size before, divided by their number. *down*, *up*: the peak of its resident
size while a body of 1 GiB passes, as fast as both sides take it, less the size just before. The kernel's socket
buffers are in neither.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from bench import load
from bench.peers import Proxy

BODY = 1 << 30
WARM = 200
_SETTLE_S = 0.3


@dataclass(frozen=True, slots=True)
class Memory:
    """In bytes."""

    start: int
    idle: float
    down: int
    up: int


def measure(proxy: Proxy, connections: int) -> Memory:
    for _ in range(WARM):
        with load.idle(proxy.address, 1):
            pass
    time.sleep(_SETTLE_S)
    start = proxy.memory()
    with load.idle(proxy.address, connections):
        time.sleep(_SETTLE_S)
        each = (proxy.memory() - start) / connections
    time.sleep(_SETTLE_S)
    down = _growth(proxy, lambda: load.download(proxy.address, "/1g", BODY))
    up = _growth(proxy, lambda: load.upload(proxy.address, BODY))
    return Memory(start, each, down, up)


def _growth(proxy: Proxy, transfer: Callable[[], None]) -> int:
    proxy.forget_peak()
    before = proxy.memory()
    transfer()
    return proxy.peak() - before
