"""The door to an instance: whoever goes through, or turns away at any moment, leaves the books in balance."""

import asyncio
import random
import time

import pytest

from dockscale.claim import TooLate, claim
from dockscale.core.app import App, AppGone
from dockscale.core.catalog import Image
from dockscale.core.pool import Instance, Lease, LineFull
from dockscale.core.spec import AppSpec, Autoscaling, SelectionMode
from tests.support.world import until


class Waker:
    """Counts how often a decision was asked for."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, app: App) -> None:
        self.calls += 1


@pytest.fixture
def wake() -> Waker:
    return Waker()


def asleep(queue_timeout: float = 60, max_queue: int = 1000) -> App:
    spec = AppSpec(app_id="web", port=8000, autoscaling=Autoscaling(queue_timeout=queue_timeout, max_queue=max_queue))
    return App(spec, Image("sha256:1", "web"), time.monotonic, random.Random(1).randrange)


def bring_up(app: App) -> Instance:
    instance = Instance("web-1", revision="sha256:1")
    app.pool.launch(instance)
    app.pool.ready(instance, ("127.0.0.1", 8000))
    return instance


async def in_line(app: App, wake: Waker) -> "asyncio.Task[Lease]":
    waiting = asyncio.create_task(claim(app, wake))
    await until(lambda: app.pool.waiting == 1)
    return waiting


async def test_a_free_place_is_taken_at_once_and_nobody_is_woken(wake: Waker) -> None:
    app = asleep()
    instance = bring_up(app)

    with await claim(app, wake) as lease:
        assert (lease.instance, instance.in_flight) == (instance, 1)

    assert instance.in_flight == wake.calls == 0


async def test_who_finds_no_place_wakes_the_app_and_gets_the_first_one(wake: Waker) -> None:
    app = asleep()
    waiting = await in_line(app, wake)

    instance = bring_up(app)

    lease = await waiting
    assert (lease.instance, instance.in_flight, app.pool.waiting) == (instance, 1, 0)
    assert wake.calls == 1


async def test_who_has_a_token_gets_its_instance_at_once_and_from_the_line(wake: Waker) -> None:
    app = asleep()
    app.pool.mode = SelectionMode.STICKY
    first, second = Instance("web-1"), Instance("web-2")
    app.pool.launch(first)
    app.pool.launch(second)
    app.pool.max_concurrency = 1
    app.pool.ready(first, ("127.0.0.1", 8000))
    held = await claim(app, wake, token=first.token)
    waiting = asyncio.create_task(claim(app, wake, token=second.token))
    await until(lambda: app.pool.waiting == 1)

    app.pool.ready(second, ("127.0.0.1", 8001))

    assert (held.instance, (await waiting).instance) == (first, second)


async def test_who_leaves_while_waiting_leaves_nothing_in_the_line(wake: Waker) -> None:
    app = asleep()
    waiting = await in_line(app, wake)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert app.pool.waiting == 0
    assert bring_up(app).in_flight == 0


async def test_who_leaves_in_the_moment_of_being_served_gives_the_place_to_the_next(wake: Waker) -> None:
    app = asleep()
    app.pool.max_concurrency = 1
    leaving = await in_line(app, wake)
    next_one = asyncio.create_task(claim(app, wake))
    await until(lambda: app.pool.waiting == 2)

    instance = bring_up(app)  # serves the first, which does not know it yet
    leaving.cancel()

    with pytest.raises(asyncio.CancelledError):
        await leaving
    assert (await next_one).instance is instance
    assert (instance.in_flight, app.pool.waiting) == (1, 0)


async def test_who_waits_too_long_is_told_so(wake: Waker) -> None:
    app = asleep(queue_timeout=0.02)

    with pytest.raises(TooLate, match=r"within 0\.02 s"):
        await claim(app, wake)
    assert app.pool.waiting == 0


async def test_who_is_served_in_the_moment_the_time_is_up_keeps_the_place(wake: Waker) -> None:
    app = asleep(queue_timeout=0.02)
    waiting = await in_line(app, wake)

    time.sleep(0.03)  # noqa: ASYNC251  # the loop must not notice in between that the time is up
    instance = bring_up(app)

    assert (await waiting).instance is instance
    assert (instance.in_flight, app.pool.waiting) == (1, 0)


async def test_a_full_line_takes_nobody_and_wakes_nobody(wake: Waker) -> None:
    app = asleep(max_queue=1)
    waiting = await in_line(app, wake)

    with pytest.raises(LineFull):
        await claim(app, wake)

    assert (app.pool.waiting, wake.calls) == (1, 1)
    waiting.cancel()


async def test_the_line_of_a_removed_app_is_told_and_nobody_joins_it(wake: Waker) -> None:
    app = asleep()
    waiting = await in_line(app, wake)

    app.retire()

    with pytest.raises(AppGone):
        await waiting
    with pytest.raises(AppGone):
        await claim(app, wake)
    assert (app.pool.waiting, wake.calls) == (0, 1)


async def test_a_wake_that_fails_leaves_nothing_in_the_line() -> None:
    app = asleep()

    def fail(_: App) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await claim(app, fail)
    assert app.pool.waiting == 0
