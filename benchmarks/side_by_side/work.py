"""The work that every program does: pairs of orders in, two answers, a trade and its four legs out.

Owns the orders, what must become of them, and a matching that a plain program would write. Invariant: what a pair
becomes does not depend on the program, nor on the order in which the two topics are read: each buy order trades with
one offer for the same number of shares, so what is written has the same number of records and, but for the digits of
running numbers, of bytes.
"""

import time
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from uuid import uuid4

from stocktrade.core.exchange import Exchange
from stocktrade.transport import KAFKA_PYTHON, topics
from stocktrade.transport.base import Log, NewRecord
from stocktrade.transport.codec import Dead, decode_input, encode_facts
from stocktrade.transport.kafka import KafkaLog
from stocktrade.transport.partitioner import partition_for
from stocktrade.transport.sqlite import SqliteLog

SYMBOLS: Final = tuple(f"SYM{n:02}" for n in range(40))
PARTITIONS: Final = 4
ENDLESS: Final = 2**62
"""So many orders that a program which is to take them goes on until it is ended."""

BUYER, SELLER = "HDFC", "SELLER"
PRICE: Final = 885.0
SHARES: Final = 10
SESSION_S: Final = 6
"""How soon a group misses a member that was killed; the same for all, and the least that a broker allows."""


def buy(number: int, symbol: str) -> NewRecord:
    """A bid for 10 shares."""
    text = f'{{"order_id":"b{number}","buyer":"HDFC","stock_symbol":"{symbol}","quantity":10,"price_per_unit":885.0}}'
    return NewRecord(topics.BUY_ORDERS, symbol.encode(), text.encode())


def sell(number: int, symbol: str) -> NewRecord:
    """10 shares at any price."""
    text = f'{{"offer_id":"b{number}","seller":"SELLER","stock_symbol":"{symbol}","quantity":10}}'
    return NewRecord(topics.SELL_OFFERS, symbol.encode(), text.encode())


def pair(number: int) -> list[NewRecord]:
    """Two orders that trade with each other."""
    symbol = SYMBOLS[number % len(SYMBOLS)]
    return [buy(number, symbol), sell(number, symbol)]


def fill(log: Log, orders: int) -> None:
    """Put orders on the log."""
    log.ensure_topics(topics.SPECS)
    for first in range(0, orders // 2, 1000):
        numbers = range(first, min(first + 1000, orders // 2))
        log.append([record for number in numbers for record in pair(number)])


def open_log(where: str, prefix: str, client: str = KAFKA_PYTHON) -> Log:
    """The log of one run: of an embedded one (`sqlite:FOLDER`) each prefix is a folder."""
    if where.startswith("sqlite:"):
        return SqliteLog(Path(where.removeprefix("sqlite:")) / prefix)
    return KafkaLog(where, prefix=prefix, client=client, partitions=PARTITIONS)


def bytes_of_outputs(orders: int, partitions: int) -> int:
    """The bytes of all values that the exchange writes for so many orders, journal and snapshots aside."""
    exchanges = [Exchange() for _ in range(partitions)]
    offsets: dict[tuple[str, int], int] = defaultdict(int)
    total = 0
    for number in range(orders // 2):
        for order in pair(number):
            shard = partition_for(order.key, partitions) if order.key is not None else 0
            decoded = decode_input(order.topic, order.value)
            assert not isinstance(decoded, Dead)
            source = f"{order.topic}@{shard}:{offsets[order.topic, shard]}"
            offsets[order.topic, shard] += 1
            said = encode_facts(exchanges[shard].apply(decoded), shard, source, 0)
            total += sum(len(record.value or b"") for record in said)
    return total


class Stopwatch:
    """From the first input that a program has in its hands to its last output committed."""

    def __init__(self) -> None:
        self._began = 0.0

    def consumed(self) -> None:
        """An input came; only the first counts."""
        if not self._began:
            self._began = time.monotonic()

    def seconds(self) -> float:
        """Until now."""
        return time.monotonic() - self._began


class Answer(NamedTuple):
    """A record to write: its topic without a prefix, its key, its fields."""

    topic: str
    key: str
    fields: dict[str, Any]


class Desk:
    """Matching as a plain program writes it: whoever waits longest for the other side, all of it, at the bid's price.

    It remembers who waits in a dictionary, so what waits is lost with the process. It has no book with prices, no
    partial fills, no refusals and no memory of ids: less work than an exchange does.
    """

    def __init__(self) -> None:
        self.waiting: dict[tuple[str, bool], deque[tuple[str, str]]] = defaultdict(deque)
        self._seq: dict[int, int] = defaultdict(int)

    def take(self, order: dict[str, Any], topic: str, partition: int, offset: int) -> Iterator[Answer]:
        """What one order becomes; the topic is the input's, without a prefix."""
        symbol, is_buy = order["stock_symbol"], "buyer" in order
        order_id, participant = (order["order_id"], order["buyer"]) if is_buy else (order["offer_id"], order["seller"])
        seq = self._seq[partition] = self._seq[partition] + 1
        source = f"{topic}@{partition}:{offset}"
        others = self.waiting[symbol, not is_buy]
        if not others:
            self.waiting[symbol, is_buy].append((order_id, participant))
            yield _event(order, order_id, participant, 0, partition, seq, source)
            return
        other_id, other = others.popleft()
        yield _event(order, order_id, participant, SHARES, partition, seq, source)
        bid, offer = ((order_id, participant), (other_id, other))[:: 1 if is_buy else -1]
        yield from settled(symbol, bid, offer, "SELL" if is_buy else "BUY", partition, seq)


def _event(
    order: dict[str, Any], order_id: str, participant: str, filled: int, shard: int, seq: int, source: str
) -> Answer:
    price = {"price_per_unit": order["price_per_unit"]} if "buyer" in order else {}
    return Answer(
        topics.ORDER_EVENTS,
        participant,
        {
            "order_id": order_id,
            "participant": participant,
            "side": "BUY" if "buyer" in order else "SELL",
            "stock_symbol": order["stock_symbol"],
            "status": "ACCEPTED",
            "quantity": order["quantity"],
            **price,
            "filled_quantity": filled,
            "leaves_quantity": order["quantity"] - filled,
            "shard": shard,
            "seq": seq,
            "source": source,
        },
    )


def settled(
    symbol: str, bid: tuple[str, str], offer: tuple[str, str], maker: str, shard: int, seq: int
) -> Iterator[Answer]:
    """A trade and its four legs; `bid` and `offer` are an id and a participant."""
    trade, amount = f"T{shard}-{seq}-1", SHARES * PRICE
    (buy_id, buyer), (sell_id, seller) = bid, offer
    yield Answer(
        topics.TRADES,
        symbol,
        {
            "trade_id": trade,
            "stock_symbol": symbol,
            "quantity": SHARES,
            "price_per_unit": PRICE,
            "amount": amount,
            "buyer": buyer,
            "buy_order_id": buy_id,
            "seller": seller,
            "sell_order_id": sell_id,
            "maker": maker,
            "shard": shard,
            "seq": seq,
        },
    )
    sides = ((buyer, buy_id, "CREDIT", "DEBIT", "Payment for"), (seller, sell_id, "DEBIT", "CREDIT", "Proceeds of"))
    for participant, order_id, of_shares, of_money, words in sides:
        yield Answer(
            topics.DEMAT_TRANSFERS,
            participant,
            {
                "transfer_id": str(uuid4()),
                "from_entity": "NSE",
                "to_entity": participant,
                "stock_symbol": symbol,
                "quantity": SHARES,
                "order_id": order_id,
                "direction": of_shares,
                "trade_id": trade,
                "seq": seq,
            },
        )
        yield Answer(
            topics.CASH_MOVEMENTS,
            participant,
            {
                "movement_id": str(uuid4()),
                "from_entity": "NSE",
                "to_entity": participant,
                "amount": amount,
                "order_id": order_id,
                "description": f"{words} {SHARES} {symbol} stocks @ ₹{PRICE:g}",
                "direction": of_money,
                "trade_id": trade,
                "seq": seq,
            },
        )
