"""An example of each message: the first trade, in which HDFC buys 100 SBI at ₹885 from SELLER.

Invariant: each is what the exchange takes or writes, and docs/messages.md shows the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

EXAMPLES: Final[Mapping[str, Sequence[Mapping[str, Any]]]] = {
    "buy-order": [
        {"order_id": "ORD-1", "buyer": "HDFC", "stock_symbol": "SBI", "quantity": 100, "price_per_unit": 885.0}
    ],
    "cancel-order": [
        {"order_id": "C-1", "buyer": "HDFC", "stock_symbol": "SBI", "action": "cancel", "target_order_id": "ORD-1"}
    ],
    "replace-order": [
        {
            "order_id": "R-1",
            "buyer": "HDFC",
            "stock_symbol": "SBI",
            "action": "replace",
            "target_order_id": "ORD-1",
            "quantity": 50,
            "price_per_unit": 884.5,
        }
    ],
    "sell-offer": [{"offer_id": "OFR-1", "seller": "SELLER", "stock_symbol": "SBI", "quantity": 100}],
    "cancel-offer": [
        {"offer_id": "C-1", "seller": "SELLER", "stock_symbol": "SBI", "action": "cancel", "target_order_id": "OFR-1"}
    ],
    "replace-offer": [
        {
            "offer_id": "R-1",
            "seller": "SELLER",
            "stock_symbol": "SBI",
            "action": "replace",
            "target_order_id": "OFR-1",
            "quantity": 50,
            "price_per_unit": 884.5,
        }
    ],
    "order-event": [
        {
            "order_id": "ORD-1",
            "participant": "HDFC",
            "side": "BUY",
            "stock_symbol": "SBI",
            "status": "ACCEPTED",
            "quantity": 100,
            "price_per_unit": 885.0,
            "filled_quantity": 0,
            "leaves_quantity": 100,
            "shard": 0,
            "seq": 1,
            "source": "buy-orders@0:0",
        },
        {
            "order_id": "OFR-1",
            "participant": "HDFC",
            "side": "SELL",
            "stock_symbol": "SBI",
            "status": "CANCELLED",
            "price_per_unit": 885.0,
            "cancelled_quantity": 40,
            "shard": 0,
            "seq": 7,
            "cancelled_by": "self-trade-prevention",
            "cause": "buy-orders@0:6",
        },
    ],
    "trade": [
        {
            "trade_id": "T0-2-1",
            "stock_symbol": "SBIN",
            "quantity": 100,
            "price_per_unit": 885.0,
            "amount": 88500.0,
            "buyer": "HDFC",
            "buy_order_id": "ORD-1",
            "seller": "SELLER",
            "sell_order_id": "OFR-1",
            "maker": "BUY",
            "shard": 0,
            "seq": 2,
        }
    ],
    "demat-transfer": [
        {
            "transfer_id": "2ac50d06-7d50-56d9-9676-047dcc9f1270",
            "from_entity": "NSE",
            "to_entity": "HDFC",
            "stock_symbol": "SBI",
            "quantity": 100,
            "order_id": "ORD-1",
            "direction": "CREDIT",
            "trade_id": "T0-2-1",
            "seq": 2,
        }
    ],
    "cash-movement": [
        {
            "movement_id": "103f347f-10aa-50db-b5fd-b69370a081d1",
            "from_entity": "NSE",
            "to_entity": "HDFC",
            "amount": 88500.0,
            "order_id": "ORD-1",
            "description": "Payment for 100 SBI stocks @ ₹885",
            "direction": "DEBIT",
            "trade_id": "T0-2-1",
            "seq": 2,
        }
    ],
    "journal-record": [
        {
            "v": 1,
            "kind": "batch",
            "shard": 0,
            "entry": 1,
            "epoch": 1,
            "rules": "2026.1",
            "prev": "4ff1dbb947afd2b2bcdfcbe1f8b4944f9f06bdb57c83e28ecb43504c09590bcc",
            "first_seq": 1,
            "next_offsets": {"buy-orders": 1, "sell-offers": 1},
            "inputs": [
                {
                    "topic": "buy-orders",
                    "offset": 0,
                    "time_ms": 1795475212241,
                    "kind": "order",
                    "text": '{"order_id":"ORD-1","buyer":"HDFC","stock_symbol":"SBI","quantity":100,'
                    '"price_per_unit":885.0}',
                },
                {
                    "topic": "sell-offers",
                    "offset": 0,
                    "time_ms": 1795475212447,
                    "kind": "order",
                    "text": '{"offer_id":"OFR-1","seller":"SELLER","stock_symbol":"SBI","quantity":100}',
                },
            ],
            "digest": "4bcaa0c31d41d97d83e9a8fb43ea25a2fbc919232929f5c1f010283380219d87",
        }
    ],
    "snapshot-manifest": [
        {
            "v": 1,
            "shard": 0,
            "entry": 1,
            "epoch": 1,
            "journal_offset": 1,
            "rules": "2026.1",
            "seq": 2,
            "next_offsets": {"buy-orders": 1, "sell-offers": 1},
            "digest": "4bcaa0c31d41d97d83e9a8fb43ea25a2fbc919232929f5c1f010283380219d87",
            "parts": 1,
            "checksum": "b0203bd7252ecba1a5383daf0650094c2a21dc864fac988534fd1b6f61c3c8b4",
        }
    ],
}
"""By the name of the message."""
