"""`demo`: the whole exchange in one terminal: the seed's trade, then seeded traders, then the sums from the log.

Invariant: it uses a log of its own, which is gone when it ends unless the user asked to keep it; what it shows was
read from that log, not from memory.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from typing import Final, NamedTuple

from rich.console import Console
from rich.live import Live
from rich.text import Text

from stocktrade.audit.auditor import audit
from stocktrade.core.ledger import CASH
from stocktrade.domain.messages import BuyOrder, CashMovement, DematTransfer, SellOffer
from stocktrade.domain.values import CLEARING_HOUSE, canonical_symbol, paise_from_rupees, visible
from stocktrade.errors import ExitCode
from stocktrade.flow import WATCHED, Flow
from stocktrade.roles.order_entry import Placed, place
from stocktrade.shard.history import to_the_end
from stocktrade.shard.node import Node
from stocktrade.tables import FlowView, SettlementTable, SumsTable, many, settlement_line
from stocktrade.transport import topics
from stocktrade.transport.base import Log, Reader
from stocktrade.transport.codec import decode_message

SEED_ORDER: Final = BuyOrder(
    order_id="ORD-1", buyer="HDFC", stock_symbol="SBI", quantity=100, price_per_unit=Decimal(885)
)
SEED_OFFER: Final = SellOffer(offer_id="OFR-1", seller="SELLER", stock_symbol="SBI", quantity=100)

TRADERS: Final = ("HDFC", "ICICI", "KOTAK", "AXIS", "ZERODHA", "LIC", "SELLER")
MARKET: Final = {"SBI": 88_500, "INFY": 152_300, "RELIANCE": 138_000, "ITC": 41_000, "M&M": 305_000}
"""Symbols and the prices, in paise, around which the traders quote."""

FRAME_S: Final = 0.1


@dataclass(frozen=True)
class Plan:
    """What the traders do: `rate` orders a second for `seconds`, all decided by `seed`."""

    seed: int
    rate: float
    seconds: float


class Leg(NamedTuple):
    """One leg as the log has it: who gained or lost how much of what (paise of CASH, or shares)."""

    asset: str
    owner: str
    change: int


def run(log: Log, plan: Plan, *, console: Console, now_ms: Callable[[], int], stop: Callable[[], bool]) -> ExitCode:
    """Run the demonstration on `log`, which it treats as its own.

    Returns:
        OK, or NO when the sums on the log do not come out as they must.
    """
    say = console.print
    node = Node(log, name=f"demo, pid {os.getpid()}", now_ms=now_ms)
    reader = log.reader({(topic, shard): 0 for topic in WATCHED for shard in range(log.partitions())})
    flow = Flow()
    try:
        node.step(0.0)
        say(Text("1. The seed: HDFC buys 100 SBI at ₹885 from SELLER", "bold"))
        for order in (SEED_ORDER, SEED_OFFER):
            with closing(place(log, order)) as placed:
                _carry_on(node, placed)
                say(Text(f"   {placed.progress.position}  {_sentence(order)}"))
        _feed(flow, reader, now_ms)
        say(SettlementTable(flow.recent(1)))
        say()
        say(Text("   What HDFC reads on demat-transfers and cash-movements:"))
        for text in _advices_to(log, "HDFC"):
            say(Text(f"   {text}"), soft_wrap=True)
        say()
        say(Text(f"2. Seeded traders: {plan.rate:g} orders/s for {plan.seconds:g} s, seed {plan.seed}", "bold"))
        _trade(log, node, reader, flow, plan, console=console, now_ms=now_ms, stop=stop)
        say()
        say(Text("3. The sums, from the log", "bold"))
        balances, legs = _balances(log)
        say(SumsTable(balances))
        broken = [asset for asset, total in _totals(balances).items() if total] or [
            owner for _, owner, balance in balances if owner == CLEARING_HOUSE and balance
        ]
        trades = flow.topics[topics.TRADES].count
        verdict = "the sums are zero and the clearing house is flat" if not broken else "THE SUMS ARE NOT ZERO"
        wrong = bool(broken) or legs != 4 * trades
        say(Text(f"{trades} trades, {legs} legs: {verdict}", "bold red" if wrong else "bold"))
        say()
        say(Text("4. The audit: every rule, from the log alone", "bold"))
        report = audit(log)
        checked = sum(tally.checked for tally in report.tallies.values())
        for rule, tally in report.tallies.items():
            for found in tally.findings[:1]:
                say(Text(f"✗ {rule}: {visible(found.where)}: {visible(found.what)}", "bold red"))
        verdict = "clean" if report.clean else "A RULE IS BROKEN"
        say(Text(f"{many(len(report.tallies), 'rule')}, {many(checked, 'fact')} checked: {verdict}", "bold"))
        wrong = wrong or not report.clean
    finally:
        reader.close()
        node.close()
    if wrong:
        return ExitCode.NO
    say()
    say(Text("Try it yourself, each in a terminal of its own:", "bold"))
    for command in (
        "stocktrade nse",
        "stocktrade watch",
        "stocktrade buy SBI 100 885",
        "stocktrade sell SBI 100",
        "stocktrade funds",
    ):
        say(Text(f"  {command}"))
    return ExitCode.OK


def _sentence(order: BuyOrder | SellOffer) -> str:
    if isinstance(order, BuyOrder):
        return f"{order.buyer} buys {order.quantity} {order.stock_symbol} at ₹{order.price_per_unit}"
    return f"{order.seller} has {order.quantity} {order.stock_symbol}, at any price"


def _carry_on(node: Node, placed: Placed) -> None:
    """Let the exchange work until the order is answered."""
    while placed.progress.event is None:
        node.step(0.05)
        for _ in placed.follow(0.0):
            pass


def _feed(flow: Flow, reader: Reader, now_ms: Callable[[], int]) -> list[str]:
    """Show the flow what has arrived; the lines of the trades that were settled by it."""
    settled = []
    while records := reader.poll(0.0):
        for record in records:
            row = flow.feed(record, now_ms=now_ms(), live=True)
            if row is not None:
                settled.append(settlement_line(row))
    return settled


def _advices_to(log: Log, participant: str) -> Iterator[str]:
    partitions = [(t, s) for t in (topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS) for s in range(log.partitions())]
    with closing(log.reader(dict.fromkeys(partitions, 0))) as reader:
        for record in reader.poll(0.0):
            if record.key == participant.encode():
                yield f"{record.topic}  {(record.value or b'').decode()}"


def _orders(plan: Plan) -> Iterator[BuyOrder | SellOffer]:
    """What the traders send; the same seed sends the same."""
    chance = random.Random(plan.seed)  # noqa: S311 - a demonstration, not a secret
    for number in range(1, int(plan.rate * plan.seconds) + 1):
        symbol = chance.choice(list(MARKET))
        trader = chance.choice(TRADERS)
        quantity = chance.randrange(1, 40) * 5
        # Half a percent around the price, on the tick of 5 or 10 paise that all of these prices share.
        price = round(MARKET[symbol] * (1 + chance.uniform(-0.005, 0.005)) / 10) * 10
        rupees = Decimal(price) / 100
        if chance.random() < 0.5:
            yield BuyOrder(
                order_id=f"demo-{number}",
                buyer=trader,
                stock_symbol=symbol,
                quantity=quantity,
                price_per_unit=rupees,
            )
        else:
            unpriced = chance.random() < 0.15
            yield SellOffer(
                offer_id=f"demo-{number}",
                seller=trader,
                stock_symbol=symbol,
                quantity=quantity,
                price_per_unit=None if unpriced else rupees,
            )


def _trade(
    log: Log,
    node: Node,
    reader: Reader,
    flow: Flow,
    plan: Plan,
    *,
    console: Console,
    now_ms: Callable[[], int],
    stop: Callable[[], bool],
) -> None:
    live = Live(console=console, auto_refresh=False, transient=False) if console.is_terminal else None
    began = drawn = time.monotonic()
    if live is not None:
        live.start()
    try:
        for sent, order in enumerate(_orders(plan)):
            due = began + sent / plan.rate
            while True:
                now = time.monotonic()
                node.step(min(max(0.0, due - now), FRAME_S))
                lines = _feed(flow, reader, now_ms)
                if live is None:
                    for line in lines:
                        console.print(Text(line), soft_wrap=True)
                elif now - drawn >= FRAME_S:
                    drawn = now
                    live.update(FlowView(flow, now_ms(), height=_height(console)), refresh=True)
                if time.monotonic() >= due or stop():
                    break
            if stop():
                break
            place(log, order).close()
        ends = node.backlog_ends()
        while not node.has_taken(ends):
            node.step(0.05)
        for line in _feed(flow, reader, now_ms):
            if live is None:
                console.print(Text(line), soft_wrap=True)
        if live is not None:
            live.update(FlowView(flow, now_ms(), height=_height(console)), refresh=True)
    finally:
        if live is not None:
            live.stop()


def _height(console: Console) -> int:
    # The view stays above the sums that follow, so it takes a part of the screen only.
    return max(12, min(24, console.height - 2))


def _legs(log: Log) -> Iterator[Leg]:
    partitions = [(t, s) for t in (topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS) for s in range(log.partitions())]
    with closing(log.reader(dict.fromkeys(partitions, 0))) as reader:
        for record in to_the_end(reader):
            if record.topic == topics.DEMAT_TRANSFERS:
                demat = decode_message(DematTransfer, record.value)
                sign = 1 if demat.direction == "CREDIT" else -1
                yield Leg(canonical_symbol(demat.stock_symbol) or "?", demat.to_entity, sign * demat.quantity)
            else:
                cash = decode_message(CashMovement, record.value)
                sign = 1 if cash.direction == "CREDIT" else -1
                yield Leg(CASH, cash.to_entity, sign * paise_from_rupees(cash.amount))


def _balances(log: Log) -> tuple[list[tuple[str, str, int]], int]:
    """What everybody has after every leg on the log, the clearing house included, and how many legs there are."""
    balances: dict[tuple[str, str], int] = {}
    legs = 0
    for leg in _legs(log):
        legs += 1
        # The clearing house stands on the other side of every leg.
        for owner, change in ((leg.owner, leg.change), (CLEARING_HOUSE, -leg.change)):
            balances[leg.asset, owner] = balances.get((leg.asset, owner), 0) + change
    return [(asset, owner, balance) for (asset, owner), balance in sorted(balances.items())], legs


def _totals(balances: list[tuple[str, str, int]]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for asset, _, balance in balances:
        totals[asset] = totals.get(asset, 0) + balance
    return totals
