"""Minimum instances by the time of day: cron entries, each with a time zone and the minimum that it begins."""

import difflib
import zoneinfo
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache
from typing import Annotated, Self

from cronsim import CronSim, CronSimError
from pydantic import PlainSerializer, PlainValidator

EXAMPLE = "0 8 * * mon-fri Europe/Berlin = 3"
MOST_INSTANCES = 1000
FORGOTTEN_AFTER = timedelta(days=366)
# From here, 50 years (as far as cronsim looks) hold every pairing of dates and weekdays. Any such day would do.
_SOME_DAY = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: from each time that `cron` names in `zone`, at least `minimum` instances."""

    text: str
    cron: str
    zone: tzinfo
    minimum: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `<five cron fields> [IANA time zone] = <minimum instances>`.

        Raises:
            ValueError: with what is wrong.
        """
        when, equals, minimum = text.rpartition("=")
        if not equals:
            raise ValueError("has no = before the minimum")
        words = when.split()
        if len(words) not in (5, 6):
            raise ValueError("needs five cron fields, and may name a time zone after them")
        cron = " ".join(words[:5])
        _check(cron)
        return cls(text, cron, _zone(words[5]) if words[5:] else UTC, _instances(minimum.strip()))

    def last(self, at: datetime) -> datetime | None:
        """The latest firing at or before `at`, in UTC; None if it is forgotten."""
        local = at.astimezone(self.zone)
        # In an hour that comes twice, what fired in the first of the two may be ahead on the clock of the second.
        repeated = (local.replace(fold=0).utcoffset() or timedelta()) - (local.utcoffset() or timedelta())
        just_after = local + repeated + timedelta(microseconds=1)
        fired = (time.astimezone(UTC) for time in CronSim(self.cron, just_after, reverse=True))
        latest = next((time for time in fired if time <= at), None)
        return latest if latest is not None and at - latest <= FORGOTTEN_AFTER else None

    def next(self, at: datetime) -> datetime:
        """The first firing after `at`, in UTC."""
        fires = (time.astimezone(UTC) for time in CronSim(self.cron, at.astimezone(self.zone)))
        return next(time for time in fires if time > at)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Entries separated by `;`. Two schedules are equal if their texts are.

    When clocks change, it is as in Debian's cron: a time of day that is skipped fires at the end of the gap, one that
    comes twice fires the first time. An entry whose minute or hour begins with `*` fires whenever the clock fits.
    """

    text: str
    entries: tuple[Entry, ...] = field(compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read entries such as `0 8 * * mon-fri Europe/Berlin = 3; 0 20 * * * Europe/Berlin = 0`.

        Raises:
            ValueError: with the entry, what is wrong with it, and an example.
        """
        entries = []
        for each in filter(None, map(str.strip, text.split(";"))):
            try:
                entries.append(Entry.parse(each))
            except ValueError as error:
                raise ValueError(f"entry {each!r} {error}; write, for example, {EXAMPLE}") from None
        if not entries:
            raise ValueError(f"has no entry; write, for example, {EXAMPLE}")
        return cls(text, tuple(entries))

    def minimum(self, at: datetime) -> int | None:
        """Minimum of the entry that fired last, at or before `at` (aware); of several at once, the later in the text.

        None if no entry has fired for 366 days.
        """
        fired = [(time, n, entry.minimum) for n, entry in enumerate(self.entries) if (time := entry.last(at))]
        return max(fired)[2] if fired else None

    def next_change(self, at: datetime) -> datetime:
        """The first firing of any entry after `at` (aware), in UTC."""
        return min(entry.next(at) for entry in self.entries)

    def __str__(self) -> str:
        return self.text


def _read(value: object) -> Schedule:
    if isinstance(value, Schedule):
        return value
    if isinstance(value, str):
        return Schedule.parse(value)
    raise ValueError(f"is no schedule; write, for example, {EXAMPLE}")


ScheduleField = Annotated[Schedule, PlainValidator(_read), PlainSerializer(str)]
"""A schedule in a pydantic model: read from its text, and dumped as it."""


def _check(cron: str) -> None:
    try:
        never = next(CronSim(cron, _SOME_DAY), None) is None
    except (CronSimError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise ValueError(f"is not valid cron ({str(error).splitlines()[0].lower()})") from None
    if never:
        raise ValueError("never fires: no date fits it")


def _zone(name: str) -> tzinfo:
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):  # OSError: a folder, such as Europe
        near = difflib.get_close_matches(name.lower(), _zones(), n=1)
        told = f" (did you mean {_zones()[near[0]]}?)" if near else ""
        raise ValueError(f"names {name}, which is no time zone{told}") from None


@cache
def _zones() -> dict[str, str]:
    """All time zones, by their names in lower case. Looking for them takes milliseconds."""
    return {zone.lower(): zone for zone in zoneinfo.available_timezones()}


def _instances(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) <= MOST_INSTANCES):
        raise ValueError(f"must end with a number of instances from 0 to {MOST_INSTANCES}")
    return int(text)
