"""Runs the program of an app: /app/main.py, as /app/app.json says.

/app/app.json: {"type": "python", "web-python", "asgi" or "functions", "env": {name: value}}
"""

# ruff: noqa: E402  # what happens before modules are loaded is what makes it boot fast
import gc
import os
import signal
import sys

# First of all: a process with number 1 ignores SIGTERM unless it says otherwise.
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
gc.disable()  # a third of the time in which modules are loaded goes into it
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from dockscale_runtime.app import run

sys.path[0] = "/app"
gc.freeze()  # what is loaded by now stays for good: no need to look at it again
gc.set_threshold(20_000, 20, 20)  # seldom, because the program will load modules now
gc.enable()
run()
