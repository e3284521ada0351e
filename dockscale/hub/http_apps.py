"""Apps that speak HTTP, as services: requests that are calls go to an instance, and each takes a lease like any."""

from collections.abc import Mapping
from functools import partial

import aiohttp

from dockscale.claim import Wake, claim
from dockscale.core.app import App
from dockscale.core.pool import Clock, Instance, NoPlace
from dockscale.hub import asks
from dockscale.hub.asks import Ask, HttpError, Made, NoAnswer, Told
from dockscale.hub.calls import status_of
from dockscale.hub.local import Context, Function, LocalPeer
from dockscale.hub.services import may_reach
from dockscale.hub.wire import Value

RETRIES = 2
_SAFE = asks.ALL - {"POST", "PATCH"}
"""Methods that may be sent twice (RFC 9110 section 9.2.2)."""


class HttpApps:
    """Offers every HTTP app as a service of one peer, and calls it."""

    def __init__(self, peer: LocalPeer, apps: Mapping[str, App], wake: Wake, clock: Clock, timeout: float) -> None:
        self._peer = peer
        self._apps = apps
        self._wake = wake
        self._clock = clock
        peer.serve("http", Made(self.functions), type="http")
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # places are what bounds them
            cookie_jar=aiohttp.DummyCookieJar(),  # one caller's cookies are not the next one's
            timeout=aiohttp.ClientTimeout(total=None, sock_read=timeout or None),
        )

    async def close(self) -> None:
        await self._session.close()

    def describe(self, app: App) -> dict[str, Value]:
        """An app as a value, as `get_service` gives it."""
        shown = {
            "id": f"{app.spec.workspace}/http@{app.app_id}", "name": app.spec.name or app.app_id,
            "description": app.spec.description,
        }  # fmt: skip
        functions = self._peer.values(self.functions(app.app_id), f"services.http.{app.app_id}")
        return self._peer.describe("http") | shown | functions

    def functions(self, app_id: str) -> Mapping[str, Function]:
        """The functions by which an app is asked. Each looks whether its caller may."""
        return asks.functions(app_id, partial(self._ask, app_id))

    async def _ask(self, app_id: str, context: Context, ask: Ask) -> Told:
        app = self._app(app_id, context)
        began, status = self._clock(), 499
        if app.arrive():
            self._wake(app)
        try:
            told = await self._try(app, ask)
            status = told.status
        except NoPlace as error:
            status = status_of(error)
            raise
        except HttpError as error:
            status = error.status if isinstance(error, NoAnswer) else 502
            raise
        finally:
            app.leave()
            app.stats.requests[status] += 1
            app.stats.rpc_calls += 1
            app.stats.duration.add(self._clock() - began)
        return told

    async def _try(self, app: App, ask: Ask) -> Told:
        """Ask an instance; where that can do no harm, ask another one when the first is not there any more."""
        arrived, avoid, attempt = self._clock(), None, 0
        while True:
            with await claim(app, self._wake, avoid) as lease:
                if not attempt:
                    app.stats.queue_wait.add(self._clock() - arrived)
                avoid, attempt = lease.instance, attempt + 1
                try:
                    told = await self._send(app, avoid, ask)
                except aiohttp.ClientConnectorError as error:
                    if not avoid.lost and app.pool.connect_failed(avoid):
                        self._wake(app)
                    if attempt > RETRIES:
                        raise NoAnswer(f"{app.app_id} takes no connections: {error}", 502) from None
                except aiohttp.ServerDisconnectedError:
                    if attempt > RETRIES or ask.method not in _SAFE:
                        raise NoAnswer(f"{app.app_id} ended the connection before it answered", 502) from None
                else:
                    return told

    async def _send(self, app: App, instance: Instance, ask: Ask) -> Told:
        host, port = instance.address
        name = f"[{host}]" if ":" in host else host
        try:
            async with self._session.request(
                ask.method, f"http://{name}:{port}{ask.target}", data=ask.body, headers=ask.headers,
                allow_redirects=False,  # where it leads is for the caller to judge
            ) as answer:  # fmt: skip
                app.pool.connected(instance)
                headers = dict(answer.headers)
                return Told(answer.status, headers, asks.value(headers, await _data(answer)))
        except (aiohttp.ClientConnectorError, aiohttp.ServerDisconnectedError):
            raise
        except TimeoutError:
            raise NoAnswer(f"{app.app_id} did not answer {ask.method} {ask.target} in time", 504) from None
        except aiohttp.ClientError as error:
            raise NoAnswer(f"{app.app_id} did not answer {ask.method} {ask.target}: {error}", 502) from None

    def _app(self, app_id: str, context: Context) -> App:
        app = self._apps.get(app_id)
        if app is None:
            raise KeyError(f"Service not found: no app is called {app_id}")
        if not may_reach(app.spec, context.user, context.workspace):
            raise PermissionError(f"{app_id} is protected in the workspace {app.spec.workspace}")
        return app


async def _data(answer: aiohttp.ClientResponse) -> bytes:
    """The body of an answer.

    Raises:
        HttpError: it is too large.
    """
    data = bytearray()
    async for part in answer.content.iter_any():
        data += part
        try:
            asks.check_size(len(data))
        except HttpError:
            answer.close()
            raise
    return bytes(data)
