"""How log lines look. Set up in a process of its own, because it is set up once for a whole process."""

import json
import subprocess
import sys
from typing import Any

LINES = """
import logging, structlog
from dockscale import logs
logs.set_up({form!r}, {level!r})
log = structlog.get_logger()
log.debug("looked")
log.info("instance_ready", app="web", after_s=1.5)
logging.getLogger("library").warning("odd %s", "thing")
logging.getLogger("library").info("chatter")
try:
    raise ValueError("broken")
except ValueError:
    log.exception("request_failed", app="web")
"""


def written(form: str, level: str = "info") -> str:
    code = LINES.format(form=form, level=level)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "", "stdout is for answers"
    return done.stderr


def events(text: str) -> dict[str, dict[str, Any]]:
    return {line["event"]: line for line in map(json.loads, text.splitlines())}


def test_each_json_line_is_one_event_with_its_values() -> None:
    lines = events(written("json"))

    assert list(lines) == ["instance_ready", "odd thing", "request_failed"]
    ready = lines["instance_ready"]
    assert ready.pop("timestamp").endswith("Z")
    assert ready == {"event": "instance_ready", "level": "info", "app": "web", "after_s": 1.5}


def test_an_exception_stays_within_its_json_line() -> None:
    failed = events(written("json"))["request_failed"]

    assert failed["exception"][0]["exc_type"] == "ValueError"
    assert failed["exception"][0]["exc_value"] == "broken"


def test_libraries_write_in_the_same_form() -> None:
    line = events(written("json"))["odd thing"]

    assert line["level"] == "warning"
    assert "timestamp" in line


def test_the_console_form_is_for_people_and_uncoloured_in_a_file() -> None:
    text = written("console")

    assert "instance_ready" in text
    assert "after_s=1.5" in text
    assert "ValueError: broken" in text
    assert "\x1b[" not in text


def test_away_from_a_terminal_auto_means_json() -> None:
    assert list(events(written("auto"))) == ["instance_ready", "odd thing", "request_failed"]


def test_the_level_is_the_least_that_is_written() -> None:
    assert "looked" in events(written("json", "debug"))
    assert "instance_ready" not in events(written("json", "error"))
