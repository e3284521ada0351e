"""HTTP/1.1 to one instance, and the ways that fails: they tell whether a request may be sent again."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from dockscale.core.pool import Instance

# Methods that may be sent twice (RFC 9110 section 9.2.2).
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
KEEPALIVE_S = 4.0
"""Kept connections are closed before the usual servers' 5 s are over."""


class UpstreamError(Exception):
    """An instance did not do its part."""


class NotSent(UpstreamError):
    """No connection could be made: the instance has seen nothing of the request."""


class NoAnswer(UpstreamError):
    """The connection ended before the answer began."""


class BadAnswer(UpstreamError):
    """The answer is not HTTP, or cannot be passed on."""


class TooSlow(UpstreamError):
    """The answer did not begin, or go on, in time."""


class Upstream:
    """Connections to all instances. Those that a request may be lost on are used for idempotent requests alone."""

    def __init__(self, connect_timeout: float, response_timeout: float) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout, sock_read=response_timeout or None)
        kept = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
        fresh = aiohttp.TCPConnector(limit=0, force_close=True)
        self._kept = self._session(kept, timeout)
        self._fresh = self._session(fresh, timeout)

    def _session(self, connector: aiohttp.TCPConnector, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            trust_env=False,
            trace_configs=[_noting_connections()],
        )

    async def send(
        self, instance: Instance, method: str, target: str, headers: CIMultiDict[str], body: AsyncIterator[bytes] | None
    ) -> aiohttp.ClientResponse:
        """Send a request and return its answer once the head of it is there. The caller releases it.

        Raises:
            UpstreamError: the kind tells whether the instance may have seen the request.
        """
        host, port = instance.address
        url = URL(f"http://{f'[{host}]' if ':' in host else host}:{port}{target}", encoded=True)
        # A kept connection may close under a request; what must not be sent twice gets one of its own.
        session = self._kept if method in IDEMPOTENT and "Upgrade" not in headers else self._fresh
        connection = _Connection()
        try:
            async with _unless_lost(instance):
                return await session.request(
                    method, url, headers=headers, data=body, allow_redirects=False, trace_request_ctx=connection
                )
        except aiohttp.SocketTimeoutError as error:
            raise TooSlow("the instance did not answer in time") from error
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise NotSent(f"no connection to the instance: {error}") from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            raise NoAnswer("the instance closed the connection before it answered") from error
        except TimeoutError as error:
            raise (NoAnswer if connection.stands else NotSent)("the instance died") from error
        except aiohttp.ClientConnectionError as error:
            raise NoAnswer(f"the connection to the instance broke: {error}") from error
        except aiohttp.ClientResponseError as error:
            raise BadAnswer(f"the instance's answer is not HTTP: {error.message}") from error

    async def close(self) -> None:
        await self._kept.close()
        await self._fresh.close()


@dataclass(slots=True)
class _Connection:
    """Whether a request has got as far as a connection."""

    stands: bool = False


def _noting_connections() -> aiohttp.TraceConfig:
    async def stands(_: aiohttp.ClientSession, context: SimpleNamespace, __: object) -> None:
        context.trace_request_ctx.stands = True

    trace = aiohttp.TraceConfig()
    trace.on_connection_create_end.append(stands)
    trace.on_connection_reuseconn.append(stands)
    return trace


@asynccontextmanager
async def _unless_lost(instance: Instance) -> AsyncIterator[None]:
    """Interrupt with `TimeoutError` when the instance is lost: packets to a dead container are answered by nobody."""
    async with asyncio.timeout(None) as bound:

        def interrupt() -> None:
            if not bound.expired():
                bound.reschedule(0.0)

        instance.on_loss.add(interrupt)
        try:
            yield
        finally:
            instance.on_loss.discard(interrupt)
