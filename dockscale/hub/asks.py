"""A request as a call: `get`, `post`, `put`, `patch`, `delete` and `request` of a path, however it reaches the app.

An answer is what its media type says: JSON as values, text as text, anything else as bytes.
"""

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from urllib.parse import quote, urlencode

from dockscale.hub.local import Context, Function, Functions
from dockscale.hub.wire import Value

METHODS = ("get", "post", "put", "patch", "delete")
MOST_ANSWER_BYTES = 2**26
"""Bytes of an answer that are given as a value."""
ALL = frozenset({*(method.upper() for method in METHODS), "HEAD", "OPTIONS"})
_NOT_THE_CALLERS = frozenset({
    "accept-encoding", "connection", "content-length", "expect", "host", "keep-alive", "te", "trailer",
    "transfer-encoding", "upgrade",
})  # fmt: skip
"""Fields that frame or route, or say what dockscale itself can read."""
_AS_IT_IS = "/?:@!$&'()*+,;=~%[]"
"""What is not quoted in a path and its query, besides letters, digits and `_.-`."""


class HttpError(Exception):
    """The app answered with a status of 300 or more, or with what cannot be a value."""


class NoAnswer(HttpError):
    """The app did not answer. `status` is what that is counted as."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Ask:
    """A request that a caller makes."""

    method: str
    target: str
    """Path and query, in ASCII."""
    headers: dict[str, str]
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Told:
    """What was answered."""

    status: int
    headers: dict[str, str]
    body: Value


Send = Callable[[Context, Ask], Awaitable[Told]]


class Made(Mapping[str, Functions]):
    """Functions that are made when they are called: nothing is kept of an app, and none is lost by a restart."""

    def __init__(self, make: Callable[[str], Functions]) -> None:
        self._make = make

    def __getitem__(self, key: str) -> Functions:
        return self._make(key)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def functions(name: str, send: Send) -> dict[str, Function]:
    """The functions by which a service called `name` is asked; `send` carries what they ask."""

    async def request(context: Context, method: str, path: str = "/", **options: Value) -> dict[str, Value]:
        """Make a request; return `status`, `headers` and `body`, whatever the status is."""
        told = await send(context, _ask(method, path, **options))
        return {"status": told.status, "headers": told.headers, "body": told.body}

    return {"request": request} | {method: _named(name, method, send) for method in METHODS}


def _named(name: str, method: str, send: Send) -> Function:
    async def ask(context: Context, path: str = "/", data: Value = None, **options: Value) -> Value:
        """Make a request; return its answer. `data` is sent as JSON, or as it is if it is bytes or text."""
        told = await send(context, _ask(method, path, data=data, **options))
        if told.status >= 300:
            why = field(told.headers, "location") or str(told.body)[:500]
            raise HttpError(f"{name} answered {method.upper()} {path} with {told.status}: {why}")
        return told.body

    return ask


def _ask(
    method: str, path: str, data: Value = None, json: Value = None, params: Value = None, headers: Value = None
) -> Ask:
    """Make a request of what a caller gave.

    Raises:
        TypeError, ValueError: it gave what cannot be sent.
    """
    if not isinstance(method, str) or method.upper() not in ALL:
        raise ValueError(f"{method!r} is none of {', '.join(sorted(ALL))}")
    if not isinstance(path, str) or not path.startswith("/"):
        raise ValueError(f"the path {path!r} must start with /")
    body, kind = _body(json if data is None else data)
    fields = _fields(headers or {})
    if kind and not field(fields, "content-type"):
        fields["Content-Type"] = kind
    return Ask(method.upper(), _target(path, params), fields, body)


def _target(path: str, params: Value) -> str:
    target = quote(path.partition("#")[0], safe=_AS_IT_IS)
    if not params:
        return target
    query = quote(params, safe=_AS_IT_IS) if isinstance(params, str) else urlencode(_pairs(params))
    return f"{target}{'&' if '?' in target else '?'}{query}"


def _pairs(params: Value) -> list[tuple[str, Value]]:
    if not isinstance(params, dict):
        raise TypeError(f"params must be a map or a query's text, not a {type(params).__name__}")
    several = ((name, value if isinstance(value, list) else [value]) for name, value in params.items())
    pairs = [(name, value) for name, values in several for value in values]
    for name, value in pairs:
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise TypeError(f"the parameter {name} must be text, a number or a list of these")
    return pairs


def _fields(headers: Value) -> dict[str, str]:
    """The header fields that are the caller's to say."""
    if not isinstance(headers, dict) or not all(isinstance(text, str) for pair in headers.items() for text in pair):
        raise TypeError("headers must be a map of texts")
    if any(set("\r\n\0") & {*name, *value} for name, value in headers.items()):
        raise ValueError("a header cannot have a line end in it")
    return {name: value for name, value in headers.items() if name.lower() not in _NOT_THE_CALLERS}


def _body(data: Value) -> tuple[bytes | None, str]:
    """A body, and what it is."""
    match data:
        case None:
            return None, ""
        case bytes():
            return data, "application/octet-stream"
        case str():
            return data.encode(), "text/plain; charset=utf-8"
    return json.dumps(data).encode(), "application/json"


def field(headers: Mapping[str, str], name: str) -> str:
    """The field of that (lower case) name, however it is written; empty if there is none."""
    return next((value for each, value in headers.items() if each.lower() == name), "")


def check_size(size: int) -> None:
    """See that so many bytes can be given as a value.

    Raises:
        HttpError: they are too many.
    """
    if size > MOST_ANSWER_BYTES:
        raise HttpError(f"the answer is larger than {MOST_ANSWER_BYTES} bytes; ask for it over HTTP")


def value(headers: Mapping[str, str], data: bytes) -> Value:
    """The body of an answer, as its media type says."""
    media = Message()
    media["content-type"] = field(headers, "content-type") or "application/octet-stream"
    kind, charset = media.get_content_type(), media.get_content_charset("utf-8")
    if kind == "application/json" or kind.endswith("+json"):
        with suppress(ValueError, RecursionError):
            return json.loads(data)
    if kind.startswith("text/") or kind.endswith("json"):
        with suppress(LookupError):  # a charset that nobody knows
            return data.decode(charset, errors="replace")
    return data
