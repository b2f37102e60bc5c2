"""A naive exchange to compare the real one with, written apart from it.

Plain lists, everything looked up and sorted again each time: no levels, no queues, no window, one share at a time.
Whether an order can be filled is found out on a copy. And the streams of instructions that both are fed with.
"""

import copy
import random
import zlib
from dataclasses import dataclass, field
from typing import Any

from stocktrade.core.rules import Instrument, Rules
from stocktrade.domain.facts import (
    Action,
    Cancellation,
    Fact,
    Instruction,
    Match,
    Outcome,
    Reason,
    SelfTradePrevention,
    Status,
    Terms,
    TimeInForce,
)
from stocktrade.domain.values import Paise, Side

IOC, FOK = TimeInForce.IOC, TimeInForce.FOK
PASSIVE, ACTIVE = SelfTradePrevention.CANCEL_PASSIVE, SelfTradePrevention.CANCEL_ACTIVE

TICKS = ((0, 1), (100, 2))
TIGHT = Rules(
    name="tight",
    remembered_ids=6,
    max_open_orders=4,
    instruments={"INFY": Instrument(TICKS, lot=2, max_quantity=24, reference_price=Paise(100), band_basis_points=500)},
    other=Instrument(TICKS),
)
"""Rules under which short streams meet everything: forgetting, off-tick prices, too many orders, lots, a band."""


def instruction(
    side: Side,
    order_id: str,
    quantity: int,
    price: int | None,
    *,
    participant: str = "HDFC",
    symbol: str = "SBIN",
    refusal: Reason | None = None,
    terms: Terms | None = None,
) -> Instruction:
    """An instruction as decoding makes it; equal content gives an equal fingerprint."""
    sent = symbol.lower()
    content = f"{side}|{symbol}|{quantity}|{price}" + ("" if terms is None else f"|{'|'.join(terms)}")
    limit = None if price is None else Paise(price)
    detail = "" if refusal is None else "because"
    fingerprint = zlib.crc32(content.encode())
    return Instruction(side, order_id, participant, symbol, sent, quantity, limit, fingerprint, refusal, detail, terms)


def cancel(order_id: str, target: str, *, participant: str = "HDFC", symbol: str = "SBIN") -> Instruction:
    """A cancel as decoding makes it."""
    terms = Terms(Action.CANCEL, target=target)
    return instruction("BUY", order_id, 0, None, participant=participant, symbol=symbol, terms=terms)


def replace_order(
    order_id: str,
    target: str,
    quantity: int | None = None,
    price: int | None = None,
    *,
    participant: str = "HDFC",
    symbol: str = "SBIN",
    prevention: SelfTradePrevention = SelfTradePrevention.OFF,
) -> Instruction:
    """A replace as decoding makes it."""
    terms = Terms(Action.REPLACE, TimeInForce.DAY, prevention, target)
    return instruction("BUY", order_id, quantity or 0, price, participant=participant, symbol=symbol, terms=terms)


def random_stream(seed: int, length: int, *, seed_only: bool = False) -> list[Instruction]:
    """Instructions on two symbols in a narrow range of prices, with repetitions, reused ids and refusals."""
    rng = random.Random(seed)
    stream: list[Instruction] = []
    for _ in range(length):
        if stream and rng.random() < 0.1:
            stream.append(rng.choice(stream[-20:]))
            continue
        side: Side = rng.choice(("BUY", "SELL"))
        participant, symbol = rng.choice(("HDFC", "ICICI", "SELLER")), rng.choice(("SBIN", "INFY"))
        quantity = rng.randrange(1, 15) if symbol == "SBIN" else 2 * rng.randrange(1, 14)
        unpriced = rng.random() < 0.08 and (side == "SELL" or not seed_only)
        price = None if unpriced else rng.choice(range(92, 103) if side == "BUY" else range(98, 109))
        action = Action.NEW if seed_only else rng.choice([Action.NEW] * 3 + [Action.CANCEL, Action.REPLACE])
        terms = None
        if action is not Action.NEW and stream:
            meant = rng.choice([given for given in stream[-40:] if not given.terms] or stream)
            terms = Terms(action, target=meant.order_id, self_trade_prevention=rng.choice([*SelfTradePrevention]))
            if rng.random() < 0.9:
                participant, symbol = meant.participant, meant.symbol
            if action is Action.CANCEL:
                quantity, price = 0, None
            elif rng.random() < 0.5:
                price = None
            elif price is not None and rng.random() < 0.5:
                quantity = 0
        elif not seed_only and rng.random() < 0.4:
            terms = Terms(Action.NEW, rng.choice([*TimeInForce]), rng.choice([*SelfTradePrevention]))
        stream.append(
            instruction(
                side,
                f"o{rng.randrange(length)}",
                quantity,
                price,
                participant=participant,
                symbol=symbol,
                refusal=Reason.INVALID_SYMBOL if rng.random() < 0.03 else None,
                terms=terms,
            )
        )
    return stream


@dataclass
class Oracle:
    """Does what the exchange should do, slowly. `resting` and `history` are lists of dicts; the first by place."""

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
        facts = self.accept(given)
        self.remember(given, Status.ACCEPTED, None)
        return facts

    def accept(self, given: Instruction) -> list[Fact]:
        """Do what an instruction says that nothing speaks against."""
        terms = given.terms or Terms()
        if terms.action is Action.NEW:
            order = {**given._asdict(), "seq": self.seq, "place": self.seq, "leaves": given.quantity}
            return self.trade(given, order, terms)
        target = self.target(given)
        assert target is not None
        if terms.action is Action.CANCEL:
            self.resting.remove(target)
            left = target["leaves"]
            return [self.outcome(given, Status.ACCEPTED)._replace(quantity=left, price=target["price"], cancelled=left)]
        wanted = {
            **target,
            "leaves": given.quantity or target["leaves"],
            "price": target["price"] if given.price is None else given.price,
        }
        if wanted["price"] == target["price"] and wanted["leaves"] <= target["leaves"]:
            target["leaves"] = wanted["leaves"]
            return [
                self.outcome(given, Status.ACCEPTED)._replace(
                    quantity=wanted["leaves"], price=wanted["price"], leaves=wanted["leaves"]
                )
            ]
        self.resting.remove(target)
        return self.trade(given, {**wanted, "place": self.seq}, terms)

    def trade(self, given: Instruction, order: dict[str, Any], terms: Terms) -> list[Fact]:
        """Let an order meet the book, then rest or not."""
        quantity = order["leaves"]
        facts, ended = self.meet(order, terms.self_trade_prevention)
        left = order["leaves"]
        rests = (
            not ended and terms.time_in_force is TimeInForce.DAY and (order["side"], order["price"]) != ("BUY", None)
        )
        if rests and left:
            self.resting.append(order)
        outcome = self.outcome(given, Status.ACCEPTED)._replace(
            quantity=quantity,
            price=order["price"],
            filled=quantity - left,
            leaves=left if rests else 0,
            cancelled=0 if rests or ended else left,
        )
        return [outcome, *facts, *([self.cancellation(order, left)] if ended else [])]

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

    def target(self, given: Instruction) -> dict[str, Any] | None:
        """The order that a cancel or a replace means."""
        assert given.terms is not None
        whose = (given.participant, given.symbol, given.terms.target)
        for order in self.resting:
            if (order["participant"], order["symbol"], order["order_id"]) == whose:
                return order
        return None

    def refusal(self, given: Instruction, first: dict[str, Any] | None) -> tuple[Reason | None, str]:
        """Why the input is rejected, if it is."""
        if first is not None:
            return Reason.ORDER_ID_REUSED, f"used at sequence {first['seq']} with other content"
        if given.refusal is not None:
            return given.refusal, given.detail
        traded = self.rules.instruments.get(given.symbol) or self.rules.other
        if traded is None:
            return Reason.UNKNOWN_SYMBOL, f"{given.symbol} is not among the instruments"
        terms = given.terms or Terms()
        if terms.action is not Action.NEW and self.target(given) is None:
            return Reason.ORDER_NOT_FOUND, "no order of yours with this id rests in the book of this symbol"
        if given.quantity / traded.lot != given.quantity // traded.lot:
            return Reason.QUANTITY_OFF_LOT, f"lot is {traded.lot}"
        if given.quantity > traded.max_quantity:
            return Reason.QUANTITY_ABOVE_CAP, f"at most {traded.max_quantity}"
        if given.price is not None:
            tick = max((start, tick) for start, tick in traded.tick_bands if start <= given.price)[1]
            if given.price // tick * tick != given.price:
                return Reason.PRICE_OFF_TICK, f"tick is ₹0.{tick:02}"
            if traded.reference_price is not None and traded.band_basis_points is not None:
                away = traded.reference_price * traded.band_basis_points / 10_000
                if abs(given.price - traded.reference_price) > away:
                    lowest, highest = int(traded.reference_price - away), int(traded.reference_price + away)
                    return Reason.PRICE_OUTSIDE_BAND, f"from ₹{lowest / 100:.2f} to ₹{highest / 100:.2f}"
        if terms.action is not Action.NEW:
            return None, ""
        own = [order for order in self.resting if order["participant"] == given.participant]
        waits = terms.time_in_force is TimeInForce.DAY and not (given.side == "BUY" and given.price is None)
        if waits and len(own) + 1 > self.rules.max_open_orders:
            most = self.rules.max_open_orders
            return Reason.TOO_MANY_OPEN_ORDERS, f"at most {most} orders of a participant may rest"
        if terms.time_in_force is FOK:
            order = {**given._asdict(), "leaves": given.quantity}
            copy.deepcopy(self).meet(order, terms.self_trade_prevention)
            if order["leaves"]:
                return Reason.FOK_NOT_FILLABLE, "it cannot be filled in full at once"
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
            terms=given.terms,
        )

    def cancellation(self, order: dict[str, Any], shares: int) -> Cancellation:
        """What self-trade prevention took off an order."""
        return Cancellation(
            self.seq,
            order["side"],
            order["order_id"],
            order["participant"],
            order["symbol_as_sent"],
            shares,
            order["price"],
        )

    def counterpart(self, taker: dict[str, Any]) -> tuple[dict[str, Any], int] | None:
        """Whom an order trades its next share with, and at which price."""
        others = [o for o in self.resting if o["symbol"] == taker["symbol"] and o["side"] != taker["side"]]
        limit = taker["price"]
        if taker["side"] == "SELL":
            bids = [o for o in others if limit is None or o["price"] >= limit]
            bids.sort(key=lambda o: (-o["price"], o["place"]))
            return (bids[0], bids[0]["price"]) if bids else None
        asks = [o["price"] for o in others if o["price"] is not None]
        traded = self.rules.instruments.get(taker["symbol"]) or self.rules.other
        assert traded is not None
        market = min(asks) if asks else traded.reference_price
        for_unpriced = market if limit is None else min(limit, *asks) if asks else limit
        offers = [
            (for_unpriced, o) if o["price"] is None else (o["price"], o)
            for o in sorted(others, key=lambda o: (o["price"] is not None, o["price"] or 0, o["place"]))
        ]
        for price, offer in offers:
            if price is not None and (limit is None or price <= limit):
                return offer, price
        return None

    def meet(self, taker: dict[str, Any], prevention: SelfTradePrevention) -> tuple[list[Fact], bool]:
        """Trade one share at a time, then put the shares of one maker together; whether an own order was the end."""
        happened: list[tuple[dict[str, Any], int, int | None]] = []
        ended = False
        while taker["leaves"] and (found := self.counterpart(taker)) is not None:
            maker, price = found
            if maker["participant"] == taker["participant"] and prevention is not SelfTradePrevention.OFF:
                ended = prevention is ACTIVE
                if ended:
                    break
                happened.append((maker, maker["leaves"], None))
                self.resting.remove(maker)
                continue
            maker["leaves"] -= 1
            taker["leaves"] -= 1
            if not maker["leaves"]:
                self.resting.remove(maker)
            happened.append((maker, 1, price))
        facts: list[Fact] = []
        number = 0
        while happened:
            maker, shares, at = happened[0]
            if at is None:
                happened.pop(0)
                facts.append(self.cancellation(maker, shares))
                continue
            shares = sum(1 for m, _, p in happened if m is maker and p is not None)
            happened = [h for h in happened if h[0] is not maker]
            number += 1
            facts.append(self.match(number, taker, maker, shares, at))
        return facts, ended

    def match(self, number: int, taker: dict[str, Any], maker: dict[str, Any], shares: int, price: int) -> Match:
        """A match; and the accounts, kept from it."""
        buy, sell = (taker, maker) if taker["side"] == "BUY" else (maker, taker)
        for order, sign in ((buy, 1), (sell, -1)):
            for asset, amount in ((taker["symbol"], shares), ("₹", -shares * price)):
                account = (asset, order["participant"])
                self.accounts[account] = self.accounts.get(account, 0) + sign * amount
        return Match(
            seq=self.seq,
            number=number,
            symbol=taker["symbol"],
            quantity=shares,
            price=Paise(price),
            maker=maker["side"],
            buy_order_id=buy["order_id"],
            buyer=buy["participant"],
            buy_symbol_as_sent=buy["symbol_as_sent"],
            sell_order_id=sell["order_id"],
            seller=sell["participant"],
            sell_symbol_as_sent=sell["symbol_as_sent"],
        )

    def listing(self, symbol: str) -> list[tuple[Any, ...]]:
        """Every order at rest: bids best first, then offers."""
        rows = [o for o in self.resting if o["symbol"] == symbol]
        bids = sorted((o for o in rows if o["side"] == "BUY"), key=lambda o: (-o["price"], o["place"]))
        asks = sorted((o for o in rows if o["side"] == "SELL"), key=lambda o: (o["price"] or 0, o["place"]))
        return [(o["side"], o["price"], o["leaves"], o["participant"], o["order_id"], o["seq"]) for o in (*bids, *asks)]

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
