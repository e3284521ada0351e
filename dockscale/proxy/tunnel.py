"""WebSocket and other upgrades, as bytes both ways, until one side ends or the instance must go."""

from collections.abc import Callable
from math import inf

from dockscale.proxy.listener import Client
from dockscale.proxy.peer import Pipe
from dockscale.proxy.upstream import Connection
from dockscale.proxy.wire import UntilClose

GOODBYE_S = 1.0
SERVICE_RESTART = 1012
"""RFC 6455 close code (registered at IANA): the client may reconnect, and will reach another instance."""


class Frames(UntilClose):
    """Bytes that are WebSocket frames: known is where one of our own may stand (RFC 6455 section 5.2)."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        super().__init__()
        self._head = b""
        """The beginning of a frame whose size is not known yet."""
        self._left = 0
        """Bytes of the last frame that have not come yet."""

    @property
    def between(self) -> bool:
        """No frame has begun and not ended."""
        return not self._head and not self._left

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        seen = self._head + data if self._head else data
        at = self._left
        while at < len(seen):
            size = _frame_size(seen, at)
            if size is None:
                self._head, self._left = seen[at:], 0
                return data, b""
            at += size
        self._head, self._left = b"", at - len(seen)
        return data, b""


def _frame_size(seen: bytes, at: int) -> int | None:
    """Bytes of the frame that begins at `at`, or None while that is not known."""
    if len(seen) < at + 2:
        return None
    size = seen[at + 1] & 0x7F
    mask = 4 if seen[at + 1] & 0x80 else 0
    if size < 126:
        return 2 + mask + size
    extended = 2 if size == 126 else 8
    if len(seen) < at + 2 + extended:
        return None
    return 2 + extended + mask + int.from_bytes(seen[at + 2 : at + 2 + extended])


def close_frame(code: int) -> bytes:
    """A server's close frame."""
    return b"\x88\x02" + code.to_bytes(2)


class Tunnel:
    """Carries bytes until either side ends, or `say_goodbye` is called. Then it calls `ended`, once."""

    def __init__(self, client: Client, connection: Connection, ended: Callable[[], None], *, websocket: bool) -> None:
        client.patience = connection.patience = inf  # an open socket may be silent for as long as it likes
        self._client = client
        self._ended = ended
        self._frames = Frames() if websocket else None
        self._up = Pipe(client, connection, UntilClose(), self._end, chunked=False)
        self._down = Pipe(connection, client, self._frames or UntilClose(), self._end, chunked=False)

    def start(self) -> None:
        self._up.start()
        self._down.start()

    def say_goodbye(self) -> None:
        """End it; tell a WebSocket with 1012 (service restart) why."""
        self._stop()
        if self._frames is not None and self._frames.between:
            self._client.transport.write(close_frame(SERVICE_RESTART))
            self._client.linger(GOODBYE_S)
        self._ended()

    def _end(self, _: Exception | None) -> None:
        self._stop()
        self._ended()

    def _stop(self) -> None:
        self._up.stop()
        self._down.stop()
