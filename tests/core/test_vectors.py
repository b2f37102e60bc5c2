"""Scenarios from other engines' tests: our matching must give what they state."""

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from stocktrade.core.exchange import Exchange
from stocktrade.core.rules import Rules
from stocktrade.domain.facts import Instruction, Match, Outcome, Reason, Status

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent.parent / "data" / "matching_vectors.json").read_text(encoding="utf-8")
)["vectors"]


def _instruction(step: dict[str, Any]) -> Instruction:
    fingerprint = zlib.crc32(json.dumps(step, sort_keys=True).encode())
    refusal = Reason(step["refusal"]) if "refusal" in step else None
    quantity, price = (0, None) if refusal else (step["quantity"], step["price"])
    return Instruction(
        step["side"], step["id"], step["participant"], "SBIN", "SBI", quantity, price, fingerprint, refusal
    )


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["id"]))
def test_vector(vector: dict[str, Any]) -> None:
    """Each scenario ends with the trades, the refusals and the book that its source states."""
    exchange = Exchange(Rules(name="vectors", tick_bands=((0, 1),)))
    trades: list[list[Any]] = []
    not_accepted = []
    for number, step in enumerate(vector["steps"]):
        outcome, *rest = exchange.apply(_instruction(step))
        exchange.check()
        assert isinstance(outcome, Outcome)
        if outcome.status is not Status.ACCEPTED:
            not_accepted.append((number, outcome.status, outcome.reason))
        for match in rest:
            if isinstance(match, Match):
                buy, sell = match.buy_order_id, match.sell_order_id
                maker, taker = (buy, sell) if match.maker == "BUY" else (sell, buy)
                trades.append([maker, taker, match.price, match.quantity])
    assert trades == vector["trades"]
    assert not_accepted == [(no["step"], no["status"], no["reason"]) for no in vector["not_accepted"]]
    assert exchange.depth("SBIN", 100) == (vector["bids"], vector["asks"])


def test_every_vector_names_its_source() -> None:
    """Each scenario says whose it is, and each that is no hard invariant says how it differs from our rule."""
    for vector in VECTORS:
        assert set(vector["source"]) == {"repo", "path", "test", "license"}
        assert ("differs" in vector) is (vector["rule"] != "hard_invariant")
    assert len({vector["id"] for vector in VECTORS}) == len(VECTORS) == 17
