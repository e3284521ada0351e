"""What the hub needs of an HTTP request that it answers."""

import json
from base64 import b64encode
from typing import Protocol

from dockscale.hub.wire import Value

Headers = list[tuple[bytes, bytes]]


class Request(Protocol):
    """A request and its answer. Whoever serves it is cancelled when its client goes."""

    method: str
    target: str
    """Path and query, as sent."""
    headers: Headers
    """Names are in lower case."""
    client: str
    scheme: str
    host: str
    http_version: str
    request_id: str
    status: int
    """What was answered; 0 before."""

    def first(self, name: bytes) -> bytes: ...
    async def read(self) -> bytes: ...
    async def read_all(self, limit: int) -> bytes: ...
    def start(self, status: int, headers: Headers) -> None: ...
    async def write(self, data: bytes) -> None: ...
    def end(self) -> None: ...
    def reply(self, status: int, body: bytes, content_type: str, *headers: tuple[bytes, bytes]) -> None: ...
    def reply_json(self, status: int, value: object) -> None: ...
    def fail(self, status: int, word: str, message: str, retry_after: int | None = None) -> None: ...


STATUS = {
    "BadToken": 401, "PermissionError": 403, "KeyError": 404, "AppGone": 404, "SeveralInstances": 409,
    "TypeError": 400, "ValueError": 400, "AssertionError": 400, "NotSupported": 501,
    "LineFull": 503, "Failing": 503, "StartFailed": 502, "ConnectionError": 502,
    "TooLate": 504, "CallTimeout": 504, "TimeoutError": 504,
}  # fmt: skip
"""The kind of an error, which is how its text begins → the status that tells it over HTTP."""


def status_for(error: Exception) -> tuple[int, str]:
    """The status and the word for an error, be it dockscale's own or what a peer said.

    A peer's text is a trace whose last line begins with the kind of the error.
    """
    text = str(error.args[0]) if error.args else ""
    kinds = [type(error).__name__, *(line.partition(":")[0] for line in reversed(text.strip().splitlines()))]
    kind = next((kind for kind in kinds if kind in STATUS), "")
    return STATUS.get(kind, 500), _word(kind) if kind else "call_failed"


def _word(kind: str) -> str:
    return "".join(f"_{each.lower()}" if each.isupper() else each for each in kind).lstrip("_")


def to_json(value: Value) -> bytes:
    """A value as JSON; bytes become base64 text, and what else has no form in JSON its own text."""
    return json.dumps(value, default=_plain).encode()


def _plain(value: object) -> str:
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)
