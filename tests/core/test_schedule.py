"""The minimum at a time of day, checked against a scan of every minute where clocks and calendars are odd."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from dockscale.core.schedule import EXAMPLE, Schedule, ScheduleField

BERLIN = ZoneInfo("Europe/Berlin")
MINUTE = timedelta(minutes=1)
OFFICE = Schedule.parse("0 8 * * mon-fri Europe/Berlin = 3; 0 20 * * * Europe/Berlin = 0")


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=BERLIN)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "minimum"),
    [
        ("2026-06-01 07:59:59.999999", 0),
        ("2026-06-01 08:00", 3),
        ("2026-06-01 08:00:00.5", 3),
        ("2026-06-01 19:59:59.999999", 3),
        ("2026-06-01 20:00", 0),
        ("2026-06-06 12:00", 0),
        ("2026-12-01 08:00", 3),
    ],
    ids=["before", "at the minute", "within its second", "just before the end", "end", "Saturday", "winter"],
)
def test_the_entry_that_fired_last_says_the_minimum(at: str, minimum: int) -> None:
    assert OFFICE.minimum(berlin(at)) == minimum


def test_the_zone_in_which_the_time_is_told_does_not_matter() -> None:
    assert OFFICE.minimum(utc("2026-06-01 05:59:59")) == 0
    assert OFFICE.minimum(utc("2026-06-01 06:00")) == 3


def test_an_entry_without_a_zone_is_in_utc() -> None:
    assert Schedule.parse("0 8 * * * = 2").next_change(utc("2026-06-01 00:00")) == utc("2026-06-01 08:00")


def test_of_entries_that_fire_together_the_later_in_the_text_wins() -> None:
    noon = utc("2026-06-01 12:00")

    assert Schedule.parse("0 12 * * * = 5; 0 12 * * * = 2").minimum(noon) == 2
    assert Schedule.parse("0 14 * * * Europe/Berlin = 2; 0 12 * * * = 5").minimum(noon) == 5


@pytest.mark.parametrize(
    ("at", "minimum"),
    [("2028-02-29 00:00", 4), ("2029-03-01 00:00", 4), ("2029-03-01 00:01", None), ("2028-02-28 23:59", None)],
)
def test_what_fired_more_than_366_days_ago_is_forgotten(at: str, minimum: int | None) -> None:
    assert Schedule.parse("0 0 29 2 * = 4").minimum(utc(at)) == minimum


def test_the_next_change_is_after_the_time_and_never_at_it() -> None:
    assert OFFICE.next_change(berlin("2026-06-05 07:59:59.999999")) == berlin("2026-06-05 08:00")
    assert OFFICE.next_change(berlin("2026-06-05 08:00")) == berlin("2026-06-05 20:00")
    assert OFFICE.next_change(berlin("2026-06-07 20:00")) == berlin("2026-06-08 08:00")


def test_a_time_that_clocks_skip_comes_at_the_end_of_the_gap() -> None:
    schedule = Schedule.parse("30 2 * * * Europe/Berlin = 1; 0 1 * * * Europe/Berlin = 0")

    assert schedule.next_change(berlin("2026-03-29 01:00")) == utc("2026-03-29 01:00")
    assert [schedule.minimum(utc(f"2026-03-29 {time}")) for time in ("00:59", "01:00", "01:10")] == [0, 1, 1]


def test_a_time_that_comes_twice_counts_the_first_time() -> None:
    schedule = Schedule.parse("30 2 * * * Europe/Berlin = 1; 45 2 * * * Europe/Berlin = 0")

    second_two_oclock = utc("2026-10-25 01:00")
    assert schedule.next_change(utc("2026-10-25 00:00")) == utc("2026-10-25 00:30")
    assert schedule.minimum(second_two_oclock) == 0
    assert schedule.next_change(second_two_oclock) == utc("2026-10-26 01:30")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("0 25 * * * = 1", "entry '0 25 * * * = 1' is not valid cron (bad hour)"),
        ("0 0 30 2 * = 1", "entry '0 0 30 2 * = 1' is not valid cron (bad day-of-month)"),
        ("0 0 */15 2 mon#4 = 1", "entry '0 0 */15 2 mon#4 = 1' never fires: no date fits it"),
        ("0 8 * * * 3", "entry '0 8 * * * 3' has no = before the minimum"),
        ("0 8 * * * =", "entry '0 8 * * * =' must end with a number of instances from 0 to 1000"),
        ("0 8 * * * = 1001", "entry '0 8 * * * = 1001' must end with a number of instances from 0 to 1000"),
        ("0 8 * * * = -1", "entry '0 8 * * * = -1' must end with a number of instances from 0 to 1000"),
        ("0 8 * * * = 2.5", "entry '0 8 * * * = 2.5' must end with a number of instances from 0 to 1000"),
        ("0 8 * * = 1", "entry '0 8 * * = 1' needs five cron fields, and may name a time zone after them"),
        (
            "0 8 * * * Europe/Berlin now = 1",
            "entry '0 8 * * * Europe/Berlin now = 1' needs five cron fields, and may name a time zone after them",
        ),
        (
            "0 8 * * * = 1; 9 * * * * asia/tokio = 1",
            "entry '9 * * * * asia/tokio = 1' names asia/tokio, which is no time zone (did you mean Asia/Tokyo?)",
        ),
        ("0 8 * * * ../zone = 1", "entry '0 8 * * * ../zone = 1' names ../zone, which is no time zone"),
        ("", "has no entry"),
        (" ; ", "has no entry"),
    ],
)
def test_what_cannot_be_read_is_told_with_the_entry_and_an_example(text: str, told: str) -> None:
    with pytest.raises(ValueError, match="write") as caught:
        Schedule.parse(text)

    assert str(caught.value) == f"{told}; write, for example, {EXAMPLE}"


def test_the_example_that_errors_give_can_be_read() -> None:
    assert Schedule.parse(EXAMPLE).entries[0].minimum == 3


def test_a_folder_of_zones_is_no_zone() -> None:
    with pytest.raises(ValueError, match="names Europe, which is no time zone"):
        Schedule.parse("0 8 * * * Europe = 1")


def test_a_schedule_is_its_text() -> None:
    text = " 0 8 * * * = 3 ;0 20 * * * = 0; "

    assert str(Schedule.parse(text)) == text
    assert {Schedule.parse(text), Schedule.parse(text)} == {Schedule.parse(text)}
    assert Schedule.parse(text) != Schedule.parse(text.strip())


def test_in_a_model_it_is_read_from_text_and_dumped_as_it() -> None:
    class Model(BaseModel):
        schedule: ScheduleField | None = None

    text = "0 8 * * * = 3"
    model = Model.model_validate({"schedule": text})
    assert model.schedule == Schedule.parse(text)
    assert Model(schedule=model.schedule) == model == Model.model_validate_json(model.model_dump_json())
    assert model.model_dump(mode="json") == {"schedule": text}
    with pytest.raises(ValidationError, match="is no schedule; write"):
        Model.model_validate({"schedule": 3})


@given(
    text=st.one_of(
        st.text(max_size=30),
        st.lists(st.sampled_from([*"0259*/-,#=;L ", "mon", "W", "UTC", "Europe/", "\0", "²", "9" * 5000])).map("".join),
        st.from_regex(r"\A([0-9*/,L#-]{1,6} ){5}= 1\Z"),
    )
)
def test_whatever_the_text_it_is_a_schedule_or_a_value_error(text: str) -> None:
    noon = utc("2026-06-01 12:00")
    told = ""
    try:
        schedule = Schedule.parse(text)
        assert schedule.minimum(noon) in {None, *(entry.minimum for entry in schedule.entries)}
        assert schedule.next_change(noon) > noon
    except ValueError as error:
        told = str(error)

    assert told == "" or told.endswith(EXAMPLE)


@dataclass(frozen=True)
class Field:
    """One cron field and the numbers that it stands for."""

    text: str
    numbers: frozenset[int]


@dataclass(frozen=True)
class Line:
    """One entry, understood without any library: cron as Debian's manual describes it."""

    minute: Field
    hour: Field
    day: Field
    month: Field
    weekday: Field
    zone: str
    minimum: int

    def __str__(self) -> str:
        fields = (self.minute, self.hour, self.day, self.month, self.weekday)
        return f"{' '.join(field.text for field in fields)} {self.zone} = {self.minimum}"

    def fits(self, wall: datetime) -> bool:
        if wall.minute not in self.minute.numbers or wall.hour not in self.hour.numbers:
            return False
        day, weekday = wall.day in self.day.numbers, wall.isoweekday() % 7 in self.weekday.numbers
        both = self.day.text.startswith("*") or self.weekday.text.startswith("*")
        return wall.month in self.month.numbers and (day and weekday if both else day or weekday)

    def fires(self, at: datetime) -> bool:
        """Tell whether it fires at this minute."""
        wall = at.astimezone(ZoneInfo(self.zone))
        if self.minute.text.startswith("*") or self.hour.text.startswith("*"):
            return self.fits(wall)
        if wall.fold:
            return False
        naive = wall.replace(tzinfo=None)
        skipped = naive - (at - MINUTE).astimezone(wall.tzinfo).replace(tzinfo=None) - MINUTE
        return any(self.fits(naive - n * MINUTE) for n in range(max(skipped // MINUTE, 0) + 1))


def some(low: int, high: int) -> st.SearchStrategy[Field]:
    """A field that lists numbers from `low` to `high`, or spans some of them."""
    number = st.integers(low, high)
    listed = st.frozensets(number, min_size=1, max_size=3).map(lambda few: Field(",".join(map(str, sorted(few))), few))
    spans = st.tuples(number, number).map(sorted)
    return listed | spans.map(lambda ends: Field(f"{ends[0]}-{ends[1]}", _numbers(*ends)))


def every(low: int, high: int) -> st.SearchStrategy[Field]:
    return st.just(Field("*", _numbers(low, high)))


def steps(low: int, high: int) -> st.SearchStrategy[Field]:
    return st.integers(2, 20).map(lambda n: Field(f"*/{n}", frozenset(range(low, high + 1, n))))


def _numbers(low: int, high: int) -> frozenset[int]:
    return frozenset(range(low, high + 1))


LINES = st.builds(
    Line,
    minute=some(0, 59) | steps(0, 59),
    hour=some(1, 3) | some(0, 23) | steps(0, 23) | every(0, 23),
    day=every(1, 31) | every(1, 31) | some(1, 31) | steps(1, 31),
    month=every(1, 12) | every(1, 12) | some(1, 12),
    weekday=every(0, 6) | every(0, 6) | some(0, 6),
    zone=st.sampled_from(["Europe/Berlin", "Europe/Berlin", "UTC", "America/New_York", "Asia/Kolkata"]),
    minimum=st.integers(0, 1000),
)
ODD_DAYS = ["2026-03-29", "2026-10-25", "2026-04-30", "2026-12-31", "2027-02-28", "2028-02-29", "2026-11-01"]
"""Berlin's clocks go forward, go back; a month's end, a year's, February's two; New York's clocks go back."""


def readable(lines: list[Line]) -> bool:
    try:
        Schedule.parse(";".join(map(str, lines)))
    except ValueError:
        return False
    return True


def scan(lines: list[Line], start: datetime, end: datetime) -> Iterator[tuple[datetime, int]]:
    """Each firing from `start` to `end`, minute by minute: when, and the minimum from then on."""
    for n in range((end - start) // MINUTE + 1):
        at = start + n * MINUTE
        fired = [line.minimum for line in lines if line.fires(at)]
        if fired:
            yield at, fired[-1]


@given(
    lines=st.lists(LINES, min_size=1, max_size=3).filter(readable),
    day=st.sampled_from(ODD_DAYS),
    offsets=st.lists(st.integers(0, 24 * 3600), min_size=1, max_size=8),
)
def test_it_says_what_a_scan_of_every_minute_says(lines: list[Line], day: str, offsets: list[int]) -> None:
    schedule = Schedule.parse("; ".join(map(str, lines)))
    noon = utc(f"{day} 12:00")
    end = noon + timedelta(days=1)
    firings = list(scan(lines, noon - timedelta(days=2), end))

    for at in (noon - timedelta(hours=18) + timedelta(seconds=offset) for offset in offsets):
        before = [minimum for when, minimum in firings if when <= at]
        after = [when for when, _ in firings if when > at]
        if before:
            assert schedule.minimum(at) == before[-1]
        if after:
            assert schedule.next_change(at) == after[0]
        else:
            assert schedule.next_change(at) > end
