"""Large messages that come in parts, until they are whole."""

import asyncio

from dockscale.hub.wire import Malformed, Value

MOST_PARTS_BYTES = 2**28
"""Bytes that one caller may have sent in parts of messages that are not whole yet."""
PARTS_S = 60.0
"""The next part of a message must come within this; else what is there of it is dropped."""
_PART_COST = 256
"""Bytes that a part or a message is counted as besides its own, so that many small ones are not free."""


class _Message:
    """A message that was begun. `timer` ends it."""

    __slots__ = ("parts", "size", "timer")

    def __init__(self, size: int) -> None:
        self.parts: dict[int, bytes] = {}
        self.size = size
        self.timer: asyncio.TimerHandle | None = None


class Parts:
    """The parts of all callers, by their full ids and the messages' keys."""

    def __init__(self) -> None:
        self._by_caller: dict[str, dict[str, _Message]] = {}

    def begin(self, caller: str, key: Value, *, overwrite: bool) -> None:
        """Begin a message.

        Raises:
            Malformed: the key is no text.
            ValueError: it was begun already, or the caller has sent too much.
        """
        if not isinstance(key, str):
            raise Malformed("the key of a message in parts is no text")
        if key in self._by_caller.get(caller, {}):
            if not overwrite:
                raise ValueError(f"a message with the key {key} is there already")
            self.drop(caller, key)
        size = len(key) + _PART_COST
        self._check(caller, size)
        message = self._by_caller.setdefault(caller, {})[key] = _Message(size)
        self._wait(caller, key, message)

    def put(self, caller: str, key: Value, index: Value, part: Value) -> None:
        """Keep a part, in place of one with the same number.

        Raises:
            Malformed: the number or the part is none.
            KeyError: the message was not begun.
            ValueError: the caller has sent too much.
        """
        if type(index) is not int or index < 0:
            raise Malformed("the number of a part is no whole number from 0")
        if not isinstance(part, bytes):
            raise Malformed("a part is no bytes")
        message = self._get(caller, key)
        size = len(part) + _PART_COST if index not in message.parts else len(part) - len(message.parts[index])
        self._check(caller, size)
        message.parts[index] = part
        message.size += size
        self._wait(caller, key, message)

    def append(self, caller: str, key: Value, part: Value) -> None:
        """Keep the next part.

        Raises: as `put`.
        """
        self.put(caller, key, len(self._get(caller, key).parts), part)

    def drop(self, caller: str, key: Value) -> None:
        """Forget a message.

        Raises:
            KeyError: it was not begun.
        """
        self._take(caller, key)

    def whole(self, caller: str, key: Value) -> bytes:
        """Return a message and forget it.

        Raises:
            KeyError: it was not begun.
            Malformed: a part is missing.
        """
        parts = self._take(caller, key).parts
        missing = next((index for index in range(len(parts)) if index not in parts), None)
        if missing is not None:
            raise Malformed(f"part {missing} of the message is missing")
        return b"".join(parts[index] for index in range(len(parts)))

    def forget(self, caller: str) -> None:
        """A caller is gone."""
        for key in list(self._by_caller.get(caller, ())):
            self.drop(caller, key)

    def _get(self, caller: str, key: Value) -> _Message:
        message = self._by_caller.get(caller, {}).get(key) if isinstance(key, str) else None
        if message is None:
            raise KeyError(f"no message with the key {key} was begun")
        return message

    def _take(self, caller: str, key: Value) -> _Message:
        message = self._get(caller, key)
        if message.timer is not None:
            message.timer.cancel()
        del self._by_caller[caller][key]
        if not self._by_caller[caller]:
            del self._by_caller[caller]
        return message

    def _check(self, caller: str, more: int) -> None:
        if more + sum(message.size for message in self._by_caller.get(caller, {}).values()) > MOST_PARTS_BYTES:
            raise ValueError(f"more than {MOST_PARTS_BYTES} bytes of messages that are not whole")

    def _wait(self, caller: str, key: str, message: _Message) -> None:
        if message.timer is not None:
            message.timer.cancel()
        message.timer = asyncio.get_running_loop().call_later(PARTS_S, self._take, caller, key)

    def __len__(self) -> int:
        return sum(map(len, self._by_caller.values()))
