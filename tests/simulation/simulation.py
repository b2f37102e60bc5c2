"""A run of the exchange on a simulated log, as a function of one seed: safety under faults, then heal and converge.

The shard protocol is the real one (`shard.node`), clients, crashes, zombies and the group come from the seed, and the
audit judges what is on the log in the end.
"""

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import pytest
from kafka_model import Cluster, Crash, Entry, Faults, SimulatedLog

from auditor import Finding, Told, examine
from stocktrade.errors import Fenced, StocktradeError, Unavailable, Unknown
from stocktrade.shard import node as node_module
from stocktrade.shard import owner as owner_module
from stocktrade.shard.node import Node
from stocktrade.transport import topics
from stocktrade.transport.base import NewRecord, Position

STEPS: Final = 160
HEALING_STEPS: Final = 400


class Clock:
    """Stands in for the module `time`: it goes on by itself, a little with each look."""

    def __init__(self) -> None:
        self._now = 0.0

    def monotonic(self) -> float:
        """Seconds."""
        self._now += 0.05
        return self._now

    def sleep(self, seconds: float) -> None:
        """Nobody waits."""
        self._now += seconds


@dataclass
class Process:
    """An exchange: its connection, its node while it runs, and whether it is frozen."""

    number: int
    log: SimulatedLog
    node: Node | None = None
    frozen: bool = False


@dataclass
class Run:
    """What came of a seed."""

    seed: int
    findings: list[Finding]
    trades: int
    trace: list[str] = field(repr=False)


def message(chance: random.Random, number: int, sent: list[tuple[str, str, str, bool]]) -> NewRecord:
    """One thing that a client may send: every instruction, bytes that are none, keys that lead astray."""
    name = f"o{number}"
    buys = chance.random() < 0.5
    participant = chance.choice(["HDFC", "ICICI"] if buys else ["SELLER", "HDFC"])
    symbol = chance.choice(["SBI", "INFY", "TCS", "ITC"])
    said: dict[str, object] = {}
    price = chance.randrange(884, 888)
    kind = chance.random()
    if kind < 0.2 and sent:
        target, participant, symbol, buys = chance.choice(sent[-6:])
        said = {"action": "cancel" if kind < 0.1 else "replace", "target_order_id": target}
        if kind >= 0.1:
            said |= chance.choice([{"quantity": 3}, {"quantity": 12}, {"price_per_unit": price}])
    else:
        said["quantity"] = chance.randrange(1, 10)
        if chance.random() < 0.85:
            said["price_per_unit"] = price
        if chance.random() < 0.15:
            said["time_in_force"] = chance.choice(["IOC", "FOK"])
        if chance.random() < 0.15:
            said["self_trade_prevention"] = chance.choice(["cancel-passive", "cancel-active"])
        sent.append((name, participant, symbol, buys))
    fields = {
        "order_id" if buys else "offer_id": name,
        "buyer" if buys else "seller": participant,
        "stock_symbol": symbol,
        **said,
    }
    value = b"no message" if chance.random() < 0.04 else json.dumps(fields).encode()
    key = {"SBI": b"SBIN"}.get(symbol, symbol.encode())
    # Another client's partitioner, or no key at all.
    return NewRecord(
        topics.BUY_ORDERS if buys else topics.SELL_OFFERS, chance.choice([key, key, key, b"x", None]), value
    )


class Simulation:
    """One run. The order of its steps, and every fault, follows from the seed."""

    def __init__(self, seed: int, *, is_v2: bool = True, fences: bool = True, isolates: bool = True) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.cluster = Cluster(self.chance, self.chance.randrange(1, 4))
        self.cluster.fences, self.cluster.isolates = fences, isolates
        self.faults = Faults(
            lost_request=0.05,
            lost_answer=0.05,
            doubled_end=0.3,
            unheard_produce=0.05,
            short_poll=0.3,
            lost_place=0.05,
            is_v2=is_v2,
        )
        self.processes = [Process(number, SimulatedLog(self.cluster)) for number in range(self.chance.randrange(1, 4))]
        self.client = SimulatedLog(self.cluster)
        self.told: list[Told] = []
        self.trace: list[str] = []
        self.sent: list[tuple[str, str, str, bool]] = []
        self._again: list[NewRecord] = []
        self._turning = self.client

    def run(self) -> Run:
        """Everything, from an empty log to the judgement."""
        self.client.ensure_topics(topics.SPECS)
        with self._simulated():
            self.cluster.faults = self.faults
            self._assign()
            for number in range(STEPS):
                self._step(number)
            self._heal()
        self.cluster.isolates = True
        self.cluster.fences = True
        try:
            report = examine(self.client, self.told)
        except StocktradeError as error:
            return Run(self.seed, [Finding("judge", "", str(error))], 0, self.trace)
        return Run(self.seed, report.findings, report.trades, self.trace)

    @contextmanager
    def _simulated(self) -> Iterator[None]:
        """Put the clock, the places to die and a small distance of snapshots into the protocol's modules."""
        clock = Clock()

        def hit(name: str) -> None:
            self._turning.step(name)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(node_module, "time", clock)
            patch.setattr(owner_module, "time", clock)
            patch.setattr(owner_module, "hit", hit)
            patch.setattr(owner_module, "SNAPSHOT_EVERY_INPUTS", 12)
            yield

    # --- steps ---------------------------------------------------------------------------------------------

    def _step(self, number: int) -> None:
        action = self.chance.random()
        process = self.chance.choice(self.processes)
        if action < 0.30:
            self._send(number)
        elif action < 0.86:
            if not process.frozen:
                self._turn(process)
        elif action < 0.90:
            process.frozen = not process.frozen
            self.trace.append(f"process {process.number} {'freezes' if process.frozen else 'goes on'}")
        elif action < 0.94:
            process.log.steps_left = self.chance.randrange(1, 25)
        elif action < 0.98:
            self._assign()
        elif self.cluster.deliver_late():
            self.trace.append("a late request to commit arrives")

    def _send(self, number: int) -> None:
        repeats = bool(self._again) and self.chance.random() < 0.5
        record = self._again.pop() if repeats else message(self.chance, number, self.sent)
        answer, where = "acknowledged", None
        try:
            (where,) = self.client.append([record])
        except Unknown:
            answer = "unknown"
            self._again.append(record)
        except Unavailable:
            answer = "failed"
            self._again.append(record)
        self.trace.append(f"a client sends {(record.value or b'').decode()}: {answer} {where or ''}")
        self._note(record, answer, where)

    def _note(self, record: NewRecord, answer: str, where: Position | None) -> None:
        try:
            fields = json.loads(record.value or b"")
        except ValueError:
            fields = {}
        participant = fields.get("buyer") or fields.get("seller") or ""
        name = fields.get("order_id") or fields.get("offer_id") or ""
        self.told.append(Told(record.topic, participant, name, record.value or b"", answer, where))  # type: ignore[arg-type]

    def _assign(self) -> None:
        """A new generation of the group: each shard to somebody, and sometimes to two, who do not know it yet."""
        for process in self.processes:
            process.log.generation += 1
            process.log.assigned = set()
        for shard in range(self.cluster.count):
            self.chance.choice(self.processes).log.assigned.add(shard)
            if self.chance.random() < 0.3:
                self.chance.choice(self.processes).log.assigned.add(shard)
        self.trace.append(f"assigned: {[sorted(process.log.assigned) for process in self.processes]}")

    def _turn(self, process: Process) -> None:
        self._turning = process.log
        try:
            if process.node is None:
                process.node = Node(
                    process.log, name=f"process {process.number}", now_ms=lambda: 0, outlasts_outages=True
                )
            step = process.node.step(0.0)
            if step.taken or step.started or step.lost:
                self.trace.append(
                    f"process {process.number} takes {[str(taken.record.position) for taken in step.taken]}, "
                    f"owns {sorted(process.node.owners)}, lost {sorted(step.lost)}"
                )
        except Crash:
            self.trace.append(f"process {process.number} is killed")
            process.node = None
            process.log = self._anew(process.log)
        except (Fenced, Unavailable) as error:
            self.trace.append(f"process {process.number} ends: {error}")
            process.node = None
            process.log = self._anew(process.log)

    def _anew(self, old: SimulatedLog) -> SimulatedLog:
        log = SimulatedLog(self.cluster)
        log.assigned, log.generation = old.assigned, old.generation + 1
        return log

    def _heal(self) -> None:
        """No more faults: one owner for each shard, and everything is taken within bounds."""
        self.trace.append("healed")
        self.cluster.faults = Faults(is_v2=self.faults.is_v2)
        for process in self.processes:
            process.frozen = False
            process.log.steps_left = None
            process.log.generation += 1
            process.log.assigned = set()
        for shard in range(self.cluster.count):
            self.processes[shard % len(self.processes)].log.assigned.add(shard)
            # That a client has lost its place shows with the next record.
            for topic in topics.INPUTS:
                last = NewRecord(topic, None, b"the last", shard)
                (where,) = self.client.append([last])
                self._note(last, "acknowledged", where)
        for _ in range(HEALING_STEPS):
            for process in self.processes:
                self._turn(process)
            while self.cluster.deliver_late():
                pass
            if self._is_done():
                return

    def _is_done(self) -> bool:
        for process in self.processes:
            if process.node is None or process.node.owners.keys() != process.log.assigned:
                return False
        for topic in topics.INPUTS:
            for shard in range(self.cluster.count):
                owner = next(p.node.owners[shard] for p in self.processes if p.node and shard in p.log.assigned)
                entries = self.cluster.entries(topic, shard)
                last = max((place for place, entry in enumerate(entries) if _counts(entry)), default=-1)
                if owner.committed[topic] <= last:
                    return False
        return True


def _counts(entry: Entry) -> bool:
    return entry.record is not None and (entry.transaction is None or entry.transaction.state == "committed")


def simulate(seed: int, *, is_v2: bool = True, fences: bool = True, isolates: bool = True) -> Run:
    """One run; an error that the protocol does not know is a finding, too.

    Args:
        seed: what everything follows from.
        is_v2: whether each transaction has an epoch of its own, so that a late request cannot end the next one.
        fences: whether a newer owner's epoch keeps older ones from writing.
        isolates: whether readers see what is committed only.
    """
    simulation = Simulation(seed, is_v2=is_v2, fences=fences, isolates=isolates)
    try:
        return simulation.run()
    except (StocktradeError, AssertionError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        finding = Finding("error", f"seed {seed}", f"{type(error).__name__}: {error}")
        return Run(seed, [finding], 0, simulation.trace)
