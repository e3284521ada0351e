"""A gauge is read from instances, or a sentence says why not. Asked of real sockets on loopback."""

import asyncio
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress

import aiohttp
import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client import exposition as plain_text
from prometheus_client.openmetrics import exposition as open_metrics

from dockscale import scrape
from dockscale.scrape import NoGauge, gauge, gauges

HOST = "127.0.0.1"
PAGE = """\
# HELP queue_length Jobs that wait.
# TYPE queue_length gauge
queue_length{queue="mail"} 3
queue_length{queue="a } b, c=\\"d\\""} 4.5 1700000000000
# TYPE jobs_total counter
jobs_total 12
queue_length_limit 100

idle NaN
busy +Inf
largest 1e308
largest{more="1"} 1e308
"""


@asynccontextmanager
async def answering(handler: Callable[[web.Request], Awaitable[web.Response]], host: str = HOST) -> AsyncIterator[int]:
    """Answer `GET /metrics` so; the port is given."""
    app = web.Application()
    app.router.add_get("/metrics", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, 0).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def serving(page: str | bytes | web.Response, host: str = HOST) -> AbstractAsyncContextManager[int]:
    """Serve this at `/metrics?all=1`; the port is given."""

    async def metrics(request: web.Request) -> web.Response:
        assert request.query_string == "all=1"
        if isinstance(page, web.Response):
            return page
        return web.Response(body=page, headers={"Content-Type": plain_text.CONTENT_TYPE_LATEST})

    return answering(metrics, host)


@asynccontextmanager
async def saying(said: bytes, then: asyncio.Event | None = None) -> AsyncIterator[int]:
    """Say these bytes to whoever connects, and close, or wait for an event first; the port is given."""

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        if then is not None:
            await then.wait()
        writer.close()

    async with await asyncio.start_server(say, HOST, 0) as server:
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            if then is not None:
                then.set()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def read(session: aiohttp.ClientSession, port: int, name: str = "queue_length") -> float:
    return await gauge(session, HOST, port, "/metrics?all=1", name)


async def refused(session: aiohttp.ClientSession, port: int, name: str = "queue_length") -> str:
    """Why there is no gauge, without the beginning that is always the same."""
    with pytest.raises(NoGauge) as caught:
        await read(session, port, name)
    asked, _, came = str(caught.value).partition(": ")
    assert asked == f"GET /metrics?all=1 of {HOST}:{port}"
    return came


@pytest.mark.parametrize(("name", "value"), [("queue_length", 7.5), ("jobs_total", 12), ("queue_length_limit", 100)])
async def test_all_samples_of_a_name_are_summed_and_no_others(
    session: aiohttp.ClientSession, name: str, value: float
) -> None:
    async with serving(PAGE) as port:
        assert await read(session, port, name) == value


async def test_it_reads_what_the_official_client_writes_in_both_formats(session: aiohttp.ClientSession) -> None:
    registry = CollectorRegistry()
    Gauge("queue_length", "Jobs that wait.", ["queue"], registry=registry).labels('say "hi"\n').set(2)
    Counter("jobs", "Jobs done.", registry=registry).inc(3, exemplar={"trace": "x"})
    text = open_metrics.generate_latest(registry)  # type: ignore[no-untyped-call]  # the library tells no types here
    openly = web.Response(body=text, headers={"Content-Type": open_metrics.CONTENT_TYPE_LATEST})

    async with serving(plain_text.generate_latest(registry)) as plain, serving(openly) as opened:
        assert [await read(session, plain), await read(session, plain, "jobs_total")] == [2, 3]
        assert await read(session, opened) == 2


async def test_lines_may_end_with_cr_lf_and_the_last_with_nothing(session: aiohttp.ClientSession) -> None:
    async with serving(PAGE.strip().replace("\n", "\r\n")) as port:
        assert await read(session, port) == 7.5


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
async def test_an_instance_may_have_an_ipv6_address(session: aiohttp.ClientSession) -> None:
    async with serving(PAGE, "::1") as port:
        assert await gauge(session, "::1", port, "/metrics?all=1", "jobs_total") == 12


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("queue_lenght", "the answer has no queue_lenght; did you mean queue_length?"),
        ("zzz", "the answer has no zzz"),
        ("queue", "the answer has no queue"),
        ("idle", "idle is nan, which is no number to scale by"),
        ("busy", "busy is inf, which is no number to scale by"),
        ("largest", "largest is inf, which is no number to scale by"),
    ],
)
async def test_a_metric_that_is_not_there_or_no_number_is_told(
    session: aiohttp.ClientSession, name: str, told: str
) -> None:
    async with serving(PAGE) as port:
        assert await refused(session, port, name) == told


@pytest.mark.parametrize(
    ("page", "told"),
    [
        ("<!doctype html>\n<p>hello", "line 1 is not Prometheus' text format: '<!doctype html>'"),
        (
            "a 1\nhello there, this is a sentence",
            "line 2 is not Prometheus' text format: 'hello there, this is a sentence'",
        ),
        ('{"queue_length": 3}', "line 1 is not Prometheus' text format: '{\"queue_length\": 3}'"),
        ("\n\nqueue_length 3x", "line 3 is not Prometheus' text format: 'queue_length 3x'"),
        ("queue_length{a=b} 3", "line 1 is not Prometheus' text format: 'queue_length{a=b} 3'"),
        ("queue_length " + "9" * 400, f"line 1 is not Prometheus' text format: 'queue_length {'9' * 27}'"),
        (f'queue_length{{a="{"x" * 20000}"}} 3', "line 1 is longer than 16384 characters"),
        (b"\xff\xfe\x00", "line 1 is not Prometheus' text format: '��\\x00'"),
        ("", "the answer has no queue_length"),
    ],
    ids=["html", "prose", "json", "bad number", "bad label", "too large a number", "long line", "bytes", "empty"],
)
async def test_a_page_that_is_something_else_is_told_with_its_line(
    session: aiohttp.ClientSession, page: str | bytes, told: str
) -> None:
    async with serving(page) as port:
        assert await refused(session, port) == told


@settings(max_examples=50, deadline=None)
@given(
    sample=st.lists(st.sampled_from([*'{}="\\,# \t\n0a', "q", "1e999", "nan", "__name__", "9" * 5000])).map("".join),
    space=st.sampled_from(["", " ", "{"]),
)
async def test_whatever_comes_is_a_number_or_no_gauge(sample: str, space: str) -> None:
    value = 0.0
    async with aiohttp.ClientSession() as session, serving(f"q{space}{sample}") as port:
        with suppress(NoGauge):
            value = await read(session, port, "q")

    assert math.isfinite(value)


@pytest.mark.parametrize("status", [204, 302, 404, 500])
async def test_another_status_than_200_is_told(session: aiohttp.ClientSession, status: int) -> None:
    async with serving(web.Response(status=status, headers={"Location": "/metrics?all=1"})) as port:
        assert await refused(session, port) == f"the answer has status {status}"


async def test_an_answer_without_end_is_read_to_its_bound_only(session: aiohttp.ClientSession) -> None:
    async def pour(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"a 1\n" * 10_000)
            try:
                await writer.drain()
            except OSError:
                break
        writer.close()

    async with await asyncio.start_server(pour, HOST, 0) as server:
        assert await refused(session, server.sockets[0].getsockname()[1]) == "the answer is larger than 1 MiB"


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nqueue_length 3\n"],
    ids=["no head", "half a body"],
)
async def test_an_answer_that_does_not_end_in_time_is_told(
    session: aiohttp.ClientSession, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "ANSWER_S", 0.1)
    async with saying(said, asyncio.Event()) as port:
        assert await refused(session, port) == "no answer within 0.1 s"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"mumble\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nqueue_length 3\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["nothing", "no HTTP", "cut short", "no gzip", "bad chunk"],
)
async def test_an_answer_that_is_broken_is_told(session: aiohttp.ClientSession, said: bytes) -> None:
    async with saying(said) as port:
        assert (await refused(session, port)).startswith("no answer (")


async def test_a_port_that_nobody_listens_on_is_told(session: aiohttp.ClientSession) -> None:
    with socket.socket() as closed:
        closed.bind((HOST, 0))

        assert (await refused(session, closed.getsockname()[1])).startswith("no answer (")


async def test_a_bad_instance_does_not_disturb_the_others(
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "ANSWER_S", 0.5)
    async with AsyncExitStack() as stack:
        ports = {
            "well": await stack.enter_async_context(serving(PAGE)),
            "also-well": await stack.enter_async_context(serving("queue_length 1\n")),
            "broken": await stack.enter_async_context(saying(b"mumble\r\n\r\n")),
            "silent": await stack.enter_async_context(saying(b"", asyncio.Event())),
        }
        values, reasons = await gauges(
            session, {name: (HOST, port) for name, port in ports.items()}, "/metrics?all=1", "queue_length"
        )

    assert values == {"well": 7.5, "also-well": 1}
    assert set(reasons) == {"broken", "silent"}
    assert reasons["silent"] == f"GET /metrics?all=1 of {HOST}:{ports['silent']}: no answer within 0.5 s"


async def test_so_many_are_asked_at_once_and_no_more(session: aiohttp.ClientSession) -> None:
    asked, most = 0, 0
    full = asyncio.Event()

    async def metrics(_: web.Request) -> web.Response:
        nonlocal asked, most
        asked += 1
        most = max(most, asked)
        if asked == scrape.AT_ONCE:
            full.set()
        await full.wait()
        asked -= 1
        return web.Response(text="queue_length 1\n")

    async with answering(metrics) as port:
        addresses = {f"web-{n}": (HOST, port) for n in range(3 * scrape.AT_ONCE)}
        values, reasons = await gauges(session, addresses, "/metrics", "queue_length")

    assert (len(values), reasons) == (3 * scrape.AT_ONCE, {})
    assert most == scrape.AT_ONCE


async def test_nobody_is_asked_where_there_is_nobody(session: aiohttp.ClientSession) -> None:
    assert await gauges(session, {}, "/metrics", "queue_length") == ({}, {})
