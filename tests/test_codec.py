"""What the codec writes is what the models read, exactly."""

import json
import uuid
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stocktrade.domain.facts import (
    Action,
    Cancellation,
    Instruction,
    Match,
    Outcome,
    Reason,
    SelfTradePrevention,
    Status,
    Terms,
    TimeInForce,
)
from stocktrade.domain.messages import (
    BuyOrder,
    CancelOffer,
    CancelOrder,
    CashMovement,
    DematTransfer,
    OrderEvent,
    ReplaceOffer,
    ReplaceOrder,
    Sent,
    Trade,
)
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
from stocktrade.transport import codec, topics
from stocktrade.transport.codec import (
    LEG_NAMESPACE,
    decode_input,
    decode_message,
    encode_facts,
    encode_order,
    leg_id,
)

WHO: Final[dict[str, Any]] = {"order_id": "o", "buyer": "P", "stock_symbol": "SBI"}
WHOSE: Final[dict[str, Any]] = {"offer_id": "o", "seller": "P", "stock_symbol": "SBI"}


def test_the_seed_s_two_advices_are_written_field_by_field() -> None:
    """The buyer's legs of the seed's trade have the seed's fields with the seed's very bytes."""
    match = Match(2, 1, "SBIN", 100, Paise(88_500), "BUY", "ORD-1", "HDFC", "SBI", "OFR-1", "SELLER", "SBIN")
    _, demat, cash, *sellers = [(record.value or b"").decode() for record in encode_facts([match], 0, "x", 0)]
    transfer, movement = leg_id("T0-2-1", "SECURITIES", "CREDIT"), leg_id("T0-2-1", "FUNDS", "DEBIT")
    assert demat == (
        f'{{"transfer_id":"{transfer}","from_entity":"NSE","to_entity":"HDFC","stock_symbol":"SBI","quantity":100,'
        '"order_id":"ORD-1","direction":"CREDIT","trade_id":"T0-2-1","seq":2}'
    )
    assert cash == (
        f'{{"movement_id":"{movement}","from_entity":"NSE","to_entity":"HDFC","amount":88500.0,"order_id":"ORD-1",'
        '"description":"Payment for 100 SBI stocks @ ₹885","direction":"DEBIT","trade_id":"T0-2-1","seq":2}'
    )
    assert len(sellers) == 2


@given(st.integers(1, 10**9), st.integers(1, MAX_PRICE))
def test_a_trade_is_written_with_its_four_legs(quantity: int, price: int) -> None:
    """The buyer's pair comes first, the seller's mirrors it; each under its own order id and symbol as sent."""
    match = Match(7, 3, "SBIN", quantity, Paise(price), "SELL", "b", "HDFC", "SBI", "s", "SELLER", "nse:sbin")
    written = encode_facts([match], 2, "x", 5)[1:]
    legs = (
        ("SECURITIES", "CREDIT", "HDFC", "b", "SBI"),
        ("FUNDS", "DEBIT", "HDFC", "b", "SBI"),
        ("SECURITIES", "DEBIT", "SELLER", "s", "nse:sbin"),
        ("FUNDS", "CREDIT", "SELLER", "s", "nse:sbin"),
    )
    for record, (kind, direction, participant, order_id, symbol) in zip(written, legs, strict=True):
        assert (record.key, record.partition, record.time_ms) == (participant.encode(), 2, 5)
        unique = leg_id("T2-7-3", kind, direction)
        if kind == "SECURITIES":
            advice: DematTransfer | CashMovement = decode_message(DematTransfer, record.value)
            assert isinstance(advice, DematTransfer)
            assert record.topic == topics.DEMAT_TRANSFERS
            assert (advice.transfer_id, advice.stock_symbol, advice.quantity) == (unique, symbol, quantity)
        else:
            advice = decode_message(CashMovement, record.value)
            assert record.topic == topics.CASH_MOVEMENTS
            verb = "Payment for" if direction == "DEBIT" else "Proceeds of"
            about = f"{verb} {quantity} {symbol} stocks @ {rupees_in_text(price)}"
            assert (advice.movement_id, advice.amount * 100, advice.description) == (
                unique,
                Decimal(quantity * price),
                about,
            )
        assert (advice.from_entity, advice.to_entity, advice.order_id) == ("NSE", participant, order_id)
        assert (advice.direction, advice.trade_id, advice.seq) == (direction, "T2-7-3", 7)


class Raw(str):
    """Digits that stand in JSON as they are."""

    __slots__ = ()


_SOME_NUMBERS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-1, 10**10),
    st.floats(),
    st.decimals(allow_nan=False, places=3, min_value=-1, max_value=2 * MAX_PRICE // 100).map(lambda d: Raw(str(d))),
    st.sampled_from(["885.10", "885.100", "1E+2", "8.85E2", "1E-999999", "1E+999999999", f"885.{'0' * 27}1"]).map(Raw),
    st.sampled_from(["10", "", "x"]),
)


def in_json(fields: dict[str, Any]) -> bytes:
    said = [f"{json.dumps(k)}:{v if isinstance(v, Raw) else json.dumps(v)}" for k, v in fields.items()]
    return f"{{{','.join(said)}}}".encode()


@given(
    st.sampled_from([(topics.BUY_ORDERS, WHO), (topics.SELL_OFFERS, WHOSE)]),
    st.fixed_dictionaries(
        {},
        optional={
            "quantity": _SOME_NUMBERS,
            "price_per_unit": _SOME_NUMBERS,
            "stock_symbol": st.sampled_from(["SBI", "nse:sbin", "M&M", "?", "x" * 25, "NSE:" + "A" * 20]),
            "action": st.sampled_from([None, "new", "cancel"]),
            "time_in_force": st.sampled_from([None, "DAY", "IOC"]),
            "target_order_id": st.sampled_from([None, "x"]),
            "valid_until": st.sampled_from([None, "tomorrow"]),
            "note": st.text(max_size=3),
        },
    ),
)
def test_the_seed_s_orders_mean_the_same_with_and_without_a_model(
    sent: tuple[str, dict[str, Any]], more: dict[str, Any]
) -> None:
    """The short way to read an order without a model says of every message what its model says, or nothing."""
    topic, who = sent
    value = in_json(who | more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "_quantity_and_price", lambda _: None)
        by_model = decode_input(topic, value)
    assert decode_input(topic, value) == by_model


def test_what_an_instruction_said_is_repeated_in_its_answer() -> None:
    """The fields beyond the seed's stand in the answer as they were sent, and the shares that were cancelled."""
    replace = Terms(Action.REPLACE, TimeInForce.DAY, SelfTradePrevention.CANCEL_ACTIVE, "ORD-1")
    ioc = Terms(time_in_force=TimeInForce.IOC, self_trade_prevention=SelfTradePrevention.CANCEL_PASSIVE)
    accepted = Outcome(4, "BUY", "R-1", "HDFC", "SBI", Status.ACCEPTED, None, "", 60, Paise(88_500), 0, 60)
    refused = accepted._replace(status=Status.REJECTED, reason=Reason.ORDER_NOT_FOUND, detail="none", leaves=0)
    facts = [
        accepted._replace(terms=replace),
        accepted._replace(filled=10, leaves=0, cancelled=50, terms=ioc),
        refused._replace(terms=Terms(Action.CANCEL, target="ORD-1"), quantity=0, price=None),
    ]
    written = [(record.value or b"").decode() for record in encode_facts(facts, 0, "buy-orders@0:3", 0)]
    head, tail = (
        '{"order_id":"R-1","participant":"HDFC","side":"BUY","stock_symbol":"SBI"',
        '"source":"buy-orders@0:3"}',
    )
    assert written == [
        (
            f'{head},"action":"replace","target_order_id":"ORD-1","self_trade_prevention":"cancel-active",'
            f'"status":"ACCEPTED","quantity":60,"price_per_unit":885.0,"filled_quantity":0,"leaves_quantity":60,"shard":0,'
            f'"seq":4,{tail}'
        ),
        (
            f'{head},"time_in_force":"IOC","self_trade_prevention":"cancel-passive","status":"ACCEPTED","quantity":60,'
            f'"price_per_unit":885.0,"filled_quantity":10,"leaves_quantity":0,"cancelled_quantity":50,"shard":0,"seq":4,'
            f"{tail}"
        ),
        (
            f'{head},"action":"cancel","target_order_id":"ORD-1","status":"REJECTED","reason":"ORDER_NOT_FOUND",'
            f'"detail":"none","filled_quantity":0,"leaves_quantity":0,"shard":0,"seq":4,{tail}'
        ),
    ]
    first, second, third = (decode_message(OrderEvent, text.encode()) for text in written)
    assert (first.action, first.target_order_id) == (Action.REPLACE, "ORD-1")
    assert (second.time_in_force, second.cancelled_quantity) == (TimeInForce.IOC, 50)
    assert (third.reason, third.action, third.quantity) == (Reason.ORDER_NOT_FOUND, Action.CANCEL, None)


def test_a_cancellation_is_no_answer() -> None:
    """It has a cause where answers have a source, and goes to the participant whose order it was."""
    said = Cancellation(9, "SELL", "OFR-1", "HDFC", "SBI", 40, Paise(88_500))
    (record,) = encode_facts([said], 1, "buy-orders@1:6", 5)
    assert (record.topic, record.key, record.partition, record.time_ms) == (topics.ORDER_EVENTS, b"HDFC", 1, 5)
    assert (record.value or b"").decode() == (
        '{"order_id":"OFR-1","participant":"HDFC","side":"SELL","stock_symbol":"SBI","status":"CANCELLED",'
        '"price_per_unit":885.0,"cancelled_quantity":40,"shard":1,"seq":9,'
        '"cancelled_by":"self-trade-prevention","cause":"buy-orders@1:6"}'
    )
    event = decode_message(OrderEvent, record.value)
    assert (event.status, event.source, event.cause) == (Status.CANCELLED, None, "buy-orders@1:6")
    assert b"price_per_unit" not in (encode_facts([said._replace(price=None)], 1, "x", 5)[0].value or b"")


@pytest.mark.parametrize(
    ("message", "quantity", "price", "terms"),
    [
        (BuyOrder(**WHO, quantity=5), 5, None, None),
        (BuyOrder(**WHO, quantity=5, price_per_unit=Decimal(885)), 5, 88_500, None),
        (
            BuyOrder(**WHO, quantity=5, time_in_force=TimeInForce.FOK),
            5,
            None,
            Terms(time_in_force=TimeInForce.FOK),
        ),
        (CancelOrder(**WHO, target_order_id="t"), 0, None, Terms(Action.CANCEL, target="t")),
        (ReplaceOrder(**WHO, target_order_id="t", quantity=5), 5, None, Terms(Action.REPLACE, target="t")),
        (
            ReplaceOrder(
                **WHO,
                target_order_id="t",
                price_per_unit=Decimal("884.95"),
                self_trade_prevention=SelfTradePrevention.CANCEL_PASSIVE,
            ),
            0,
            88_495,
            Terms(Action.REPLACE, TimeInForce.DAY, SelfTradePrevention.CANCEL_PASSIVE, "t"),
        ),
        (CancelOffer(**WHOSE, target_order_id="t"), 0, None, Terms(Action.CANCEL, target="t")),
        (ReplaceOffer(**WHOSE, target_order_id="t", quantity=5), 5, None, Terms(Action.REPLACE, target="t")),
    ],
)
def test_what_a_participant_may_send_is_read_as_it_was_meant(
    message: Sent, quantity: int, price: int | None, terms: Terms | None
) -> None:
    """Every message, written by its model and decoded: the same quantity, price and terms."""
    buys = isinstance(message, BuyOrder | CancelOrder | ReplaceOrder)
    read = decode_input(topics.BUY_ORDERS if buys else topics.SELL_OFFERS, encode_order(message))
    assert isinstance(read, Instruction)
    assert (read.side, read.order_id, read.participant, read.symbol) == ("BUY" if buys else "SELL", "o", "P", "SBIN")
    assert (read.refusal, read.quantity, read.price, read.terms) == (None, quantity, price, terms)


def test_a_stated_default_is_the_same_order() -> None:
    """With and without the defaults written out the content is the same: a retry by another client is a duplicate."""
    plain = BuyOrder(**WHO, quantity=5, price_per_unit=Decimal(885))
    stated = plain.model_copy(
        update={"action": "new", "time_in_force": TimeInForce.DAY, "self_trade_prevention": SelfTradePrevention.OFF}
    )
    assert b"DAY" in encode_order(stated)
    read = [decode_input(topics.BUY_ORDERS, encode_order(order)) for order in (plain, stated)]
    assert read[0] == read[1]


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
    record = encode_facts([match], 3, "x", 0)[0]
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
