"""The one kind of WebSocket frame that nearly every message is, read and written without the general machine.

A call costs four frames. For these few lines the websockets package, which does all the rest, takes a third of the time
that the hub has for it.
"""

try:
    from websockets.speedups import apply_mask
except ImportError:  # its wheel for this machine has none
    from websockets.utils import apply_mask

_BINARY = 0x82
"""How a final frame of binary data begins (RFC 6455 section 5.2)."""
_MASKED = 0x80
_TWO_BYTES, _EIGHT_BYTES = 126, 127
"""Lengths that say that the length follows, in so many bytes."""
_MASK = 4


def take(data: bytes, at: int) -> tuple[bytes, int] | None:
    """The payload of a client's whole message of less than 64 KiB in one binary frame, and where that ends.

    None if what stands at `at` is anything else, or not all there.
    """
    if len(data) - at < 2 + _MASK or data[at] != _BINARY or data[at + 1] < _MASKED:
        return None
    length, begins = data[at + 1] - _MASKED, at + 2
    if length == _EIGHT_BYTES:
        return None
    if length == _TWO_BYTES:
        length, begins = int.from_bytes(data[begins : begins + 2], "big"), begins + 2
    ends = begins + _MASK + length
    if ends > len(data):
        return None
    return apply_mask(data[begins + _MASK : ends], data[begins : begins + _MASK]), ends


def head(length: int) -> bytes:
    """The head of a frame by which a server sends a whole binary message of so many bytes."""
    if length < _TWO_BYTES:
        return bytes((_BINARY, length))
    if length < 1 << 16:
        return bytes((_BINARY, _TWO_BYTES)) + length.to_bytes(2, "big")
    return bytes((_BINARY, _EIGHT_BYTES)) + length.to_bytes(8, "big")
