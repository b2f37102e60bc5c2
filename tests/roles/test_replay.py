"""`replay`: files that people and `watch --json` write, and the journal of a log."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stocktrade import cli, settings
from stocktrade.domain.values import decimal_rupees
from stocktrade.roles import order_file
from stocktrade.shard.node import Node
from stocktrade.transport import connect
from stocktrade.transport.base import NewRecord

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "core" / "matching_vectors.json").read_text(encoding="utf-8")
)["vectors"]

BUY = '{"order_id": "B", "buyer": "HDFC", "stock_symbol": "SBI", "quantity": 10, "price_per_unit": 885}'
SELL = '{"offer_id": "S", "seller": "SELLER", "stock_symbol": "SBI", "quantity": 4}'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a log that replay does not make."""
    folder = tmp_path / "home"
    monkeypatch.setenv(settings.HOME, str(folder))
    monkeypatch.delenv(settings.BOOTSTRAP_SERVERS, raising=False)
    return folder


def replayed(path: Path, *options: str, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """The events of a file."""
    assert cli.run(["replay", str(path), "--json", *options]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def message(step: dict[str, Any]) -> str:
    """A step of a vector as somebody would write it: a tick is one paisa."""
    buys = step["side"] == "BUY"
    fields: dict[str, Any] = {
        "order_id" if buys else "offer_id": step["id"],
        "buyer" if buys else "seller": step["participant"],
        "stock_symbol": "SBI",
        **{
            name: step[name]
            for name in ("action", "quantity", "time_in_force", "self_trade_prevention")
            if name in step
        },
        **({"target_order_id": step["target"]} if "target" in step else {}),
    }
    text = json.dumps(fields)
    price = step.get("price")
    return text if price is None else f'{text[:-1]}, "price_per_unit": {decimal_rupees(price)}}}'


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["id"]))
def test_a_vector_as_a_file(vector: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Scenarios of other engines, as their owners would bring them: trades, refusals, cancels and the final book."""
    (tmp_path / "ticks.toml").write_text('version = "vectors"\ndefaults.tick = 0.01\n')
    file = tmp_path / "orders.jsonl"
    file.write_text("\n".join(message(step) for step in vector["steps"]))
    events = replayed(file, "--book", "--instruments", str(tmp_path / "ticks.toml"), capsys=capsys)
    assert [
        [
            event["maker_order_id"],
            event["taker_order_id"],
            round(event["value"]["price_per_unit"] * 100),
            event["value"]["quantity"],
        ]
        for event in events
        if event.get("topic") == "trades"
    ] == vector["trades"]
    answers = [event for event in events if event.get("topic") == "order-events" and "source" in event["value"]]
    assert [
        {"step": number, "status": answer["value"]["status"], "reason": answer["value"].get("reason")}
        for number, answer in enumerate(answers)
        if answer["value"]["status"] != "ACCEPTED"
    ] == [{key: no[key] for key in ("step", "status", "reason")} for no in vector["not_accepted"]]
    assert [
        [answer["value"].get("target_order_id", answer["value"]["order_id"]), answer["value"]["cancelled_quantity"]]
        for answer in answers
        if answer["value"].get("cancelled_quantity")
    ] == vector.get("cancelled", [])
    for side, levels in (("BUY", vector["bids"]), ("SELL", vector["asks"])):
        resting = [event for event in events if "book" in event and event["side"] == side]
        found: list[list[Any]] = []
        for order in resting:
            price = None if order["price_per_unit"] is None else round(order["price_per_unit"] * 100)
            if not found or found[-1][0] != price:
                found.append([price, 0, 0])
            found[-1][1] += order["quantity"]
            found[-1][2] += 1
        assert found == levels


@pytest.mark.parametrize(
    "text",
    [
        f"{BUY}\n{SELL}\n",
        f"\ufeff{BUY}\r\n\r\n{SELL}",
        f"# a comment\n  {BUY}  \n\n{SELL}",
        f'{{"topic": "buy-orders", "value": {BUY}}}\n{{"value": {SELL}, "topic": "sell-offers", "x": [1, {{}}]}}',
        f'{{"topic": "buy-orders", "value": {json.dumps(BUY)}}}\n{SELL}',
        f'{{"topic":"buy-orders","partition":0,"offset":7,"time":"2026-11-23T03:45:00Z","value":{BUY}}}\n{SELL}',
        f'{BUY}\n{{"topic": "trades", "value": {{}}}}\n{SELL}',
    ],
)
def test_a_line_may_be_written_in_many_ways(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrapped message, a bare one, a text that holds one, with or without the rest: they mean the same trade."""
    file = tmp_path / "orders.jsonl"
    file.write_text(text, encoding="utf-8")
    trades = [event for event in replayed(file, capsys=capsys) if event.get("topic") == "trades"]
    assert [(trade["maker_order_id"], trade["taker_order_id"], trade["value"]["amount"]) for trade in trades] == [
        ("B", "S", 3540.0)
    ]


@pytest.mark.parametrize(
    "line",
    [
        b"oops",
        b"[1]",
        b"{}",
        b"\xff\xfe",
        b'{"topic": "trades-of-mine", "value": {}}',
        b'{"topic": 5, "value": {}}',
        b'{"topic": "buy-orders"}',
        b'{"topic": "buy-orders", "topic": "sell-offers", "value": {}}',
        b'{"topic": "buy-orders", "value": {}, "offset": -1}',
        b'{"topic": "buy-orders", "value": {}, "partition": true}',
        b'{"topic": "buy-orders", "value": {}, "time": "yesterday"}',
        b'{"topic": "buy-orders", "value": {}, "time": "2026-11-23T03:45:00"}',
        b'{"topic": "buy-orders", "value": {"base64": "*"}}',
        b'{"topic": "buy-orders", "value": {}} trailing',
        b'{"order_id": "x", "buyer": "y", "offer_id": "x", "seller": "y"}',
        b"[" * 100_000,
        b'{"x": "' + b"y" * (order_file.MAX_LINE_BYTES + 1) + b'"}',
    ],
    ids=lambda line: ascii(line[:40]),
)
def test_a_line_that_is_no_input_is_named_and_left_out(
    line: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its number stands in the output and on stderr, the others count; with --strict it is the end, with exit 1."""
    file = tmp_path / "orders.jsonl"
    file.write_bytes(BUY.encode() + b"\n" + line + b"\n" + SELL.encode())
    assert cli.run(["replay", str(file), "--json"]) == 0
    said = capsys.readouterr()
    events = [json.loads(each) for each in said.out.splitlines()]
    assert [event["line"] for event in events if "error" in event] == [2]
    assert [event["line"] for event in events if event.get("topic") == "trades"] == [3]
    assert "line 2 is no input" in said.err
    assert cli.run(["replay", str(file), "--strict"]) == 1
    assert "error: line 2 is no input" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("{}", "INVALID_ID"),
        ("[]", "NOT_AN_OBJECT"),
        ("null", "EMPTY"),
        ('"x"', "NOT_JSON"),
        ('{"a":1,"a":2}', "DUPLICATE_KEY"),
    ],
)
def test_a_message_that_is_none_is_a_dead_letter(
    value: str, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has the reason that it would have on the log."""
    file = tmp_path / "orders.jsonl"
    file.write_text(f'{{"topic": "buy-orders", "value": {value}}}')
    (event,) = replayed(file, capsys=capsys)
    assert (event["line"], event["topic"], event["reason"]) == (1, "dead-letters", reason)


def test_a_number_means_what_its_writer_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers are not read as floats and written again on their way in."""
    file = tmp_path / "orders.jsonl"
    text = BUY.replace("885", "885.0000000000000000001")
    file.write_text(f'{{"topic": "buy-orders", "value": {text}}}\n{BUY.replace("885", "8.85E2")}')
    first, second = replayed(file, capsys=capsys)
    assert (first["value"]["reason"], second["value"]["status"]) == ("INVALID_PRICE", "REJECTED")


def trade_on(folder: Path) -> None:
    """A log with some orders on two shards."""
    with connect(f"sqlite:{folder}", partitions=2) as log:
        node = Node(log, name="test", now_ms=lambda: 0)
        for number in range(20):
            for symbol in ("SBI", "INFY", "TCS"):
                text = BUY.replace('"B"', f'"B-{number}"').replace("SBI", symbol)
                log.append([NewRecord("buy-orders", None, text.encode(), number % 2)])
                text = SELL.replace('"S"', f'"S-{number}"').replace("SBI", symbol)
                log.append([NewRecord("sell-offers", None, text.encode(), number % 2)])
        for _ in range(20):
            node.step(0.0)
        node.close()


def test_the_journal_of_a_log_is_replayed_and_compared(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The replay gives byte for byte what stands on the topics; the first record that differs is named."""
    trade_on(home)
    assert cli.run(["replay", "--log", "--json"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sum(event["topic"] == "trades" for event in events) > 20
    assert {event["partition"] for event in events} == {0, 1}
    assert cli.run(["replay", "--log", "--compare", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"schema": "stocktrade.comparison/1", "equal": True, "compared": len(events)}
    with closing(sqlite3.connect(home / "log.db", isolation_level=None)) as db:
        (arrival, partition, offset, value) = db.execute(
            "SELECT arrival, partition, offset, value FROM records JOIN topics ON topics.id = topic"
            " WHERE name = 'cash-movements' ORDER BY arrival LIMIT 1 OFFSET 9"
        ).fetchone()
        db.execute("UPDATE records SET value = ? WHERE arrival = ?", (value.replace(b"3540.0", b"9540.0"), arrival))
    assert cli.run(["replay", "--log", "--compare", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["first_difference"].startswith(f"cash-movements@{partition}:{offset} is not what ")


def test_a_capture_of_a_log_can_be_replayed(tmp_path: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What `watch --json` wrote is a file of orders: its inputs count, the rest is left out."""
    for command in (("buy", "SBI", "10", "885"), ("sell", "SBI", "4")):
        cli.run([*command, "-q"])
    cli.run(["nse", "--once", "--json"])
    capsys.readouterr()
    cli.run(["watch", "--json", "--no-follow", "--from", "start"])
    (tmp_path / "capture.jsonl").write_text(capsys.readouterr().out)
    cli.run(["replay", "--log", "--json"])
    live = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    events = replayed(tmp_path / "capture.jsonl", capsys=capsys)
    assert [event["value"] for event in events] == [event["value"] for event in live]


def test_the_output_is_the_same_everywhere(tmp_path: Path) -> None:
    """Byte for byte, whatever hash seed, time zone and locale, and whether from a file or from standard input."""
    file = tmp_path / "orders.jsonl"
    file.write_text("\n".join(message(step) for vector in VECTORS for step in vector["steps"]))
    outputs = set()
    for seed, zone, locale, named in (
        ("0", "UTC", "C", True),
        ("1", "Asia/Kolkata", "C.UTF-8", False),
        ("2", "", "", True),
    ):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale}
        command = [sys.executable, "-m", "stocktrade", "replay", str(file) if named else "-", "--json", "--book"]
        run = subprocess.run(command, input=file.read_bytes(), capture_output=True, env=environment, check=True)
        outputs.add(run.stdout)
    assert len(outputs) == 1
    assert outputs.pop().count(b'"trades"') > 20


def test_a_replay_makes_no_log(home: Path, tmp_path: Path) -> None:
    """A file needs none."""
    (tmp_path / "orders.jsonl").write_text(BUY)
    assert cli.run(["replay", str(tmp_path / "orders.jsonl")]) == 0
    assert not home.exists()
