"""`kill -9` of the exchange, many times, under load: nothing is lost, nothing is settled twice.

The exchange is the real command in a process of its own. Half of the kills come from outside at a random moment,
half from a fail point inside a commit. Meanwhile a client goes on placing orders, repeating some and sending bytes
that are no message. In the end the auditor reads the whole log.
"""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from auditor import Finding, audit
from stocktrade.domain.messages import BuyOrder, SellOffer
from stocktrade.failpoints import VARIABLE
from stocktrade.transport import connect, topics
from stocktrade.transport.base import Log, NewRecord, Reader
from stocktrade.transport.codec import encode_order, key_of_symbol

SEED: Final = 885
KILLS: Final = int(os.environ.get("STOCKTRADE_TEST_KILLS", "25"))
DEADLINE_S: Final = 30.0

EXCHANGE: Final = (sys.executable, "-m", "stocktrade")
SABOTAGED: Final = (sys.executable, str(Path(__file__).with_name("sabotaged.py")))

IN_A_COMMIT: Final = (
    "owner.commit",
    "sqlite.commit.mid",
    "sqlite.commit.before",
    "sqlite.commit.after",
    "sqlite.anchor.after",
    "owner.committed",
)
SYMBOLS: Final = ("SBIN", "INFY", "ITC")


@dataclass
class Client:
    """Places orders in a thread of its own for as long as the exchange is being killed."""

    url: str
    seed: int
    most_at_once: int
    acknowledged: int = 0
    _over: threading.Event = field(default_factory=threading.Event)
    _errors: list[BaseException] = field(default_factory=list)

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Place orders for the body of a `with`."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(DEADLINE_S)
        assert not thread.is_alive()
        assert self._errors == []

    def _run(self) -> None:
        try:
            chance = random.Random(self.seed)
            number = 0
            with connect(self.url) as log:
                while not self._over.wait(0.01):
                    batch = []
                    for _ in range(chance.randint(1, self.most_at_once)):
                        batch.append(_order(chance, number))
                        number += 1
                    if chance.random() < 0.1:
                        batch.append(batch[0])  # a retry
                    if chance.random() < 0.02:
                        batch.append(NewRecord(topics.SELL_OFFERS, None, b"no message"))
                    self.acknowledged += len(log.append(batch))
        except BaseException as error:  # noqa: BLE001 - raised again by `placing`
            self._errors.append(error)


def _order(chance: random.Random, number: int) -> NewRecord:
    symbol, quantity = chance.choice(SYMBOLS), chance.randint(1, 20)
    name, price = f"id-{number}", Decimal(885 + chance.randint(-3, 3))
    key = key_of_symbol(symbol)
    if chance.random() < 0.5:
        buyer = chance.choice(["HDFC", "ICICI", "LIC"])
        order = BuyOrder(order_id=name, buyer=buyer, stock_symbol=symbol, quantity=quantity, price_per_unit=price)
        return NewRecord(topics.BUY_ORDERS, key, encode_order(order))
    offer = SellOffer(
        offer_id=name,
        seller=chance.choice(["SELLER", "HDFC"]),
        stock_symbol=symbol,
        quantity=quantity,
        price_per_unit=chance.choice([None, price, price]),
    )
    return NewRecord(topics.SELL_OFFERS, key, encode_order(offer))


class Exchange:
    """Processes of the exchange, one after the other, on the log in a folder."""

    def __init__(self, folder: Path, command: tuple[str, ...]) -> None:
        self._folder = folder
        self._command = command
        self._said = folder.with_name("nse.out")

    def start(self, *options: str, failpoints: str = "") -> "subprocess.Popen[bytes]":
        """Start `nse`."""
        environment = os.environ | {"STOCKTRADE_HOME": str(self._folder), VARIABLE: failpoints}
        with self._said.open("ab") as said:
            return subprocess.Popen(
                [*self._command, "nse", *options], env=environment, stdout=said, stderr=subprocess.STDOUT
            )

    def must_end(self, process: "subprocess.Popen[bytes]", code: int) -> None:
        """Wait for a process, which must end with `code`."""
        try:
            assert process.wait(DEADLINE_S) == code, self.last_words()
        finally:
            process.kill()

    def last_words(self) -> str:
        """The end of what the processes have said."""
        return self._said.read_bytes()[-2000:].decode()


def wait_for_owner(journal: Reader) -> None:
    """Wait until the next owner has entered the journal."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for record in journal.poll(0.5):
            if json.loads(record.value or b"")["kind"] == "owner":
                return
    raise AssertionError("nobody owns the shard")


def kill_outside(exchange: Exchange, journal: Reader, chance: random.Random) -> None:
    """Kill an exchange that trades, or one in four that starts, a random moment later."""
    process = exchange.start()
    starts = chance.random() < 0.25
    if not starts:
        wait_for_owner(journal)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(chance.uniform(0.05, 0.4) if starts else chance.uniform(0, 0.1))
    process.kill()
    exchange.must_end(process, -signal.SIGKILL)


def kill_inside(exchange: Exchange, chance: random.Random) -> None:
    """Let an exchange kill itself in one of its first commits."""
    process = exchange.start(failpoints=f"{chance.choice(IN_A_COMMIT)}=kill@{chance.randint(1, 12)}")
    exchange.must_end(process, -signal.SIGKILL)


def stop(exchange: Exchange, journal: Reader, *, torn_snapshot: bool) -> None:
    """End an exchange cleanly, or in the middle of the snapshot with which it ends."""
    process = exchange.start(failpoints="owner.snapshot=kill@2" if torn_snapshot else "")
    wait_for_owner(journal)
    process.terminate()
    exchange.must_end(process, -signal.SIGKILL if torn_snapshot else 0)


def take_the_rest(exchange: Exchange) -> None:
    """Take what is left on the log with `nse --once`."""
    exchange.must_end(exchange.start("--once"), 0)


def values(log: Log, topic: str) -> list[dict[str, Any]]:
    """The messages on a topic."""
    found: list[dict[str, Any]] = []
    with closing(log.reader({(topic, 0): 0})) as reader:
        while records := reader.poll(0.0):
            found += [json.loads(record.value or b"") for record in records]
    return found


def close_out(log: Log) -> int:
    """Place the orders that fill whatever rests on the log; how many these are."""
    filled: Counter[tuple[str, str]] = Counter()
    for trade in values(log, topics.TRADES):
        filled[trade["buyer"], trade["buy_order_id"]] += trade["quantity"]
        filled[trade["seller"], trade["sell_order_id"]] += trade["quantity"]
    rests: dict[tuple[str, str], int] = defaultdict(int)
    for event in values(log, topics.ORDER_EVENTS):
        if event["status"] == "ACCEPTED":
            left = event["quantity"] - filled[event["participant"], event["order_id"]]
            rests[event["side"], event["stock_symbol"]] += left
    batch = []
    for (side, symbol), quantity in rests.items():
        key, name = key_of_symbol(symbol), f"closing-{side}-{symbol}"
        if quantity and side == "BUY":
            offer = SellOffer(offer_id=name, seller="CLOSER", stock_symbol=symbol, quantity=quantity)
            batch.append(NewRecord(topics.SELL_OFFERS, key, encode_order(offer)))
        elif quantity:
            order = BuyOrder(
                order_id=name,
                buyer="CLOSER",
                stock_symbol=symbol,
                quantity=quantity,
                price_per_unit=Decimal(900),
            )
            batch.append(NewRecord(topics.BUY_ORDERS, key, encode_order(order)))
    log.append(batch)
    return len(batch)


@dataclass
class Result:
    """What came out of a run. `inputs` and `accepted` count orders, `unsettled` names those not settled whole."""

    findings: list[Finding]
    kills: Counter[str]
    acknowledged: int
    inputs: int
    accepted: int
    unsettled: dict[tuple[str, str], int]


def run(folder: Path, command: tuple[str, ...], *, inside: int, outside: int) -> Result:
    """Kill exchanges as often as asked while a client places orders; then settle the rest and audit the log."""
    chance = random.Random(SEED)
    plan = ["inside"] * inside + ["outside"] * outside
    chance.shuffle(plan)
    for place in range(len(plan), 0, -10):
        plan.insert(place, "torn snapshot" if place // 10 % 2 else "stop")
    exchange = Exchange(folder, command)
    with connect(f"sqlite:{folder}") as log:
        log.ensure_topics(topics.SPECS)
        client = Client(f"sqlite:{folder}", SEED, most_at_once=max(4, 400 // len(plan)))
        with client.placing():
            for deed in plan:
                with closing(log.reader({(topics.JOURNAL, 0): None})) as journal:
                    if deed == "inside":
                        kill_inside(exchange, chance)
                    elif deed == "outside":
                        kill_outside(exchange, journal, chance)
                    else:
                        stop(exchange, journal, torn_snapshot=deed == "torn snapshot")
        take_the_rest(exchange)
        closing_orders = close_out(log)
        take_the_rest(exchange)
        inputs = sum(log.reader({(topic, 0): 0 for topic in topics.INPUTS}).ends().values())
        owed = {
            (event["participant"], event["order_id"]): event["quantity"]
            for event in values(log, topics.ORDER_EVENTS)
            if event["status"] == "ACCEPTED"
        }
        unsettled = Counter(owed)
        for leg in values(log, topics.DEMAT_TRANSFERS):
            unsettled[leg["to_entity"], leg["order_id"]] -= leg["quantity"]
        return Result(
            audit(log),
            Counter(plan),
            client.acknowledged + closing_orders,
            inputs,
            len(owed),
            {order: quantity for order, quantity in unsettled.items() if quantity},
        )


@pytest.fixture
def folder() -> Iterator[Path]:
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with TemporaryDirectory(dir=memory if usable else None) as parent:
        yield Path(parent) / "log"


@pytest.mark.slow
@pytest.mark.timeout(60 + 4 * KILLS)
def test_kill_9_at_any_moment_loses_and_doubles_nothing(folder: Path) -> None:
    """Every order that was acknowledged is in the journal once and, if accepted, settled once, however often the
    exchange is killed; the auditor finds nothing.
    """
    result = run(folder, EXCHANGE, inside=KILLS - KILLS // 2, outside=KILLS // 2)
    assert result.findings == []
    assert result.inputs == result.acknowledged
    assert result.unsettled == {}
    assert result.kills["inside"] + result.kills["outside"] == KILLS
    assert result.accepted > min(2_000, 80 * KILLS)


@pytest.mark.slow
def test_a_commit_that_is_not_atomic_is_found(folder: Path) -> None:
    """The same run over commits in two parts ends with findings: orders without events, trades without legs."""
    result = run(folder, SABOTAGED, inside=6, outside=0)
    assert {finding.rule for finding in result.findings} >= {"one event", "outputs"}
