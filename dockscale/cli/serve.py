"""Verbs that do the server's work in this process: `serve` and `runtimes`."""

import asyncio

import click
import uvloop

from dockscale import logs
from dockscale.cli import OK, Failed
from dockscale.cli.chosen import chosen, misspelt
from dockscale.cli.show import as_json, json_option, note, say_now


@click.command(add_help_option=False, context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def serve(flags: tuple[str, ...]) -> int:
    """Run dockscale until it is told to stop. Every setting is a flag."""
    settings = chosen(_cli_parse_args=[*flags], _cli_prog_name="dockscale serve", _cli_kebab_case=True)
    for each in misspelt():
        note(each)
    logs.set_up(settings.log_format, settings.log_level)
    from dockscale.server import CannotStart  # noqa: PLC0415  # what is wrong with a flag need not wait for these imports
    from dockscale.server import serve as run  # noqa: PLC0415  # likewise

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if settings.event_loop == "uvloop" else None) as runner:
            runner.run(run(settings))
    except CannotStart as error:
        raise Failed(str(error)) from None
    return OK


@click.command
@json_option
def runtimes(json_: bool) -> int:
    """Make the images that programs run on, unless they are there, and print their names. It asks the engine itself."""
    from dockscale.server import CannotStart, make_runtimes  # noqa: PLC0415  # as in `serve`

    made: list[str] = []

    async def make() -> None:
        async for name in make_runtimes(chosen()):
            made.append(name)
            if not json_:
                say_now(name)

    try:
        asyncio.run(make())
    except CannotStart as error:
        raise Failed(str(error)) from None
    if json_:
        as_json(made)
    return OK
