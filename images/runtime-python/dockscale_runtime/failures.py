"""What goes wrong in a program, told in its own lines: dockscale shows the last ones to whoever installs it."""

import os
import sys
import traceback

FOLDER = "/app/"


def fail(error):
    """Tell of an error, or what is wrong in words, as the last lines, and end the process."""
    if isinstance(error, str):
        print(error, file=sys.stderr)
    else:
        show(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


def show(error):
    """Print an error with those of its lines that are the program's own."""
    if isinstance(error, ModuleNotFoundError):
        error.add_note("Is it in a package? Add that to `requirements`.")
    told = traceback.TracebackException.from_exception(error)
    _keep_own(told)
    print("".join(told.format()), end="", file=sys.stderr, flush=True)


def is_own(error):
    """Tell whether an error came up in the program's own files."""
    return any(_own(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(error.__traceback__))


def _own(file):
    return file.startswith(FOLDER)


def _keep_own(told):
    frames = [frame for frame in told.stack or () if _own(frame.filename)]
    told.stack = traceback.StackSummary.from_list(frames) if frames else None
    for other in (told.__cause__, told.__context__, *(told.exceptions or ())):
        if other is not None:
            _keep_own(other)
