"""The examples of docs/matching.md: each book, given to the exchange as messages, becomes the one that is shown."""

import json
import re
from pathlib import Path
from typing import Any, Final

import pytest

from stocktrade.core.exchange import Exchange
from stocktrade.core.instruments import parse_instruments
from stocktrade.core.rules import RULES, Instrument, Rules
from stocktrade.domain.facts import Cancellation, Instruction, Match, Outcome, Reason, Status
from stocktrade.domain.values import Paise, paise_from_text, rupees_in_text
from stocktrade.transport import topics
from stocktrade.transport.codec import decode_input

PAGE: Final = (Path(__file__).parents[2] / "docs" / "matching.md").read_text(encoding="utf-8")
EXAMPLES: Final = re.findall(r"^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)

_ORDER = r"(?P<order>[A-Z]\d)"
_TERMS = r"(?:, (?P<tif>IOC|FOK))?(?:, (?P<stp>cancel-\w+))?"
_NEW = re.compile(rf"{_ORDER} (?P<verb>buys|sells) (?P<quantity>\d+)(?: at (?P<price>\d+))?{_TERMS}")
_CANCEL = re.compile(rf"(?P<who>[A-Z]) cancels {_ORDER}")
_REPLACE = re.compile(rf"(?P<who>[A-Z]) replaces {_ORDER}:(?: (?P<quantity>\d+))?(?: at (?P<price>\d+))?{_TERMS}")

Book = list[tuple[str, str]]
"""(`bids` or `offers`, the line of one order), in the order in which they are served."""


def read_book(lines: list[str]) -> Book:
    """A book as it is drawn, and these lines consumed."""
    header = lines.pop(0)
    assert re.fullmatch(r"bids +offers", header), header
    middle = header.index("offers")
    bids, offers = [], []
    while lines and lines[0]:
        line = lines.pop(0)
        bids.append(line[:middle].strip())
        offers.append(line[middle:].strip())
    return [*(("bids", text) for text in bids if text), *(("offers", text) for text in offers if text)]


def book_of(exchange: Exchange) -> Book:
    """The book of the exchange as it would be drawn."""
    return [
        (
            "bids" if order.side == "BUY" else "offers",
            f"{order.order_id} {order.leaves} @ {'any' if order.price is None else rupees_in_text(order.price)[1:]}",
        )
        for order in exchange.resting("SBIN")
    ]


def message(line: str, number: int) -> Instruction:
    """The instruction of a line, by way of the topic."""
    if found := _NEW.fullmatch(line):
        who, order_id, buys, said = found["order"][0], found["order"], found["verb"] == "buys", found.groupdict()
        fields: dict[str, Any] = {"quantity": int(said["quantity"])}
    elif found := _CANCEL.fullmatch(line):
        who, order_id, buys, said = found["who"], f"c{number}", True, {}
        fields = {"action": "cancel", "target_order_id": found["order"]}
    else:
        found = _REPLACE.fullmatch(line)
        assert found is not None, line
        who, order_id, buys, said = found["who"], f"r{number}", True, found.groupdict()
        fields = {"action": "replace", "target_order_id": found["order"]}
        fields["quantity"] = None if said["quantity"] is None else int(said["quantity"])
    fields |= {
        "order_id" if buys else "offer_id": order_id,
        "buyer" if buys else "seller": who,
        "stock_symbol": "SBI",
        "price_per_unit": int(said["price"]) if said.get("price") else None,
        "time_in_force": said.get("tif"),
        "self_trade_prevention": said.get("stp"),
    }
    decoded = decode_input(topics.BUY_ORDERS if buys else topics.SELL_OFFERS, json.dumps(fields).encode())
    assert isinstance(decoded, Instruction)
    return decoded


def results(exchange: Exchange, instruction: Instruction) -> list[str]:
    """What came of an instruction, line by line."""
    outcome, *others = exchange.apply(instruction)
    exchange.check()
    assert isinstance(outcome, Outcome)
    if outcome.status is not Status.ACCEPTED:
        return [f"{outcome.status.lower()}: {outcome.reason}"]
    lines = []
    for fact in others:
        if isinstance(fact, Match):
            maker = fact.buy_order_id if fact.maker == "BUY" else fact.sell_order_id
            lines.append(f"{fact.quantity} @ {rupees_in_text(fact.price)[1:]} with {maker}")
        else:
            assert isinstance(fact, Cancellation)
            lines.append(f"{fact.quantity} of {fact.order_id} cancelled")
    if outcome.leaves:
        lines.append(f"{outcome.leaves} rest")
    if outcome.cancelled:
        lines.append(f"{outcome.cancelled} cancelled")
    return lines


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_is_what_happens(example: str) -> None:
    """The orders of the first book, then each instruction with what came of it, and the book at the end."""
    lines = [line.rstrip() for line in example.splitlines()]
    rules = RULES
    if lines[0].startswith("reference price "):
        price = Paise(paise_from_text(lines.pop(0).removeprefix("reference price ")))
        rules = Rules(other=Instrument(reference_price=price))
        assert lines.pop(0) == ""
    exchange = Exchange(rules)
    before = read_book(lines)
    for side, text in before:
        order_id, quantity, at = re.fullmatch(r"(\w+) (\d+) @ (\w+)", text).groups()  # type: ignore[union-attr]  # or it fails here
        limit = "" if at == "any" else f" at {at}"
        line = f"{order_id} {'buys' if side == 'bids' else 'sells'} {quantity}{limit}"
        assert results(exchange, message(line, 0)) == [f"{quantity} rest"]
    assert book_of(exchange) == before
    assert lines.pop(0) == ""
    while lines[0]:
        given = lines.pop(0)
        shown = []
        while lines[0].startswith("  "):
            shown.append(lines.pop(0).strip())
        assert results(exchange, message(given, len(lines))) == shown, given
    assert lines.pop(0) == ""
    assert read_book(lines) == book_of(exchange)
    assert lines == []


def test_the_page_has_examples_of_every_instruction() -> None:
    """None was left out by a mistake in the page's layout."""
    text = "".join(EXAMPLES)
    for word in ("buys", "sells", "cancels", "replaces", "IOC", "FOK", "cancel-passive", "cancel-active", "@ any"):
        assert word in text
    assert len(EXAMPLES) == 20


def test_the_instruments_file_of_the_page_is_one() -> None:
    """It is read, and means what its comments say."""
    (file,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    rules = parse_instruments(file.encode(), source="the page")
    assert rules.instruments["SBIN"].price_band == (796_50, 973_50)
    assert rules.instruments["M&M"].lot == 25
    assert rules.other is not None
    assert rules.other.max_quantity == 100_000


def test_the_page_lists_the_reasons_in_their_order() -> None:
    """All of them, as they take precedence."""
    assert re.findall(r"^\| `([A-Z_]+)` \|", PAGE, re.MULTILINE) == [*Reason]
