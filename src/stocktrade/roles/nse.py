"""`nse`: the exchange as a process. Owns what it says on the screen and when it stops; the trading is `shard`'s.

Invariant: what is printed as settled is committed.
"""

import json
import os
from collections.abc import Callable
from typing import Any, Final, TextIO

from rich.console import Console
from rich.text import Text

from stocktrade.core.rules import RULES, Rules
from stocktrade.domain.facts import Action, Cancellation, Match, Outcome, Status
from stocktrade.domain.values import visible
from stocktrade.errors import ExitCode, Occupied
from stocktrade.shard.node import Node, Step
from stocktrade.shard.owner import Owner, Taken
from stocktrade.tables import ShardStart, many, shard_line, start_panel, trade_line
from stocktrade.transport.base import Log, TopicPartition
from stocktrade.transport.codec import trade_id

POLL_S: Final = 0.25
LINES_PER_STEP: Final = 20
"""More trades than this at once are counted instead of shown: a screen must not hold the exchange up."""


def run(
    log: Log,
    *,
    group: str,
    once: bool,
    stop: Callable[[], bool],
    console: Console,
    out: TextIO,
    now_ms: Callable[[], int],
    rules: Rules = RULES,
) -> ExitCode:
    """Be the exchange until `stop` says so, or, with `once`, until what is on the log is taken.

    Raises:
        Occupied: `once`, and another process owns a shard.
        Fenced: another exchange, of another group, trades the same shards.
        StocktradeError: a shard could not be recovered or committed.
    """
    screen = _Panel(console, log, rules) if console.is_terminal else _Lines(out, log)
    node = Node(
        log,
        name=f"pid {os.getpid()}",
        now_ms=now_ms,
        group=group,
        rules=rules,
        # Somebody waits for `once` to end; otherwise an exchange outlives its brokers.
        outlasts_outages=log.remote and not once,
    )
    try:
        ends = node.backlog_ends() if once else {}
        while not stop():
            step = node.step(POLL_S)
            screen.show(step)
            if once and node.has_taken(ends):
                break
            if once and step.waiting_for and not step.started:
                shard, owner = next(iter(step.waiting_for.items()))
                raise Occupied(
                    f"shard {shard} is owned by {owner}",
                    cause="--once takes what is on the log by itself, and an exchange is running",
                    hint="let the running exchange do it, or stop it first",
                )
        screen.show(node.close())
    except BaseException:
        node.abandon()
        raise
    screen.stopped()
    return ExitCode.OK


def _start_of(owner: Owner) -> ShardStart:
    return ShardStart(owner.shard, owner.epoch, *owner.recovered)


class _Panel:
    """For people: a panel, then a line for each trade and each refusal."""

    def __init__(self, console: Console, log: Log, rules: Rules) -> None:
        self._console = console
        self._rules = "" if rules == RULES else rules.name
        self._log = log
        self._begun = False
        self._trades = 0
        self._held = _Held()
        self._trouble = ""

    def show(self, step: Step) -> None:
        starts = [_start_of(owner) for owner in step.started]
        if not self._begun and (starts or step.waiting_for):
            self._begun = True
            self._console.print(
                start_panel(
                    log=self._log.url,
                    client=self._log.client,
                    partitions=self._log.partitions(),
                    shards=starts,
                    waiting=dict(step.waiting_for),
                    rules=self._rules,
                )
            )
        elif starts:
            for start in starts:
                self._console.print(f"took over shard {start.shard}:", shard_line(start))
        for shard, why in step.lost.items():
            self._console.print(Text(f"gave up shard {shard}" + (f": {why.what}" if why else "")))
        trouble = "" if step.trouble is None else f"{step.trouble.what}; trying again"
        if trouble != self._trouble:
            self._trouble = trouble
            self._console.print(Text(trouble or "all shards are back", style="" if trouble else "dim"))
        begun, ended = self._held.changes(step)
        for (topic, shard), waited in begun:
            wait = f"{topic}@{shard} waits since {waited:.0f} s: somebody has a transaction open there"
            self._console.print(Text(wait))
        for (topic, shard), waited in ended:
            self._console.print(Text(f"{topic}@{shard} goes on after {waited:.0f} s"))
        self._trades += sum(isinstance(fact, Match) for taken in step.taken for fact in taken.facts)
        shown = 0
        for taken in step.taken:
            for line in _lines_of(taken):
                if shown < LINES_PER_STEP:
                    self._console.print(line)
                shown += 1
        if shown > LINES_PER_STEP:
            self._console.print(f"… and {shown - LINES_PER_STEP} more", style="dim")

    def stopped(self) -> None:
        self._console.print(f"stopped cleanly after {many(self._trades, 'trade')}")


class _Held:
    """The partitions that are held back, each told of once when it begins and once when it ends."""

    def __init__(self) -> None:
        self._since: dict[TopicPartition, float] = {}

    def changes(self, step: Step) -> tuple[list[tuple[TopicPartition, float]], list[tuple[TopicPartition, float]]]:
        """The partitions that wait now and did not before, and those that go on, each with the seconds of waiting."""
        before, self._since = self._since, dict(step.held_back)
        begun = sorted((at, waited) for at, waited in self._since.items() if at not in before)
        ended = sorted((at, waited) for at, waited in before.items() if at not in self._since)
        return begun, ended


def _lines_of(taken: Taken) -> list[Text]:
    lines = []
    record = taken.record
    for fact in taken.facts:
        if isinstance(fact, Match):
            lines.append(trade_line(fact, shard=record.partition, time_ms=record.time_ms))
        elif isinstance(fact, Outcome) and fact.status is Status.REJECTED:
            lines.append(Text(f"rejected {visible(fact.order_id)} of {visible(fact.participant)}: {fact.reason}"))
        elif isinstance(fact, Outcome) and _is_replace(fact):
            now = f"{many(fact.quantity, 'share')} open from now on"
            lines.append(Text(f"replaced {_whose(fact)} of {visible(fact.participant)}: {now}"))
        elif shares := _cancelled(fact):
            lines.append(Text(f"cancelled {_whose(fact)} of {visible(fact.participant)}: {many(shares, 'share')}"))
    if taken.dead is not None:
        lines.append(Text(f"dead letter from {record.position}: {taken.dead.reason}"))
    return lines


def _cancelled(fact: Cancellation | Outcome) -> int:
    return fact.quantity if isinstance(fact, Cancellation) else fact.cancelled


def _is_replace(fact: Outcome) -> bool:
    return fact.status is Status.ACCEPTED and fact.terms is not None and fact.terms.action is Action.REPLACE


def _whose(fact: Cancellation | Outcome) -> str:
    """The order that a fact is about: of a cancel or a replace the one that it names."""
    terms = fact.terms if isinstance(fact, Outcome) else None
    return visible(terms.target if terms is not None and terms.target else fact.order_id)


class _Lines:
    """For programs: a JSON object a line."""

    def __init__(self, out: TextIO, log: Log) -> None:
        self._out = out
        self._url = log.url
        self._waiting: dict[int, str] = {}
        self._held = _Held()
        self._trouble = ""

    def _say(self, event: str, **fields: Any) -> None:
        line = {"schema": "stocktrade.nse/1", "event": event, **fields}
        self._out.write(json.dumps(line, ensure_ascii=False) + "\n")

    def show(self, step: Step) -> None:
        for owner in step.started:
            self._say("owns", log=self._url, pid=os.getpid(), **_start_of(owner)._asdict())
        for shard, why in step.lost.items():
            self._say("gave-up", shard=shard, reason=None if why is None else why.what)
        trouble = "" if step.trouble is None else step.trouble.what
        if trouble != self._trouble:
            self._trouble = trouble
            self._say("waits-for-the-log", error=trouble) if step.trouble else self._say("log-is-back")
        begun, ended = self._held.changes(step)
        for (topic, shard), waited in begun:
            self._say("held-back", topic=topic, partition=shard, seconds=round(waited, 1))
        for (topic, shard), waited in ended:
            self._say("goes-on", topic=topic, partition=shard, seconds=round(waited, 1))
        for shard, owner_name in step.waiting_for.items():
            if self._waiting.get(shard) != owner_name:
                self._say("stands-by", shard=shard, owner=owner_name)
        self._waiting = dict(step.waiting_for)
        for taken in step.taken:
            record = taken.record
            if taken.dead is not None:
                self._say("dead-letter", source=str(record.position), reason=taken.dead.reason)
            for fact in taken.facts:
                if isinstance(fact, Match):
                    self._say(
                        "trade",
                        trade_id=trade_id(record.partition, fact.seq, fact.number),
                        stock_symbol=fact.symbol,
                        quantity=fact.quantity,
                        price_paise=fact.price,
                        buyer=fact.buyer,
                        seller=fact.seller,
                        seq=fact.seq,
                    )
                elif isinstance(fact, Outcome) and fact.status is Status.REJECTED:
                    self._say("rejected", order_id=fact.order_id, reason=fact.reason, source=str(record.position))
                elif isinstance(fact, Outcome) and _is_replace(fact):
                    self._say(
                        "replaced",
                        order_id=_whose(fact),
                        quantity=fact.quantity,
                        price_paise=fact.price,
                        source=str(record.position),
                    )
                elif shares := _cancelled(fact):
                    self._say("cancelled", order_id=_whose(fact), quantity=shares, source=str(record.position))
        self._out.flush()

    def stopped(self) -> None:
        self._say("stopped")
        self._out.flush()
