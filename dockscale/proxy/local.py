"""A request that dockscale itself answers, part by part, for async code that knows nothing of the proxy."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from http.client import responses
from math import inf
from typing import Protocol

import structlog

from dockscale.core.app import App
from dockscale.core.routes import ToApp, ToHub
from dockscale.proxy import fields
from dockscale.proxy.exchange import CLIENT_GONE, STATUS, Ways, retry_after
from dockscale.proxy.listener import Client
from dockscale.proxy.peer import HELD_AT, Peer, Pipe
from dockscale.proxy.replies import NOTHING_MORE, reply_failure, reply_json
from dockscale.proxy.upstream import BadAnswer
from dockscale.proxy.wire import AnswerHead, Malformed, RequestHead, UntilClose, body_of, parse_answer

log = structlog.get_logger()

_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Hub(Protocol):
    """Serves what is RPC."""

    async def serve(self, request: "LocalRequest", route: ToApp | ToHub) -> None:
        """Answer a request. It is cancelled when the client leaves."""

    def socket(self, head: bytes, address: str) -> asyncio.Protocol:
        """Return what takes over a WebSocket: `head` is its request's, `address` its client's."""

    def has_service(self, workspace: str, name: str) -> bool:
        """Tell whether `/{workspace}/apps/{name}` is a service's."""

    def refusal(self, app: App, authorization: bytes, cookie: bytes) -> tuple[int, str, str] | None:
        """Why a request may not use a protected app, as status, word and sentence; None if it may."""


class Unfinished(Exception):
    """Who served a request left it without a whole answer."""


class LocalRequest:
    """A request and its answer. `begin` has it served by a task of its own, which ends when the client goes.

    What the task raises, or leaves undone, becomes an error's answer or, once the head is out, a cut connection.
    """

    __slots__ = (
        "_at_once", "_client", "_down", "_ended", "_error", "_inside", "_over", "_request", "_task", "app", "client",
        "gone", "headers", "host", "http_version", "lines", "method", "request_id", "scheme", "status", "target",
    )  # fmt: skip

    def __init__(
        self,
        ways: Ways,
        client: Client,
        request: RequestHead,
        request_id: bytes,
        ended: Callable[[int], None],
        prefix: str = "",
        app: App | None = None,
    ) -> None:
        head = fields.request_head(
            request, request.target, prefix.encode("latin-1"), request_id, client.address, client.scheme, ways.trusted
        )
        self.method = request.method.decode("latin-1")
        self.target = request.target.decode("latin-1")
        """Path and query, as sent."""
        self.headers = fields.pairs(head)
        """What an instance would get: names in lower case, and values."""
        self.client = fields.client_of(request, client.address, ways.trusted)
        """The client's address."""
        self.scheme = self.first(b"x-forwarded-proto").decode("latin-1")
        self.host = self.first(b"x-forwarded-host").decode("latin-1")
        self.http_version = f"1.{request.minor}"
        self.request_id = request_id.decode()
        self.status = 0
        """What the client was answered; 0 before that."""
        self.app = app
        """The app that it is for, as far as that is known."""
        self.lines: tuple[bytes, ...] = ()
        """Whole lines that the head of the answer gets besides its own, whatever the answer is."""
        self.gone = asyncio.Event()
        """The client has left."""
        self._client = client
        self._request = request
        self._ended = ended
        """Told the status, once."""
        self._inside = _Inside(client)
        self._down: Pipe | None = None
        """The answer's body on the way, once `start` was called."""
        self._at_once = 0
        """Bytes of it that were written without a pause."""
        self._error: Exception | None = None
        """Why the rest of the request's body will not come."""
        self._over = False
        self._task: asyncio.Task[None] | None = None

    def begin(self, hub: Hub, route: ToApp | ToHub) -> None:
        self._client.occupation = self
        self._task = self._client.loop.create_task(self._run(hub, route), name="local")

    async def _run(self, hub: Hub, route: ToApp | ToHub) -> None:
        error: Exception = Unfinished("whoever served the request left it without a whole answer")
        try:
            await hub.serve(self, route)
        except Exception as raised:
            error = raised
        finally:
            self.failed(error)

    def first(self, name: bytes) -> bytes:
        """The value of the first field of that (lower case) name; empty if there is none."""
        return next((value for lower, value in self.headers if lower == name), b"")

    # The request's body.

    async def read(self) -> bytes:
        """Return the next part of the body, as soon as there is one; empty at its end.

        Raises:
            Malformed: the body is too large, too slow, or not valid.
            ConnectionResetError: the client has gone, or has its answer.
        """
        self._check()
        self._ask()
        while (part := self._inside.take()) == b"" and not self._is_read():
            await self._inside.change()
            self._check()
        if not part and self._error is not None:
            raise self._error
        return part

    async def read_all(self, limit: int) -> bytes:
        """Return the whole body.

        Raises:
            Malformed: it has more than `limit` bytes; and as `read`.
            ConnectionResetError: as `read`.
        """
        parts, left = [], limit - max(0, self._request.length)
        while left >= 0 and (part := await self.read()):
            parts.append(part)
            left = limit - sum(map(len, parts))
        if left < 0:
            raise Malformed(f"the body is larger than {limit} bytes", 413, "body_too_large")
        return b"".join(parts)

    def _ask(self) -> None:
        """Let the body come, if it does not already."""
        client = self._client
        if client.body is None:
            return
        if self._is_awaited() and not client.unread and not client.answered:
            client.transport.write(_CONTINUE)
        client.send_body(self._inside, self._body_ended, chunked=False)

    def _is_awaited(self) -> bool:
        """Tell whether the client sends the body only when it is asked to (RFC 9110 section 10.1.1)."""
        return self._client.body is not None and self._request.minor == 1 and self._request.first(b"expect") != b""

    def _is_read(self) -> bool:
        upload = self._client.upload
        return upload is None or upload.done or self._error is not None

    def _body_ended(self, error: Exception | None) -> None:
        self._error = error
        if error is not None:
            self._client.keep_alive = False
        self._inside.changed()

    # The answer.

    def start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Write the head of the answer. Without a length among the headers, its body ends with `end`.

        Raises:
            BadAnswer: it is not valid.
            ConnectionResetError: the client has gone, or has its answer.
        """
        client = self._client
        answer = self._answer(status, headers)
        client.transport.write(self._head(answer))
        if answer.length:
            body = body_of(answer.length) if answer.length > 0 else UntilClose()
            chunked = fields.is_chunked(answer, self._request.minor)
            self._down = Pipe(self._inside, client, body, self._sent, chunked=chunked)
            self._down.start()

    async def write(self, data: bytes) -> None:
        """Write a part of the answer's body, and wait until the client can take more. What may have none gets none.

        Raises:
            ConnectionResetError: the client has gone, or has its answer.
        """
        self._check_begun(True)
        down = self._down
        if down is None or not data:
            return
        if not down.done:
            down.feed(data)
            self._at_once += len(data)
        if self._at_once > HELD_AT:
            self._at_once = 0
            await asyncio.sleep(0)  # uvloop finds that the client is full only when it comes to send
            self._check()
        while self._client.full and not down.done:
            await self._inside.change()
            self._check()

    def end(self) -> None:
        """The answer is whole.

        Raises:
            ConnectionResetError: the client has gone, or has its answer.
        """
        self._check_begun(True)
        if self._down is not None:
            self._down.source_lost(None)
        if not self._over:
            self._close()

    def reply(self, status: int, body: bytes, content_type: str, *headers: tuple[bytes, bytes]) -> None:
        """Write a whole answer. Raises as `start`."""
        client = self._client
        told = [(b"Content-Type", content_type.encode("latin-1")), (b"Content-Length", b"%d" % len(body)), *headers]
        answer = self._answer(status, told)
        client.keep_alive = client.keep_alive and client.skip_body()
        head = self._head(answer)
        client.transport.write(head + body if answer.length else head)
        self._close()

    def reply_json(self, status: int, value: object) -> None:
        """Write a whole answer. Raises ConnectionResetError as `start`."""
        self._check_begun(False)
        reply_json(self._client, self._request, status, value, *self.lines)
        self.status = status
        self._close()

    def fail(self, status: int, word: str, message: str, retry_after: int | None = None) -> None:
        """Answer with an error: `word` is for programs, `message` for people. An answer that has begun is cut off.

        Raises:
            ConnectionResetError: the client has gone, or has its answer.
        """
        self._check()
        client = self._client
        if client.answered:  # the client must see a cut connection, never a clean end
            client.keep_alive = False
            client.cut()
        else:
            more = NOTHING_MORE if self.app is None else {"app_id": self.app.app_id}
            reply_failure(
                client, self._request, status, word, message, self.request_id.encode(),
                retry_after=retry_after, more=more, lines=self.lines,
            )  # fmt: skip
        self.status = status
        self._close()

    def failed(self, error: Exception) -> None:
        """Answer with what the table says about an error, if there is no answer yet."""
        if self._over:
            return
        if isinstance(error, Malformed):  # found in the request's body
            self._client.keep_alive = False
            self.fail(error.status, error.word, str(error))
        elif type(error) in STATUS:
            status, word = STATUS[type(error)]
            again = None if self.app is None else retry_after(self.app, error)
            self.fail(status, word, str(error), again)
        else:
            log.error("request_failed", request_id=self.request_id, exc_info=error)
            self._client.keep_alive = False
            self.fail(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "a bug in dockscale")

    def _answer(self, status: int, headers: list[tuple[bytes, bytes]]) -> AnswerHead:
        """Read the head of an answer as strictly as an instance's."""
        self._check_begun(False)
        lines = [b"HTTP/1.1 %d %b" % (status, responses.get(status, "").encode())]
        lines += [b"%b: %b" % header for header in headers]
        try:
            answer = parse_answer(b"\r\n".join(lines), self._request.method)
        except Malformed as error:
            raise BadAnswer(f"the answer is not valid HTTP: {error}") from None
        if answer.status < 200 or len(answer.fields) != len(headers):
            raise BadAnswer("the answer is not final, or there is a line end in one of its fields")
        return answer

    def _head(self, answer: AnswerHead) -> bytes:
        client, minor = self._client, self._request.minor
        until_close = answer.length < 0 and not fields.is_chunked(answer, minor)
        if (
            until_close or client.closing or self._is_awaited()
        ):  # a body that was not asked for may still come, or never
            client.keep_alive = False
        client.answered = True
        self.status = answer.status
        extra = b"".join(line + b"\r\n" for line in self.lines)
        return fields.answer_head(answer, minor=minor, keep_alive=client.keep_alive, extra=extra)

    def _sent(self, error: Exception | None) -> None:
        if error is not None:
            self.failed(BadAnswer("the body of the answer is shorter than it says"))

    # The end.

    def abandon(self) -> None:
        """The client has gone."""
        self.status = CLIENT_GONE
        self.gone.set()
        self._stop()
        if self._task is not None:
            self._task.cancel()

    def _close(self) -> None:
        self._stop()
        if self._client.occupation is self:
            self._client.next()

    def _stop(self) -> None:
        """From now on the connection is not this request's any more."""
        self._over = True
        self._ended(self.status)
        for pipe in (self._client.upload, self._down):
            if pipe is not None:
                pipe.stop()
        self._inside.changed()

    def _check(self) -> None:
        if self._over:
            raise ConnectionResetError("the client has gone, or has its answer")

    def _check_begun(self, begun: bool) -> None:
        self._check()
        if self._client.answered != begun:
            raise BadAnswer("an answer is one head, then its body")


class _Inside(Peer):
    """The other side of the client: what comes waits here to be taken, and what goes waits for the client."""

    __slots__ = ("_change", "_parts", "_size")

    def __init__(self, client: Client) -> None:
        super().__init__(client.loop, client.patrol, inf)
        self._parts: list[bytes] = []
        self._size = 0
        self._change = asyncio.Event()

    def write(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        if self._size > HELD_AT and not self.full:
            self.pause_writing()
        self.changed()

    def take(self) -> bytes:
        """Take all that has come."""
        taken = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self.full:
            self.resume_writing()
        return taken

    def hold(self) -> None:
        """Who writes looks for itself whether the client is full."""

    def release(self) -> None:
        self.changed()

    def changed(self) -> None:
        self._change.set()

    async def change(self) -> None:
        """Wait until it may be worth looking again."""
        self._change.clear()
        await self._change.wait()
