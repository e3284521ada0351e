"""The command line: the list of its verbs, and what becomes of errors. Each verb is imported only when it is used."""

import difflib
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from dockscale.cli.show import note

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class Verb(NamedTuple):
    module: str
    """Of this package: what has a function of the verb's name."""
    help: str


VERBS = {
    "serve": Verb("serve", "run the proxy and the scaler (`serve --help`: every setting)"),
    "ps": Verb("look", "list apps with their instances and load"),
    "apps": Verb("look", "list apps with what they are made of and where they answer"),
    "top": Verb("top", "show load, instances and decisions as they change, until q"),
    "explain": Verb("look", "say why an app has the instances it has"),
    "logs": Verb("logs", "print what an app's instances wrote, and follow it"),
    "report": Verb("look", "say what scaling has saved since dockscale started"),
    "wake": Verb("act", "start an app and wait until it is ready"),
    "sleep": Verb("act", "let an app's instances finish what they have and go"),
    "scale": Verb("act", "have so many instances until load decides otherwise"),
    "drain": Verb("act", "let one instance finish what it has and go"),
    "restart": Verb("act", "replace an app's instances without losing a request"),
    "install": Verb("install", "make an app of a program's source, or of an image"),
    "uninstall": Verb("install", "remove an installed app, once its instances have finished"),
    "runtimes": Verb("serve", "make the images that programs run on, unless they are there"),
    "labels": Verb("host", "list every label with its default"),
    "settings": Verb("host", "list every setting of the process"),
    "token": Verb("host", "print a token for a client, signed with the secret of this host"),
    "doctor": Verb("host", "check engine, ports and labels, and say what to do"),
}


class Failed(Exception):
    """A verb did not do what was asked. The message is one for whoever asked, and says what to do."""

    code = FAILED


class Misused(Failed):
    """What was asked cannot be."""

    code = USAGE


class _Verbs(click.Group):
    """Knows its commands by name, and imports one when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*VERBS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        command: click.Command = getattr(import_module(f"dockscale.cli.{VERBS[cmd_name].module}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in VERBS and not (args[0].startswith("-") or ctx.resilient_parsing):
            near = difflib.get_close_matches(args[0], VERBS, n=1)
            ctx.fail(f"no verb is called {args[0]!r}" + (f"; did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        named = [CompletionItem(name, help=VERBS[name].help) for name in VERBS if name.startswith(incomplete)]
        return named or super().shell_complete(ctx, incomplete)

    def invoke(self, ctx: click.Context) -> Any:
        """Run one verb and return the exit code, also if it failed: click would tell it in other words."""
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except Failed as error:
            return _complain(str(error), error.code)
        except KeyboardInterrupt:
            return _complain("interrupted; what the server was asked to do goes on", INTERRUPTED)
        except BrokenPipeError as error:
            return _cannot_go_on(error)
        return code


def _complain(message: str, code: int) -> int:
    note(message)
    return code


def _cannot_go_on(error: OSError) -> int:
    """Tell what a file did not let a verb do, unless whoever read has seen enough."""
    # Python flushes once more at its end, which must not fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OK if isinstance(error, BrokenPipeError) else _complain(str(error), FAILED)


def _open_what_is_closed() -> None:
    """Have files to read from and to print to. Characters that the encoding of those has not are spelt out."""
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115  # it is open as long as the process, as are these
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):  # not in a test that took its place
        sys.stdout.reconfigure(errors="backslashreplace")


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from dockscale import __version__  # noqa: PLC0415  # finding out takes a while

        click.echo(f"dockscale {__version__}")
        ctx.exit()


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="print the version")
def verbs() -> None:
    """Autoscaler and load balancer for labelled containers."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit code: 0 fine, 1 not, 2 wrong usage, 130 Ctrl-C."""
    _open_what_is_closed()
    try:
        code = verbs.main(args=argv, prog_name="dockscale", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:  # Ctrl-C while arguments were read: nothing was asked yet
        return INTERRUPTED
    except OSError as error:
        return _cannot_go_on(error)
    return code if isinstance(code, int) else OK
