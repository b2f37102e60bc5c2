"""`watch` shows every record of its range once, wherever its output goes, and nothing that steers a screen."""

import base64
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stocktrade import records, screen, window
from stocktrade.domain.facts import Match
from stocktrade.domain.values import Paise
from stocktrade.errors import ExitCode, Unavailable, UsageError
from stocktrade.flow import WATCHED, Flow
from stocktrade.keys import Keys
from stocktrade.roles import watch
from stocktrade.transport import topics
from stocktrade.transport.base import Log, NewRecord, Reader, Record, TopicPartition
from stocktrade.transport.codec import encode_facts
from stocktrade.transport.sqlite import SqliteLog
from typist import Typist

T0 = 1_795_405_500_000  # 2026-11-23 09:15:00 in India
SECOND = 1_000


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteLog]:
    with SqliteLog(tmp_path / "log") as opened:
        opened.ensure_topics(topics.SPECS)
        yield opened


def a_trade(seq: int, *, symbol: str = "SBIN", buyer: str = "HDFC") -> Match:
    sent = "SBI" if symbol == "SBIN" else symbol
    return Match(seq, 1, symbol, 100, Paise(88_500), "BUY", f"B{seq}", buyer, sent, f"S{seq}", "SELLER", sent)


def settled(match: Match, shard: int = 0) -> list[NewRecord]:
    """The trade and its four legs; its time is its sequence in seconds."""
    return encode_facts([match], shard, "buy-orders@0:0", T0 + match.seq * SECOND)


def filled(log: Log, count: int, **changes: Any) -> None:
    log.append([record for seq in range(1, count + 1) for record in settled(a_trade(seq, **changes))])


def a_console(out: io.StringIO, *, width: int = 100) -> Console:
    return Console(file=out, width=width, height=30, force_terminal=True, color_system="truecolor", _environ={})


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for here: what there is to see is on the log before it is polled."""
    monkeypatch.setattr(window, "POLL_S", 1 / 64)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Steps:
    """A `stop` that does the next thing each time it is asked, and says yes when nothing is left to do."""

    def __init__(self, *steps: Callable[[], object]) -> None:
        self.left = list(steps)

    def __call__(self) -> bool:
        if not self.left:
            return True
        self.left.pop(0)()
        return False


def nothing() -> None:
    """A step in which only records are read."""


def watched(log: Log, **options: Any) -> list[str]:
    """The lines that watching a log gives, to the end of what is there unless told otherwise."""
    out, err = io.StringIO(), io.StringIO()
    given: dict[str, Any] = {"stop": lambda: False, "now_ms": lambda: T0, "pause": lambda _: None} | options
    if "stop" not in options and "until" not in options:
        given["follow"] = False
    assert watch.run(log, console=Console(file=out), out=out, err=err, **given) == ExitCode.OK
    assert err.getvalue() == ""
    return out.getvalue().splitlines()


def trades_in(lines: Iterable[str]) -> list[int]:
    """The sequences of the trades in lines of trades."""
    return [int(line.split("\t")[1].split("-")[1]) for line in lines]


def records_in(lines: Iterable[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines]


# --- lines ----------------------------------------------------------------------------------------------------


def test_the_last_twenty_trades_then_what_comes(log: SqliteLog) -> None:
    """A pipe gets a line for each settled trade: the last 20, then each new one with the time that it took."""
    filled(log, 30)
    new = a_trade(31)

    def trade() -> None:
        log.append(settled(new))

    lines = watched(log, stop=Steps(nothing, trade, nothing), now_ms=lambda: T0 + 31 * SECOND + 18)
    assert trades_in(lines) == list(range(11, 32))
    assert lines[0].endswith("\t✓ settled")
    assert lines[-1].split("\t") == [
        "2026-11-23T09:15:31.000+05:30",
        "T0-31-1",
        "SBI",
        "100",
        "₹885.00",
        "₹88,500.00",
        "HDFC",
        "SELLER",
        "✓",
        "✓",
        "✓ settled 18 ms",
    ]


def test_a_trade_is_told_when_its_last_leg_has_come(log: SqliteLog) -> None:
    """Half a settlement gives no line, and a leg that comes again gives no second one."""
    first, *legs = settled(a_trade(1))
    out: list[int] = []
    steps = [nothing] + [lambda leg=leg: log.append([leg]) for leg in [*legs[:3], first, legs[3], *legs, first]]
    lines = watched(log, stop=Steps(*steps, lambda: out.append(1)))
    assert trades_in(lines) == [1]


def test_a_range_also_shows_what_is_not_settled_in_it(log: SqliteLog) -> None:
    """Who asks for a range must not believe that a trade with a missing leg is not there."""
    log.append([*settled(a_trade(1)), *settled(a_trade(2))[:2]])
    lines = watched(log)
    assert [line.split("\t")[-1] for line in lines] == ["✓ settled", "… pending"]


def test_an_empty_log_gives_nothing(log: SqliteLog) -> None:
    """No trade, no line; on a log without topics as well."""
    assert watched(log) == []
    assert watched(log, json_lines=True) == []


def test_a_folder_without_topics(tmp_path: Path) -> None:
    """`watch` may be the first command that a user tries."""
    with SqliteLog(tmp_path / "new") as new:
        assert watched(new) == []


# --- ranges ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[1, 4])
def thirty(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqliteLog]:
    """A log with thirty trades, one a second, on one shard or spread over four."""
    with SqliteLog(tmp_path_factory.mktemp("thirty"), partitions=request.param) as log:
        log.ensure_topics(topics.SPECS)
        log.append([record for seq in range(1, 31) for record in settled(a_trade(seq), seq % request.param)])
        yield log


@pytest.mark.parametrize(
    ("start", "until", "expected"),
    [
        (None, None, range(11, 31)),
        ("start", None, range(1, 31)),
        ("end", None, []),
        ("-3", None, range(28, 31)),
        ("-0", None, []),
        ("-99", None, range(1, 31)),
        ("+0", None, range(1, 31)),
        ("0", None, range(1, 31)),
        ("99", None, []),
        ("@2026-11-23T09:15:10", None, range(10, 31)),
        ("@2026-11-23T09:15:10", "@2026-11-23T09:15:20", range(10, 20)),
        ("start", "end", range(1, 31)),
        ("start", "0", []),
        ("start", "start", []),
        ("start", "99", range(1, 31)),
        ("@-10m", "@-25s", range(1, 5)),
    ],
)
def test_ranges(thirty: SqliteLog, start: str | None, until: str | None, expected: Sequence[int]) -> None:
    """A range holds the trades that it names with all their legs, on one shard as on four."""
    lines = watched(thirty, start=start, until=until, follow=False, now_ms=lambda: T0 + 30 * SECOND)
    assert sorted(trades_in(lines)) == list(expected)
    assert all(line.endswith("✓ settled") for line in lines)


@pytest.mark.parametrize(
    ("start", "until", "expected"),
    [
        ("12", None, range(13, 31)),
        ("+12", None, range(13, 31)),
        ("12", "14", range(13, 15)),
        ("+2", "+4", range(3, 5)),
        ("-4", "-1", range(27, 30)),
        ("start", "-28", range(1, 3)),
    ],
)
def test_numbers_count_trades(thirty: SqliteLog, start: str, until: str | None, expected: Sequence[int]) -> None:
    """N, +N and -N count trades; the legs of a trade come with it, of the others none, in JSON too."""
    if thirty.partitions() > 1:  # there they count in each shard, but for -N as a beginning
        start, until, expected = "-4", None, range(27, 31)
    assert trades_in(watched(thirty, start=start, until=until, follow=False)) == list(expected)
    records = records_in(watched(thirty, start=start, until=until, follow=False, json_lines=True))
    assert len(records) == 5 * len(expected)
    assert {record["value"]["seq"] for record in records} == set(expected)


def test_trades_of_one_order_are_cut_between(log: SqliteLog) -> None:
    """Where one order made many trades at one moment, a range may begin among them; none is left half."""
    matches = [a_trade(7)._replace(number=n) for n in range(1, 11)]
    log.append(encode_facts(matches, 0, "buy-orders@0:0", T0))
    lines = watched(log, start="-3")
    assert [line.split("\t")[1] for line in lines] == ["T0-7-8", "T0-7-9", "T0-7-10"]
    assert all(line.endswith("✓ settled") for line in lines)


def test_times_are_exact_after_a_clock_was_set_back(log: SqliteLog) -> None:
    """Where the times of a partition are not in order, a range of times holds no record of another time."""
    seconds = [1, 20, 5, 30, 25, 2, 40]
    log.append([NewRecord(topics.DEAD_LETTERS, None, b"", 0, T0 + s * SECOND) for s in seconds])
    lines = watched(
        log, start="@2026-11-23T09:15:15", until="@2026-11-23T09:15:35", only=["dead"], now_ms=lambda: T0 + 60 * SECOND
    )
    assert [line[17:19] for line in lines] == ["20", "30", "25"]


def test_until_a_time_that_lies_ahead(log: SqliteLog) -> None:
    """Watching goes on until the clock is there, and then ends with everything before that time."""
    clock = iter(range(100))
    seconds = {"now": 0}

    def now_ms() -> int:
        return T0 + seconds["now"] * SECOND

    def tick() -> None:
        seconds["now"] = next(clock)
        log.append(settled(a_trade(seconds["now"] + 1)))

    lines = watched(log, stop=Steps(*[tick] * 50), until="@2026-11-23T09:15:05", now_ms=now_ms)
    assert trades_in(lines) == [1, 2, 3, 4]
    assert seconds["now"] == 5


def test_a_glance_does_not_read_a_long_past(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """By default a log of many orders and few trades is not read from its beginning; `start` does read it."""
    monkeypatch.setattr(window, "GLANCE", 10)
    order = b'{"order_id":"1","buyer":"HDFC","stock_symbol":"SBI","quantity":1,"price_per_unit":1}'
    log.append([*settled(a_trade(1)), *[NewRecord(topics.BUY_ORDERS, b"SBIN", order, 0)] * 50])
    assert len(watched(log, json_lines=True)) == 15
    assert len(watched(log, json_lines=True, start="start")) == 55


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"start": "yesterday"}, "start | end | N | +N | -N"),
        ({"until": "@tomorrow"}, "start | end | N | +N | -N"),
        ({"symbols": ["S B I"]}, "a symbol is"),
        ({"only": ["cash"]}, "orders, trades, shares, funds, events, dead"),
        ({"only": ["\x1b[2J"]}, "orders, trades, shares, funds, events, dead"),
    ],
)
def test_what_is_not_understood_is_refused(log: SqliteLog, options: Mapping[str, Any], says: str) -> None:
    """A wrong range, symbol or kind is a usage error that says what there is."""
    with pytest.raises(UsageError) as caught:
        watched(log, **options)
    assert says in caught.value.hint
    assert caught.value.what.isprintable()


# --- choosing -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "seqs"),
    [
        ({"symbols": ["SBI"]}, [1, 3]),
        ({"symbols": ["NSE:sbin"]}, [1, 3]),
        ({"symbols": ["TCS", "SBI"]}, [1, 2, 3]),
        ({"participant": "ICICI"}, [3]),
        ({"participant": "SELLER"}, [1, 2, 3]),
        ({"participant": "ICICI", "symbols": ["TCS"]}, []),
    ],
)
def test_symbols_and_participants(log: SqliteLog, options: Mapping[str, Any], seqs: Sequence[int]) -> None:
    """Of lines and of JSON the same trades remain, each with its four legs, also legs that came before."""
    wanted = [a_trade(1), a_trade(2, symbol="TCS"), a_trade(3, buyer="ICICI")]
    for match in wanted:
        trade, *legs = settled(match)
        log.append([*legs, trade])
    assert trades_in(watched(log, **options)) == list(seqs)
    records = records_in(watched(log, json_lines=True, **options))
    assert sorted(record["value"]["seq"] for record in records) == sorted([*seqs] * 5)
    legs_only = records_in(watched(log, json_lines=True, only=["funds"], **options))
    assert [record["topic"] for record in legs_only] == [topics.CASH_MOVEMENTS] * 2 * len(seqs)


def test_orders_and_answers_are_chosen_by_what_they_say(log: SqliteLog) -> None:
    """An order is about its symbol and its sender; what cannot be read is about nobody."""
    order = b'{"order_id":"%d","buyer":"HDFC","stock_symbol":"SBI","quantity":1,"price_per_unit":1}'
    log.append(
        [
            NewRecord(topics.BUY_ORDERS, None, order % 1, 0),
            NewRecord(topics.BUY_ORDERS, None, order.replace(b"HDFC", b"ICICI") % 2, 0),
            NewRecord(topics.BUY_ORDERS, None, b"[1]", 0),
            NewRecord(topics.DEAD_LETTERS, None, b"{", 0),
            NewRecord(topics.DEAD_LETTERS, None, None, 0),
        ]
    )
    for options, expected in (
        ({"participant": "HDFC"}, ["1"]),
        ({"symbols": ["SBIN"]}, ["1", "2"]),
        ({"symbols": ["TCS"]}, []),
    ):
        records = records_in(watched(log, json_lines=True, **options))
        assert [record["value"]["order_id"] for record in records] == expected
    assert len(watched(log, json_lines=True)) == 5


def test_only_some_kinds(log: SqliteLog) -> None:
    """Kinds without trades and both legs give a line for each record: time, position, key, text."""
    headers = (("__dlq.errors.message", b"NOT_JSON: not JSON"),)
    log.append([NewRecord(topics.DEAD_LETTERS, b"k", b"\xff\tx\n", 0, T0, headers), *settled(a_trade(1))])
    assert watched(log, only=["dead"]) == [
        "2026-11-23T09:15:00.000+05:30\tdead-letters@0:0\tk\tNOT_JSON: not JSON: \\xff\\tx\\n"
    ]
    assert len(watched(log, only=["shares", "dead"])) == 3
    assert trades_in(watched(log, only=["trades", "shares", "funds"])) == [1]
    for kind, names in watch.KINDS.items():
        seen = {record["topic"] for record in records_in(watched(log, only=[kind], json_lines=True))}
        assert seen <= set(names)
    assert {topic for names in watch.KINDS.values() for topic in names} == set(WATCHED)


# --- JSON -----------------------------------------------------------------------------------------------------


def test_every_record_as_json(log: SqliteLog) -> None:
    """The documented line, field for field."""
    log.append(settled(a_trade(1))[:1])
    (line,) = watched(log, json_lines=True)
    assert line == (
        '{"schema":"stocktrade.record/1","topic":"trades","partition":0,"offset":0,'
        '"time":"2026-11-23T03:45:01.000Z","key":"SBIN","headers":[],"value":{"trade_id":"T0-1-1",'
        '"stock_symbol":"SBIN","quantity":100,"price_per_unit":885.0,"amount":88500.0,"buyer":"HDFC",'
        '"buy_order_id":"B1","seller":"SELLER","sell_order_id":"S1","maker":"BUY","shard":0,"seq":1}}'
    )


def a_record(value: bytes | None, key: bytes | None = b"k", headers: Sequence[tuple[str, bytes]] = ()) -> Record:
    return Record("buy-orders", 0, 7, 7, T0, key, value, tuple(headers))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (b'{"a": 88500.0, "b":1e400,"c":123456789012345678901234567890}', None),
        (b'{"a":\n\t"x",\r\n"b":"\\u001b"}', '{"a":  "x",  "b":"\\u001b"}'),
        ('{"a":"\x9b2J\x7f\u202e\u2028\U000e0001₹"}'.encode(), None),
        (b'{"a":"\\ud800"}', None),
        (b"", "base64"),
        (b"5", "base64"),
        (b"[1]", "base64"),
        (b'"text"', "base64"),
        (b"\xff\xfe", "base64"),
        (b"{", "base64"),
        (b'{"a":1,"a":2}', "base64"),
        (b'{"a":NaN}', "base64"),
        (b'{"a":-Infinity}', "base64"),
        (b'{"base64":"eA=="}', "base64"),
        (b"[" * 5_000, "base64"),
        ('\ufeff{"a":1}'.encode(), "base64"),
        ('{"a":1}'.encode("utf-16"), "base64"),
    ],
)
def test_a_value_is_exact(value: bytes | None, text: str | None) -> None:
    """A JSON object stands there number for number; anything else comes back byte for byte from its base64."""
    line = records.json_line(a_record(value))
    assert line.isprintable()
    decoded = json.loads(line)["value"]
    if text == "base64":
        assert set(decoded) == {"base64"}
        assert base64.b64decode(decoded["base64"]) == value
    elif value is not None:
        was, now = (json.loads(part, parse_float=str, parse_int=str) for part in (value, line))
        assert now["value"] == was
    if text not in (None, "base64"):
        assert line.endswith(f'"value":{text}}}')


@given(
    st.binary(max_size=60)
    | st.text(max_size=40).map(lambda t: json.dumps({t: t}, ensure_ascii=False).encode(errors="replace"))
)
def test_no_bytes_break_a_json_line(noise: bytes) -> None:
    """Whatever the key, a header and the value are: one line of valid JSON that steers no terminal."""
    line = records.json_line(a_record(noise, noise, [(noise.decode("latin-1"), noise), ("h", noise)]))
    assert line.isprintable()
    fields = json.loads(line)
    key = fields["key"]
    assert (base64.b64decode(key["base64"]) if isinstance(key, dict) else key.encode()) == noise
    assert fields["headers"][0]["key"] == noise.decode("latin-1")
    assert fields["headers"][1]["value"] == key


def test_headers_and_times_of_strangers() -> None:
    """A header may come twice; a stamp that is no date is null."""
    record = a_record(b"{}", None, [("h", b"1"), ("h", b"2")])._replace(time_ms=2**62)
    fields = json.loads(records.json_line(record))
    assert fields["headers"] == [{"key": "h", "value": "1"}, {"key": "h", "value": "2"}]
    assert (fields["time"], fields["key"], fields["value"]) == (None, None, {})


# --- ends and breaks ------------------------------------------------------------------------------------------


def test_a_reader_that_has_enough_ends_it(log: SqliteLog) -> None:
    """`watch | head -3`: the broken pipe is no error."""
    filled(log, 30)

    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            if self.getvalue().count("\n") == 3:
                raise BrokenPipeError
            return super().write(text)

    out = Pipe()
    code = watch.run(log, console=Console(file=out), out=out, err=io.StringIO(), stop=lambda: False)
    assert code == ExitCode.OK
    assert trades_in(out.getvalue().splitlines()) == [11, 12, 13]


def test_a_reader_that_has_gone_is_noticed_while_nothing_happens(log: SqliteLog) -> None:
    """A closed pipe ends watching at once, not at the next trade."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as out:
        code = watch.run(log, console=Console(file=out), out=out, err=io.StringIO(), stop=lambda: False)
    assert code == ExitCode.OK


def test_a_file_is_never_deaf(log: SqliteLog, tmp_path: Path) -> None:
    """Output into a file and into an open pipe goes on."""
    filled(log, 2)
    reading, writing = os.pipe()
    with (tmp_path / "out").open("w") as file, os.fdopen(writing, "w") as pipe, os.fdopen(reading, "rb"):
        for out in (file, pipe):
            done = Steps(nothing, nothing)
            watch.run(log, console=Console(file=out), out=out, err=io.StringIO(), stop=done, follow=True)
            assert done.left == []
    assert trades_in((tmp_path / "out").read_text().splitlines()) == [1, 2]


@pytest.mark.parametrize("terminal", [True, False])
def test_ctrl_c_ends_cleanly(log: SqliteLog, terminal: bool) -> None:
    """An interrupt that reaches the loop is a clean stop, and the terminal gets its own screen back."""
    asked = []

    def interrupted() -> bool:
        asked.append(1)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return False

    out = Terminal() if terminal else io.StringIO()
    console = a_console(out) if terminal else Console(file=out)
    assert watch.run(log, console=console, out=out, err=io.StringIO(), stop=interrupted) == ExitCode.OK
    assert out.getvalue().count("\x1b[?1049h") == out.getvalue().count("\x1b[?1049l") == int(terminal)


class ShakyLog(SqliteLog):
    """A log that cannot be reached while `down` is set."""

    down = False

    def reader(self, starts: Mapping[TopicPartition, int | None]) -> Reader:
        if self.down:
            raise Unavailable("cannot reach the log")
        return ShakyReader(self, super().reader(starts))

    def owners(self) -> dict[int, str | None]:
        if self.down:
            raise Unavailable("cannot reach the log")
        return super().owners()


class ShakyReader(Reader):
    def __init__(self, log: ShakyLog, reader: Reader) -> None:
        self._log = log
        self._reader = reader

    def poll(self, timeout_s: float = 0.0, max_records: int = 1000) -> list[Record]:
        if self._log.down:
            raise Unavailable("cannot reach the log")
        return self._reader.poll(timeout_s, max_records)

    def position(self, topic: str, partition: int) -> int:
        return self._reader.position(topic, partition)

    def seek(self, topic: str, partition: int, offset: int) -> None:
        self._reader.seek(topic, partition, offset)

    def ends(self) -> dict[TopicPartition, int]:
        return self._reader.ends()

    def close(self) -> None:
        self._reader.close()


@pytest.mark.parametrize("shown", ["live", "lines", "json"])
def test_a_break_is_told_once_and_loses_nothing(tmp_path: Path, shown: str) -> None:
    """While the log is away it is tried each second; then every record comes once, and none counts as live."""
    pauses: list[float] = []
    calls = 0
    with ShakyLog(tmp_path / "log") as log:
        log.ensure_topics(topics.SPECS)
        log.append(settled(a_trade(1)))

        def stop() -> bool:
            nonlocal calls
            calls += not log.down
            if calls == 2 and not (log.down or pauses):
                log.append([*settled(a_trade(2)), *settled(a_trade(3))])
                log.down = True
            return calls == 5

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            log.down = sum(pauses) < 3 * window.RETRY_S

        out, err = Terminal() if shown == "live" else io.StringIO(), io.StringIO()
        code = watch.run(
            log,
            json_lines=shown == "json",
            console=a_console(out) if shown == "live" else Console(file=out),
            out=out,
            err=err,
            stop=stop,
            now_ms=lambda: T0,
            seconds=iter(range(10**6)).__next__,
            pause=pause,
        )
    assert code == ExitCode.OK
    assert sum(pauses) == 3 * window.RETRY_S
    told = "cannot reach the log; trying again each second\nthe log is back\n"
    assert err.getvalue() == ("" if shown == "live" else told)
    lines = out.getvalue().splitlines()
    if shown == "live":
        assert all(news in out.getvalue() for news in told.splitlines())
    elif shown == "lines":
        assert trades_in(lines) == [1, 2, 3]
        assert all(line.endswith("✓ settled") for line in lines)
    else:
        positions = [(record["topic"], record["offset"]) for record in records_in(lines)]
        assert len(positions) == len(set(positions)) == 15


def test_a_log_that_is_away_at_the_start_is_an_error(tmp_path: Path) -> None:
    """Only what worked is tried again: otherwise the user has to hear why it does not work."""
    with ShakyLog(tmp_path / "log") as log:
        log.down = True
        with pytest.raises(Unavailable):
            watched(log)


# --- the live view --------------------------------------------------------------------------------------------


class Live:
    """A screen whose clocks stand still unless they are moved."""

    def __init__(self, log: Log, *, records: bool = False, keys: Keys | None = None) -> None:
        self.out = Terminal()
        self.seconds = 100.0
        self.now_ms = T0
        sieve = watch._Sieve(frozenset(), None, frozenset(WATCHED)) if records else None
        self.screen = watch._Screen(
            a_console(self.out),
            log,
            Flow(),
            title="stocktrade watch",
            sieve=sieve,
            keys=keys or Keys(None),
            now_ms=lambda: self.now_ms,
            seconds=lambda: self.seconds,
        )
        self.screen.take([])

    def take(self, *records: NewRecord) -> None:
        self.screen.take([(Record(r.topic, 0, 0, 0, T0, r.key, r.value, r.headers), True) for r in records])

    def frames(self) -> str:
        """What was written since this was asked last."""
        text = self.out.getvalue()
        self.out.seek(0)
        self.out.truncate()
        return text


@pytest.fixture
def live(log: SqliteLog) -> Iterator[Live]:
    made = Live(log)
    yield made
    made.screen.close()


def test_a_trade_is_drawn_at_once(live: Live) -> None:
    """After a pause the first record is on the screen within the call that brought it."""
    live.seconds += 1
    live.frames()
    live.take(*settled(a_trade(1)))
    assert "T0-1-1" in live.frames()


def test_at_most_ten_frames_a_second(live: Live) -> None:
    """However many records come, two frames are a tenth of a second apart, and the last state is drawn."""
    drawn = live.screen.screen.draws
    for i in range(1050):
        live.seconds += 0.001
        live.take(*settled(a_trade(i)))
    assert live.screen.screen.draws - drawn <= 11
    assert live.screen.patience_s() <= screen.REDRAW_S
    live.seconds += screen.REDRAW_S
    live.frames()
    live.screen.take([])
    assert "T0-1049-1" in live.frames()


def test_a_paused_screen_stands_still(log: SqliteLog) -> None:
    """It says how much has come since; the rest is as it was, at any size; then it shows everything."""
    typist = Typist()
    live = Live(log, keys=typist)
    live.take(*settled(a_trade(1)))
    live.seconds += 1
    typist.typed = "P"
    live.take(*settled(a_trade(2)))
    live.seconds += 1
    live.frames()
    live.take(*settled(a_trade(3)))
    frame = live.frames()
    assert "paused, 10 new" in frame
    assert ("T0-1-1" in frame, "T0-2-1" in frame, "T0-3-1" in frame) == (True, False, False)
    assert re.search(r"buy-orders.* 0 .*\n.*sell-offers.* 0 .*\n.*demat-transfers.* 2 ", frame)
    live.screen._console.size = (60, 20)
    live.seconds += 1
    live.screen.take([])
    frame = live.frames()
    assert "SBI" in frame
    assert "paused, 10 new" in frame
    for _ in range(50):  # nothing comes, nothing is drawn
        live.seconds += 1
        live.now_ms += 1000
        live.screen.take([])
    assert live.frames() == ""
    live.screen._console.size = (100, 20)
    typist.typed = " "
    live.screen.take([])
    frame = live.frames()
    assert "T0-3-1" in frame
    assert "paused" not in frame
    assert not live.screen.is_deaf()
    typist.typed = "xq"
    live.screen.take([])
    assert live.screen.is_deaf()
    live.screen.close()


def test_what_was_seen_last_stays_though_it_was_paused(log: SqliteLog) -> None:
    """A pause ends with the screen: below the prompt stands everything that was counted."""
    typist = Typist()
    live = Live(log, keys=typist)
    typist.typed = "p"
    live.screen.take([])
    live.take(*settled(a_trade(1)))
    live.frames()
    live.screen.close()
    assert "T0-1-1" in live.frames()


def test_an_idle_screen_is_left_alone(live: Live) -> None:
    """Rates are drawn once a second until they have fallen to nothing; from then on nothing is written."""
    live.take(*settled(a_trade(1)))
    live.seconds += 1
    live.screen.take([])
    drawn = live.screen.screen.draws
    for _ in range(40):
        live.seconds += 0.25
        live.now_ms += 250
        live.screen.take([])
    assert 9 <= live.screen.screen.draws - drawn <= 11
    live.seconds += 1
    live.screen.take([])
    live.frames()
    for _ in range(100):
        live.seconds += 0.25
        live.now_ms += 250
        live.screen.take([])
    assert live.frames() == ""
    assert live.screen.patience_s() == window.POLL_S


def test_another_size_is_drawn_anew(live: Live) -> None:
    """A window that was made narrower is drawn again although nothing else has changed."""
    live.take(*settled(a_trade(1)))
    live.now_ms += 60 * SECOND  # the rates have fallen to nothing
    for _ in range(2):
        live.seconds += 1
        live.screen.take([])
    drawn = live.screen.screen.draws
    live.screen._console.size = (60, 20)
    live.seconds += 1
    live.frames()
    live.screen.take([])
    assert live.screen.screen.draws == drawn + 1


def test_a_line_says_that_no_exchange_runs(log: SqliteLog, live: Live) -> None:
    """While nobody owns a shard an order only waits; the line goes when an exchange comes."""
    live.seconds += 2
    assert "no exchange is running" in live.frames()
    writer = log.claim(0)
    live.screen.take([])
    live.seconds += 2
    live.screen.take([])
    assert "no exchange is running" not in live.frames()
    writer.close()
    live.seconds += 2
    live.screen.take([])
    assert "no exchange is running" in live.frames()


HOSTILE = [
    "HDFC[/]",
    "[/foo]",
    "\x1b[2J",
    "\x1b]52;c;eA==\x07",
    "\x1b]8;;http://x\x1b\\",
    "\x9b2J",
    "A\rB\nC",
    "\u202eX",
]


@pytest.mark.parametrize("text", [*HOSTILE, "X" * 65_536, "Z" + "\u0336" * 500], ids=lambda t: ascii(t)[:20])
@pytest.mark.parametrize("records", [False, True])
def test_nothing_steers_the_screen(log: SqliteLog, text: str, records: bool) -> None:
    """A foreign trade with hostile names is shown as trade and as record, with no escapes but those of Rich."""
    live = Live(log, records=records)
    live.frames()
    quiet = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", _frame_with(live, "HDFC"))
    assert quiet.replace("\n", "").replace("\r", "").isprintable()
    controls = set(re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]", _frame_with(live, "HDFC")))
    frame = _frame_with(live, text)
    assert set(re.findall(r"\x1b\[[0-9;?]*[a-zA-Z]", frame)) <= controls
    bare = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame)
    assert bare.replace("\n", "").isprintable()
    live.screen.close()


def _frame_with(live: Live, text: str) -> str:
    trade = settled(a_trade(1))[0]
    fields = json.loads(trade.value or b"") | {"buyer": text, "seller": text, "stock_symbol": text}
    value = json.dumps(fields | {"trade_id": f"T0-{live.seconds:.0f}-1"}).encode()
    live.seconds += 1
    live.frames()
    live.take(trade._replace(value=value, key=text.encode()))
    return live.frames()


def test_the_whole_way_on_a_terminal(log: SqliteLog) -> None:
    """The last trades on an alternate screen, then what comes; what was seen last stays when it ends."""
    filled(log, 3)

    def trade() -> None:
        log.append(settled(a_trade(4)))

    out = Terminal()
    code = watch.run(
        log,
        console=a_console(out),
        out=out,
        err=io.StringIO(),
        stop=Steps(nothing, trade),
        now_ms=lambda: T0 + 4 * SECOND + 18,
        seconds=iter(range(10**6)).__next__,
    )
    assert code == ExitCode.OK
    screen, _, after = out.getvalue().partition("\x1b[?1049l")
    assert screen.startswith("\x1b[?1049h")
    assert "T0-3-1" in screen
    assert "✓ settled 18 ms" in screen
    assert "T0-4-1" in after
    assert after.endswith("\n")


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("broken", [False, True])
def test_the_range_of_prices_is_that_of_the_whole_day(tmp_path: Path, shards: int, broken: bool) -> None:
    """Also of the trades of today before the ones that are shown; not of yesterday's. A break loses none of them."""
    midnight = T0 - 9 * 3600 * SECOND - 900 * SECOND
    with ShakyLog(tmp_path / "log", partitions=shards) as log:
        log.ensure_topics(topics.SPECS)
        days = [(midnight - SECOND, 1), (midnight, 87_000), (midnight + SECOND, 91_000)]
        days += [(midnight + (2 + i) * SECOND, 88_500) for i in range(2_500)]
        for number, (time_ms, price) in enumerate(days, 1):
            match = a_trade(number)._replace(price=Paise(price))
            log.append(encode_facts([match], 0, "buy-orders@0:0", time_ms))
        asked = 0

        def stop() -> bool:
            nonlocal asked
            asked += 1
            log.down = broken and asked == 3
            return asked >= 60

        out = Terminal()
        console = a_console(out)
        clock = iter(range(10**6)).__next__
        watch.run(
            log, console=console, out=out, err=out, stop=stop, now_ms=lambda: T0, seconds=clock, pause=lambda _: None
        )
    first, last = out.getvalue().split("SBIN", 1)[1][:60], out.getvalue().rsplit("SBIN", 1)[1]
    assert "₹870.00 to ₹910.00" not in first
    assert "₹870.00 to ₹910.00" in last


def test_a_day_of_very_many_trades_is_not_read_whole(log: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each shard so many of the last ones, and of a range that lies in the past none."""
    monkeypatch.setattr(window, "LOOKED_BACK", 10)
    filled(log, 50)
    points = window.points_from(None, None, follow=None, now_ms=T0)
    begun = window.window_of(log, frozenset({topics.TRADES}), points)
    assert begun.starts == {(topics.TRADES, 0): 30}
    today = window.earlier_today(log, begun, now_ms=T0)
    assert (today.starts, today.stops) == ({(topics.TRADES, 0): 20}, {(topics.TRADES, 0): 30})
    tomorrow = window.earlier_today(log, begun, now_ms=T0 + 24 * 3600 * SECOND)
    assert tomorrow.starts == tomorrow.stops


def test_a_forced_colour_makes_no_terminal(log: SqliteLog) -> None:
    """FORCE_COLOR in a pipe gives lines, as every pipe does; so does TERM=dumb."""
    filled(log, 1)
    for out, environment in ((io.StringIO(), {"FORCE_COLOR": "1"}), (Terminal(), {"TERM": "dumb"})):
        console = Console(file=out, _environ=environment)
        code = watch.run(log, console=console, out=out, err=io.StringIO(), stop=lambda: False, follow=False)
        assert code == ExitCode.OK
        assert "\x1b" not in out.getvalue()
        assert trades_in(out.getvalue().splitlines()) == [1]


def test_watching_imports_no_kafka_client() -> None:
    """The embedded log must not pay for a client that it does not use."""
    code = "import stocktrade.roles.watch, stocktrade.transport.sqlite, sys; sys.exit('kafka' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
