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
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from clients import Client, make_order
from processes import DEADLINE_S, PROGRAM, Commands, quick_folder

from auditor import Finding, examine
from stocktrade.transport import connect, topics
from stocktrade.transport.base import Log, Reader

SEED: Final = 885
KILLS: Final = int(os.environ.get("STOCKTRADE_TEST_KILLS", "25"))

SABOTAGED: Final = (sys.executable, str(Path(__file__).with_name("sabotaged.py")))

IN_A_COMMIT: Final = (
    "owner.commit",
    "sqlite.commit.mid",
    "sqlite.commit.before",
    "sqlite.commit.after",
    "sqlite.anchor.after",
    "owner.committed",
)
IN_HASTE: Final = 15_000
"""So many orders are placed as fast as may be, the same number for each kill."""

SYMBOLS: Final = ("SBIN", "INFY", "ITC")


def wait_for_owner(journal: Reader) -> None:
    """Wait until the next owner has entered the journal."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        for record in journal.poll(0.5):
            if json.loads(record.value or b"")["kind"] == "owner":
                return
    raise AssertionError("nobody owns the shard")


def kill_outside(exchange: Commands, journal: Reader, chance: random.Random) -> None:
    """Kill an exchange that trades, or one in four that starts, a random moment later."""
    process = exchange.start("nse")
    starts = chance.random() < 0.25
    if not starts:
        wait_for_owner(journal)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(chance.uniform(0.05, 0.4) if starts else chance.uniform(0, 0.1))
    process.kill()
    exchange.must_end(process, -signal.SIGKILL)


def kill_inside(exchange: Commands, chance: random.Random) -> None:
    """Let an exchange kill itself in one of its first commits."""
    process = exchange.start("nse", failpoints=f"{chance.choice(IN_A_COMMIT)}=kill@{chance.randint(1, 12)}")
    exchange.must_end(process, -signal.SIGKILL)


def stop(exchange: Commands, journal: Reader, *, torn_snapshot: bool) -> None:
    """End an exchange cleanly, or in the middle of the snapshot with which it ends."""
    process = exchange.start("nse", failpoints="owner.snapshot=kill@2" if torn_snapshot else "")
    wait_for_owner(journal)
    process.terminate()
    exchange.must_end(process, -signal.SIGKILL if torn_snapshot else 0)


def take_the_rest(exchange: Commands) -> None:
    """Take what is left on the log with `nse --once`."""
    exchange.must_end(exchange.start("nse", "--once"), 0)


def values(log: Log, topic: str) -> list[dict[str, Any]]:
    """The messages on a topic."""
    found: list[dict[str, Any]] = []
    with closing(log.reader({(topic, 0): 0})) as reader:
        while records := reader.poll(0.0):
            found += [json.loads(record.value or b"") for record in records]
    return found


def close_out(log: Log, client: Client) -> None:
    """Place the orders that fill whatever rests on the log."""
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
        counter, price = ("SELL", None) if side == "BUY" else ("BUY", 900)
        if quantity:
            name = f"closing-{side}-{symbol}"
            batch.append(make_order(counter, symbol, name, quantity, price, "CLOSER", "CLOSER"))
    client.send(log, batch)


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
    url = f"sqlite:{folder}"
    exchange = Commands(folder.parent, program=command, environment={"STOCKTRADE_HOME": str(folder)})
    with exchange.ending(), connect(url) as log:
        log.ensure_topics(topics.SPECS)
        client = Client(lambda: connect(url), "id", SEED, most_at_once=14, symbols=SYMBOLS)
        with client.placing():
            for deed in plan:
                client.hurry(IN_HASTE // len(plan))
                with closing(log.reader({(topics.JOURNAL, 0): None})) as journal:
                    if deed == "inside":
                        kill_inside(exchange, chance)
                    elif deed == "outside":
                        kill_outside(exchange, journal, chance)
                    else:
                        stop(exchange, journal, torn_snapshot=deed == "torn snapshot")
        take_the_rest(exchange)
        close_out(log, client)
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
            examine(log, client.told).findings,
            Counter(plan),
            client.count("acknowledged"),
            inputs,
            len(owed),
            {order: quantity for order, quantity in unsettled.items() if quantity},
        )


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as parent:
        yield parent / "log"


@pytest.mark.slow
@pytest.mark.timeout(120 + 8 * KILLS)
def test_kill_9_at_any_moment_loses_and_doubles_nothing(folder: Path) -> None:
    """Every order that was acknowledged is in the journal once and, if accepted, settled once, however often the
    exchange is killed; the auditor finds nothing.
    """
    result = run(folder, PROGRAM, inside=KILLS - KILLS // 2, outside=KILLS // 2)
    assert result.findings == []
    assert result.inputs == result.acknowledged
    assert result.unsettled == {}
    assert result.kills["inside"] + result.kills["outside"] == KILLS
    assert result.accepted > min(2_000, 80 * KILLS)


@pytest.mark.slow
def test_a_commit_that_is_not_atomic_is_found(folder: Path) -> None:
    """The same run over commits in two parts ends with findings: orders without events, trades without legs."""
    result = run(folder, SABOTAGED, inside=6, outside=0)
    assert {finding.rule for finding in result.findings} >= {"answers", "outputs"}
