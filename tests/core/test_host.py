"""The host's budget: what there is room for, and who gives way."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dockscale.core.app import App
from dockscale.core.catalog import Container
from dockscale.core.host import Host
from dockscale.core.load import UNBOUNDED
from dockscale.core.pool import Instance, State
from dockscale.core.spec import AppSpec, SelectionMode
from tests.support.clock import ManualClock

MB = 1024 * 1024


def app_of(host: Host, app_id: str, ready: int = 0, *, priority: int = 0, memory: int = 0, spares: int = 0) -> App:
    spec = AppSpec(app_id=app_id, port=8000, priority=priority)
    app = App(spec, Container(app_id, app_id, memory=memory), ManualClock(), lambda n: 0)
    for number in range(ready + spares):
        instance = Instance(f"{app_id}-{number + 1}", revision=app_id, memory=memory)
        app.pool.launch(instance)
        host.take(app, instance)
        app.pool.ready(instance, ("127.0.0.1", 1))
        if number >= ready:
            app.pool.drain(instance, "quiet")
            app.pool.park(instance)
    return app


def names(chosen: list[tuple[App, Instance]]) -> list[str]:
    return [instance.name for _, instance in chosen]


def test_without_a_budget_there_is_room_for_all() -> None:
    host = Host()
    app_of(host, "web", 3, memory=512 * MB)

    assert host.room(512 * MB) == UNBOUNDED


def test_instances_of_all_apps_share_the_room() -> None:
    host = Host(max_instances=5)
    app_of(host, "web", 2)
    app_of(host, "shop", 1, spares=1)

    assert host.room(0) == 1


def test_memory_limits_add_up_and_what_has_none_takes_none() -> None:
    host = Host(memory=1024 * MB)
    app_of(host, "web", 3, memory=256 * MB)
    app_of(host, "free", 7)

    assert host.room(256 * MB) == 1
    assert host.room(300 * MB) == 0
    assert host.room(0) == UNBOUNDED


def test_the_tighter_of_two_bounds_counts() -> None:
    host = Host(max_instances=10, memory=1024 * MB)
    app_of(host, "web", 2, memory=400 * MB)

    assert host.room(200 * MB) == 1
    assert host.room(1) == 8


def test_more_than_the_budget_is_no_room_and_not_less() -> None:
    host = Host(max_instances=1, memory=100)
    app_of(host, "web", 3, memory=100)

    assert host.room(50) == 0


def test_what_is_gone_gives_its_room_back_once() -> None:
    host = Host(max_instances=2, memory=200)
    app = app_of(host, "web", 2, memory=100)
    [first, _] = app.pool
    host.give_back(first)
    host.give_back(first)

    assert host.room(100) == 1
    assert repr(host) == "<Host instances=1 memory=100>"


def test_spares_of_others_give_way_first_those_of_the_least_important_app_before() -> None:
    host = Host(max_instances=4)
    app_of(host, "gold", 0, priority=5, spares=1)
    app_of(host, "tin", 0, priority=-5, spares=1)
    app_of(host, "idle", 1, priority=-9)
    web = app_of(host, "web", 1)

    assert names(host.give_way(web, 1)) == ["tin-1"]
    assert names(host.give_way(web, 2)) == ["tin-1", "gold-1"]
    assert names(host.give_way(web, 3)) == ["tin-1", "gold-1", "idle-1"]


def test_its_own_spares_do_not_give_way_since_they_can_serve() -> None:
    host = Host(max_instances=2)
    web = app_of(host, "web", 1, spares=1)

    assert host.give_way(web, 1) == []


def test_only_idle_instances_of_less_important_apps_give_way() -> None:
    host = Host(max_instances=5)
    equal, more = app_of(host, "equal", 1), app_of(host, "more", 1, priority=1)
    less = app_of(host, "less", 2, priority=-1)
    web = app_of(host, "web", 1)
    lease = less.pool.claim()
    assert lease is not None
    idle = next(instance for instance in less.pool if instance is not lease.instance)

    assert names(host.give_way(web, 5)) == [idle.name]
    assert (repr(equal.pool), repr(more.pool)) == ("<Pool ready=1 | in_flight=0 waiting=0>",) * 2


def test_what_leaves_already_counts_as_room_that_comes() -> None:
    host = Host(max_instances=3)
    other = app_of(host, "other", 0, spares=2)
    web = app_of(host, "web", 1)
    other.pool.drain(other.pool.instances["other-1"], "it gave way")

    assert host.give_way(web, 1) == []
    assert names(host.give_way(web, 2)) == ["other-2"]


def test_as_many_give_way_as_the_memory_needs() -> None:
    host = Host(memory=1000)
    app_of(host, "small", 0, memory=200, spares=5)
    big = app_of(host, "big", 0, memory=500)

    assert len(host.give_way(big, 1)) == 3


def test_one_that_would_be_removed_by_being_stopped_never_gives_way() -> None:
    host = Host(max_instances=1)
    other = app_of(host, "other", 1, priority=-1)
    next(iter(other.pool)).pinned = True
    web: Any = app_of(host, "web")

    assert host.give_way(web, 1) == []


def test_who_would_make_no_room_does_not_give_way() -> None:
    host = Host(memory=1000)
    app_of(host, "free", 0, spares=2)
    app_of(host, "small", 0, memory=200, spares=1)
    big = app_of(host, "big", 1, memory=500)

    assert names(host.give_way(big, 1)) == ["small-1"]


def test_nobody_gives_way_where_all_together_make_too_little_room() -> None:
    host = Host(memory=1000)
    app_of(host, "busy", 3, memory=250, priority=9)
    app_of(host, "small", 1, memory=100, priority=-1)
    big = app_of(host, "big", memory=500)

    assert host.give_way(big, 1) == []


def test_one_that_is_enough_gives_way_alone_though_smaller_ones_came_before() -> None:
    host = Host(memory=1000)
    app_of(host, "small", 0, memory=100, priority=-1, spares=2)
    app_of(host, "large", 0, memory=600, spares=1)
    big = app_of(host, "big", memory=700)

    assert names(host.give_way(big, 1)) == ["large-1"]


# Whoever there is.


@dataclass(frozen=True)
class Crowd:
    """Apps on a host that may be too small for them; the first is the one that others give way to."""

    max_instances: int
    memory: int
    apps: list[App]

    def host(self, without: Iterable[Instance] = ()) -> Host:
        host = Host(self.max_instances, self.memory)
        for app in self.apps:
            for instance in app.pool:
                if instance not in without:
                    host.take(app, instance)
        return host

    def room(self, chosen: list[tuple[App, Instance]]) -> int:
        """Room for the first when these, and those that are leaving already, are gone."""
        leaving = [each for app in self.apps for each in app.pool if each.state is State.DRAINING]
        return self.host([*leaving, *(each for _, each in chosen)]).room(self.apps[0].template.memory)


@st.composite
def crowds(draw: st.DrawFn) -> Crowd:
    """Apps of different weight, with instances in all states."""
    apps = []
    for number in range(draw(st.integers(1, 4))):
        app = app_of(
            Host(),
            f"app{number}",
            draw(st.integers(0, 3)),
            priority=draw(st.integers(-1, 1)),
            memory=draw(st.sampled_from([0, 100, 250])),
            spares=draw(st.integers(0, 2)),
        )
        app.pool.mode = SelectionMode.MIN_LOAD
        for _ in range(draw(st.integers(0, 2))):
            app.pool.claim()
        for instance in app.pool:
            match draw(st.sampled_from(["", "", "is pinned", "leaves", "is promoted"])):
                case "is pinned":
                    instance.pinned = not instance.spare
                case "leaves":
                    app.pool.drain(instance, "quiet")
                case "is promoted":
                    app.pool.promote(instance)
        apps.append(app)
    return Crowd(draw(st.sampled_from([0, 4, 9])), draw(st.sampled_from([0, 300, 1000])), apps)


@given(crowd=crowds(), missing=st.integers(1, 4))
def test_only_spares_and_idle_instances_of_less_important_apps_give_way(crowd: Crowd, missing: int) -> None:
    app = crowd.apps[0]
    chosen = crowd.host().give_way(app, missing)

    assert len(set(names(chosen))) == len(chosen)
    for owner, instance in chosen:
        assert owner is not app
        assert instance.name in owner.pool.instances
        if instance.spare:
            assert instance.state is not State.DRAINING
        else:
            assert instance.state is State.READY
            assert owner.spec.priority < app.spec.priority
            assert not instance.pinned
            assert instance.in_flight == 0


@given(crowd=crowds(), missing=st.integers(1, 4))
def test_as_many_give_way_as_it_takes_and_none_in_vain(crowd: Crowd, missing: int) -> None:
    chosen = crowd.host().give_way(crowd.apps[0], missing)
    spares = [(app, each) for app in crowd.apps[1:] for each in app.pool if each.spare]

    assert crowd.room(chosen) >= min(missing, crowd.room(spares))
    for spared in range(len(chosen)):
        assert crowd.room(chosen[:spared] + chosen[spared + 1 :]) < min(missing, crowd.room(chosen))
