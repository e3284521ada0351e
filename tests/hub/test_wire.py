"""Frames: whatever comes is read, or refused by one kind of error."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dockscale.hub.wire import Malformed, Message, promised_every, read, retarget, vouch

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_message_or_malformed(frame: bytes) -> None:
    try:
        message = read(frame)
    except Malformed:
        return

    assert message.header["type"]


@given(st.dictionaries(st.text(max_size=8), VALUES, max_size=5), VALUES)
def test_a_header_is_read_and_the_body_is_not_touched(more: dict[str, object], value: object) -> None:
    header = more | {"type": "method", "to": "a/b", "method": "x", "session": None, "parent": ""}
    body = msgpack.packb(value)

    message = read(msgpack.packb(header) + body)

    assert (message.header, message.body) == (header, body)
    assert read(message.frame()).header == header


@given(st.dictionaries(st.text(max_size=4), VALUES, min_size=1, max_size=20))
def test_what_is_vouched_for_joins_the_header(header: dict[str, object]) -> None:
    message = Message(header | {"type": "x"}, b"rest")
    message.vouched = vouch("ws1", {"id": "somebody"})

    again = msgpack.Unpacker()
    again.feed(message.frame())

    assert again.unpack() == {**header, "type": "x", "ws": "ws1", "user": {"id": "somebody"}}


@pytest.mark.parametrize(
    "frame",
    [b"", b"\xc1", msgpack.packb([1]), msgpack.packb({"to": "x"}), msgpack.packb({"type": 5}), b"\x81" * 2000],
    ids=["nothing", "no msgpack", "a list", "no type", "a number as type", "maps without end"],
)
def test_what_is_no_message_is_malformed(frame: bytes) -> None:
    with pytest.raises(Malformed):
        read(frame)


@pytest.mark.parametrize(("t", "every"), [(15.0, 15.0), (2.5, 2.5), (7, 7.0), (150, 150.0), (300, 300.0)])
def test_how_often_a_caller_wants_a_sign_is_read_without_unpacking(t: float, every: float) -> None:
    body = msgpack.packb({"args": [1], "promise": "*", "t": t})

    assert promised_every(Message({}, body)) == every


def test_targets_become_absolute_and_one_is_exchanged_for_another() -> None:
    value = {"a": {"_rtarget": "me"}, "b": [{"_rtarget": "ws/other"}]}

    retarget(value, "ws", old="ws/me", new="ws/app__lb")

    assert value == {"a": {"_rtarget": "ws/app__lb"}, "b": [{"_rtarget": "ws/other"}]}
