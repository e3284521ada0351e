"""The composition root: builds everything, opens the listeners, shuts down in order. Only here Docker is chosen."""

import asyncio
import errno
import gc
import random
import resource
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path

import structlog
from aiohttp import web

from dockscale import __version__, metrics
from dockscale.admin import api
from dockscale.admin.guards import is_loopback
from dockscale.certificate import BadCertificate, Certificate, open_certificate
from dockscale.config import Settings
from dockscale.control import Control
from dockscale.core.host import Host
from dockscale.core.pool import Clock
from dockscale.engine import Engine, EngineError
from dockscale.engine.docker import DockerEngine
from dockscale.hub.kept import CannotKeep, open_kept
from dockscale.hub.rpc import Rpc
from dockscale.hub.tokens import Tokens
from dockscale.programs import Programs
from dockscale.proxy.entry import Entry
from dockscale.proxy.exchange import Ways
from dockscale.proxy.listener import Limits, Listener
from dockscale.proxy.peer import Patrol
from dockscale.proxy.upstream import Upstream
from dockscale.proxy.waiting import WaitingRoom, plain_page
from dockscale.reach import Inside, main_url
from dockscale.registry import Registry
from dockscale.runtimes import RUNTIMES, Runtimes
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
    rpc: Rpc
    main: Listener
    main_port: int
    admin_port: int


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT; then finish what is in flight and leave the containers to the next one.

    Raises:
        CannotStart: before anything was started.
    """
    _allow_files()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stop.set)
    async with running(settings, DockerEngine(settings.engine, settings.network, settings.only)) as dockscale:
        log.info(
            "serving", version=__version__, main=f"{settings.host}:{dockscale.main_port}",
            admin=f"{settings.admin_host}:{dockscale.admin_port}",
        )  # fmt: skip
        _once_listed(dockscale.registry, spare_collections)
        await stop.wait()
        log.info("stopping", in_flight=sum(app.pool.in_flight for app in dockscale.registry.apps.values()))
    log.info("stopped")


def _once_listed(registry: Registry, do: Callable[[], None]) -> None:
    def listed() -> None:
        registry.told.discard(listed)
        do()

    registry.told.add(listed)


def spare_collections() -> None:
    """Take what is there out of the garbage collector's sight: at a thousand apps all of it takes 50 ms to look at."""
    gc.collect()
    gc.freeze()


async def make_runtimes(settings: Settings) -> AsyncIterator[str]:
    """Make the images that programs run on, those that are missing, and tell their names.

    Raises:
        CannotStart: one could not be made.
    """
    engine = DockerEngine(settings.engine)
    runtimes = Runtimes(engine, settings.base_image, settings.pip_index_url)
    try:
        for runtime in RUNTIMES:
            yield (await runtimes.image(runtime)).name
    except EngineError as error:
        raise CannotStart(str(error)) from None
    finally:
        await engine.close()


def _allow_files() -> None:
    """Take as many open files as this process may have: each client needs up to two."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class _Stop(Exception):
    """Ends the task group, which would else wait for lives that never end."""


@asynccontextmanager
async def running(settings: Settings, engine: Engine, clock: Clock = time.monotonic) -> AsyncIterator[Running]:
    """Everything built and listening; on the way out, in reverse: no new work, what is in flight, then the rest."""
    patrol = Patrol(asyncio.get_running_loop(), _patrol_interval(settings))
    upstream = Upstream(patrol, settings.connect_timeout, settings.response_timeout)
    try:
        _check_admin(settings)
        async with asyncio.TaskGroup() as tasks, AsyncExitStack() as listeners:
            dockscale = await _build(settings, engine, clock, upstream, tasks, listeners)
            yield dockscale
            dockscale.entry.closing = True
            dockscale.entry.close_tunnels()
            await asyncio.gather(
                dockscale.main.close(settings.shutdown_timeout), dockscale.rpc.close(settings.shutdown_timeout)
            )
            await listeners.aclose()
            raise _Stop
    except BaseExceptionGroup as group:
        others = group.split(_Stop)[1]
        if others is not None:
            # The group is how tasks are ended here; whoever called wants the one error itself.
            raise (others.exceptions[0] if len(others.exceptions) == 1 else others) from None
    finally:
        upstream.close()
        patrol.close()
        await engine.close()


async def _build(
    settings: Settings,
    engine: Engine,
    clock: Clock,
    upstream: Upstream,
    tasks: asyncio.TaskGroup,
    listeners: AsyncExitStack,
) -> Running:
    scaler = Scaler(
        engine, tasks, clock, Host(settings.max_instances, settings.memory_budget),
        network=settings.network, parallel_starts=settings.parallel_starts, create_ahead=settings.create_ahead,
    )  # fmt: skip
    registry = Registry(engine, scaler, clock, random.randrange, settings.domain)
    certificate = _certificate(settings)

    async def rpc_url() -> str:
        if certificate is None or settings.rpc_url:
            return await main_url(engine, settings.rpc_url, main_port)
        return await inside.url()

    rpc = Rpc(
        registry.apps, _tokens(settings), settings.auth, clock, tasks, wake=scaler.tick, unplugged=scaler.unplugged,
        url=rpc_url, response_timeout=settings.response_timeout,
    )  # fmt: skip
    listeners.push_async_callback(rpc.close, 0.0)
    scaler.connect_to(rpc.instances)
    ways = Ways(upstream, scaler.tick, clock, settings.trusted_proxies, settings.response_headers)
    waiting = WaitingRoom(_waiting_page(settings), scaler.tick)
    listeners.callback(waiting.close)
    entry = Entry(registry, ways, waiting, rpc)
    main = Listener(entry.handle, entry.refuse, upstream.patrol, _limits(settings))
    listeners.push_async_callback(main.close, settings.shutdown_timeout)
    with _told(settings.host, settings.port, "DOCKSCALE_"):
        main_port = await main.open(settings.host, settings.port, certificate)
    inside = Inside(engine, main.open, settings.rpc_port)
    runtimes = Runtimes(engine, settings.base_image, settings.pip_index_url)
    programs = Programs(engine, scaler, registry.trials, clock, runtimes, rpc.instances.services)
    control = Control(
        registry, engine, scaler, programs, clock, settings.only,
        scheme="https" if certificate else "http", domain=settings.domain, port=main_port,
    )  # fmt: skip
    rpc.connect_to(control)

    def scrape() -> AsyncIterator[bytes]:
        return metrics.render(registry, entry.refused, entry.answered, len(main.clients))

    admin = web.AppRunner(
        api.build(
            control,
            scrape,
            metrics.CONTENT_TYPE,
            settings.admin_host,
            _token(settings),
        ),
        access_log=None,
        shutdown_timeout=1.0,
    )
    await admin.setup()
    listeners.push_async_callback(admin.cleanup)
    with _told(settings.admin_host, settings.admin_port, "DOCKSCALE_ADMIN_"):
        await web.TCPSite(admin, settings.admin_host, settings.admin_port).start()
    admin_port = int(admin.addresses[0][1])
    tasks.create_task(registry.run(), name="registry")
    if certificate is not None:
        tasks.create_task(certificate.watch(), name="certificate")
        if not settings.rpc_url:
            tasks.create_task(_open_inside(inside, registry, settings.interval), name="inside")
    tasks.create_task(scaler.run(registry.apps.values, settings.interval), name="scaler")
    return Running(registry, scaler, control, entry, rpc, main, main_port, admin_port)


async def _open_inside(inside: Inside, registry: Registry, again_s: float) -> None:
    """Let in the instances that run already: they knock without being started."""
    await registry.synced.wait()
    while True:
        try:
            log.info("rpc_serving", url=await inside.url())
        except EngineError as error:
            log.warning("rpc_unreachable", error=str(error), again_in_s=again_s)
            await asyncio.sleep(again_s)
        else:
            return


def _certificate(settings: Settings) -> Certificate | None:
    try:
        certificate = open_certificate(settings.tls_certificate, settings.tls_key)
    except BadCertificate as error:
        raise CannotStart(str(error)) from None
    if certificate is not None:
        log.info("certificate_taken", names=certificate.names, expires=certificate.expires.isoformat())
    return certificate


def _waiting_page(settings: Settings) -> str:
    if not settings.waiting_page:
        return plain_page()
    try:
        return Path(settings.waiting_page).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStart(f"DOCKSCALE_WAITING_PAGE={settings.waiting_page} cannot be read: {error}") from None


def _tokens(settings: Settings) -> Tokens:
    try:
        secret, revoked = open_kept(settings)
    except CannotKeep as error:
        raise CannotStart(str(error)) from None
    return Tokens(secret, time.time, settings.auth, revoked)


@contextmanager
def _told(host: str, port: int, prefix: str) -> Iterator[None]:
    """Say what can be done about an address that cannot be listened on."""
    try:
        yield
    except OSError as error:
        match error.errno:
            case errno.EADDRINUSE:
                advice = f"free it, or set {prefix}PORT to another port"
            case errno.EACCES:
                advice = f"set {prefix}PORT to 1024 or more, or run dockscale with the capability NET_BIND_SERVICE"
            case _:
                advice = f"set {prefix}HOST to an address of this machine"
        raise CannotStart(f"cannot listen on {host}:{port} ({error.strerror}): {advice}") from error


def _limits(settings: Settings) -> Limits:
    return Limits(**{field.name: getattr(settings, field.name) for field in dataclass_fields(Limits)})


def _patrol_interval(settings: Settings) -> float:
    """Seconds between two looks at all connections: no time-out is late by more than a quarter, or a second."""
    timeouts = (
        settings.keepalive_timeout, settings.header_timeout, settings.client_timeout, settings.response_timeout or 4.0,
    )  # fmt: skip
    return min(1.0, min(timeouts) / 4)


def _token(settings: Settings) -> str | None:
    return settings.admin_token.get_secret_value() if settings.admin_token else None


def _check_admin(settings: Settings) -> None:
    if not is_loopback(settings.admin_host) and not _token(settings):
        raise CannotStart(
            f"DOCKSCALE_ADMIN_HOST={settings.admin_host} opens the admin port to others: "
            "set DOCKSCALE_ADMIN_TOKEN as well, or leave it on 127.0.0.1"
        )
