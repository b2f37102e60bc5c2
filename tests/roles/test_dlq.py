"""`dlq`: what was no order is listed, looked at, mended and sent again, and never by itself."""

import io
import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stocktrade import cli, progress, settings
from stocktrade.roles import dlq
from stocktrade.shard.history import to_the_end
from stocktrade.shard.node import Node
from stocktrade.transport import connect, topics
from stocktrade.transport.base import Log, NewRecord
from stocktrade.transport.kafka import KafkaLog

CUT = b'{"order_id":"X-1","buyer":"HDFC","stock_symbol":"SBI","quantity":5,"price_per_unit":885'
WHOLE = CUT + b"}"
JUNK = b"\xff\x00junk\x1b[2J"
LONG = b"x" * 20_000
Run = Callable[..., str]


@pytest.fixture
def letters(home: Path, run: Run) -> Run:
    """Three dead letters: one was cut, one is junk, one too long."""
    with connect(f"sqlite:{home}") as log:
        log.ensure_topics(topics.SPECS)
        log.append([NewRecord(topics.BUY_ORDERS, b"k", CUT, 0)])
        log.append([NewRecord(topics.SELL_OFFERS, None, JUNK, 0), NewRecord(topics.SELL_OFFERS, b"SBIN", LONG, 0)])
    run("nse", "--once")
    return run


def listed(run: Run, *options: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("dlq", "list", "--json", *options).splitlines()]


def test_each_says_where_its_input_stood_and_why(letters: Run) -> None:
    """Oldest first; the bytes are kept, and none of them steers a terminal."""
    assert [(each["position"], each["input"], each["reason"]) for each in listed(letters)] == [
        ("dead-letters@0:0", "buy-orders@0:0", "NOT_JSON"),
        ("dead-letters@0:1", "sell-offers@0:0", "NOT_UTF8"),
        ("dead-letters@0:2", "sell-offers@0:1", "TOO_LARGE"),
    ]
    assert [each["position"] for each in listed(letters, "-n", "1")] == ["dead-letters@0:2"]
    assert [each["position"] for each in listed(letters, "--from", "1", "--until", "2")] == ["dead-letters@0:1"]
    assert "\x1b" not in letters("dlq", "list") + letters("dlq", "show", "0:1") + letters("dlq", "list", "--csv")
    for place in ("0:1", "dead-letters@0:1", "sell-offers@0:0"):
        shown = json.loads(letters("dlq", "show", place, "--json"))
        assert (shown["position"], shown["now"]) == ("dead-letters@0:1", "NOT_UTF8: not UTF-8")


def test_one_is_mended_and_trades(letters: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As it was it would come back, so it is not sent; mended it is an order, and the letter says which."""
    letters("dlq", "redrive", "0:0", "--yes", code=1)
    capsys.readouterr()
    file = tmp_path / "order.json"
    file.write_bytes(WHOLE + b"\n")
    options = ("dlq", "redrive", "buy-orders@0:0", f"--value={file}")
    assert letters(*options, "--dry-run") == "dead-letters@0:0\tbuy-orders\t1\n"
    assert letters("topics", "tail", "buy-orders", "--no-follow").count("\n") == 1
    assert letters(*options, "--yes") == "dead-letters@0:0\tbuy-orders@0:1\t1\n"
    record = json.loads(letters("topics", "tail", "buy-orders", "-n", "1", "--json", "--no-follow"))
    assert record["key"] == "SBIN"
    assert record["value"]["order_id"] == "X-1"
    assert record["headers"] == [
        {"key": dlq.FROM, "value": "dead-letters@0:0"},
        {"key": dlq.ORIGIN, "value": "buy-orders@0:0"},
        {"key": dlq.TIMES, "value": "1"},
    ]
    letters("nse", "--once")
    assert letters("orders").split("\t")[1] == "X-1"
    assert [listed(letters)[0][name] for name in ("again", "redriven")] == ["buy-orders@0:1", 1]
    assert "sent again\t1 time\nas\tbuy-orders@0:1\n" in letters("dlq", "show", "0:0")
    assert cli.run([*options, "--yes"]) == 1
    assert "was sent again before, as buy-orders@0:1" in capsys.readouterr().err
    letters("audit")


def test_the_fourth_time_is_refused(letters: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """The count is of the first input, over all of its letters; only --force goes on."""
    place = "0:1"
    for times in range(1, 4):
        said = letters("dlq", "redrive", place, "--yes", "--force")
        assert said.rstrip().endswith(f"\t{times}")
        letters("nse", "--once")
        place = listed(letters)[-1]["position"]
    assert listed(letters)[-1]["redriven"] == 3
    capsys.readouterr()
    assert cli.run(["dlq", "redrive", place, "--yes"]) == 1
    assert f"{place} has been sent again 3 times" in capsys.readouterr().err
    assert letters("dlq", "redrive", place, "--yes", "--force").rstrip().endswith("\t4")


def test_each_time_counts_also_of_one_letter(letters: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """No exchange runs in between, so nothing has come back: the inputs alone say how often it was."""
    for times in range(1, 4):
        assert letters("dlq", "redrive", "0:1", "--yes", "--force").endswith(f"\t{times}\n")
    assert [each["redriven"] for each in listed(letters)] == [0, 3, 0]
    capsys.readouterr()
    assert cli.run(["dlq", "redrive", "0:1", "--yes"]) == 1
    assert "dead-letters@0:1 has been sent again 3 times" in capsys.readouterr().err


def test_one_letter_of_several_names_is_sent_once(letters: Run) -> None:
    """Its place, in short and in full, and that of its input."""
    said = letters("dlq", "redrive", "0:1", "dead-letters@0:1", "sell-offers@0:0", "0:1", "--force", "--yes")
    assert said == "dead-letters@0:1\tsell-offers@0:2\t1\n"


def test_the_mended_bytes_come_from_a_pipe(letters: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--value -` reads standard input, which cannot answer as well; too much of it is refused."""
    for code, given, flags in ((0, WHOLE + b"\n", ["--yes"]), (2, WHOLE, []), (2, b"x" * 16_386, ["--yes"])):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
        letters("dlq", "redrive", "0:0", "--value=-", *flags, code=code)
    record = json.loads(letters("topics", "tail", "buy-orders", "-n", "1", "--json", "--no-follow"))
    assert record["value"]["order_id"] == "X-1"


@pytest.mark.parametrize(
    ("quantity", "now"),
    [(b"5", "an order"), (b"0", "an order, rejected as INVALID_QUANTITY"), (b"", "NOT_JSON: not JSON")],
)
def test_what_the_exchange_would_say_now(home: Path, run: Run, quantity: bytes, now: str) -> None:
    """A letter of before an upgrade may be an order today; one that would be refused is told as that."""
    put(home, (topics.BUY_ORDERS, 0, 7), WHOLE.replace(b'"quantity":5', b'"quantity":' + quantity))
    assert json.loads(run("dlq", "show", "0:0", "--json"))["now"] == now
    assert f"now\t{now}\n" in run("dlq", "show", "0:0")


def put(home: Path, place: tuple[object, object, object], value: bytes, *more: tuple[str, bytes]) -> None:
    """A letter that says what a test wants it to."""
    named = [
        (f"__dlq.errors.{name}", str(part).encode())
        for name, part in zip(("topic", "partition", "offset"), place, strict=True)
    ]
    with connect(f"sqlite:{home}") as log:
        log.ensure_topics(topics.SPECS)
        log.append([NewRecord(topics.DEAD_LETTERS, b"k", value, 0, 0, (*named, *more))])


def test_what_is_shown_is_what_is_sent(home: Path, run: Run) -> None:
    """A letter that names somebody's order as its input does not have that sent twice."""
    run("buy", "SBI", "1", "885", "--id", "MINE", "-q")
    put(home, ("buy-orders", 0, 0), WHOLE)
    run("dlq", "redrive", "0:0", "--yes")
    lines = run("topics", "tail", "buy-orders", "--json", "--no-follow").splitlines()
    assert [json.loads(line)["value"]["order_id"] for line in lines] == ["MINE", "X-1"]


def test_half_an_input_is_not_sent(home: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the log keeps the whole no longer, the beginning alone is no message, by force or not."""
    put(home, ("buy-orders", 0, 0), b"x" * 1024, ("stocktrade.sha256", b"0" * 64))
    assert json.loads(run("dlq", "show", "0:0", "--json"))["now"].startswith("unknown")
    capsys.readouterr()
    assert cli.run(["dlq", "redrive", "0:0", "--force", "--yes"]) == 1
    assert "holds no more than the beginning" in capsys.readouterr().err
    run("buy", "SBI", "1", "885", "-q")
    run("dlq", "redrive", "0:0", "--force", "--yes", code=1)  # another record stands there now


@pytest.mark.parametrize("digits", ["9" * 19, "9" * 5_000, "-1", "", "²"], ids=len)
def test_no_number_in_a_header_ends_it(home: Path, run: Run, digits: str) -> None:
    """Anybody can write headers: a number that is none is no place and no count, and the others are listed."""
    with connect(f"sqlite:{home}") as log:
        log.ensure_topics(topics.SPECS)
        headers = ((dlq.FROM, b"?"), (dlq.ORIGIN, b"buy-orders@0:0"), (dlq.TIMES, digits.encode()))
        log.append([NewRecord(topics.BUY_ORDERS, b"k", CUT, 0, headers=headers)])
    run("nse", "--once")
    put(home, ("buy-orders", digits, 0), b"?")
    put(home, ("buy-orders", 0, digits), b"?")
    assert [(each["input"], each["redriven"]) for each in listed(run)] == [(None, 0), (None, 0), ("buy-orders@0:0", 0)]
    assert run("dlq", "redrive", "0:0", "--force", "--yes").endswith("\t1\n")


def test_the_last_twenty(home: Path, run: Run) -> None:
    """Without a range the newest of all shards, oldest first; a number in a range is of each shard."""
    run("topics", "create", "--partitions", "2")
    with connect(f"sqlite:{home}") as log:
        log.append([NewRecord(topics.DEAD_LETTERS, None, b"?", n % 3 % 2, 1_000 + n) for n in range(60)])
    times = [each["time"] for each in listed(run)]
    assert times == [f"1970-01-01T00:00:01.{n:03}Z" for n in range(40, 60)]
    assert [each["time"] for each in listed(run, "--from", "-1")] == [times[-2], times[-1]]
    assert len(listed(run, "--from", "start")) == 60
    (before,) = listed(run, "--until", "@1970-01-01T00:00:01.040Z", "-n", "1")
    assert before["time"] == "1970-01-01T00:00:01.039Z"


def test_a_long_look_shows_how_far_it_is(home: Path, letters: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has become of a letter is read from the inputs since: on a terminal a bar, elsewhere nothing."""
    monkeypatch.setattr(progress, "AFTER_S", 0.0)
    monkeypatch.setattr(dlq, "_SHOWN_EVERY", 1)
    seen, out = io.StringIO(), io.StringIO()
    with connect(f"sqlite:{home}") as log:
        place = dlq.place_from("0:0")
        screen = Console(file=seen, force_terminal=True, width=100)
        assert dlq.show(log, place, as_json=True, console=Console(file=out), progress=screen, out=out) == 0
    assert "reading" in seen.getvalue()
    assert "inputs" in seen.getvalue()
    assert json.loads(out.getvalue())["position"] == "dead-letters@0:0"


def test_all_of_a_reason(letters: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """`--all` takes those that were not sent again, `--reason` some of them; a long one goes out whole."""
    said = letters("dlq", "redrive", "--all", "--reason", "TOO_LARGE", "--force", "--yes", "--json")
    (sent,) = [json.loads(line) for line in said.splitlines()]
    assert (sent["origin"], sent["to"], sent["sent"]) == ("dead-letters@0:2", "sell-offers@0:2", True)
    with (
        connect(f"sqlite:{settings.home_folder()}") as log,
        closing(log.reader({(topics.SELL_OFFERS, 0): 2})) as reader,
    ):
        (record,) = to_the_end(reader)
    assert record.value == LONG
    assert letters("dlq", "redrive", "--all", "--yes", code=1) == ""
    assert "2 record" not in capsys.readouterr().out
    assert len(letters("dlq", "redrive", "--all", "--force", "--yes").splitlines()) == 2
    assert letters("dlq", "redrive", "--all", "--force", "--yes") == ""
    letters("nse", "--once")
    capsys.readouterr()
    assert cli.run(["dlq", "redrive", "--all", "--reason", "NOT_JSN", "--yes"]) == 0
    assert "nothing to send: no dead letter with the reason NOT_JSN waits; there are NOT_JSON (1), " in (
        capsys.readouterr().err
    )


def test_nobody_is_asked_in_a_pipe(letters: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal --yes is needed; on one, no is no."""
    letters("dlq", "redrive", "0:1", "--force", code=2)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    letters("dlq", "redrive", "0:1", "--force", code=1)
    assert letters("topics", "tail", "sell-offers", "--no-follow").count("\n") == 2
    monkeypatch.setattr("typer.confirm", lambda *_, **__: True)
    letters("dlq", "redrive", "0:1", "--force")
    assert letters("topics", "tail", "sell-offers", "--no-follow").count("\n") == 3


def test_a_stranger_on_the_topic_is_shown_and_not_sent(home: Path, run: Run) -> None:
    """A record without our headers, or with wrong ones, is a dead letter without an input."""
    headers = [
        (),
        (("__dlq.errors.topic", b"trades"), ("__dlq.errors.partition", b"0"), ("__dlq.errors.offset", b"0")),
        (("__dlq.errors.topic", b"\xff"), ("__dlq.errors.partition", b"x"), ("__dlq.errors.offset", b"-1")),
        (("__dlq.errors.topic", b"buy-orders"), ("__dlq.errors.partition", b"99"), ("__dlq.errors.offset", b"99999")),
    ]
    with connect(f"sqlite:{home}") as log:
        log.ensure_topics(topics.SPECS)
        log.append([NewRecord(topics.DEAD_LETTERS, None, b"?", 0, headers=each) for each in headers])
    assert [each["input"] for each in listed(run)] == [None, None, None, "buy-orders@99:99999"]
    for place in ("0:0", "0:1", "0:2"):
        run("dlq", "show", place)
        run("dlq", "redrive", place, "--yes", "--force", code=1)
    run("dlq", "redrive", "0:3", "--yes", code=1)


@pytest.mark.parametrize("place", ["0:9", "5:0", "buy-orders@0:9", "sell-offers@7:0"])
def test_what_is_not_there_is_an_answer(letters: Run, place: str) -> None:
    """It ends with 1, whether there are dead letters or not."""
    letters("dlq", "show", place, code=1)
    letters("dlq", "redrive", place, "--yes", code=1)


def test_an_unused_log_has_none(home: Path, run: Run) -> None:
    """It is no error, and no topic is made."""
    connect(f"sqlite:{home}").close()
    assert run("dlq", "list") == ""
    run("dlq", "show", "0:0", code=1)
    assert run("topics") == ""


@pytest.mark.kafka
def test_on_kafka(kafka_servers: str) -> None:
    """On a real broker with four shards a cut order is listed, mended and traded."""
    from stocktrade.listing import Form
    from stocktrade.roles.topics import partitions_of

    def take(log: Log) -> None:
        node = Node(log, name="test", now_ms=lambda: 0)
        while not node.has_taken(node.backlog_ends()) or not node.owners:
            node.step(0.05)
        node.close()

    with KafkaLog(kafka_servers, prefix=f"dlq-{time.time_ns()}-", partitions=4) as log:
        log.ensure_topics(topics.SPECS)
        (at,) = log.append([NewRecord(topics.BUY_ORDERS, b"k", CUT)])
        before = {(row.topic, row.partition): row for row in partitions_of(log, 0)}
        assert before[at[:2]].lag == 1
        take(log)
        after = {(row.topic, row.partition): row for row in partitions_of(log, 0)}
        assert after[at[:2]].lag == 0
        console, out = Console(), io.StringIO()
        mail = dlq.Mail(WHOLE, force=False, dry_run=False, confirm=lambda _: True)
        assert dlq.redrive(log, [at], mail, reason=None, as_json=True, console=console, progress=console, out=out) == 0
        assert json.loads(out.getvalue())["topic"] == topics.BUY_ORDERS
        take(log)
        out.truncate(0)
        out.seek(0)
        dlq.show_all(log, start=None, until=None, last=None, form=Form.JSON, console=console, progress=console, out=out)
        (letter,) = [json.loads(line) for line in out.getvalue().splitlines()]
        assert letter["input"] == str(at)
        assert letter["again"].startswith("buy-orders@")
        assert letter["redriven"] == 1
        with pytest.raises(dlq.NotSent, match="was sent again before"):
            dlq.redrive(log, [at], mail, reason=None, as_json=True, console=console, progress=console, out=out)
