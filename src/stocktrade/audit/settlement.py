"""The legs of the trades: that each has its four, and that nothing comes from nowhere.

Invariant: sums are added up from the legs as they stand on the topics, not from the trades.
"""

from collections import defaultdict
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, uuid5

from stocktrade.audit.findings import Report, Rule
from stocktrade.audit.streams import Message
from stocktrade.domain.values import canonical_symbol

_LEGS: Final = UUID("6f0c1e5a-3b0d-5d52-9c56-5d1d2a6a8850")
"""The namespace of the ids of legs: uuid5 of the trade's id, the kind and the direction."""

RUPEES: Final = "rupees"

_SIGNS: Final[Mapping[Any, int]] = {"CREDIT": 1, "DEBIT": -1}


def legs_of(trade: Mapping[str, Any], sent: tuple[str, str]) -> dict[str, dict[str, Any]]:
    """The four legs that a trade must have, by id; `sent` are the symbols as buyer and seller wrote them."""
    due: dict[str, dict[str, Any]] = {}
    quantity, price = trade["quantity"], Decimal(trade["price_per_unit"])
    text = f"₹{price:.2f}".removesuffix(".00")
    for buys, symbol in zip((True, False), sent, strict=True):
        shares_way, funds_way = ("CREDIT", "DEBIT") if buys else ("DEBIT", "CREDIT")
        same = {
            "from_entity": "NSE",
            "to_entity": trade["buyer" if buys else "seller"],
            "order_id": trade["buy_order_id" if buys else "sell_order_id"],
            "trade_id": trade["trade_id"],
            "seq": trade["seq"],
        }
        shares_id = str(uuid5(_LEGS, f"{trade['trade_id']}:SECURITIES:{shares_way}"))
        funds_id = str(uuid5(_LEGS, f"{trade['trade_id']}:FUNDS:{funds_way}"))
        due[shares_id] = {
            **same,
            "transfer_id": shares_id,
            "stock_symbol": symbol,
            "quantity": quantity,
            "direction": shares_way,
        }
        due[funds_id] = {
            **same,
            "movement_id": funds_id,
            "amount": quantity * price,
            "description": f"{'Payment for' if buys else 'Proceeds of'} {quantity} {symbol} stocks @ {text}",
            "direction": funds_way,
        }
    return due


class Settlement:
    """The legs of one shard."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._sent: dict[tuple[str, str], str] = {}
        self.sums: defaultdict[str, Decimal] = defaultdict(Decimal)
        self._newest: dict[str, str] = {}

    def take(
        self, time_ms: int, trades: list[Message], legs: list[Message], sent: Mapping[tuple[str, str], str]
    ) -> None:
        """Compare the legs of one input with its trades.

        `sent` gives the symbol of an order as its participant wrote it, by participant and id.
        """
        report = self._report
        due: dict[str, dict[str, Any]] = {}
        trade_at: dict[str, str] = {}
        for trade in trades:
            fields = trade.fields
            symbols = (
                sent.get((fields["buyer"], fields["buy_order_id"]), "?"),
                sent.get((fields["seller"], fields["sell_order_id"]), "?"),
            )
            for leg_id, one in legs_of(fields, symbols).items():
                due[leg_id] = one
                trade_at[leg_id] = trade.where
        for leg in legs:
            report.checked(Rule.LEGS)
            self.add(leg)
            leg_id = str(leg.fields.get("transfer_id", leg.fields.get("movement_id")))
            expected = due.pop(leg_id, None)
            if expected is None:
                report.broken(Rule.LEGS, leg.where, f"{leg_id} belongs to no trade, or is there twice")
                continue
            if expected != leg.fields:
                wrong = [name for name in expected.keys() | leg.fields.keys() if not _same(expected, leg.fields, name)]
                report.broken(Rule.LEGS, leg.where, f"has another {', '.join(sorted(wrong))} than its trade")
            if leg.record.key != str(expected["to_entity"]).encode() or leg.record.time_ms != time_ms:
                report.broken(Rule.LEGS, leg.where, "its key or its time")
        for leg_id, leg_due in due.items():
            kind = "securities" if "transfer_id" in leg_due else "funds"
            what = f"has no {kind} leg for {leg_due['to_entity']} ({leg_due['direction']})"
            report.broken(Rule.LEGS, trade_at[leg_id], what)

    def add(self, leg: Message) -> None:
        """Add a leg to the sums."""
        fields = leg.fields
        sign = _SIGNS.get(fields.get("direction"), 0)
        if "transfer_id" in fields:
            asset = canonical_symbol(str(fields.get("stock_symbol"))) or "?"
            amount = fields.get("quantity")
        else:
            asset, amount = RUPEES, fields.get("amount")
        if isinstance(amount, int | Decimal):
            self.sums[asset] += sign * amount
            self._newest[asset] = leg.where

    def close(self) -> None:
        """Ask whether everything that was given was taken from somebody."""
        for asset, total in sorted(self.sums.items()):
            self._report.checked(Rule.SUMS)
            if total:
                what = f"{asset}: {total:+} stand on nobody's other side, so the clearing house is not flat"
                self._report.broken(Rule.SUMS, self._newest[asset], what)


def _same(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    return name in one and name in other and bool(one[name] == other[name])
