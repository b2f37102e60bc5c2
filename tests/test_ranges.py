"""The grammar of `--from` and `--until`, and what its points mean on a log."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stocktrade.errors import UsageError
from stocktrade.ranges import END, GRAMMAR, START, Point, moment, offset_of_time, parse_point, resolve, rfc3339
from stocktrade.transport.base import NewRecord, TopicSpec
from stocktrade.transport.sqlite import SqliteLog

NOW = 1_795_405_500_000  # 2026-11-23 09:15:00 in India


@pytest.mark.parametrize(
    ("text", "point"),
    [
        ("start", START),
        ("end", END),
        ("0", Point("offset", 0)),
        ("17", Point("offset", 17)),
        ("+5", Point("after_start", 5)),
        ("-20", Point("before_end", 20)),
        ("@-10m", Point("time", NOW - 600_000)),
        ("@-90s", Point("time", NOW - 90_000)),
        ("@-2h", Point("time", NOW - 7_200_000)),
        ("@-1d", Point("time", NOW - 86_400_000)),
        ("@-999999999d", Point("time", 0)),
        ("@2026-11-23T09:15", Point("time", NOW)),
        ("@2026-11-23 09:15", Point("time", NOW)),
        ("@2026-11-23T09:15:00.250", Point("time", NOW + 250)),
        ("@2026-11-23T09:15+05:30", Point("time", NOW)),
        ("@2026-11-23T03:45Z", Point("time", NOW)),
        ("@2026-11-23T03:45:00+00:00", Point("time", NOW)),
        ("@2026-11-23", Point("time", NOW - (9 * 60 + 15) * 60_000)),
    ],
)
def test_the_grammar(text: str, point: Point) -> None:
    """Every form of the grammar; a time without a zone is Indian time, wherever the machine stands."""
    assert parse_point(text, now_ms=NOW) == point


@pytest.mark.parametrize(
    "text",
    [
        "",
        "START",
        "begin",
        "1.5",
        "--5",
        "+-5",
        " 5",
        "5 ",
        "5\n",
        "\N{ARABIC-INDIC DIGIT FIVE}",
        "1" * 19,
        "@",
        "@10m",
        "@-m",
        "@-10",
        "@-10w",
        "@+5m",
        "@-1.5h",
        "@2026-13-01",
        "@2026-02-30",
        "@2026-11-23T25:00",
        "@2026-11-23T09:15\n",
        "@2026-11-23\x1b09:15",
        "2026-11-23",
        "\x1b[2J",
    ],
)
def test_anything_else_names_the_grammar(text: str) -> None:
    """A wrong point is refused with the whole grammar, and without what would steer a terminal."""
    with pytest.raises(UsageError) as caught:
        parse_point(text, now_ms=NOW)
    assert GRAMMAR in caught.value.hint
    assert caught.value.what.isprintable()


@given(st.text(max_size=30) | st.from_regex(r"@[-0-9T:Z+. ]{0,25}|[-+]?\d{1,30}"))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Whatever is typed is a point or a `UsageError`."""
    try:
        point = parse_point(text, now_ms=NOW)
    except UsageError:
        return
    assert point.kind in ("offset", "after_start", "before_end", "time")


@pytest.mark.parametrize(
    ("point", "offset"),
    [
        (START, 3),
        (END, 10),
        (Point("offset", 0), 3),
        (Point("offset", 5), 5),
        (Point("offset", 99), 10),
        (Point("after_start", 2), 5),
        (Point("after_start", 99), 10),
        (Point("before_end", 4), 6),
        (Point("before_end", 99), 3),
        (Point("time", 77), 8),
    ],
)
def test_a_point_is_an_offset_within_its_partition(point: Point, offset: int) -> None:
    """Numbers count from where they say and stop at both ends; times ask the log."""
    assert resolve(point, start=3, end=10, offset_at=lambda time_ms: 8 if time_ms == 77 else -1) == offset


def test_offset_of_time(tmp_path: Path) -> None:
    """The first record that is not older, for every time around every record of a real log."""
    times = [10, 20, 20, 20, 35, 40]
    with SqliteLog(tmp_path / "log") as log:
        log.ensure_topics([TopicSpec("t")])
        log.append([NewRecord("t", None, b"", 0, time_ms) for time_ms in times])
        for wanted in range(5, 45):
            expected = next((i for i, time_ms in enumerate(times) if time_ms >= wanted), len(times))
            assert offset_of_time(log, "t", 0, wanted, end=len(times)) == expected
        assert offset_of_time(log, "t", 0, 99, end=4) == 4
        assert offset_of_time(log, "t", 0, 0, end=0) == 0


def test_times_as_text() -> None:
    """RFC 3339 in UTC with milliseconds; a stamp that is no date is none, never an error."""
    assert rfc3339(NOW + 7) == "2026-11-23T03:45:00.007Z"
    assert rfc3339(-1) == "1969-12-31T23:59:59.999Z"
    assert moment(NOW) == datetime(2026, 11, 23, 3, 45, tzinfo=UTC)
    assert rfc3339(2**63 - 1) is None
    assert rfc3339(-(2**63)) is None
