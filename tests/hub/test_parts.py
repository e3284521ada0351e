"""Large messages in parts: they become whole, or nothing of them is left."""

import asyncio
from collections.abc import Callable

import pytest

from dockscale.hub import parts as module
from dockscale.hub.parts import Parts
from dockscale.hub.wire import Malformed
from tests.support.world import until

ME = "ws/me"


def fill(add: Callable[[int], None]) -> None:
    for number in range(10_000):
        add(number)


async def test_parts_in_any_order_become_whole() -> None:
    parts = Parts()
    parts.begin(ME, "k", overwrite=False)

    for index, part in ((2, b"c"), (0, b"a"), (1, b"x"), (1, b"b")):
        parts.put(ME, "k", index, part)
    parts.append(ME, "k", b"d")

    assert parts.whole(ME, "k") == b"abcd"
    assert len(parts) == 0


async def test_a_missing_part_is_named_and_the_rest_is_dropped() -> None:
    parts = Parts()
    parts.begin(ME, "k", overwrite=False)
    parts.put(ME, "k", 1, b"b")

    with pytest.raises(Malformed, match="part 0 of the message is missing"):
        parts.whole(ME, "k")

    assert len(parts) == 0


@pytest.mark.parametrize("index", [-1, True, 1.0, "0", None, [0]])
async def test_a_number_that_is_none_is_malformed(index: object) -> None:
    parts = Parts()
    parts.begin(ME, "k", overwrite=False)

    with pytest.raises(Malformed, match="number of a part"):
        parts.put(ME, "k", index, b"")


@pytest.mark.parametrize("key", [["k"], {}, 5, None, b"k"])
async def test_a_key_that_is_no_text_is_refused(key: object) -> None:
    parts = Parts()

    with pytest.raises(Malformed, match="no text"):
        parts.begin(ME, key, overwrite=False)
    with pytest.raises(KeyError, match="was begun"):
        parts.put(ME, key, 0, b"")


async def test_a_key_is_begun_once_unless_it_is_to_be_overwritten() -> None:
    parts = Parts()
    parts.begin(ME, "k", overwrite=False)
    parts.put(ME, "k", 0, b"old")

    with pytest.raises(ValueError, match="there already"):
        parts.begin(ME, "k", overwrite=False)
    parts.begin(ME, "k", overwrite=True)

    assert parts.whole(ME, "k") == b""


async def test_what_one_caller_sends_is_bounded_and_small_parts_are_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PARTS_BYTES", 10_000)
    parts = Parts()
    parts.begin(ME, "k", overwrite=False)
    parts.begin("ws/other", "k", overwrite=False)

    with pytest.raises(ValueError, match="not whole"):
        fill(lambda number: parts.put(ME, "k", number, b""))
    with pytest.raises(ValueError, match="not whole"):
        fill(lambda number: parts.begin(ME, str(number), overwrite=False))
    parts.put("ws/other", "k", 0, b"x" * 5_000)

    assert parts.whole("ws/other", "k") == b"x" * 5_000


async def test_a_message_that_does_not_go_on_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PARTS_S", 0.01)
    parts = Parts()
    parts.begin(ME, "k", overwrite=False)
    parts.put(ME, "k", 0, b"x")

    await until(lambda: len(parts) == 0)

    with pytest.raises(KeyError, match="was begun"):
        parts.put(ME, "k", 1, b"y")


async def test_of_a_caller_that_is_gone_nothing_is_left() -> None:
    parts = Parts()
    for key in ("a", "b"):
        parts.begin(ME, key, overwrite=False)

    parts.forget(ME)
    await asyncio.sleep(0)

    assert len(parts) == 0
