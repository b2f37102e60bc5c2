"""The life of exchanges as processes: standing by, taking over, being stopped, ending, coming late, and the seed's
own walk.

Every process is the real command on an embedded log. What a process says is read from its file; nothing is waited
for but a record, a line or an end, each with a deadline.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from clients import make_order
from processes import Commands, quick_folder, until

from auditor import audit
from stocktrade.transport import connect, topics
from stocktrade.transport.base import Log, NewRecord, Reader, Record

pytestmark = pytest.mark.slow

DEADLINE_S: Final = 20.0


class Home(Commands):
    """A log in a folder, and the processes that were started on it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.parent, environment={"STOCKTRADE_HOME": str(folder)})
        self.folder = folder

    def open(self) -> Log:
        """The log, with its topics."""
        log = connect(f"sqlite:{self.folder}")
        log.ensure_topics(topics.SPECS)
        return log


@pytest.fixture
def home() -> Iterator[Home]:
    with quick_folder() as parent:
        home = Home(parent / "log")
        with home.ending():
            yield home


def buy(name: str, price: int = 885, quantity: int = 100) -> NewRecord:
    return make_order("BUY", "SBI", name, quantity, price)[0]


def sell(name: str, price: int | None = None, quantity: int = 100) -> NewRecord:
    return make_order("SELL", "SBI", name, quantity, price)[0]


def wait_for_records(reader: Reader, count: int) -> list[Record]:
    """The next `count` records of a reader."""
    deadline = time.monotonic() + DEADLINE_S
    records: list[Record] = []
    while len(records) < count:
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
        records += reader.poll(0.5)
    assert len(records) == count
    return records


def messages(log: Log, topic: str) -> list[dict[str, Any]]:
    """The messages on a topic."""
    with closing(log.reader({(topic, 0): 0})) as reader:
        return [json.loads(record.value or b"") for record in reader.poll(0.0)]


def owners(log: Log) -> list[tuple[int, str]]:
    """Who owned the shard, by epoch."""
    journal = messages(log, topics.JOURNAL)
    return [(entry["epoch"], entry["owner"]) for entry in journal if entry["kind"] == "owner"]


# --- two of them -----------------------------------------------------------------------------------------------


def test_the_second_exchange_stands_by_and_takes_over_within_a_second(home: Home) -> None:
    """A second exchange names the pid of the first, and trades within a second of its death."""
    with home.open() as log, closing(log.reader({(topics.ORDER_EVENTS, 0): None})) as events:
        first = home.start("nse")
        home.wait_for(first, "owns")
        second = home.start("nse")
        assert home.wait_for(second, "stands-by")["owner"] == f"pid {first.pid}"
        log.append([buy("B-1")])
        wait_for_records(events, 1)

        killed = time.monotonic()
        first.kill()
        log.append([sell("S-1")])
        wait_for_records(events, 1)
        took_s = time.monotonic() - killed

        assert took_s < 1.0
        assert owners(log) == [(1, f"pid {first.pid}"), (2, f"pid {second.pid}")]
        home.wait_for(second, "trade")
        second.terminate()
        home.must_end(second, 0)
        assert audit(log) == []


def test_a_stopped_owner_keeps_its_shard_and_goes_on(home: Home) -> None:
    """While the owner is merely stopped nobody takes over; continued, it settles what came, once."""
    with home.open() as log, closing(log.reader({(topics.ORDER_EVENTS, 0): None})) as events:
        first = home.start("nse")
        home.wait_for(first, "owns")
        second = home.start("nse")
        home.wait_for(second, "stands-by")
        first.send_signal(signal.SIGSTOP)
        os.waitpid(first.pid, os.WUNTRACED)
        log.append([order for n in range(50) for order in (buy(f"B-{n}"), sell(f"S-{n}"))])
        assert events.poll(1.0) == []  # long enough for a take-over, as the test above shows
        assert owners(log) == [(1, f"pid {first.pid}")]

        first.send_signal(signal.SIGCONT)
        wait_for_records(events, 100)
        assert owners(log) == [(1, f"pid {first.pid}")]
        first.kill()
        log.append([buy("B-last")])
        wait_for_records(events, 1)
        assert owners(log) == [(1, f"pid {first.pid}"), (2, f"pid {second.pid}")]
        second.terminate()
        home.must_end(second, 0)
        assert len(messages(log, topics.TRADES)) == 50
        assert audit(log) == []


def test_an_owner_stopped_in_the_middle_of_a_commit_settles_nothing_twice(home: Home) -> None:
    """Stopped between the two halves of a commit, killed there, and replaced: each order is settled once."""
    with home.open() as log, closing(log.reader({(topics.ORDER_EVENTS, 0): None})) as events:
        log.append([buy("B-1"), sell("S-1")])
        first = home.start("nse", failpoints="sqlite.commit.mid=stop@2")
        os.waitpid(first.pid, os.WUNTRACED)
        second = home.start("nse")
        home.wait_for(second, "stands-by")
        assert events.poll(0.0) == []
        first.kill()
        wait_for_records(events, 2)
        second.terminate()
        home.must_end(second, 0)
        assert len(messages(log, topics.TRADES)) == 1
        assert audit(log) == []


def test_once_beside_a_running_exchange_ends_with_3(home: Home) -> None:
    """`nse --once` does not wait for another exchange: it names its pid and ends."""
    with home.open():
        running = home.start("nse")
        home.wait_for(running, "owns")
        once = home.start("nse", "--once")
        home.must_end(once, 3)
        assert f"owned by pid {running.pid}" in home.said(once, "err")


def test_a_process_stopped_in_the_gate_makes_the_others_end_with_3(home: Home) -> None:
    """Nobody hangs behind a process that is stopped while it writes: `buy` and `nse --once` end and name it."""
    with home.open() as log:
        log.append([buy("B-0")])
        stopped = home.start("buy", "SBI", "1", "885", failpoints="sqlite.gate.held=stop")
        os.waitpid(stopped.pid, os.WUNTRACED)
        others = [home.start("buy", "SBI", "1", "885"), home.start("nse", "--once")]
        for other in others:
            home.must_end(other, 3)
            said = home.said(other, "err")
            assert f"error: pid {stopped.pid} has held the write gate" in said
            assert "Traceback" not in said
        stopped.send_signal(signal.SIGCONT)
        home.must_end(stopped, 0)
        home.must_end(home.start("nse", "--once"), 0)
        assert len(messages(log, topics.ORDER_EVENTS)) == 2


# --- coming late, ending, coming back --------------------------------------------------------------------------


def test_an_exchange_that_starts_late_takes_orders_in_their_true_order(home: Home) -> None:
    """A backlog is taken in the order in which it came, not all buys first: each pair trades at its maker's price."""
    with home.open() as log:
        for n in range(300):  # one append each: each has its own moment
            pair = [buy(f"B-{n}", 885), sell(f"S-{n}", 880)]
            for order in pair if n % 2 == 0 else pair[::-1]:
                log.append([order])
        home.must_end(home.start("nse", "--once"), 0)
        prices = [trade["price_per_unit"] for trade in messages(log, topics.TRADES)]
        assert prices == [885.0, 880.0] * 150
        assert audit(log) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_an_exchange_that_is_asked_to_stop_leaves_a_snapshot(home: Home, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end it with 0 within 5 s; the next one recovers from the snapshot and goes on."""
    with home.open() as log, closing(log.reader({(topics.ORDER_EVENTS, 0): None})) as events:
        first = home.start("nse")
        log.append([buy(f"B-{n}") for n in range(500)])
        wait_for_records(events, 500)
        first.send_signal(number)
        home.must_end(first, 0, within_s=5)
        assert home.events(first)[-1]["event"] == "stopped"
        assert "entry" in messages(log, topics.SNAPSHOTS)[-1]

        second = home.start("nse")
        start = home.wait_for(second, "owns")
        assert (start["from_snapshot"], start["inputs_replayed"], start["epoch"]) == (True, 0, 2)
        log.append([sell("S-1", quantity=50_000)])
        wait_for_records(events, 1)
        second.send_signal(number)
        home.must_end(second, 0, within_s=5)
        assert len(messages(log, topics.TRADES)) == 500
        assert audit(log) == []


def test_an_exchange_asked_to_stop_under_load_ends_within_5_seconds(home: Home) -> None:
    """SIGTERM in the middle of a backlog ends it with 0 within 5 s, and what it left is taken by the next one."""
    with home.open() as log, closing(log.reader({(topics.ORDER_EVENTS, 0): None})) as events:
        log.append([order for n in range(10_000) for order in (buy(f"B-{n}"), sell(f"S-{n}"))])
        first = home.start("nse")
        until(lambda: events.poll(0.5, max_records=1))
        first.terminate()
        home.must_end(first, 0, within_s=5)
        home.must_end(home.start("nse", "--once"), 0)
        with closing(log.reader({(topics.TRADES, 0): 0})) as trades:
            assert trades.ends() == {(topics.TRADES, 0): 10_000}


# --- the seed --------------------------------------------------------------------------------------------------

SEED_ORDER: Final = (
    '{"order_id": "ORD-1", "buyer": "HDFC", "stock_symbol": "SBI", "quantity": 100, "price_per_unit": 885.00}'
)
SEED_OFFER: Final = '{"offer_id": "OFR-1", "seller": "SELLER", "stock_symbol": "SBI", "quantity": 100}'

# The seed's fields of what HDFC is told, as text: not 88500 for 88500.0, nor an escape for the rupee sign.
SEED_DEMAT: Final = (
    '"from_entity":"NSE","to_entity":"HDFC","stock_symbol":"SBI","quantity":100,"order_id":"ORD-1","direction":"CREDIT"'
)
SEED_CASH: Final = (
    '"from_entity":"NSE","to_entity":"HDFC","amount":88500.0,"order_id":"ORD-1",'
    '"description":"Payment for 100 SBI stocks @ ₹885","direction":"DEBIT"'
)


@pytest.mark.parametrize("first", ["buyer", "seller"])
def test_the_seeds_flow_gives_exactly_its_messages(home: Home, first: str) -> None:
    """HDFC buys 100 SBI at ₹885 from SELLER: every field of the seed's messages is as it wrote it, whoever speaks
    first, from JSON that any client may have produced.
    """
    with home.open() as log:
        order = NewRecord(topics.BUY_ORDERS, None, SEED_ORDER.encode())
        offer = NewRecord(topics.SELL_OFFERS, None, SEED_OFFER.encode())
        for record in (order, offer) if first == "buyer" else (offer, order):
            log.append([record])
        home.must_end(home.start("nse", "--once"), 0)

        advices = {}
        for topic in (topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS):
            with closing(log.reader({(topic, 0): 0})) as reader:
                to_hdfc = [record for record in reader.poll(0.0) if record.key == b"HDFC"]
            assert len(to_hdfc) == 1
            advices[topic] = (to_hdfc[0].value or b"").decode()
        demat, cash = advices.values()
        assert SEED_DEMAT in demat
        assert SEED_CASH in cash
        assert json.loads(demat) == {
            "transfer_id": json.loads(demat)["transfer_id"],
            "from_entity": "NSE",
            "to_entity": "HDFC",
            "stock_symbol": "SBI",
            "quantity": 100,
            "order_id": "ORD-1",
            "direction": "CREDIT",
            "trade_id": "T0-2-1",
            "seq": 2,
        }
        assert json.loads(cash) == {
            "movement_id": json.loads(cash)["movement_id"],
            "from_entity": "NSE",
            "to_entity": "HDFC",
            "amount": 88500.0,
            "order_id": "ORD-1",
            "description": "Payment for 100 SBI stocks @ ₹885",
            "direction": "DEBIT",
            "trade_id": "T0-2-1",
            "seq": 2,
        }
        assert json.loads(demat)["transfer_id"] != json.loads(cash)["movement_id"]
        assert audit(log) == []


@pytest.mark.parametrize("first", ["buyer", "seller"])
def test_our_commands_put_the_seeds_orders_on_the_log(home: Home, first: str) -> None:
    """`buy SBI 100 885` and `sell SBI 100` write the seed's fields and no others, and are settled at 885."""
    buyer = ("buy", "SBI", "100", "885", "--id", "ORD-1")
    seller = ("sell", "SBI", "100", "--id", "OFR-1")
    with home.open() as log:
        for command in (buyer, seller) if first == "buyer" else (seller, buyer):
            home.must_end(home.start(*command), 0)
        home.must_end(home.start("nse", "--once"), 0)
        assert messages(log, topics.BUY_ORDERS) == [json.loads(SEED_ORDER)]
        assert messages(log, topics.SELL_OFFERS) == [json.loads(SEED_OFFER)]
        (trade,) = messages(log, topics.TRADES)
        assert (trade["quantity"], trade["price_per_unit"], trade["amount"]) == (100, 885.0, 88500.0)
        assert audit(log) == []
