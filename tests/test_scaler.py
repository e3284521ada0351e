"""Lives of instances, over the memory engine and real sockets."""

import asyncio
from dataclasses import replace

from dockscale.core.catalog import Container, Listing
from dockscale.engine.memory import MemoryEngine, Program
from tests.support.backend import backend
from tests.support.world import ENABLED, World, eject, prefixed, serving, until, world

NO_WAIT = {"autoscaling.scale_up_cooldown": "0", "autoscaling.scale_down_cooldown": "0"}


def containers(it: World) -> list[Container]:
    return [box.container for box in it.engine._boxes.values()]


def running(it: World) -> list[str]:
    return sorted(container.name for container in containers(it) if container.runs)


async def test_nothing_runs_before_the_first_request() -> None:
    async with world() as it:
        assert containers(it) == []
        assert it.states() == {}


async def test_a_crowd_at_a_sleeping_app_starts_exactly_one_instance_and_all_are_answered() -> None:
    gate = asyncio.Event()
    async with world(program=Program(backend, gate=gate)) as it:
        crowd = [asyncio.create_task(it.get()) for _ in range(500)]
        await until(lambda: it.app().pool.waiting == 500)
        gate.set()

        assert [status for status, _ in await asyncio.gather(*crowd)] == [200] * 500
        assert it.engine.starts == 1
        assert it.states() == {"ready": 1}


async def test_the_first_request_wakes_min_instances() -> None:
    async with world({"autoscaling.min_instances": "3"}) as it:
        await it.get()

        await until(lambda: it.ready() == 3)
        assert it.engine.starts == 3


async def test_an_eager_app_starts_without_a_request() -> None:
    async with world({"lazy": "false", "autoscaling.min_instances": "2"}) as it:
        await until(lambda: it.ready() == 2)

        assert it.engine.starts == 2


async def test_an_instance_that_dies_is_replaced_and_its_container_removed() -> None:
    async with world() as it:
        _, first = await it.get()
        [victim] = containers(it)

        await it.engine.crash(victim.id)

        await until(lambda: it.states() == {"ready": 1} and victim.name not in it.app().pool.instances)
        status, second = await it.get()
        assert status == 200
        assert second["instance"] != first["instance"]
        assert running(it) == [second["instance"]]
        assert it.app().stats.deaths == 1


async def test_an_instance_that_takes_no_connections_is_replaced_and_its_container_removed() -> None:
    async with world({"lazy": "false", "autoscaling.min_instances": "2", "autoscaling.max_instances": "3"}) as it:
        await until(lambda: it.ready() == 2)
        before = running(it)

        ejected = eject(it)

        decision = it.app().decision
        assert it.states() == {"starting": 1, "ready": 1, "draining": 1}
        assert decision is not None
        assert decision.gone == (f"{ejected.name} was ejected: 5 connections in a row failed",)
        await until(lambda: it.states() == {"ready": 2} and len(running(it)) == 2)
        assert set(running(it)) & set(before) == set(before) - {ejected.name}
        assert (it.app().stats.ejected, it.app().stats.deaths) == (1, 0)


async def test_an_ejected_instance_finishes_what_it_has_and_is_replaced_after_it_where_there_is_no_room() -> None:
    async with world({"lazy": "false", "autoscaling.min_instances": "2", "autoscaling.max_instances": "2"}) as it:
        await until(lambda: it.ready() == 2)
        slow = asyncio.create_task(it.get("/slow?s=0.2"))
        await until(lambda: it.app().pool.in_flight == 1)
        busy = next(instance for instance in it.app().pool if instance.in_flight)

        eject(it, busy.name)

        assert it.states() == {"ready": 1, "draining": 1}
        assert (await slow)[0] == 200
        await until(lambda: it.ready() == 2 and len(it.app().pool.instances) == 2)
        assert busy.name not in running(it)


async def test_a_labelled_container_that_is_ejected_is_stopped_and_started_again_when_it_is_wanted() -> None:
    engine = MemoryEngine()
    engine.add_image("plain", Program(backend))
    labels = {"autoscaling.min_instances": "2", "autoscaling.max_instances": "3", "lazy": "false"}
    engine.add_container("web", "plain", ENABLED | prefixed(labels))
    async with serving(engine) as it:
        await until(lambda: it.ready() == 2)

        eject(it, "web")

        await until(lambda: it.ready() == 2 and "web" not in it.app().pool.instances)
        assert {container.name: container.state for container in containers(it)}["web"] == "exited"
        await until(lambda: it.app().template.name == "web" and not it.app().load().draining)
        eject(it)
        await until(lambda: it.ready() == 2 and "web" in running(it))


async def test_a_container_that_would_be_gone_if_it_were_stopped_is_ejected_and_comes_back_by_proving_itself() -> None:
    engine = MemoryEngine()
    engine.add_image("plain", Program(backend))
    labels = {"autoscaling.min_instances": "2", "autoscaling.max_instances": "3", "lazy": "false"}
    made = engine.add_container("web", "plain", ENABLED | prefixed(labels), auto_remove=True)
    await engine.start(made.id)
    async with serving(engine) as it:
        await until(lambda: it.ready() == 2)
        first = it.app().pool.instances["web"]

        eject(it, "web")

        await until(lambda: it.app().pool.instances.get("web") not in (first, None))
        await until(lambda: it.app().pool.instances["web"].state == "ready")
        assert (engine._boxes[made.id].container.state, it.app().stats.ejected) == ("running", 1)
        assert (await it.get())[0] == 200


async def test_a_container_that_would_be_gone_if_it_were_stopped_runs_on_even_if_it_does_not_prove_itself() -> None:
    engine = MemoryEngine()
    engine.add_image("plain", Program(backend, boot_s=3600))
    labels = ENABLED | prefixed({"startup_config.timeout": "50ms"})
    made = engine.add_container("web", "plain", labels, auto_remove=True)
    await engine.start(made.id)
    async with serving(engine) as it:
        await until(lambda: it.app().stats.start_failures)
        await until(lambda: not it.dockscale.scaler._lives.tended)

        assert running(it) == ["web"]


async def test_load_scales_up_at_once_and_stays_within_max_instances() -> None:
    labels = {"autoscaling.max_instances": "3", "autoscaling.target_requests_per_instance": "10", **NO_WAIT}
    async with world(labels) as it:
        for _ in range(60):
            status, _ = await it.get()
            assert status == 200

        await until(lambda: it.ready() == 3)
        assert len(running(it)) == 3
        decision = it.app().decision
        assert decision is not None
        assert decision.instances == 3


async def test_it_goes_down_after_a_quiet_minute_and_drains_what_is_in_flight() -> None:
    labels = {"autoscaling.max_instances": "2", "autoscaling.target_requests_per_instance": "10", **NO_WAIT}
    async with world(labels) as it:
        for _ in range(30):
            await it.get()
        await until(lambda: it.ready() == 2)
        slow = [asyncio.create_task(it.get("/slow?s=0.3")) for _ in range(8)]
        await until(lambda: it.app().pool.in_flight == 8)
        it.clock.advance(61)
        it.tick()  # the minute begins in which nothing but these eight is seen
        it.clock.advance(61)
        it.tick()

        assert it.states() == {"ready": 1, "draining": 1}
        assert [status for status, _ in await asyncio.gather(*slow)] == [200] * 8
        await until(lambda: len(containers(it)) == 1)
        assert it.states() == {"ready": 1}


async def test_an_idle_app_falls_asleep_and_wakes_again() -> None:
    async with world({"startup_config.stop_after_inactive": "5m"}) as it:
        await it.get()
        it.clock.advance(301)
        it.tick()
        await until(lambda: containers(it) == [])

        status, _ = await it.get()

        assert status == 200
        assert it.states() == {"ready": 1}


async def test_an_open_request_keeps_an_app_awake() -> None:
    async with world({"startup_config.stop_after_inactive": "5m"}) as it:
        await it.get()
        open_request = asyncio.create_task(it.get("/slow?s=0.3"))
        await until(lambda: it.app().pool.in_flight == 1)

        it.clock.advance(301)
        it.tick()

        assert it.states() == {"ready": 1}
        assert (await open_request)[0] == 200


async def test_a_labelled_container_is_started_itself_and_only_copies_are_removed() -> None:
    engine = MemoryEngine()
    engine.add_image("plain", Program(backend))
    labels = {"autoscaling.max_instances": "2", "autoscaling.target_requests_per_instance": "10", **NO_WAIT}
    engine.add_container("web", "plain", ENABLED | prefixed(labels | {"startup_config.stop_after_inactive": "5m"}))
    async with serving(engine) as it:
        _, first = await it.get()
        for _ in range(30):
            await it.get()
        await until(lambda: it.ready() == 2)
        it.clock.advance(400)
        it.tick()

        await until(lambda: it.states() == {})
        assert first["instance"] == "web"
        assert [(container.name, container.state) for container in containers(it)] == [("web", "exited")]


async def test_a_start_that_exits_at_once_tells_the_waiting_why_and_backs_off() -> None:
    async with world(program=Program(backend, exits="no such file: app.py")) as it:
        status, body = await it.get()
        again, refused = await it.get()

        assert status == 502
        assert body["error"] == "start_failed"
        assert "no such file: app.py" in body["message"]
        assert again == 503
        assert refused["error"] == "app_failing"
        assert it.engine.starts == 1
        await until(lambda: containers(it) == [])


async def test_an_app_that_never_listens_fails_after_its_startup_timeout() -> None:
    program = Program(backend, boot_s=3600)
    async with world({"startup_config.timeout": "200ms"}, program=program) as it:
        status, body = await it.get()

        assert status == 502
        assert "did not accept a connection on port 8000 within 0.2 s" in body["message"]
        await until(lambda: containers(it) == [])


async def test_a_health_path_decides_when_an_instance_is_ready() -> None:
    async with world({"startup_config.health_path": "/status?code=500", "startup_config.timeout": "300ms"}) as it:
        status, body = await it.get()

        assert status == 502
        assert "did not answer /status?code=500 with 2xx or 3xx" in body["message"]


async def test_a_failed_start_does_not_use_up_the_cooldown() -> None:
    async with world(program=Program(backend, exits="broken")) as it:
        await it.get()

        assert it.app().memory.last_up is None
        assert it.app().memory.failures == 1


async def test_after_a_restart_what_runs_is_adopted() -> None:
    engine = MemoryEngine()
    engine.add_image("web", Program(backend), ENABLED)
    async with serving(Kept(engine)) as first:
        _, before = await first.get()

    async with serving(engine) as second:
        await until(lambda: second.ready() == 1)
        _, after = await second.get()

        assert after["instance"] == before["instance"]
        assert engine.starts == 1


async def test_half_made_instances_of_an_earlier_run_are_removed() -> None:
    engine = MemoryEngine()
    image = engine.add_image("web", Program(backend), ENABLED)
    await engine.clone(image, "web-1-dead", {"dockscale.managed": "true", "dockscale.instance-of": "web"}, {})

    async with serving(engine) as it:
        await until(lambda: containers(it) == [])


async def test_copies_of_an_app_that_is_gone_are_removed() -> None:
    async with world() as it:
        await it.get()

        it.engine.remove_image("web")

        await until(lambda: containers(it) == [])
        assert it.dockscale.registry.apps == {}


async def test_a_new_image_takes_over_without_losing_a_request() -> None:
    async with world({"autoscaling.max_instances": "2"}) as it:
        await it.get()
        [old] = running(it)
        stop = asyncio.Event()
        load = asyncio.create_task(keep_asking(it, stop))

        it.engine.add_image("web", Program(backend), ENABLED | prefixed({"autoscaling.max_instances": "2"}))
        await until(lambda: len(running(it)) == 1 and running(it) != [old])
        stop.set()

        statuses = await load
        assert set(statuses) == {200}
        await until(lambda: old not in it.app().pool.instances)


async def test_a_rollout_has_no_room_at_one_instance_so_requests_wait_in_the_line() -> None:
    async with world({"autoscaling.max_instances": "1"}) as it:
        await it.get()
        [old] = running(it)
        stop = asyncio.Event()
        load = asyncio.create_task(keep_asking(it, stop))

        it.engine.add_image("web", Program(backend), ENABLED | prefixed({"autoscaling.max_instances": "1"}))
        await until(lambda: len(running(it)) == 1 and running(it) != [old])
        stop.set()

        assert set(await load) == {200}


async def test_while_the_engine_is_away_traffic_goes_on() -> None:
    async with world() as it:
        await it.get()

        it.engine.away = True
        it.engine.drop_events()
        statuses = [(await it.get())[0] for _ in range(20)]

        assert statuses == [200] * 20
        it.engine.away = False


async def test_a_request_to_an_engine_that_is_away_says_so() -> None:
    async with world() as it:
        it.engine.away = True
        status, body = await it.get()
        it.engine.away = False

        assert status == 502
        assert ": the engine is away" in body["message"]


async def test_requests_are_not_lost_while_instances_come_and_go() -> None:
    labels = {"autoscaling.max_instances": "4", "autoscaling.target_requests_per_instance": "10", **NO_WAIT}
    async with world(labels) as it:
        stop = asyncio.Event()
        load = [asyncio.create_task(keep_asking(it, stop, "/slow?s=0.01")) for _ in range(8)]
        most = 0
        for _ in range(6):
            await until(lambda: it.ready() == 4)
            most = max(most, len(running(it)))
            for instance in it.app().pool.candidates()[:3]:
                it.app().pool.drain(instance, "test")
            it.tick()
            most = max(most, len(it.app().pool.instances))
        stop.set()
        statuses = [status for each in await asyncio.gather(*load) for status in each]

        assert set(statuses) == {200}
        assert len(statuses) > 40
        assert most <= 4


async def test_the_line_is_bounded_and_a_full_one_is_refused_at_once() -> None:
    async with world({"autoscaling.max_queue": "3"}, program=Program(backend, boot_s=0.2)) as it:
        answers = await asyncio.gather(*(it.get() for _ in range(10)))

        statuses = sorted(status for status, _ in answers)
        assert statuses == [200] * 3 + [503] * 7
        assert it.app().pool.waiting == 0


async def test_who_goes_away_while_waiting_leaves_nothing_behind() -> None:
    async with world(program=Program(backend, boot_s=0.3)) as it:
        waiting = [asyncio.create_task(it.get()) for _ in range(20)]
        await until(lambda: it.app().pool.waiting == 20)

        for task in waiting[:15]:
            task.cancel()

        await until(lambda: it.app().pool.waiting == 5)
        assert [status for status, _ in await asyncio.gather(*waiting[15:])] == [200] * 5
        assert it.app().pool.in_flight == 0


async def test_a_request_that_waits_too_long_gets_504() -> None:
    labels = {
        "autoscaling.queue_timeout": "100ms",
        "autoscaling.max_instances": "1",
        "autoscaling.max_concurrency": "1",
    }
    async with world(labels) as it:
        await it.get()
        slow = asyncio.create_task(it.get("/slow?s=0.5"))
        await until(lambda: it.app().pool.in_flight == 1)

        status, body = await it.get()

        assert status == 504
        assert body["error"] == "no_instance_ready"
        assert (await slow)[0] == 200


async def test_max_concurrency_is_never_exceeded_and_the_line_is_served_in_order() -> None:
    labels = {"autoscaling.max_concurrency": "2", "autoscaling.max_instances": "1"}
    async with world(labels) as it:
        await it.get()
        most = 0
        asked = [asyncio.create_task(it.get("/slow?s=0.02")) for _ in range(12)]
        while not all(task.done() for task in asked):
            most = max(most, it.app().pool.in_flight)
            await asyncio.sleep(0.002)

        assert [task.result()[0] for task in asked] == [200] * 12
        assert most == 2


class Kept(MemoryEngine):
    """An engine whose containers outlive the dockscale that used it."""

    def __init__(self, engine: MemoryEngine) -> None:
        self.__dict__ = engine.__dict__

    async def close(self) -> None:
        pass


async def keep_asking(it: World, stop: asyncio.Event, path: str = "/") -> list[int]:
    statuses = []
    while not stop.is_set():
        statuses.append((await it.get(path))[0])
    return statuses


async def test_a_container_made_by_hand_is_let_be_when_its_labels_lose_to_an_older_one() -> None:
    engine = MemoryEngine()
    engine.add_image("plain", Program(backend))
    made = engine.add_container("web", "plain", ENABLED)
    await engine.start(made.id)
    async with serving(engine) as it:
        await until(lambda: it.ready() == 1)

        it.dockscale.scaler.retire(it.dockscale.registry.apps.pop("web"))

        await until(lambda: not it.dockscale.scaler._lives.tended)
        assert running(it) == ["web"]


async def test_a_container_with_another_name_goes_on_serving() -> None:
    engine = MemoryEngine()
    engine.add_image("plain", Program(backend))
    made = engine.add_container("web", "plain", ENABLED | prefixed({"app_id": "web"}))
    async with serving(engine) as it:
        await it.get()

        box = engine._boxes[made.id]
        box.container = replace(box.container, name="another")
        await it.settled()

        assert it.states() == {"ready": 1}
        assert engine.starts == 1


async def test_a_container_that_came_back_at_another_address_is_proven_anew() -> None:
    async with world() as it:
        await it.get()
        [instance] = it.app().pool
        it.app().pool.instances[instance.name].address = ("127.63.0.1", 8000)  # where it was before

        await it.settled()
        await until(lambda: it.ready() == 1 and instance.name not in it.app().pool.instances)

        assert (await it.get())[0] == 200


class SlowToList(MemoryEngine):
    """An engine whose listings can be held back after they were made."""

    def __init__(self) -> None:
        super().__init__()
        self.tells = asyncio.Event()
        self.tells.set()

    async def list(self) -> Listing:
        listing, tells = await super().list(), self.tells
        await tells.wait()
        return listing


async def test_a_listing_that_is_older_than_the_end_of_an_instance_brings_nothing_back() -> None:
    engine = SlowToList()
    engine.add_image("web", Program(backend), ENABLED | prefixed({"startup_config.stop_after_inactive": "30"}))
    async with serving(engine) as it:
        await it.get()
        await it.settled()
        engine.tells = asyncio.Event()
        listing = asyncio.create_task(it.settled())
        await asyncio.sleep(0)
        it.clock.advance(31)
        it.tick()
        await until(lambda: it.states() == {})

        engine.tells.set()
        await listing
        await it.settled()

        assert it.states() == {}
        assert it.app().stats.start_failures == 0


async def test_an_app_that_goes_and_comes_back_counts_what_still_drains() -> None:
    labels = ENABLED | prefixed({"autoscaling.max_instances": "1"})
    engine = MemoryEngine()
    engine.add_image("web", Program(backend), labels)
    async with serving(engine) as it:
        await it.get()
        slow = asyncio.create_task(it.get("/slow?s=0.3"))
        await until(lambda: it.app().pool.in_flight == 1)
        engine.remove_image("web")
        await until(lambda: "web" not in it.dockscale.registry.apps)
        engine.add_image("web", Program(backend), labels)
        await until(lambda: "web" in it.dockscale.registry.apps)

        waiting = asyncio.create_task(it.get())
        await until(lambda: it.app().pool.waiting == 1)

        assert len(running(it)) == 1
        assert ((await slow)[0], (await waiting)[0]) == (200, 200)
        assert len(running(it)) == 1


async def test_what_is_told_to_go_while_it_waits_to_be_started_is_never_started() -> None:
    labels = {"lazy": "false", "autoscaling.min_instances": "3"}
    async with world(labels, program=Program(backend, start_s=0.1), parallel_starts=1) as it:
        await until(lambda: it.engine.starts == 1)

        it.engine.remove_image("web")

        await until(lambda: not it.dockscale.scaler._lives.tended)
        assert it.engine.starts == 1
