"""What verbs that go on have in common: told event by event, until what they follow is gone or Ctrl-C is pressed."""

from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any

from dockscale.cli.client import lasting
from dockscale.cli.show import note

_NOTES = {"away": "{told}", "back": "connected again", "missed": "{told[count]} decisions were missed"}
"""What is told beside the answer."""


def tell_each(path: str, tell: Callable[[str, Any], None], gone: Callable[[Any], str], again: str = "") -> None:
    """Tell each event of a stream that outlasts a restart of dockscale. `gone` says what `removed` means.

    Raises:
        Unanswered: there is no such stream.
    """
    with closing(lasting(path, again)) as events, suppress(KeyboardInterrupt):
        for event, told in events:
            if event == "removed":
                note(gone(told))
                return
            if event in _NOTES:
                note(_NOTES[event].format(told=told))
            else:
                tell(event, told)
