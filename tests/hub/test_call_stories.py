"""Calls whose callers and instances do anything in any order: the books always balance, and are empty in the end."""

import asyncio
from collections import defaultdict
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dockscale.hub.calls import GENERATOR_IDLE_S, GRACE_S
from dockscale.hub.wire import Message
from tests.support.calls import EVERY_S, PARTS, Played, Stage, frame, stage

VIRTUAL = "public/bot__lb"
FIRST, SECOND = "public/one__rlb", "public/two__rlb"
GENERATOR = {"_rtype": "generator", "_rtarget": "x", "_rmethod": "gen.next", "_rclose_method": "gen.close"}


class Story:
    """What a random list of steps makes happen. Each step takes a number, which chooses among what there is."""

    def __init__(self, it: Stage) -> None:
        self.it = it
        self.callers = {name: it.caller(name) for name in "ab"}
        self.instances = {name: it.instance(name) for name in ("one", "two")}
        self.addressed: dict[str, str] = {}
        """To whom each call of a caller went."""
        self.owed: defaultdict[Played, list[tuple[str, tuple[Any, ...]]]] = defaultdict(list)
        """Parts that are still to be sent, with whereto as their first argument."""
        self.seen: dict[Played, int] = {}

    def one_of(self, number: int, played: dict[str, Played]) -> Played | None:
        there = sorted(played)
        return played[there[number % len(there)]] if there else None

    # What callers do.

    def call(self, number: int) -> None:
        if caller := self.one_of(number, self.callers):
            to = (VIRTUAL, VIRTUAL, f"{VIRTUAL}_last", FIRST, SECOND)[number // 2 % 5]
            session = caller.call(to, "services.default.work", b"x" * (number % 3))
            self.addressed[session] = to

    def call_twice_under_one_session(self, number: int) -> None:
        if caller := self.one_of(number, self.callers):
            for _ in range(2):
                caller.post(VIRTUAL, "services.default.work", session="same")

    def call_and_want_no_answer(self, number: int) -> None:
        if caller := self.one_of(number, self.callers):
            caller.post(VIRTUAL, "services.default.work")

    def begin_large_call(self, number: int) -> None:
        if caller := self.one_of(number, self.callers):
            session = f"large{len(self.addressed)}"
            to = (VIRTUAL, FIRST)[number // 2 % 2]
            large = frame(to, "services.default.work", b"y" * 600, session=session, promise="*", t=EVERY_S)
            self.owe(caller, to, f"key{session}", large)
            self.addressed[session] = to

    def ask_for_next_item(self, number: int) -> None:
        if caller := self.one_of(number, self.callers):
            to = (FIRST, SECOND)[number // 2 % 2]
            self.addressed[caller.call(to, "gen.next" if number % 3 else "gen.close")] = to

    def caller_leaves(self, number: int) -> None:
        if number % 3 == 0 and (caller := self.one_of(number, self.callers)):
            self.leave(caller, self.callers)

    def caller_comes(self, number: int) -> None:
        name = "abc"[number % 3]
        if name not in self.callers:
            self.callers[name] = self.it.caller(name)

    # What instances do; callers do the same with what instances ask them.

    def answer(self, number: int) -> None:
        if task := self.task(number):
            value = GENERATOR if number % 5 == 0 else {"_rtype": "stop_iteration"} if number % 5 == 1 else number
            task[0].answer(task[1], value, "reject" if number % 7 == 0 else "resolve")

    def answer_and_keep_it(self, number: int) -> None:
        """Answer twice, or go on after the answer."""
        if task := self.task(number, keep=True):
            task[0].answer(task[1])

    def answer_in_parts(self, number: int) -> None:
        if task := self.task(number):
            player, message = task
            to, session = message.header["from"], message.session
            large = frame(to, f"{session}.{'reject' if number % 7 == 0 else 'resolve'}", b"z" * 600)
            self.owe(player, to, session, large)

    def beat(self, number: int) -> None:
        if task := self.task(number, keep=True):
            task[0].beat(task[1])

    def call_back(self, number: int) -> None:
        if task := self.task(number, keep=True):
            player, message = task
            path = ("x#callback", "nested.x#callback", "x.with.dots")[number % 3]
            player.call(message.header["from"], f"{message.session}.{path}", number)

    def call_back_in_parts(self, number: int) -> None:
        if task := self.task(number, keep=True):
            player, message = task
            to, session = message.header["from"], message.session
            large = frame(to, f"{session}.x#callback", b"w" * 600, session=f"back{number}", promise="*", t=EVERY_S)
            self.owe(player, to, session, large)

    def send_part(self, number: int) -> None:
        owing = [player for player, parts in self.owed.items() if parts]
        if owing:
            player = owing[number % len(owing)]
            method, (to, *args) = self.owed[player].pop(0)
            session = player.call(to, method, *args)
            if player in self.callers.values():
                self.addressed[session] = to

    def lose_part(self, number: int) -> None:
        owing = [player for player, parts in self.owed.items() if parts]
        if owing:
            self.owed[owing[number % len(owing)]].pop(0)

    def instance_leaves(self, number: int) -> None:
        if number % 3 == 0 and (instance := self.one_of(number, self.instances)):
            self.leave(instance, self.instances)

    def instance_comes(self, number: int) -> None:
        name = ("one", "two")[number % 2]
        if name not in self.instances:
            self.instances[name] = self.it.instance(name)

    def time_passes(self, number: int) -> None:
        before = {session for _, session in self.it.calls.open}
        self.it.pass_time(float(number))
        for session in before - {session for _, session in self.it.calls.open}:
            self.addressed.pop(session, None)  # its caller has given up

    # How.

    def owe(self, player: Played, to: str, key: str, large: bytes) -> None:
        self.owed[player] += [(method, (to, *args)) for method, args in player.send_parts(to, key, large)]

    def leave(self, player: Played, among: dict[str, Played]) -> None:
        self.owed.pop(player, None)
        [name] = [name for name, each in among.items() if each is player]
        del among[name]
        player.leave()

    def task(self, number: int, *, keep: bool = False) -> tuple[Played, Message] | None:
        """Somebody who was asked something, and what."""
        tasks = [
            (player, message)
            for player in [*self.instances.values(), *self.callers.values()]
            for message in player.inbox
            if message.session
        ]
        if not tasks:
            return None
        player, message = tasks[number % len(tasks)]
        if not keep:
            player.inbox.remove(message)
        return player, message

    def check(self) -> None:
        assert self.it.app.pool.in_flight == self.it.leases
        for caller in self.callers.values():
            ended: set[str] = set()
            for message in caller.inbox:
                session, _, name = message.method.partition(".")
                if session in self.addressed.keys() - ended:
                    assert message.header["from"] == self.addressed[session], "no client takes it from anyone else"
                if name in ("resolve", "reject"):
                    ended.add(session)


STEPS = [
    name for name in vars(Story) if not name.startswith("_") and name not in {"one_of", "owe", "leave", "task", "check"}
]


async def live(steps: list[tuple[str, int]], *, all_leave: bool) -> None:
    async with stage(max_concurrency=3, max_queue=4) as it:
        story = Story(it)
        for name, number in steps:
            getattr(story, name)(number)
            await settled()
            story.check()
        for name in ("one", "two"):  # whoever waits gets a place
            if name not in story.instances:
                story.instances[name] = it.instance(name)
        if all_leave:
            for player in [*story.callers.values(), *story.instances.values()]:
                player.leave()
            it.calls.sweep()
        else:
            for _ in range(5):  # each lets the next in the line in
                it.pass_time(100.0)
                await settled()
        await settled()
        assert it.books == {}


async def settled() -> None:
    """Let those in the line, the most of which may have just left it, have their turns."""
    for _ in range(20):
        await asyncio.sleep(0)


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 60)), max_size=60), all_leave=st.booleans())
def test_whatever_happens_leases_are_booked_and_nothing_is_left(
    steps: list[tuple[str, int]], *, all_leave: bool
) -> None:
    asyncio.run(live(steps, all_leave=all_leave))


# Single stories that are easily got wrong.


async def test_the_first_sign_of_life_is_spared_only_a_caller_that_has_just_begun_to_wait() -> None:
    async with stage(max_concurrency=1) as it:
        caller, instance = it.caller("a"), it.instance("one")
        first = caller.call(VIRTUAL, "services.default.work")
        second = caller.call(VIRTUAL, "services.default.work")
        it.clock.advance(EVERY_S - 1)
        [task] = instance.inbox
        instance.answer(task)
        await settled()

        instance.beat(instance.inbox[-1])
        third = caller.call(FIRST, "services.default.work")
        instance.beat(instance.inbox[-1])

        assert [each.method for each in caller.got(first)] == [f"{first}.resolve"]
        assert [each.method for each in caller.got(second)] == [f"{second}.heartbeat"]
        assert caller.got(third) == []


async def test_an_answer_that_cannot_be_read_gives_the_place_back() -> None:
    async with stage() as it:
        caller, instance = it.caller("a"), it.instance("one")
        session = caller.call(VIRTUAL, "services.default.work")
        header = {"type": "method", "to": "public/a", "method": f"{session}.resolve"}

        # Large enough to be passed on without having been unpacked.
        listed_as_key = b"\x82\xa1t\xc5\x03\xe8" + bytes(1000) + b"\xa4args\x91\x82\xa6_rtype\xa9generator\x90\x01"
        it.hub.receive(instance.client, Message(header, listed_as_key).frame())

        assert len(caller.got(session)) == 1
        assert it.books == {}


async def test_a_generator_whose_next_item_never_comes_is_given_up() -> None:
    async with stage() as it:
        caller, instance = it.caller("a"), it.instance("one")
        caller.call(VIRTUAL, "services.default.work")
        instance.answer(instance.inbox.pop(), GENERATOR)
        caller.call(FIRST, "gen.next")
        kept = it.app.pool.in_flight
        it.pass_time(2 * EVERY_S + GRACE_S)
        rests = it.app.pool.in_flight

        it.pass_time(GENERATOR_IDLE_S)

        assert (kept, rests) == (2, 1)
        assert it.books == {}


async def test_a_first_part_that_hides_what_is_called_is_refused() -> None:
    async with stage() as it:
        caller, instance = it.caller("a"), it.instance("one")
        caller.call(VIRTUAL, f"{PARTS}create", "key", True)

        session = caller.call(VIRTUAL, f"{PARTS}set", "key", 0, frame(VIRTUAL, "services.secret.tell")[:9], True)

        assert [each.method for each in caller.got(session)] == [f"{session}.reject"]
        assert [each.method for each in instance.inbox] == [f"{PARTS}create"]
        assert it.app.pool.in_flight == 0


async def test_what_the_caller_answered_with_is_called_in_the_name_that_it_knows() -> None:
    async with stage() as it:
        caller, instance = it.caller("a"), it.instance("one")
        session = caller.call(VIRTUAL, "services.default.work")

        instance.call("public/a", f"{session}.within.deeper#function")

        assert caller.inbox[-1].header["from"] == VIRTUAL


async def test_a_call_goes_on_when_its_app_is_removed() -> None:
    async with stage() as it:
        caller, instance = it.caller("a"), it.instance("one")
        session = caller.call(VIRTUAL, "services.default.work")
        asked = instance.call("public/a", f"{session}.x#callback")
        it.apps.clear()

        caller.answer(caller.inbox.pop(), "answer")
        refused = caller.call(VIRTUAL, "services.default.work")
        instance.answer(instance.inbox[0])

        assert len(instance.got(asked)) == 1
        assert [each.method for each in caller.got(refused)] == [f"{refused}.reject"]
        assert [each.method for each in caller.got(session)] == [f"{session}.resolve"]
        assert it.books == {}


async def test_a_large_call_of_one_instance_counts_there_until_it_is_answered() -> None:
    async with stage() as it:
        caller, instance = it.caller("a"), it.instance("one")
        large = frame(FIRST, "services.default.work", b"y" * 600, session="large", promise="*", t=EVERY_S)
        for method, args in caller.send_parts(FIRST, "key", large):
            caller.post(FIRST, method, *args)
        counted = it.app.pool.in_flight

        instance.post("public/a", "large.resolve", "done")

        assert (counted, it.app.pool.in_flight) == (1, 0)
