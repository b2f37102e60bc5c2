"""Scenarios from other engines' tests: our matching must give what they state."""

import json
from pathlib import Path
from typing import Any

import pytest

from stocktrade.core.exchange import Exchange
from stocktrade.core.instruments import parse_instruments
from stocktrade.domain.facts import Instruction, Match, Outcome, Status
from stocktrade.domain.values import decimal_rupees
from stocktrade.transport import topics
from stocktrade.transport.codec import decode_input

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "matching_vectors.json").read_text(encoding="utf-8")
)["vectors"]

TICK_OF_ONE = parse_instruments(b'version = "vectors"\ndefaults.tick = 0.01\n', source="vectors.toml")


def _instruction(step: dict[str, Any]) -> Instruction:
    """The message that a step is, as it comes off its topic: a tick is one paisa."""
    buys = step["side"] == "BUY"
    fields: dict[str, Any] = {
        "order_id" if buys else "offer_id": step["id"],
        "buyer" if buys else "seller": step["participant"],
        "stock_symbol": "SBI",
        "target_order_id": step.get("target"),
        **{
            name: step[name]
            for name in ("action", "quantity", "time_in_force", "self_trade_prevention")
            if name in step
        },
    }
    text = json.dumps(fields)
    if step.get("price") is not None:
        text = f'{text[:-1]}, "price_per_unit": {decimal_rupees(step["price"])}}}'
    decoded = decode_input(topics.BUY_ORDERS if buys else topics.SELL_OFFERS, text.encode())
    assert isinstance(decoded, Instruction)
    return decoded


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["id"]))
def test_vector(vector: dict[str, Any]) -> None:
    """Each scenario ends with the trades, the refusals, the cancelled shares and the book that its source states."""
    exchange = Exchange(TICK_OF_ONE)
    trades: list[list[Any]] = []
    cancelled: list[list[Any]] = []
    not_accepted = []
    for number, step in enumerate(vector["steps"]):
        outcome, *rest = exchange.apply(_instruction(step))
        exchange.check()
        assert isinstance(outcome, Outcome)
        if outcome.status is not Status.ACCEPTED:
            not_accepted.append((number, outcome.status, outcome.reason))
        if outcome.cancelled:
            cancelled.append([step.get("target", step["id"]), outcome.cancelled])
        for match in rest:
            assert isinstance(match, Match)
            buy, sell = match.buy_order_id, match.sell_order_id
            maker, taker = (buy, sell) if match.maker == "BUY" else (sell, buy)
            trades.append([maker, taker, match.price, match.quantity])
    assert trades == vector["trades"]
    assert not_accepted == [(no["step"], no["status"], no["reason"]) for no in vector["not_accepted"]]
    assert cancelled == vector.get("cancelled", [])
    assert exchange.depth("SBIN", 100) == (vector["bids"], vector["asks"])


def test_every_vector_names_its_source() -> None:
    """Each scenario says whose it is, and each that is no hard invariant says how it differs from our rule."""
    for vector in VECTORS:
        assert set(vector["source"]) == {"repo", "path", "test", "license"}
        assert ("differs" in vector) is (vector["rule"] != "hard_invariant")
    assert len({vector["id"] for vector in VECTORS}) == len(VECTORS) == 58
