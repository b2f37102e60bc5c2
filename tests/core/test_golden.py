"""What the seed's orders give stays as it was, byte for byte: every output, and the journal entry that chains them.

The digests below were taken before orders could say more than the seed's. A change of any byte of what the exchange
writes for such orders changes them, and that would break the journals of others.
"""

import json
from hashlib import sha256

from stocktrade.core.exchange import Exchange
from stocktrade.core.rules import RULES
from stocktrade.domain.facts import Instruction
from stocktrade.shard.journal import Head, InputLine, encode_batch
from stocktrade.transport import topics
from stocktrade.transport.base import NewRecord
from stocktrade.transport.codec import decode_input, encode_facts

SYMBOLS = ("SBI", "nse:sbin", "INFY", "M&M", "not a symbol!")


def seed_inputs(count: int) -> list[tuple[str, bytes]]:
    """Orders and offers with the seed's fields alone: prices that cross, some repeated, reused, off the tick, wrong."""
    inputs = []
    for n in range(count):
        number = n - 5 if n % 17 == 16 else n  # now and then an id comes again; every other time with its content
        content = n if n % 34 == 33 else number
        buys = content * 7 % 13 < 6
        fields: dict[str, object] = {
            "order_id" if buys else "offer_id": f"o-{number}",
            "buyer" if buys else "seller": ("HDFC", "ICICI", "SELLER", "LIC")[content * 5 % 4 if content % 3 else 0],
            "stock_symbol": SYMBOLS[4 if content % 97 == 96 else content * 3 % 4],
            "quantity": 0 if content % 89 == 88 else 1 + content * 37 % 400,
        }
        if buys or content % 4:
            fields["price_per_unit"] = (884_00 + content * 53 % 40 * 5 + (content % 61 == 60)) / 100
        inputs.append((topics.BUY_ORDERS if buys else topics.SELL_OFFERS, json.dumps(fields).encode()))
    return inputs


def test_the_first_trade_is_written_as_ever() -> None:
    """HDFC buys 100 SBI at 885 from SELLER: all seven records, to the byte."""
    written = outputs_of(
        [
            (
                topics.BUY_ORDERS,
                b'{"order_id":"ORD-1","buyer":"HDFC","stock_symbol":"SBI","quantity":100,"price_per_unit":885.0}',
            ),
            (topics.SELL_OFFERS, b'{"offer_id":"OFR-1","seller":"SELLER","stock_symbol":"SBI","quantity":100}'),
        ]
    )[0]
    assert [(r.topic, (r.key or b"").decode(), (r.value or b"").decode()) for r in written] == FIRST_TRADE
    assert [(r.partition, r.time_ms, r.headers) for r in written] == [(2, 1_000, ())] + [(2, 1_001, ())] * 6


def test_a_long_stream_is_written_as_ever() -> None:
    """Twelve thousand inputs: the digest over all outputs in their order, and the digest of the journal entry."""
    written, head = outputs_of(seed_inputs(12_000))
    everything = sha256()
    for record in written:
        everything.update(repr(tuple(record)).encode())
    assert (len(written), everything.hexdigest(), head.digest) == LONG_STREAM


def outputs_of(inputs: list[tuple[str, bytes]]) -> tuple[list[NewRecord], Head]:
    """What an exchange writes for `inputs`, and the head of its journal after one entry with all of them."""
    exchange = Exchange()
    outputs: list[NewRecord] = []
    lines = []
    for offset, (topic, value) in enumerate(inputs):
        decoded = decode_input(topic, value)
        assert isinstance(decoded, Instruction)
        time_ms = 1_000 + offset
        outputs += encode_facts(exchange.apply(decoded), 2, f"{topic}@2:{offset}", time_ms)
        lines.append(InputLine(topic, offset, time_ms, "order", value.decode()))
    _, head = encode_batch(
        shard=2, head=Head(), epoch=1, rules=RULES.name, first_seq=1, next_offsets={}, inputs=lines, outputs=outputs
    )
    return outputs, head


FIRST_TRADE = [
    (
        "order-events",
        "HDFC",
        (
            '{"order_id":"ORD-1","participant":"HDFC","side":"BUY","stock_symbol":"SBI","status":"ACCEPTED",'
            '"quantity":100,"price_per_unit":885.0,"filled_quantity":0,"leaves_quantity":100,"shard":2,"seq":1,'
            '"source":"buy-orders@2:0"}'
        ),
    ),
    (
        "order-events",
        "SELLER",
        (
            '{"order_id":"OFR-1","participant":"SELLER","side":"SELL","stock_symbol":"SBI","status":"ACCEPTED",'
            '"quantity":100,"filled_quantity":100,"leaves_quantity":0,"shard":2,"seq":2,"source":"sell-offers@2:1"}'
        ),
    ),
    (
        "trades",
        "SBIN",
        (
            '{"trade_id":"T2-2-1","stock_symbol":"SBIN","quantity":100,"price_per_unit":885.0,"amount":88500.0,'
            '"buyer":"HDFC","buy_order_id":"ORD-1","seller":"SELLER","sell_order_id":"OFR-1","maker":"BUY","shard":2,'
            '"seq":2}'
        ),
    ),
    (
        "demat-transfers",
        "HDFC",
        (
            '{"transfer_id":"9076e2bd-3505-572a-9fba-ff5ba52431fe","from_entity":"NSE","to_entity":"HDFC",'
            '"stock_symbol":"SBI","quantity":100,"order_id":"ORD-1","direction":"CREDIT","trade_id":"T2-2-1","seq":2}'
        ),
    ),
    (
        "cash-movements",
        "HDFC",
        (
            '{"movement_id":"fb809902-b8b8-56ea-bbfc-78dd8e57924c","from_entity":"NSE","to_entity":"HDFC",'
            '"amount":88500.0,"order_id":"ORD-1","description":"Payment for 100 SBI stocks @ ₹885",'
            '"direction":"DEBIT","trade_id":"T2-2-1","seq":2}'
        ),
    ),
    (
        "demat-transfers",
        "SELLER",
        (
            '{"transfer_id":"b52c8a1b-3607-57c3-86c2-84c67820d413","from_entity":"NSE","to_entity":"SELLER",'
            '"stock_symbol":"SBI","quantity":100,"order_id":"OFR-1","direction":"DEBIT","trade_id":"T2-2-1","seq":2}'
        ),
    ),
    (
        "cash-movements",
        "SELLER",
        (
            '{"movement_id":"7bdcaba9-b821-5c99-abd0-ff00ccd282dc","from_entity":"NSE","to_entity":"SELLER",'
            '"amount":88500.0,"order_id":"OFR-1","description":"Proceeds of 100 SBI stocks @ ₹885",'
            '"direction":"CREDIT","trade_id":"T2-2-1","seq":2}'
        ),
    ),
]
LONG_STREAM = (
    59_510,
    "cb722b88a4a8dcc04c2a0335928bc6b21974cd618a00842bee11901c3d1c319d",
    "c00b854702250e2fb294b77ec7ea947b507a0aae9ff2a8a8f180ff8d9b45674b",
)
