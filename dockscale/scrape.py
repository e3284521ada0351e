"""A gauge of an app's own, read from its instances in Prometheus' text format."""

import asyncio
import difflib
import math
import re
from collections.abc import Mapping
from itertools import islice

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

ANSWER_S = 2.0
MOST_BYTES = 2**20
# The parser takes a time that grows with the square of a line's length.
LONGEST_LINE = 2**14
NAMES_COMPARED = 1000
AT_ONCE = 16

_HEADERS = {"Accept": "text/plain; version=0.0.4, */*; q=0.1", "Accept-Encoding": "identity"}
_SAMPLE = re.compile(
    r"(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*(?=[ \t{])|(?=\{))"  # without a name here, it is the first of the labels
    r"(?:[ \t]*\{.*\})?[ \t]*(?i:[-+]?[.\d]|[-+]?inf|nan)"
)
"""How a sample begins. Only of the lines asked for, the parser reads the rest: it takes half a second for a MiB."""


class NoGauge(Exception):
    """The gauge could not be read. The message tells what was asked, and what came."""


async def gauge(session: aiohttp.ClientSession, host: str, port: int, path: str, name: str) -> float:
    """Sum of all samples called `name` that one instance gives at `path`.

    Raises:
        NoGauge: it did not answer within `ANSWER_S`, or not with such a metric.
    """
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return _sum(await _page(session, f"http://{address}{path}"), name)
    except NoGauge as error:
        raise NoGauge(f"GET {path} of {address}: {error}") from None


async def gauges(
    session: aiohttp.ClientSession, addresses: Mapping[str, tuple[str, int]], path: str, name: str
) -> tuple[dict[str, float], dict[str, str]]:
    """Ask all instances, `AT_ONCE` at a time. All by instance: host and port; the values; why others have none."""
    values: dict[str, float] = {}
    reasons: dict[str, str] = {}
    turns = asyncio.Semaphore(AT_ONCE)

    async def ask(instance: str, host: str, port: int) -> None:
        async with turns:
            try:
                values[instance] = await gauge(session, host, port, path, name)
            except NoGauge as error:
                reasons[instance] = str(error)

    async with asyncio.TaskGroup() as tasks:
        for instance, (host, port) in addresses.items():
            tasks.create_task(ask(instance, host, port))
    return values, reasons


async def _page(session: aiohttp.ClientSession, url: str) -> str:
    timeout = aiohttp.ClientTimeout(total=ANSWER_S)
    page = bytearray()
    try:
        async with session.get(url, headers=_HEADERS, timeout=timeout, allow_redirects=False) as answer:
            if answer.status != 200:
                raise NoGauge(f"the answer has status {answer.status}")
            async for part in answer.content.iter_any():
                page += part
                if len(page) > MOST_BYTES:
                    raise NoGauge(f"the answer is larger than {MOST_BYTES // 2**20} MiB")
    except TimeoutError:
        raise NoGauge(f"no answer within {ANSWER_S:g} s") from None
    except (aiohttp.ClientError, OSError) as error:
        raise NoGauge(f"no answer ({str(error) or type(error).__name__})") from None
    return page.decode(errors="replace")


def _sum(page: str, name: str) -> float:
    values: list[float] = []
    names: dict[str, None] = {}
    for number, line in enumerate(map(str.strip, page.split("\n")), 1):
        if not line or line.startswith("#"):
            continue
        sample = _SAMPLE.match(line)
        if sample is None:
            raise NoGauge(f"line {number} is not Prometheus' text format: {line[:40]!r}")
        names[sample["name"]] = None
        if sample["name"] == name:
            values.append(_value(line, number))
    if not values:
        near = difflib.get_close_matches(name, islice(names, NAMES_COMPARED), n=1)
        raise NoGauge(f"the answer has no {name}" + (f"; did you mean {near[0]}?" if near else ""))
    total = sum(values)
    if not math.isfinite(total):
        raise NoGauge(f"{name} is {total}, which is no number to scale by")
    return total


def _value(line: str, number: int) -> float:
    if len(line) > LONGEST_LINE:
        raise NoGauge(f"line {number} is longer than {LONGEST_LINE} characters")
    try:
        return float(next(iter(text_string_to_metric_families(line))).samples[0].value)
    except (ValueError, OverflowError):
        raise NoGauge(f"line {number} is not Prometheus' text format: {line[:40]!r}") from None
