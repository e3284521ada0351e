"""The composition root: builds everything, opens the listeners, shuts down in order. Only here Docker is chosen."""

import asyncio
import ipaddress
import random
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import structlog
from aiohttp import web

from dockscale import __version__, metrics
from dockscale.admin import api
from dockscale.config import Settings
from dockscale.control import Control
from dockscale.core.pool import Clock
from dockscale.engine import Engine
from dockscale.engine.docker import DockerEngine
from dockscale.proxy.entry import Entry
from dockscale.proxy.upstream import Upstream
from dockscale.registry import Registry
from dockscale.scaler import Scaler

log = structlog.get_logger()


class CannotStart(Exception):
    """A setting or a taken port is in the way. The message says what to do."""


@dataclass(slots=True)
class Running:
    """A running dockscale, as its owner (or a test) sees it."""

    registry: Registry
    scaler: Scaler
    control: Control
    entry: Entry
    main_port: int
    admin_port: int


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; then finish what is in flight and leave the containers to the next one.

    Raises:
        CannotStart: before anything was started.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    async with running(settings, DockerEngine(settings.engine, settings.network, settings.only)) as dockscale:
        log.info(
            "serving", version=__version__, main=f"{settings.host}:{dockscale.main_port}",
            admin=f"{settings.admin_host}:{dockscale.admin_port}",
        )  # fmt: skip
        await stop.wait()
        log.info("stopping", in_flight=sum(app.pool.in_flight for app in dockscale.registry.apps.values()))
    log.info("stopped")


class _Stop(Exception):
    """Ends the task group, which would else wait for lives that never end."""


@asynccontextmanager
async def running(settings: Settings, engine: Engine, clock: Clock = time.monotonic) -> AsyncIterator[Running]:
    """Everything built and listening; on the way out, in reverse: no new work, what is in flight, then the rest."""
    _check_admin(settings)
    upstream = Upstream(settings.connect_timeout, settings.response_timeout)
    try:
        async with asyncio.TaskGroup() as tasks, AsyncExitStack() as listeners:
            dockscale = await _build(settings, engine, clock, upstream, tasks, listeners)
            yield dockscale
            dockscale.entry.closing = True
            dockscale.entry.close_tunnels()
            await listeners.aclose()
            raise _Stop
    except BaseExceptionGroup as group:
        others = group.split(_Stop)[1]
        if others is not None:
            # The group is how tasks are ended here; whoever called wants the one error itself.
            raise (others.exceptions[0] if len(others.exceptions) == 1 else others) from None
    finally:
        await upstream.close()
        await engine.close()


async def _build(
    settings: Settings,
    engine: Engine,
    clock: Clock,
    upstream: Upstream,
    tasks: asyncio.TaskGroup,
    listeners: AsyncExitStack,
) -> Running:
    scaler = Scaler(engine, tasks, clock, network=settings.network, parallel_starts=settings.parallel_starts)
    registry = Registry(engine, scaler, clock, random.randrange, settings.domain)
    entry = Entry(
        registry, scaler.tick, upstream, clock,
        trusted=settings.trusted_proxies, response_headers=settings.response_headers,
    )  # fmt: skip
    main = web.ServerRunner(
        web.Server(entry, handler_cancellation=True, auto_decompress=False, access_log=None),
        shutdown_timeout=settings.shutdown_timeout,
    )
    main_port = await _listen(main, settings.host, settings.port, "DOCKSCALE_PORT", listeners)
    control = Control(registry, clock, main_port)
    admin = web.AppRunner(
        api.build(control, lambda: metrics.render(registry), metrics.CONTENT_TYPE, _token(settings)),
        access_log=None, shutdown_timeout=1.0,
    )  # fmt: skip
    admin_port = await _listen(admin, settings.admin_host, settings.admin_port, "DOCKSCALE_ADMIN_PORT", listeners)
    tasks.create_task(registry.run(), name="registry")
    tasks.create_task(scaler.run(registry.apps.values, settings.interval), name="scaler")
    return Running(registry, scaler, control, entry, main_port, admin_port)


async def _listen(
    runner: web.AppRunner | web.ServerRunner, host: str, port: int, setting: str, listeners: AsyncExitStack
) -> int:
    await runner.setup()
    listeners.push_async_callback(runner.cleanup)
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        raise CannotStart(
            f"cannot listen on {host}:{port} ({error.strerror}): free it, or set {setting} to another port"
        ) from error
    return int(runner.addresses[0][1])


def _token(settings: Settings) -> str | None:
    return settings.admin_token.get_secret_value() if settings.admin_token else None


def _check_admin(settings: Settings) -> None:
    try:
        local = ipaddress.ip_address(settings.admin_host).is_loopback
    except ValueError:
        local = settings.admin_host == "localhost"
    if not local and not _token(settings):
        raise CannotStart(
            f"DOCKSCALE_ADMIN_HOST={settings.admin_host} opens the admin port to others: "
            "set DOCKSCALE_ADMIN_TOKEN as well, or leave it on 127.0.0.1"
        )
