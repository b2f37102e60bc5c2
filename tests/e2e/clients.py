"""Clients that place orders in threads of their own, and remember what they were told.

Invariant: everything that a client sends is noted with its answer, and no two clients send the same bytes, so that
the auditor can compare what was told with what is on the log. A client is one thread's: two threads that count its
orders would give one id to two of them.
"""

import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Final

from auditor import Answer, Told
from stocktrade.domain.messages import BuyOrder, SellOffer
from stocktrade.errors import Unavailable, Unknown
from stocktrade.transport import topics
from stocktrade.transport.base import Log, NewRecord
from stocktrade.transport.codec import encode_order, key_of_symbol

SYMBOLS: Final = ("SBIN", "INFY", "RELIANCE", "LT")
"""A symbol of each of four shards."""

BUYERS: Final = ("HDFC", "ICICI", "LIC")
SELLERS: Final = ("SELLER", "HDFC")
_ENDS_WITHIN_S: Final = 60.0

Message = tuple[NewRecord, str, str]
"""A record with its participant and its order id; both are empty of what is no order."""


class Client:
    """A participant's program.

    Args:
        connect: opens the log; called in the client's own thread.
        name: begins the ids of its orders.
        seed: decides what it orders.
        most_at_once: how many orders go into one append at most.
        pause_s: how long it waits after each append, so that the load is bounded.
        symbols: what it trades.
    """

    def __init__(
        self,
        connect: Callable[[], Log],
        name: str,
        seed: int,
        *,
        most_at_once: int = 4,
        pause_s: float = 0.01,
        symbols: Sequence[str] = SYMBOLS,
    ) -> None:
        self._connect = connect
        self._name = name
        self._chance = random.Random(f"{seed} {name}")
        self._most_at_once = most_at_once
        self._pause_s = pause_s
        self._symbols = symbols
        self._number = 0
        self._hurries_to: int | None = None
        self._over = threading.Event()
        self._errors: list[BaseException] = []
        self.told: list[Told] = []

    @contextmanager
    def placing(self) -> Iterator[None]:
        """Place orders for the body of a `with`."""
        thread = threading.Thread(target=self._run)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join(_ENDS_WITHIN_S)
        assert not thread.is_alive()
        self.check()

    def hurry(self, count: int) -> None:
        """Place so many more orders as fast as may be, and then one at a time until this is asked for again.

        Without it the load of a slow machine grows with the time that it takes, and that time with the load.
        """
        self._hurries_to = self._number + count

    def check(self) -> None:
        """Raise what ended the client's thread before its time."""
        if self._errors:
            raise self._errors[0]

    def _run(self) -> None:
        try:
            with self._connect() as log:
                again: list[Message] = []
                while not self._over.wait(self._pause_s):
                    batch = again or self._batch(log.partitions())
                    done = self.send(log, batch)
                    # Some give up; most ask again with the same ids until there is an answer.
                    again = [] if done or self._chance.random() < 0.2 else batch
        except BaseException as error:  # noqa: BLE001 - raised again by `placing`
            self._errors.append(error)

    def send(self, log: Log, batch: Sequence[Message]) -> bool:
        """Append messages and note what was told; whether they were acknowledged."""
        try:
            places = log.append([record for record, _, _ in batch])
        except Unavailable as error:
            answer: Answer = "unknown" if isinstance(error, Unknown) else "failed"
            self.told += [Told(r.topic, who, name, r.value or b"", answer) for r, who, name in batch]
            return False
        self.told += [
            Told(record.topic, who, name, record.value or b"", "acknowledged", place)
            for (record, who, name), place in zip(batch, places, strict=True)
        ]
        return True

    def count(self, answer: Answer) -> int:
        """How many messages were answered so."""
        return sum(each.answer == answer for each in list(self.told))

    def _batch(self, partitions: int) -> list[Message]:
        chance = self._chance
        hurries = self._hurries_to is None or self._number < self._hurries_to
        batch = self.orders(chance.randint(1, self._most_at_once if hurries else 1))
        if chance.random() < 0.1:
            batch.append(batch[0])  # a retry
        if chance.random() < 0.02:
            self._number += 1
            value = f"no message {self._number} of {self._name}".encode()
            batch.append((NewRecord(topics.SELL_OFFERS, None, value), "", ""))
        if partitions > 1 and chance.random() < 0.05:
            record, participant, name = self._order()
            astray = record._replace(partition=chance.randrange(partitions))  # as a client of another library
            batch.append((astray, participant, name))
        return batch

    def orders(self, count: int) -> list[Message]:
        """So many new orders."""
        return [self._order() for _ in range(count)]

    def _order(self) -> Message:
        chance = self._chance
        self._number += 1
        return make_order(
            chance.choice(("BUY", "SELL")),
            chance.choice(self._symbols),
            f"{self._name}-{self._number}",
            chance.randint(1, 20),
            chance.choice((None, 885 + chance.randint(-3, 3), 885 + chance.randint(-3, 3))),
            chance.choice(BUYERS),
            chance.choice(SELLERS),
        )


def make_order(
    side: str,
    symbol: str,
    name: str,
    quantity: int,
    price: int | None,
    buyer: str = BUYERS[0],
    seller: str = SELLERS[0],
) -> Message:
    """An order to buy (at 885 if no price is given), or an offer to sell (at any price if none is given)."""
    key = key_of_symbol(symbol)
    if side == "BUY":
        order = BuyOrder(
            order_id=name,
            buyer=buyer,
            stock_symbol=symbol,
            quantity=quantity,
            price_per_unit=Decimal(885 if price is None else price),
        )
        return NewRecord(topics.BUY_ORDERS, key, encode_order(order)), buyer, name
    offer = SellOffer(
        offer_id=name,
        seller=seller,
        stock_symbol=symbol,
        quantity=quantity,
        price_per_unit=None if price is None else Decimal(price),
    )
    return NewRecord(topics.SELL_OFFERS, key, encode_order(offer)), seller, name
