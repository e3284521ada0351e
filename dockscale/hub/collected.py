"""A request that a caller makes over RPC, as what answers HTTP sees it; its answer is kept until it is whole."""

import asyncio

from dockscale.hub.asks import Ask, Told, check_size, value
from dockscale.hub.web import BadAnswer, Headers


class Collected:
    """One request and its answer. `caller` and `host` stand for the addresses of both ends."""

    scheme = "http"
    http_version = "1.1"

    def __init__(self, ask: Ask, caller: str, host: str) -> None:
        self.method = ask.method
        self.client = caller
        self.host = host
        self.headers: Headers = [(name.lower().encode(), text.encode()) for name, text in ask.headers.items()]
        self.headers.append((b"host", host.encode()))
        if ask.body is not None:
            self.headers.append((b"content-length", b"%d" % len(ask.body)))
        self.told: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        """The answer, or why there is none."""
        self._body = ask.body or b""
        self._status = 0
        self._fields: dict[str, str] = {}
        self._data = bytearray()

    async def read(self) -> bytes:
        """Return the body, then nothing."""
        body, self._body = self._body, b""
        return body

    def start(self, status: int, headers: Headers) -> None:
        """Take the head of the answer.

        Raises:
            BadAnswer: it is not valid, or the second one.
        """
        if self._status or not 200 <= status <= 999:
            raise BadAnswer(f"an answer is one head, then its body; {status} begins none")
        self._status = status
        self._fields = {name.decode("latin-1"): text.decode("latin-1") for name, text in headers}

    async def write(self, data: bytes) -> None:
        """Take a part of the answer's body.

        Raises:
            BadAnswer: its head is missing.
            HttpError: it is too large for a value.
            ConnectionResetError: the caller has gone, or has its answer.
        """
        if not self._status:
            raise BadAnswer("an answer is one head, then its body")
        if self.told.done():
            raise ConnectionResetError("the caller has gone, or has its answer")
        if self.method != "HEAD":
            self._data += data
        check_size(len(self._data))

    def end(self) -> None:
        """The answer is whole."""
        if not self.told.done():
            self.told.set_result(Told(self._status, self._fields, value(self._fields, bytes(self._data))))

    def failed(self, error: Exception) -> None:
        """There will be no answer, if there is none yet."""
        if not self.told.done():
            self.told.set_exception(error)
