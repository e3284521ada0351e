"""A copy that is created before anybody wants it, so that the next start is only a start."""

from dockscale.core.spec import AppSpec
from dockscale.engine.memory import MemoryEngine, Program
from tests.support.backend import backend
from tests.support.world import ENABLED, World, prefixed, serving, until, world

SLEEPS = {"startup_config.stop_after_inactive": "30"}


def created(it: World) -> list[str]:
    return sorted(box.container.name for box in it.engine._boxes.values() if box.container.state == "created")


async def with_copy(it: World) -> str:
    """Wake the app, and return the name of the copy that waits for the next start."""
    await it.get()
    await until(lambda: it.app().app_id in it.dockscale.scaler._lives.ahead and created(it))
    return created(it)[0]


async def test_nothing_is_created_for_an_app_that_nobody_has_asked_for() -> None:
    async with world(create_ahead=True) as it:
        await it.settled()
        it.tick()

        assert created(it) == []


async def test_the_next_start_takes_the_copy_made_ahead_and_another_one_is_made() -> None:
    async with world(SLEEPS, create_ahead=True) as it:
        ahead = await with_copy(it)
        it.clock.advance(31)
        it.tick()
        await until(lambda: it.states() == {})
        assert created(it) == [ahead]

        assert (await it.get())[1]["instance"] == ahead

        await until(lambda: created(it) not in ([], [ahead]))


async def test_a_copy_of_an_earlier_template_is_removed_and_never_started() -> None:
    async with world(create_ahead=True) as it:
        ahead = await with_copy(it)

        it.engine.add_image("web", Program(backend), ENABLED)

        await until(lambda: it.states() == {"ready": 1} and len(created(it)) == 1 and created(it) != [ahead])
        assert ahead not in [box.container.name for box in it.engine._boxes.values()]


async def test_a_copy_that_was_removed_by_hand_is_made_again_when_it_is_needed() -> None:
    async with world(SLEEPS, create_ahead=True) as it:
        ahead = await with_copy(it)
        it.clock.advance(31)
        it.tick()
        await until(lambda: it.states() == {})
        [box] = [box for box in it.engine._boxes.values() if box.container.name == ahead]

        await it.engine.remove(box.container.id)

        assert (await it.get())[0] == 200
        assert it.app().stats.start_failures == 0


async def test_a_copy_says_when_the_app_went_down_last_so_that_the_next_dockscale_knows() -> None:
    labels = {"autoscaling.min_instances": "2"}
    async with world(labels, create_ahead=True) as it:
        before = await with_copy(it)
        await until(lambda: it.ready() == 2)
        it.app().follow(AppSpec(app_id="web", port=8000), it.app().template)
        it.clock.advance(700)
        it.tick()
        assert it.ready() == 1
        it.tick()

        await until(lambda: created(it) not in ([], [before]))
        [copy] = [box.container for box in it.engine._boxes.values() if box.container.state == "created"]
        assert "dockscale.last-down" in copy.labels


async def test_a_copy_goes_with_its_app() -> None:
    async with world(create_ahead=True) as it:
        await with_copy(it)

        it.engine.remove_image("web")

        await until(lambda: not it.engine._boxes)


async def test_the_next_dockscale_takes_over_the_copy() -> None:
    engine = MemoryEngine()
    image = engine.add_image("web", Program(backend), ENABLED | prefixed({}))
    labels = {"managed": "true", "instance-of": "web", "revision": image.id}
    engine.add_container("web-1-ab12", "web", prefixed(labels))
    engine.add_container("web-1-cd34", "web", prefixed(labels | {"revision": "sha256:old"}))
    async with serving(engine, create_ahead=True) as it:
        await until(lambda: created(it) == ["web-1-ab12"])

        assert (await it.get())[1]["instance"] == "web-1-ab12"
