"""The running dockscale: where it is, what it says, and what it is asked to do."""

import itertools
import json
import os
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from dockscale.cli import Failed

ANSWER_S = 10.0
SILENCE_S = 40.0
"""A stream says every 15 s that it is there; one that is silent for so long is not."""
EVENTS = "text/event-stream"
_RETRY_S = (1.0, 2.0, 5.0)

Event = tuple[str, Any]
"""What happened, and the facts."""


class Unanswered(Failed):
    """The running server did not do what was asked."""


class Facts(dict[str, Any]):
    """What the server tells, by names. One that it does not tell is no fault of whoever asks for it."""

    def __missing__(self, name: str) -> Any:
        raise Unanswered(
            f"{server().url} does not tell `{name}`: it is no dockscale, or one of another version than this command"
        )


class Server(NamedTuple):
    host: str
    port: int
    token: str

    @property
    def url(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def server() -> Server:
    """Find the admin port by the settings. `Settings` would say the same, but its import takes longer than the answer.

    Raises:
        Misused: a setting is wrong.
    """
    told: dict[str, str | None] = {}
    if Path(".env").is_file():
        from dotenv import dotenv_values  # noqa: PLC0415  # as above

        try:
            told = {name.upper(): value for name, value in dotenv_values(".env").items()}
        except (OSError, ValueError):
            return _by_settings()
    told |= {name.upper(): value for name, value in os.environ.items()}
    host = told.get("DOCKSCALE_ADMIN_HOST", "127.0.0.1")
    port = told.get("DOCKSCALE_ADMIN_PORT", "9528")
    if host and port and port.isdecimal() and int(port) <= 65535:
        return Server(host, int(port), told.get("DOCKSCALE_ADMIN_TOKEN") or "")
    return _by_settings()


def _by_settings() -> Server:
    from dockscale.cli.chosen import chosen as read  # noqa: PLC0415  # only to say in its words what is wrong

    chosen = read()
    token = chosen.admin_token.get_secret_value() if chosen.admin_token else ""
    return Server(chosen.admin_host, chosen.admin_port, token)


def app_path(app_id: str) -> str:
    """Where the API tells of an app, whatever its name looks like."""
    return f"/api/apps/{quote(app_id, safe='', errors='surrogateescape')}"


def ask(path: str, method: str = "GET", *, silence_s: float = ANSWER_S) -> dict[str, Any]:
    """Have the running server do something, and return what it answers; nothing if that is nothing.

    Raises:
        Unanswered: it says nothing, or why not.
    """
    with _answer(method, path, "application/json", silence_s) as answer:
        told = _told(answer)
    if not isinstance(told, Facts):
        raise _no_dockscale(answer.status)
    return told


def ask_all(path: str, method: str = "GET", *, silence_s: float = ANSWER_S) -> list[dict[str, Any]]:
    """Do as `ask` where the answer is a list.

    Raises:
        Unanswered: it says nothing, or why not.
    """
    with _answer(method, path, "application/json", silence_s) as answer:
        told = _told(answer)
    if not isinstance(told, list) or not all(isinstance(each, Facts) for each in told):
        raise _no_dockscale(answer.status)
    return told


@contextmanager
def stream(path: str, method: str = "GET", body: Any = None) -> Iterator[Iterator[Event]]:
    """Open a stream of events. It ends where the server ends it, or breaks.

    Raises:
        Unanswered: there is none, or why not.
    """
    with _answer(method, path, EVENTS, SILENCE_S, body) as answer:
        if answer.getheader("Content-Type") != EVENTS:
            _told(answer)
            raise _no_dockscale(answer.status)
        yield _events(answer)


def lasting(path: str, again: str = "") -> Generator[Event, None, None]:
    """Events of a stream, and of the one that is opened in its place, at `again`, whenever it ends.

    `away` and `back` tell of that.

    The first event is always `open`.

    Raises:
        Unanswered: the first one cannot be opened.
    """
    opened, pauses = False, itertools.chain(_RETRY_S, itertools.repeat(_RETRY_S[-1]))
    while True:
        try:
            with stream((again or path) if opened else path) as events:
                yield ("back" if opened else "open"), None
                opened, pauses = True, itertools.chain(_RETRY_S, itertools.repeat(_RETRY_S[-1]))
                with suppress(OSError, HTTPException, ValueError):  # cut off, maybe within an event
                    yield from events
                yield "away", "the connection has ended; connecting again"
        except Unanswered as error:
            if not opened:
                raise
            yield "away", str(error)
        time.sleep(next(pauses))


@contextmanager
def _answer(method: str, path: str, accept: str, silence_s: float, body: Any = None) -> Iterator[HTTPResponse]:
    where = server()
    headers = {"Accept": accept}
    if where.token:
        headers["Authorization"] = f"Bearer {where.token}"
    sent = None
    if body is not None:
        headers["Content-Type"], sent = "application/json", json.dumps(body).encode()
    try:
        opened = HTTPConnection(where.host, where.port, timeout=ANSWER_S)
    except InvalidURL:
        raise _unsendable() from None
    with closing(opened) as connection:
        try:
            connection.connect()
            connection.sock.settimeout(silence_s)
            # One that refuses what is sent answers before it has all of it.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, sent, headers)
            answer = connection.getresponse()
        except TimeoutError:
            raise Unanswered(f"{where.url} did not answer within {silence_s:g} s") from None
        except HTTPException:
            raise Unanswered(f"{where.url} is no dockscale: it does not speak HTTP") from None
        except ValueError:
            raise _unsendable() from None
        except OSError:
            raise Unanswered(
                f"no dockscale answers at {where.url}: start it (`make run` or `dockscale serve`)"
            ) from None
        yield answer


def _unsendable() -> Unanswered:
    return Unanswered("DOCKSCALE_ADMIN_HOST or DOCKSCALE_ADMIN_TOKEN is what no host and no token can be")


def _told(answer: HTTPResponse) -> Any:
    if answer.status == 204:
        return Facts()
    try:
        told = json.loads(answer.read(), object_hook=Facts)
        why_not = dict(told)["detail"] if answer.status >= 400 else None
    except (ValueError, KeyError, TypeError, RecursionError, OSError, HTTPException):
        raise _no_dockscale(answer.status) from None
    if why_not is not None:
        raise Unanswered(str(why_not))
    return told


def _no_dockscale(status: int) -> Unanswered:
    return Unanswered(f"{server().url} is no dockscale: it answered {status} and not as one")


def _events(answer: HTTPResponse) -> Iterator[Event]:
    name = ""
    while line := answer.readline():
        field, _, value = line.decode().rstrip("\n").partition(": ")
        if field == "event":
            name = value
        elif field == "data":
            facts = json.loads(value, object_hook=Facts)
            if not isinstance(facts, Facts):
                raise ValueError(f"{name} is not told in facts")
            yield name, facts
