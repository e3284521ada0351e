"""Frames that are read and written here, against the package that does it for all others."""

from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from dockscale.hub import frames

PAYLOADS = st.binary(max_size=300) | st.integers(0, 2**16 + 10).map(bytes)


def sent(*payloads: bytes, opcode: Opcode = Opcode.BINARY, fin: bool = True) -> bytes:
    """What a client sends, masked."""
    client = ClientProtocol(parse_uri("ws://x/"), state=State.OPEN)
    for payload in payloads:
        client.send_frame(Frame(opcode, payload, fin))
    return b"".join(client.data_to_send())


@given(st.lists(PAYLOADS, max_size=4), st.binary(max_size=8))
def test_messages_in_one_frame_are_taken_one_after_the_other(payloads: list[bytes], before: bytes) -> None:
    data = before + sent(*payloads)
    at, taken = len(before), []
    while (found := frames.take(data, at)) is not None:
        taken.append(found[0])
        at = found[1]

    short = next((n for n, payload in enumerate(payloads) if len(payload) >= 2**16), len(payloads))
    assert taken == payloads[:short]


@given(st.binary(max_size=70_000), st.data())
def test_what_is_not_all_there_is_not_taken(payload: bytes, data: st.DataObject) -> None:
    whole = sent(payload)
    cut = data.draw(st.integers(0, len(whole) - 1))

    assert frames.take(whole[:cut], 0) is None


@given(st.binary(max_size=200))
def test_whatever_else_it_is_is_left_alone(payload: bytes) -> None:
    assert frames.take(sent(payload, opcode=Opcode.TEXT), 0) is None
    assert frames.take(sent(payload, fin=False), 0) is None
    assert frames.take(sent(payload[:100], opcode=Opcode.PING), 0) is None
    assert frames.take(frames.head(len(payload)) + payload, 0) is None  # not masked


@given(PAYLOADS)
def test_a_written_frame_is_what_the_package_writes(payload: bytes) -> None:
    server = ServerProtocol(state=State.OPEN)
    server.send_binary(payload)

    assert frames.head(len(payload)) + payload == b"".join(server.data_to_send())
