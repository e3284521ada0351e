"""Lines of instances as they are written, over the memory engine."""

import asyncio

import pytest

from dockscale.control import UnknownApp, UnknownInstance
from dockscale.follow import Follow
from tests.support.world import BOUND_S, World, until, world


async def heard(follow: Follow, *contents: str, kind: str = "log") -> list[str]:
    """Read until all these were told; the instances that wrote them, in the order of the lines."""
    left, of = list(contents), []
    async with asyncio.timeout(BOUND_S):
        while left and not follow.ended:
            for _, facts in await follow.news():
                if facts.get("type") == kind and left and left[0] in facts["content"]:
                    left.pop(0)
                    of.append(facts.get("instance", ""))
    assert left == []
    return of


def write(it: World, name: str, *lines: str) -> None:
    it.engine.write(it.app().pool.instances[name].container_id, *lines)


async def test_lines_are_told_as_they_are_written_after_the_last_ones_before() -> None:
    async with world() as it:
        _, body = await it.get()
        name = body["instance"]
        write(it, name, "one", "two", "three")
        with it.dockscale.control.follow("web", kind="log", tail=2) as follow:
            first = [facts["content"] for _, facts in await follow.news()]
            write(it, name, "four")

            assert await heard(follow, "four") == [name]

        assert first == ["two", "three"]


async def test_instances_that_come_later_join_with_all_that_they_wrote() -> None:
    async with world() as it:
        with it.dockscale.control.follow("web") as follow:
            await heard(follow, "nobody asks", kind="scaling")
            _, body = await it.get()
            await heard(follow, "1 request waits", kind="scaling")
            write(it, body["instance"], "hello")

            assert await heard(follow, "hello") == [body["instance"]]


async def test_the_lines_of_one_instance_end_with_it() -> None:
    async with world() as it:
        _, body = await it.get()
        with it.dockscale.control.follow("web", body["instance"], tail=9) as follow:
            write(it, body["instance"], "goodbye")
            it.dockscale.control.stop("web")

            await heard(follow, "goodbye")
            await until(lambda: not it.app().pool.instances)
            told = []
            while not follow.ended:
                told += await follow.news()

        assert told == [("removed", {"app_id": "web", "instance": body["instance"]})]


async def test_a_reader_who_does_not_read_holds_the_lines_back_and_loses_none() -> None:
    async with world() as it:
        _, body = await it.get()
        numbers = [f"line {number}" for number in range(2000)]
        with it.dockscale.control.follow("web", kind="log", tail=2000) as follow:
            write(it, body["instance"], *numbers)
            await until(follow._unread.full, "as much is kept as may be")

            assert follow._unread.qsize() == 256
            assert len(await heard(follow, *numbers)) == 2000


async def test_afterwards_nothing_is_read() -> None:
    async with world() as it:
        await it.get()
        with it.dockscale.control.follow("web") as follow:
            await follow.news()
            readers = [*follow._readers.values()]

        await until(lambda: readers and all(reader.done() for reader in readers))
        assert it.app().watchers == set()


async def test_what_is_not_there_cannot_be_followed() -> None:
    async with world() as it:
        with pytest.raises(UnknownApp):
            it.dockscale.control.follow("shop")
        with pytest.raises(UnknownInstance):
            it.dockscale.control.follow("web", "web-9")
