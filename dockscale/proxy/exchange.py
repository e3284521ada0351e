"""One request on its way: a place, a connection, its answer. Steps are callbacks; only who must wait gets a task."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from math import ceil
from typing import TYPE_CHECKING

import structlog

from dockscale.claim import TooLate, Wake, claim
from dockscale.core.app import App, AppGone, Failing, StartFailed
from dockscale.core.pool import Clock, Instance, Lease, LineFull, SeveralInstances
from dockscale.core.routes import ToApp
from dockscale.core.spec import SelectionMode
from dockscale.proxy import fields
from dockscale.proxy.listener import Client
from dockscale.proxy.peer import Pipe
from dockscale.proxy.replies import reply_failure
from dockscale.proxy.tunnel import Tunnel
from dockscale.proxy.upstream import (
    IDEMPOTENT,
    BadAnswer,
    Connection,
    NoAnswer,
    NotSent,
    OutOfFiles,
    TooSlow,
    Upstream,
)
from dockscale.proxy.wire import AnswerHead, Malformed, RequestHead, body_of

if TYPE_CHECKING:
    from asyncio import Task

log = structlog.get_logger()

RETRIES = 2
MOST_INTERIM = 32

STATUS: dict[type[Exception], tuple[HTTPStatus, str]] = {
    AppGone: (HTTPStatus.NOT_FOUND, "app_removed"),
    SeveralInstances: (HTTPStatus.CONFLICT, "several_instances"),
    NotSent: (HTTPStatus.BAD_GATEWAY, "instance_died"),
    NoAnswer: (HTTPStatus.BAD_GATEWAY, "instance_died"),
    BadAnswer: (HTTPStatus.BAD_GATEWAY, "bad_answer"),
    StartFailed: (HTTPStatus.BAD_GATEWAY, "start_failed"),
    LineFull: (HTTPStatus.SERVICE_UNAVAILABLE, "line_full"),
    Failing: (HTTPStatus.SERVICE_UNAVAILABLE, "app_failing"),
    OutOfFiles: (HTTPStatus.SERVICE_UNAVAILABLE, "out_of_files"),
    TooLate: (HTTPStatus.GATEWAY_TIMEOUT, "no_instance_ready"),
    TooSlow: (HTTPStatus.GATEWAY_TIMEOUT, "no_answer"),
}
"""What happened → status and the word for it in the body (behaviour.md, the table of errors)."""
CLIENT_GONE = 499
"""Counted, never sent."""


@dataclass(slots=True)
class Ways:
    """What all requests share. `wake` asks for a decision about an app at once."""

    upstream: Upstream
    wake: Wake
    clock: Clock
    trusted: fields.Networks
    response_headers: bool = True
    goodbyes: set[Callable[[], None]] = field(default_factory=set)
    """What tells every open WebSocket to reconnect elsewhere."""


class Exchange:
    """A request and its answer. `begin` starts it; it ends by itself, or by `abandon`, and then counts how."""

    __slots__ = (
        "_answer", "_app", "_arrived", "_attempts", "_avoid", "_client", "_connection", "_interim", "_lease",
        "_placed_at", "_request", "_request_id", "_route", "_safe", "_task", "_token", "_tunnel", "_ways",
    )  # fmt: skip

    def __init__(
        self, ways: Ways, client: Client, request: RequestHead, request_id: bytes, app: App, route: ToApp
    ) -> None:
        self._ways = ways
        self._client = client
        self._request = request
        self._request_id = request_id
        self._app = app
        self._route = route
        self._safe = request.method in IDEMPOTENT and not request.upgrade
        """It may be sent twice."""
        self._arrived = self._placed_at = ways.clock()
        self._lease: Lease | None = None
        self._connection: Connection | None = None
        self._answer: AnswerHead | None = None
        self._task: Task[None] | None = None
        self._tunnel: Tunnel | None = None
        self._token = ""
        """The instance that a client of a sticky app was with."""
        self._avoid: Instance | None = None
        self._attempts = self._interim = 0

    # A place and a connection.

    def begin(self) -> None:
        """Count the request; send it at once if there are a place and a kept connection, else find them."""
        self._client.occupation = self
        try:
            if self._app.arrive():
                self._ways.wake(self._app)
            if self._app.pool.mode is SelectionMode.STICKY:
                self._token = fields.cookie(self._request, self._cookie_name())
            self._lease = lease = self._app.pool.claim(None, self._token)
            if lease is not None:
                connection = self._kept(lease.instance)
                if connection is not None:
                    self._send(connection)
                    return
        except Exception as error:
            self.failed(error)
            return
        self._find()

    def _kept(self, instance: Instance) -> Connection | None:
        # What may be sent twice may not be once its body has moved.
        return self._ways.upstream.kept(instance, safe=self._safe and not self._request.length)

    def _find(self) -> None:
        loop = self._client.loop
        self._task = loop.create_task(self._wait_and_connect(), name="exchange")

    async def _wait_and_connect(self) -> None:
        """The long way: wait in the line, make a connection."""
        try:
            if self._lease is None:
                self._lease = await claim(self._app, self._ways.wake, self._avoid, self._token)
            connection = None if self._attempts else self._kept(self._lease.instance)
            self._send(connection or await self._connect(self._lease.instance))
        except Exception as error:
            self._task = None
            self.failed(error)

    async def _connect(self, instance: Instance) -> Connection:
        """Make a connection, and note whether that went well: an instance that takes none is ejected."""
        try:
            connection = await self._ways.upstream.connect(instance)
        except NotSent:
            if not instance.lost and self._app.pool.connect_failed(instance):
                self._ways.wake(self._app)
            raise
        self._app.pool.connected(instance)
        return connection

    def _send(self, connection: Connection) -> None:
        if connection.lost:
            raise NotSent("the instance closed the connection at once")
        request, route, client = self._request, self._route, self._client
        self._task = None
        self._placed_at = now = self._ways.clock()
        if not self._attempts:
            self._app.stats.queue_wait.add(now - self._arrived)
        self._connection = connection
        connection.asker = self
        connection.touch()
        head = fields.request_head(
            request, route.path.encode("latin-1"), route.prefix.encode("latin-1"), self._request_id, client.address,
            client.scheme, self._ways.trusted,
        )  # fmt: skip
        connection.transport.write(head)
        if request.length:
            client.send_body(connection, connection.body_ended, chunked=request.length < 0)

    # The answer.

    def heard(self) -> None:
        """Take what the instance sent so far: interim answers, then the final one."""
        connection = self._connection
        assert connection is not None
        try:
            while (answer := connection.take_answer(self._request.method)) is not None:
                if answer.status >= 200:
                    self._relay(answer, connection)
                    return
                if answer.status == 101:
                    self._upgrade(answer, connection)
                    return
                self._pass_on(answer)
        except Exception as error:
            self.failed(error)

    def _pass_on(self, interim: AnswerHead) -> None:
        self._interim += 1
        if self._interim > MOST_INTERIM:
            raise BadAnswer(f"the instance sent more than {MOST_INTERIM} interim answers")
        if self._request.minor:
            self._client.transport.write(fields.interim_head(interim))

    def _relay(self, answer: AnswerHead, connection: Connection) -> None:
        """Pass the answer on part by part, as it comes; the client's pace holds the instance back."""
        client, minor, upload = self._client, self._request.minor, self._client.upload
        chunked = fields.is_chunked(answer, minor)
        if answer.length < 0 and not chunked:
            client.keep_alive = False  # only the end of the connection tells the end of the body
        elif upload is not None and not upload.done and not upload.moved:
            client.keep_alive = False  # a body that was not asked for may still come, or never
        elif client.closing:
            client.keep_alive = False
        head = fields.answer_head(answer, minor=minor, keep_alive=client.keep_alive, extra=self._own_fields())
        client.answered = True
        self._answer = answer
        if 0 <= answer.length == len(connection.unread):  # all of it is here
            client.transport.write(head + connection.unread)
            connection.unread = b""
            self._end(answer.status, keep=answer.keep_alive)
            return
        client.transport.write(head)
        if not answer.length:
            self._end(answer.status, keep=answer.keep_alive)
            return
        Pipe(connection, client, body_of(answer.length), self._relayed, chunked=chunked).start()

    def _relayed(self, error: Exception | None) -> None:
        assert self._answer is not None
        if error is None:
            self._end(self._answer.status, keep=self._answer.keep_alive)
        else:
            self.failed(error)

    def _own_fields(self) -> bytes:
        """Whole lines that an answer gets: which instance, how long it took, and the cookie of a sticky client."""
        assert self._lease is not None
        instance, pool = self._lease.instance, self._app.pool
        lines = self._timing(instance) if self._ways.response_headers else b""
        if pool.mode is SelectionMode.STICKY and pool.needs_token(instance, self._token):
            lines += fields.set_cookie(self._cookie_name(), instance.token, self._route.prefix)
        return lines

    def _timing(self, instance: Instance) -> bytes:
        """Split the time until now into the line, a start, and the instance's own (ms)."""
        waited, start = self._placed_at - self._arrived, 0.0
        if instance.ready_at is not None and instance.ready_at > self._arrived:
            start = min(waited, instance.ready_at - self._arrived)
        upstream = self._ways.clock() - self._placed_at
        return b"X-Dockscale-Instance: %b\r\nServer-Timing: queue;dur=%.1f, start;dur=%.1f, upstream;dur=%.1f\r\n" % (
            instance.name.encode(), (waited - start) * 1000, start * 1000, upstream * 1000,
        )  # fmt: skip

    def _cookie_name(self) -> bytes:
        return b"dockscale-%b" % self._app.app_id.encode()

    def _upgrade(self, answer: AnswerHead, connection: Connection) -> None:
        assert self._lease is not None
        client = self._client
        if not self._request.upgrade:
            raise BadAnswer("the instance changed to a protocol that nobody asked for")
        client.answered, client.keep_alive = True, False
        client.transport.write(fields.answer_head(answer, minor=1, keep_alive=True, extra=self._own_fields()))
        websocket = answer.upgrade.lower() == b"websocket"
        self._tunnel = Tunnel(client, connection, self._tunnelled, websocket=websocket)
        self._ways.goodbyes.add(self._tunnel.say_goodbye)
        self._lease.instance.goodbyes.add(self._tunnel.say_goodbye)
        self._tunnel.start()
        if client.closing and self._tunnel is not None:
            self._tunnel.say_goodbye()

    def _tunnelled(self) -> None:
        self._end(101, keep=False)

    # The end.

    def failed(self, error: Exception) -> None:
        """Something went wrong: try again where that can do no harm, else tell the client."""
        client = self._client
        if self._tunnel is not None:
            self._tunnelled()
        elif client.answered:  # the client must see a cut connection, never a clean end
            client.cut()
            self._end(error.status if isinstance(error, Malformed) else HTTPStatus.BAD_GATEWAY, keep=False)
        elif self._may_try_again(error):
            self._try_again()
        elif isinstance(error, Malformed):  # found in the request's body
            client.keep_alive = False
            self._reply(error.status, error.word, str(error))
        elif type(error) in STATUS:
            status, word = STATUS[type(error)]
            self._reply(status, word, str(error), retry_after=retry_after(self._app, error))
        else:
            log.error("request_failed", request_id=self._request_id.decode(), exc_info=error)
            client.keep_alive = False
            self._reply(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", "a bug in dockscale")

    def _may_try_again(self, error: Exception) -> bool:
        """RFC 9110 section 9.2.2. What was sent in part is not sent again."""
        if self._attempts == RETRIES or not isinstance(error, NotSent | NoAnswer):
            return False
        upload = self._client.upload
        return isinstance(error, NotSent) or (self._safe and (upload is None or not upload.moved))

    def _try_again(self) -> None:
        assert self._lease is not None
        self._attempts += 1
        self._avoid = self._lease.instance
        self._client.take_back_body()
        self._let_go(keep=False)
        self._find()

    def _reply(self, status: int, word: str, message: str, retry_after: int | None = None) -> None:
        reply_failure(
            self._client, self._request, status, word, message, self._request_id,
            retry_after=retry_after, more={"app_id": self._app.app_id},
        )  # fmt: skip
        self._end(status, keep=False)

    def abandon(self) -> None:
        """The client has gone."""
        if self._task is not None:
            self._task.cancel()
        for peer in (self._connection, self._client):
            if peer is not None and peer.pipe is not None:
                peer.pipe.stop()
        self._close(CLIENT_GONE if self._tunnel is None else 101, keep=False)

    def _end(self, status: int, *, keep: bool) -> None:
        upload = self._client.upload
        self._close(status, keep=keep and (upload is None or upload.done))
        if self._client.occupation is self:
            self._client.next()

    def _close(self, status: int, *, keep: bool) -> None:
        """Count how it ended, and give everything back."""
        if self._tunnel is not None:
            self._ways.goodbyes.discard(self._tunnel.say_goodbye)
            if self._lease is not None:
                self._lease.instance.goodbyes.discard(self._tunnel.say_goodbye)
        self._let_go(keep=keep)
        app = self._app
        app.leave()
        app.stats.requests[status] += 1
        app.stats.duration.add(self._ways.clock() - self._arrived)

    def _let_go(self, *, keep: bool) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            if keep:
                self._ways.upstream.keep(connection)
            else:
                connection.asker = None
                connection.transport.abort()
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()


def retry_after(app: App, error: Exception) -> int | None:
    """Seconds after which another try may fare better."""
    if isinstance(error, Failing):
        return ceil(error.retry_after)
    if isinstance(error, OutOfFiles):
        return 1
    return app.retry_after() if isinstance(error, LineFull | TooLate) else None


def new_id() -> bytes:
    return b"%016x" % random.getrandbits(64)
