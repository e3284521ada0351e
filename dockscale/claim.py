"""The one door to an instance: claim a place, or wait your turn for one. Who leaves the line leaves nothing there."""

import asyncio
from collections.abc import Callable

from dockscale.core.app import App
from dockscale.core.explain import held_back
from dockscale.core.pool import Instance, Lease, NoPlace, Turn
from dockscale.core.spec import SelectionMode

Wake = Callable[[App], object]


class TooLate(NoPlace):
    """No place came free within `autoscaling.queue_timeout`."""


async def claim(
    app: App, wake: Wake, avoid: Instance | None = None, token: str = "", mode: SelectionMode | None = None
) -> Lease:
    """Return a place on a ready instance of `app`, waiting in its line if there is none now.

    `wake` is told to decide at once when a request finds no place. `avoid` is an instance that has just failed this
    request, `token` that of the one it would like, `mode` how it is chosen (see `Pool.claim`).

    Raises:
        NoPlace: the line is full, the wait was too long, the start failed, or the app may not have several instances.
    """
    lease = app.pool.claim(avoid, token, mode)
    if lease is not None:
        return lease
    app.check()
    called = asyncio.Event()
    turn = Turn(called.set, token, mode)
    app.pool.wait(turn)
    try:
        wake(app)
        async with asyncio.timeout(app.spec.autoscaling.queue_timeout):
            await called.wait()
    except TimeoutError:
        if turn.lease is None:
            app.pool.leave(turn)
            raise TooLate(_too_late(app)) from None
    except BaseException:
        app.pool.leave(turn)
        raise
    if turn.error is not None:
        raise turn.error
    assert turn.lease is not None, "a turn that was called has a lease or an error"
    return turn.lease


def _too_late(app: App) -> str:
    held = held_back(app.decision, app.spec) if app.decision is not None else ""
    told = f"no instance was free within {app.spec.autoscaling.queue_timeout:g} s"
    return f"{told}; more are held back by {held}" if held else told
