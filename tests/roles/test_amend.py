"""`cancel`, `replace`, and orders that may not wait, through the command line and a real exchange."""

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from threading import Event, Thread

import pytest

from auditor import audit
from stocktrade import cli, settings
from stocktrade.shard.node import Node
from stocktrade.transport import connect
from stocktrade.transport.base import NewRecord


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a log that passes the audit in the end."""
    folder = tmp_path / "home"
    monkeypatch.setenv(settings.HOME, str(folder))
    monkeypatch.delenv(settings.BOOTSTRAP_SERVERS, raising=False)
    yield folder
    with connect(f"sqlite:{folder}") as log:
        assert audit(log) == []


class Terminal:
    """What a user types, and an exchange that takes it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._capsys = capsys

    def exchange(self) -> None:
        """Let the exchange take what is on the log."""
        with connect(f"sqlite:{self._folder}") as log:
            node = Node(log, name="test", now_ms=lambda: 0)
            ends = node.backlog_ends()
            while not node.has_taken(ends):
                node.step(0.0)
            node.close()

    def types(self, *arguments: str) -> tuple[int, dict[str, object]]:
        """The exit code of a command, and its JSON."""
        code = cli.run([arguments[0], "--json", *arguments[1:]])
        out, err = self._capsys.readouterr()
        return code, json.loads(out or err.splitlines()[-1])

    def answers(self) -> list[tuple[str, str, int, int, int]]:
        """Each event: order, status or reason, filled, resting and cancelled shares."""
        with connect(f"sqlite:{self._folder}") as log:
            reader = log.reader({("order-events", 0): 0})
            events = [json.loads(record.value or b"") for record in reader.poll(0.0)]
        return [
            (
                event["order_id"],
                event.get("reason") or event["status"],
                event.get("filled_quantity", 0),
                event.get("leaves_quantity", 0),
                event.get("cancelled_quantity", 0),
            )
            for event in events
        ]


@pytest.fixture
def terminal(home: Path, capsys: pytest.CaptureFixture[str]) -> Terminal:
    return Terminal(home, capsys)


def test_an_order_is_cancelled_by_the_end_of_its_id(terminal: Terminal) -> None:
    """A unique end names it, on the topic on which it came; what is cancelled cannot be cancelled again."""
    terminal.types("buy", "SBI", "100", "885", "--id", "first-B1")
    terminal.types("sell", "SBI", "50", "890", "--id", "second-B2")
    code, said = terminal.types("cancel", "B1", "--id", "C1")
    assert (code, said["target_order_id"], said["participant"]) == (0, "first-B1", "HDFC")
    assert str(said["position"]).startswith("buy-orders@0:")
    terminal.types("cancel", "B2", "--id", "C2")
    terminal.types("cancel", "first-B1", "--id", "C3")
    terminal.exchange()
    assert terminal.answers() == [
        ("first-B1", "ACCEPTED", 0, 100, 0),
        ("second-B2", "ACCEPTED", 0, 50, 0),
        ("C1", "ACCEPTED", 0, 0, 100),
        ("C2", "ACCEPTED", 0, 0, 50),
        ("C3", "ORDER_NOT_FOUND", 0, 0, 0),
    ]


def test_an_end_that_several_ids_have_is_refused_with_their_names(terminal: Terminal) -> None:
    """An id in full means the order that has it; an end that two have means none, unless one of them is excluded."""
    terminal.types("buy", "SBI", "1", "885", "--id", "x1")
    terminal.types("buy", "SBI", "1", "885", "--id", "yx1")
    terminal.types("buy", "SBI", "1", "885", "--id", "zx1", "--as", "LIC")
    code, said = terminal.types("cancel", "1")
    assert (code, said["error"]) == (2, "3 orders could be meant by '1'")
    assert {"x1 of HDFC", "yx1 of HDFC", "zx1 of LIC"} == set(str(said["cause"]).split(", "))
    code, said = terminal.types("cancel", "1", "--as", "LIC")
    assert (code, said["target_order_id"]) == (0, "zx1")
    code, said = terminal.types("cancel", "x1")
    assert (code, said["target_order_id"]) == (0, "x1")
    code, said = terminal.types("cancel", "nothing")
    assert (code, said["error"]) == (1, "no order has an id that ends with 'nothing'")
    terminal.exchange()


def test_an_order_far_back_is_found(home: Path, terminal: Terminal) -> None:
    """The log is looked through window by window, newest first."""
    terminal.types("buy", "SBI", "1", "885", "--id", "early")
    with connect(f"sqlite:{home}") as log:
        log.append([NewRecord("buy-orders", b"SBIN", b"no message", 0)] * 12_000)
    code, said = terminal.types("cancel", "arly")
    assert (code, said["target_order_id"]) == (0, "early")
    terminal.exchange()


def test_a_replace_says_what_it_leaves_open(terminal: Terminal) -> None:
    """A smaller quantity, a new price, and one at which it meets an offer."""
    terminal.types("buy", "SBI", "100", "885", "--id", "B1")
    terminal.types("sell", "SBI", "30", "890", "--id", "S1")
    terminal.types("replace", "B1", "--quantity", "50", "--id", "R1")
    terminal.types("replace", "B1", "--price", "890", "--id", "R2")
    terminal.exchange()
    assert terminal.answers()[2:] == [("R1", "ACCEPTED", 0, 50, 0), ("R2", "ACCEPTED", 30, 20, 0)]


def test_what_may_not_wait_is_cancelled_and_the_order_is_done(terminal: Terminal) -> None:
    """A market order and IOC take what is there, FOK nothing less than all; self-trade prevention takes one out."""
    terminal.types("sell", "SBI", "10", "890", "--id", "S1")
    terminal.types("buy", "SBI", "4", "--id", "market")
    terminal.types("buy", "SBI", "10", "890", "--tif", "ioc", "--id", "ioc")
    terminal.types("buy", "SBI", "1", "--id", "nothing")
    terminal.types("sell", "SBI", "5", "880", "--id", "own", "--as", "HDFC")
    terminal.types("buy", "SBI", "5", "880", "--stp", "cancel-passive", "--id", "stp")
    terminal.types("buy", "SBI", "99", "900", "--tif", "FOK", "--id", "fok")
    terminal.exchange()
    assert terminal.answers() == [
        ("S1", "ACCEPTED", 0, 10, 0),
        ("market", "ACCEPTED", 4, 0, 0),
        ("ioc", "ACCEPTED", 6, 0, 4),
        ("nothing", "ACCEPTED", 0, 0, 1),
        ("own", "ACCEPTED", 0, 5, 0),
        ("stp", "ACCEPTED", 0, 5, 0),
        ("own", "CANCELLED", 0, 0, 5),
        ("fok", "FOK_NOT_FILLABLE", 0, 0, 0),
    ]


def test_an_order_that_ended_without_a_trade_is_a_no(terminal: Terminal, home: Path) -> None:
    """A script sees from the exit code that it got nothing; with a part of it, it got something."""
    terminal.types("sell", "SBI", "10", "890", "--id", "S1")
    over = Event()

    def trades() -> None:
        with connect(f"sqlite:{home}") as log, closing(Node(log, name="test", now_ms=lambda: 0)) as node:
            while not over.is_set():
                node.step(0.05)

    exchange = Thread(target=trades)
    exchange.start()
    try:
        took = [terminal.types("buy", "SBI", "25", *how, "--wait=30s") for how in (("880", "--tif", "IOC"), (), ())]
    finally:
        over.set()
        exchange.join()
    states = [(code, told["state"], told["filled_quantity"]) for code, told in took]
    assert states == [(1, "cancelled", 0), (0, "settled", 10), (1, "cancelled", 0)]


def test_a_message_of_the_seed_has_no_new_field(terminal: Terminal, capsys: pytest.CaptureFixture[str]) -> None:
    """DAY and off are what a message without them means, so they are not sent."""
    cli.run(["buy", "SBI", "100", "885", "--id", "B1", "--tif", "day", "--stp", "OFF", "--dry-run"])
    assert json.loads(capsys.readouterr().out) == {
        "order_id": "B1",
        "buyer": "HDFC",
        "stock_symbol": "SBI",
        "quantity": 100,
        "price_per_unit": 885.0,
    }
    terminal.types("buy", "SBI", "1", "885")
    terminal.exchange()


def test_the_exchange_tells_what_it_did_with_them(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for an accepted replace, and one for a cancel, each about the order that was meant."""
    for arguments in (("buy", "SBI", "100", "885", "--id", "B-1"), ("buy", "SBI", "5", "880", "--id", "B-2")):
        assert cli.run([*arguments, "-q"]) == 0
    assert cli.run(["replace", "B-1", "--quantity", "40", "--price", "886", "--id", "R-1", "-q"]) == 0
    assert cli.run(["cancel", "B-2", "--id", "C-1", "-q"]) == 0
    assert cli.run(["sell", "SBI", "9", "999", "--tif", "IOC", "--id", "S-1", "-q"]) == 0
    capsys.readouterr()
    assert cli.run(["nse", "--once"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    by_event = {(line["event"], line["order_id"]): line for line in told if "order_id" in line}
    assert by_event.keys() == {("replaced", "B-1"), ("cancelled", "B-2"), ("cancelled", "S-1")}
    replaced = by_event["replaced", "B-1"]
    assert (replaced["quantity"], replaced["price_paise"], replaced["source"]) == (40, 88_600, "buy-orders@0:2")
    assert (by_event["cancelled", "B-2"]["quantity"], by_event["cancelled", "S-1"]["quantity"]) == (5, 9)
