"""A naive exchange to compare the real one with, written apart from it.

Plain lists, everything looked up and sorted again each time: no levels, no queues, no window. And the streams of
instructions that both are fed with.
"""

import random
import zlib
from dataclasses import dataclass, field
from typing import Any

from stocktrade.core.rules import Rules
from stocktrade.domain.facts import Fact, Instruction, Leg, Match, Outcome, Reason, Status
from stocktrade.domain.values import Paise, Side

TIGHT = Rules(name="tight", remembered_ids=6, tick_bands=((0, 1), (100, 2)), max_open_orders=4)
"""Rules under which short streams meet everything: forgetting, off-tick prices, too many orders."""


def instruction(
    side: Side,
    order_id: str,
    quantity: int,
    price: int | None,
    *,
    participant: str = "HDFC",
    symbol: str = "SBIN",
    refusal: Reason | None = None,
) -> Instruction:
    """An instruction as decoding makes it; equal content gives an equal fingerprint."""
    sent = symbol.lower()
    fingerprint = zlib.crc32(f"{side}|{symbol}|{quantity}|{price}".encode())
    limit = None if price is None else Paise(price)
    detail = "" if refusal is None else "because"
    return Instruction(side, order_id, participant, symbol, sent, quantity, limit, fingerprint, refusal, detail)


def random_stream(seed: int, length: int) -> list[Instruction]:
    """Instructions on two symbols in a narrow range of prices, with repetitions, reused ids and refusals."""
    rng = random.Random(seed)
    stream: list[Instruction] = []
    for _ in range(length):
        if stream and rng.random() < 0.1:
            stream.append(rng.choice(stream[-20:]))
            continue
        side: Side = rng.choice(("BUY", "SELL"))
        unpriced = side == "SELL" and rng.random() < 0.2
        stream.append(
            instruction(
                side,
                f"o{rng.randrange(length // 2 + 1)}",
                rng.randrange(1, 30),
                None if unpriced else rng.randrange(94, 107),
                participant=rng.choice(("HDFC", "ICICI", "SELLER")),
                symbol=rng.choice(("SBIN", "INFY")),
                refusal=Reason.INVALID_SYMBOL if rng.random() < 0.03 else None,
            )
        )
    return stream


@dataclass
class Oracle:
    """Does what the exchange should do, slowly. `resting` and `history` are lists of dicts in sequence order."""

    rules: Rules
    seq: int = 0
    resting: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    accounts: dict[tuple[str, str], int] = field(default_factory=dict)

    def apply(self, given: Instruction) -> list[Fact]:
        """The facts that should follow."""
        self.seq += 1
        first = self.remembered().get((given.participant, given.order_id))
        if first is not None and first["fingerprint"] == given.fingerprint:
            repeated = self.outcome(given, Status.DUPLICATE)
            return [
                repeated._replace(first_seq=first["seq"], first_status=first["status"], first_reason=first["reason"])
            ]
        reason, detail = self.refusal(given, first)
        if reason is not None:
            if first is None:
                self.remember(given, Status.REJECTED, reason)
            return [self.outcome(given, Status.REJECTED)._replace(reason=reason, detail=detail)]
        order = {**given._asdict(), "seq": self.seq, "leaves": given.quantity}
        trades = self.trades(order)
        if order["leaves"]:
            self.resting.append(order)
        self.remember(given, Status.ACCEPTED, None)
        accepted = self.outcome(given, Status.ACCEPTED)._replace(
            filled=given.quantity - order["leaves"], leaves=order["leaves"]
        )
        return [accepted, *trades]

    def remembered(self) -> dict[tuple[str, str], dict[str, Any]]:
        """What is known of which id: the newest inputs, and whatever rests."""
        at_rest = {order["seq"] for order in self.resting}
        newest = {old["seq"] for old in self.history[-self.rules.remembered_ids :]}
        return {
            (old["participant"], old["order_id"]): old
            for old in self.history
            if old["seq"] in newest or old["seq"] in at_rest
        }

    def remember(self, given: Instruction, status: Status, reason: Reason | None) -> None:
        """Write an input down."""
        self.history.append({**given._asdict(), "seq": self.seq, "status": status, "reason": reason})

    def refusal(self, given: Instruction, first: dict[str, Any] | None) -> tuple[Reason | None, str]:
        """Why the input is rejected, if it is."""
        if first is not None:
            return Reason.ORDER_ID_REUSED, f"used at sequence {first['seq']} with other content"
        if given.refusal is not None:
            return given.refusal, given.detail
        if given.price is not None:
            tick = max((start, tick) for start, tick in self.rules.tick_bands if start <= given.price)[1]
            if given.price // tick * tick != given.price:
                return Reason.PRICE_OFF_TICK, f"tick is ₹0.{tick:02}"
        own = [order for order in self.resting if order["participant"] == given.participant]
        if len(own) + 1 > self.rules.max_open_orders:
            most = self.rules.max_open_orders
            return Reason.TOO_MANY_OPEN_ORDERS, f"at most {most} orders of a participant may rest"
        return None, ""

    def outcome(self, given: Instruction, status: Status) -> Outcome:
        """The bare answer to an input."""
        return Outcome(
            seq=self.seq,
            side=given.side,
            order_id=given.order_id,
            participant=given.participant,
            symbol_as_sent=given.symbol_as_sent,
            status=status,
            reason=None,
            detail="",
            quantity=given.quantity,
            price=given.price,
            filled=0,
            leaves=0,
        )

    def trades(self, taker: dict[str, Any]) -> list[Fact]:
        """Trade one share at a time with whoever comes first, then put the shares of one maker together."""
        bought = taker["side"] == "BUY"
        fills: list[tuple[dict[str, Any], int]] = []
        while taker["leaves"]:
            others = [o for o in self.resting if o["symbol"] == taker["symbol"] and o["side"] != taker["side"]]
            priced = [o["price"] for o in others if o["price"] is not None]
            if bought:
                others = [o for o in others if o["price"] is None or o["price"] <= taker["price"]]
                others.sort(key=lambda o: (o["price"] is not None, o["price"], o["seq"]))
            else:
                others = [o for o in others if taker["price"] is None or o["price"] >= taker["price"]]
                others.sort(key=lambda o: (-o["price"], o["seq"]))
            if not others:
                break
            maker = others[0]
            price = min(taker["price"], *priced) if maker["price"] is None and priced else maker["price"]
            price = taker["price"] if price is None else price
            maker["leaves"] -= 1
            taker["leaves"] -= 1
            if not maker["leaves"]:
                self.resting.remove(maker)
            fills.append((maker, price))
        facts: list[Fact] = []
        number = 0
        while fills:
            maker, price = fills[0]
            shares = sum(1 for m, _ in fills if m is maker)
            fills = [(m, p) for m, p in fills if m is not maker]
            number += 1
            facts += self.trade(number, taker, maker, shares, price)
        return facts

    def trade(self, number: int, taker: dict[str, Any], maker: dict[str, Any], shares: int, price: int) -> list[Fact]:
        """A match and its four legs, from which alone the accounts are kept."""
        buy, sell = (taker, maker) if taker["side"] == "BUY" else (maker, taker)
        at = Paise(price)
        match = Match(
            seq=self.seq,
            number=number,
            symbol=taker["symbol"],
            quantity=shares,
            price=at,
            maker=maker["side"],
            buy_order_id=buy["order_id"],
            buyer=buy["participant"],
            buy_symbol_as_sent=buy["symbol_as_sent"],
            sell_order_id=sell["order_id"],
            seller=sell["participant"],
            sell_symbol_as_sent=sell["symbol_as_sent"],
        )
        facts: list[Fact] = [match]
        for order in (buy, sell):
            for kind in ("SECURITIES", "FUNDS"):
                credit = (order is buy) == (kind == "SECURITIES")
                facts.append(
                    Leg(
                        seq=self.seq,
                        number=number,
                        kind="SECURITIES" if kind == "SECURITIES" else "FUNDS",
                        direction="CREDIT" if credit else "DEBIT",
                        participant=order["participant"],
                        order_id=order["order_id"],
                        symbol_as_sent=order["symbol_as_sent"],
                        quantity=shares,
                        price=at,
                    )
                )
                amount = shares if kind == "SECURITIES" else shares * price
                account = (taker["symbol"] if kind == "SECURITIES" else "₹", order["participant"])
                self.accounts[account] = self.accounts.get(account, 0) + (amount if credit else -amount)
        return facts

    def depth(self, symbol: str) -> tuple[list[list[int | None]], list[list[int | None]]]:
        """All levels of bids and asks, best first."""
        levels: dict[str, dict[int | None, list[int]]] = {"BUY": {}, "SELL": {}}
        for order in self.resting:
            if order["symbol"] == symbol:
                levels[order["side"]].setdefault(order["price"], []).append(order["leaves"])
        bids = sorted(levels["BUY"].items(), key=lambda level: -(level[0] or 0))
        asks = sorted(levels["SELL"].items(), key=lambda level: level[0] or 0)
        return (
            [[price, sum(leaves), len(leaves)] for price, leaves in bids],
            [[price, sum(leaves), len(leaves)] for price, leaves in asks],
        )
