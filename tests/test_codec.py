"""What the codec writes is what the models read, exactly."""

import json
import uuid
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from stocktrade.domain.facts import Leg, Match
from stocktrade.domain.messages import BuyOrder, CashMovement, DematTransfer, Trade
from stocktrade.domain.values import (
    MAX_PRICE,
    Paise,
    decimal_rupees,
    group_indian,
    paise_from_rupees,
    paise_from_text,
    rupees_in_table,
    rupees_in_text,
    visible,
)
from stocktrade.transport import topics
from stocktrade.transport.codec import LEG_NAMESPACE, decode_message, encode_facts, encode_order, leg_id


def test_the_seed_s_two_advices_are_written_field_by_field() -> None:
    """The buyer's legs of the seed's trade have the seed's fields with the seed's very bytes."""
    legs = [
        Leg(2, 1, "SECURITIES", "CREDIT", "HDFC", "ORD-1", "SBI", 100, Paise(88_500)),
        Leg(2, 1, "FUNDS", "DEBIT", "HDFC", "ORD-1", "SBI", 100, Paise(88_500)),
    ]
    demat, cash = [(record.value or b"").decode() for record in encode_facts(legs, 0, "x", 0)]
    transfer, movement = leg_id("T0-2-1", "SECURITIES", "CREDIT"), leg_id("T0-2-1", "FUNDS", "DEBIT")
    assert demat == (
        f'{{"transfer_id":"{transfer}","from_entity":"NSE","to_entity":"HDFC","stock_symbol":"SBI","quantity":100,'
        '"order_id":"ORD-1","direction":"CREDIT","trade_id":"T0-2-1","seq":2}'
    )
    assert cash == (
        f'{{"movement_id":"{movement}","from_entity":"NSE","to_entity":"HDFC","amount":88500.0,"order_id":"ORD-1",'
        '"description":"Payment for 100 SBI stocks @ ₹885","direction":"DEBIT","trade_id":"T0-2-1","seq":2}'
    )


@given(st.text(max_size=40), st.sampled_from(["SECURITIES", "FUNDS"]), st.sampled_from(["CREDIT", "DEBIT"]))
def test_leg_ids_are_uuid5(trade: str, kind: str, direction: str) -> None:
    """The quick way to a uuid5 gives what the standard library gives."""
    trade = trade.encode("utf-8", "replace").decode()
    assert leg_id(trade, kind, direction) == str(uuid.uuid5(LEG_NAMESPACE, f"{trade}:{kind}:{direction}"))


@given(st.integers(1, MAX_PRICE))
def test_money_survives_the_wire(paise: int) -> None:
    """Every price, written as rupees and read back, is the same number of paise."""
    assert paise_from_rupees(Decimal(decimal_rupees(paise))) == paise
    assert paise_from_text(rupees_in_text(paise)) == paise
    assert paise_from_text(rupees_in_table(paise)) == paise
    assert float(decimal_rupees(paise)) == paise / 100


@given(st.integers(1, 10**9), st.integers(1, MAX_PRICE))
def test_a_trade_reads_as_it_was_written(quantity: int, price: int) -> None:
    """What `encode_facts` writes, the models read: amounts exact to the paisa."""
    match = Match(7, 1, "SBIN", quantity, Paise(price), "BUY", "b", "HDFC", "SBI", "s", "SELLER", "SBI")
    (record,) = encode_facts([match], 3, "x", 0)
    trade = decode_message(Trade, record.value)
    assert (trade.quantity, int(trade.amount * 100), trade.trade_id) == (quantity, quantity * price, "T3-7-1")
    assert trade.amount * 100 == Decimal(quantity * price)


def test_an_order_is_written_with_the_seed_s_fields_only() -> None:
    """What `buy` sends is what the seed sent: nothing is added that was not asked for."""
    order = BuyOrder(order_id="a", buyer="HDFC", stock_symbol="SBI", quantity=100, price_per_unit=Decimal("884.9"))
    assert json.loads(encode_order(order)) == {
        "order_id": "a", "buyer": "HDFC", "stock_symbol": "SBI", "quantity": 100, "price_per_unit": 884.9,
    }  # fmt: skip


def test_seed_only_advices_can_be_read() -> None:
    """A message with the seed's fields alone is valid."""
    demat = {"transfer_id": "t", "from_entity": "NSE", "to_entity": "HDFC", "stock_symbol": "SBI", "quantity": 1,
             "order_id": "a"}  # fmt: skip
    assert decode_message(DematTransfer, json.dumps(demat).encode()).direction is None
    cash = {"movement_id": "m", "from_entity": "NSE", "to_entity": "HDFC", "amount": 88500.0, "order_id": "a",
            "description": "d"}  # fmt: skip
    assert decode_message(CashMovement, json.dumps(cash).encode()).amount == 88_500
    assert {topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS} < set(topics.OUTPUTS)


@given(st.text(max_size=300))
def test_nothing_that_steers_a_terminal_stays_in_shown_text(text: str) -> None:
    """Whatever came off a topic, what is shown is printable."""
    assert visible(text).isprintable()


def test_grouping_is_indian() -> None:
    """Lakhs and crores are grouped in twos, the last group has three."""
    assert [group_indian(n) for n in (0, 999, 1000, 12_345_678, -100_000)] == [
        "0", "999", "1,000", "1,23,45,678", "-1,00,000",
    ]  # fmt: skip
