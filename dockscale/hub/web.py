"""What the hub needs of an HTTP request that it answers, and which answer tells of which error."""

import json
from base64 import b64encode
from typing import Protocol

from dockscale.core.app import App, Failing
from dockscale.core.pool import NoPlace
from dockscale.hub import calls
from dockscale.hub.local import RemoteError
from dockscale.hub.wire import Value

Headers = list[tuple[bytes, bytes]]
CORS = (b"Access-Control-Allow-Origin: *",)
"""Programs in pages of any origin may read the answer. They cannot send what a browser keeps, such as cookies."""


class Exchange(Protocol):
    """A request and its answer, part by part. Whoever serves it is cancelled when its client goes."""

    method: str
    headers: Headers
    """Names are in lower case."""
    client: str
    scheme: str
    host: str
    http_version: str

    async def read(self) -> bytes: ...
    def start(self, status: int, headers: Headers) -> None: ...
    async def write(self, data: bytes) -> None: ...
    def end(self) -> None: ...


class Request(Exchange, Protocol):
    """One that came over HTTP."""

    target: str
    """Path and query, as sent."""
    request_id: str
    status: int
    """What was answered; 0 before."""
    app: App | None
    """The app that it is for. Whoever finds that out sets it: errors tell it, and estimate when to come again."""
    lines: tuple[bytes, ...]
    """Whole lines that the head of the answer gets besides its own, whatever the answer is."""

    def first(self, name: bytes) -> bytes: ...
    async def read_all(self, limit: int) -> bytes: ...
    def reply(self, status: int, body: bytes, content_type: str, *headers: tuple[bytes, bytes]) -> None: ...
    def reply_json(self, status: int, value: object) -> None: ...
    def fail(self, status: int, word: str, message: str, retry_after: int | None = None) -> None: ...
    def failed(self, error: Exception) -> None:
        """Answer with an error of the way to an instance; what is unknown is a bug, and logged."""


class BadAnswer(Exception):
    """A service answered what cannot be told over HTTP."""


class ServiceFailed(Exception):
    """The program of a service that answers HTTP failed."""


STATUS = {
    "BadToken": (401, "bad_token"), "PermissionError": (403, "not_permitted"), "KeyError": (404, "not_found"),
    "TypeError": (400, "bad_call"), "ValueError": (400, "bad_call"), "AssertionError": (400, "bad_call"),
    "OverflowError": (400, "bad_call"), "NotSupported": (501, "not_supported"),
    "ConnectionError": (502, "instance_died"), "BadAnswer": (502, "bad_answer"),
    "HttpError": (502, "bad_answer"),
    "NoPlace": (502, "instance_died"), "CallTimeout": (504, "no_answer"), "TimeoutError": (504, "no_answer"),
    "ServiceFailed": (500, "call_failed"), "RemoteError": (500, "call_failed"),
}  # fmt: skip
"""The kind of an error → the status and the word that tell it. What the way to an instance raises is in the proxy's."""


def preflight(request: Request) -> bool:
    """Answer a browser that asks what a page may send, and tell whether it did (the Fetch standard, CORS preflight)."""
    if request.method != "OPTIONS" or not request.first(b"access-control-request-method"):
        return False
    asked = request.first(b"access-control-request-headers") or b"*"
    headers = [
        (b"Access-Control-Allow-Methods", request.first(b"access-control-request-method")),
        (b"Access-Control-Allow-Headers", asked),
        (b"Access-Control-Max-Age", b"86400"),
    ]
    request.start(204, headers)
    request.end()
    return True


def tell(request: Request, error: Exception) -> None:
    """Answer with an error, be it dockscale's own or what a peer said.

    Raises: the error itself, if it is none of these.
    """
    if isinstance(error, RemoteError):
        error = _refusal(str(error), request.app) or error
    kind = next((each.__name__ for each in type(error).__mro__ if each.__name__ in STATUS), "")
    if isinstance(error, NoPlace) and type(error) is not NoPlace:
        request.failed(error)
    elif isinstance(error, RemoteError):
        said, message = last_error(error)
        status, word = STATUS.get(said, STATUS["RemoteError"])
        request.fail(status, word, message)
    elif kind:
        request.fail(*STATUS[kind], str(error.args[0]) if error.args else kind)
    else:
        raise error


def _refusal(text: str, app: App | None) -> NoPlace | None:
    """The error for which a call got no place: it comes as text, like anything that calls are refused with."""
    name, _, message = text.partition(": ")
    kind: type[NoPlace] | None = next((each for each in calls.STATUS if each.__name__ == name), None)
    if kind is None:
        return None
    if app is not None:
        try:
            app.check()
        except NoPlace as still:  # it knows when to come again
            return still
    return Failing(message, 1.0) if kind is Failing else kind(message)


def last_error(error: RemoteError) -> tuple[str, str]:
    """The kind of the error that a peer told, if it is known, and what it says.

    In the traces of Python's peers the error is at the end, and some tell nothing but the trace.
    """
    text = str(error).strip()
    if text.startswith("Target peer "):
        return "ConnectionError", text
    lines = (error.trace or text).strip().splitlines()
    kinds = ((at, lines[at].partition(":")[0]) for at in reversed(range(len(lines))))
    at, kind = next(((at, kind) for at, kind in kinds if kind in STATUS), (-1, ""))
    if text.startswith("Traceback "):
        text = "\n".join(lines[at:])
    elif kind and not text.startswith(kind):
        text = f"{kind}: {text}"
    return kind, text


def to_json(value: Value) -> bytes:
    """A value as JSON; bytes become base64 text, and what else has no form in JSON its own text.

    Raises:
        BadAnswer: a map in it has keys that JSON has not.
    """
    try:
        return json.dumps(value, default=_plain).encode()
    except (TypeError, RecursionError) as error:
        raise BadAnswer(f"what the service gave is not for JSON, ask for application/msgpack: {error}") from None


def _plain(value: object) -> str:
    return b64encode(value).decode() if isinstance(value, bytes) else str(value)
