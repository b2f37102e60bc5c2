"""The view of orders and trades: each order with how far it has come, each trade where it stands.

Invariant: of an accepted order `filled + cancelled + leaves` is its quantity, with what replaces added or took. Events
and trades may be folded in any order of the two topics: trades count by their sequence, after the answer that says
what was left.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, ClassVar, Literal, NamedTuple

from stocktrade.domain.facts import Action, Status
from stocktrade.ranges import Point
from stocktrade.transport import topics
from stocktrade.transport.base import Record, TopicPartition
from stocktrade.views.follow import Taken, View
from stocktrade.views.messages import Told, Traded, told, traded

State = Literal["open", "partly filled", "filled", "cancelled", "rejected"]


class OrderRow(NamedTuple):
    """An order as it stands now.

    Prices are in paise, `first_price` is the one before any replace. `source` is where the order stands on its topic,
    `offset` where its answer does.
    """

    order_id: str
    participant: str
    shard: int
    seq: int
    offset: int
    time_ms: int
    source: str
    side: str
    symbol: str
    sent: str
    price: int | None
    first_price: int | None
    terms: str
    status: str
    reason: str
    detail: str
    quantity: int
    filled: int
    cancelled: int
    leaves: int

    @property
    def state(self) -> State:
        """In one word what has become of it."""
        if self.status != Status.ACCEPTED:
            return "rejected"
        if self.leaves > 0:
            return "partly filled" if self.filled else "open"
        return "cancelled" if self.cancelled else "filled"

    @property
    def whole(self) -> int:
        """Its quantity, with what replaces added or took."""
        return self.filled + self.cancelled + self.leaves if self.status == Status.ACCEPTED else self.quantity


class Change(NamedTuple):
    """A cancel or a replace of an order, asked for by the message `own_id`; or what self-trade prevention took."""

    shard: int
    seq: int
    offset: int
    time_ms: int
    kind: str
    own_id: str
    accepted: bool
    quantity: int
    price: int | None
    reason: str
    source: str


_ORDER_COLUMNS = ", ".join(OrderRow._fields)
_TRADE_COLUMNS = ", ".join(Traded._fields)


class History(View):
    """See the module."""

    name: ClassVar[str] = "history"
    topics: ClassVar[tuple[str, ...]] = (topics.ORDER_EVENTS, topics.TRADES)

    def take(self, records: Sequence[Record]) -> Taken:
        """Fold events, or trades, in."""
        if records and records[0].topic == topics.TRADES:
            return self._take_trades(records)
        until = self.moment.seq
        strange = 0
        answered: dict[int, int] = {}
        orders = []
        changes = []
        for record in records:
            event = told(record)
            if event is None:
                strange += 1
                continue
            if until is not None and event.seq > until:
                continue
            answered[event.shard] = max(event.seq, answered.get(event.shard, 0))
            if event.status == Status.DUPLICATE:
                continue
            if event.status == Status.CANCELLED or event.action != Action.NEW:
                changes.append(event)
            else:
                orders.append(_order_values(event))
        self.store.db.executemany(
            f"INSERT OR IGNORE INTO orders ({_ORDER_COLUMNS}, leaves_seq) VALUES ({', '.join('?' * 21)})",  # noqa: S608 - names of ours
            orders,
        )
        for event in changes:
            self._change(event)
        self.store.db.executemany(
            "INSERT INTO answered VALUES (?, ?) ON CONFLICT DO UPDATE SET seq = max(seq, excluded.seq)",
            answered.items(),
        )
        return Taken(strange)

    def _change(self, event: Told) -> None:
        db = self.store.db
        cancelled_by_rule = event.status == Status.CANCELLED
        target = event.order_id if cancelled_by_rule else event.target
        kind = event.cancelled_by if cancelled_by_rule else event.action
        accepted = event.status != Status.REJECTED
        values = (
            target, event.participant, event.shard, event.seq, event.offset, event.time_ms, kind,
            "" if cancelled_by_rule else event.order_id, accepted,
            event.cancelled if cancelled_by_rule else event.quantity, event.price, event.reason, event.source,
        )  # fmt: skip
        once = db.execute(f"INSERT OR IGNORE INTO change VALUES ({', '.join('?' * 13)})", values)  # noqa: S608
        if once.rowcount == 0 or not accepted:
            return
        name = (target, event.participant)
        if cancelled_by_rule:
            db.execute(
                "UPDATE orders SET cancelled = cancelled + ?1, leaves = leaves - CASE WHEN leaves_seq < ?2 THEN ?1 "
                "ELSE 0 END WHERE order_id = ?3 AND participant = ?4",
                (event.cancelled, event.seq, *name),
            )
        else:
            # The answer says what is left after it, whatever was before.
            db.execute(
                "UPDATE orders SET cancelled = cancelled + ?, leaves = ?, leaves_seq = ?, price = ? "
                "WHERE order_id = ? AND participant = ? AND leaves_seq < ?",
                (event.cancelled, event.leaves, event.seq, event.price, *name, event.seq),
            )

    def _take_trades(self, records: Sequence[Record]) -> Taken:
        db = self.store.db
        until = self.moment.seq
        answered = dict(db.execute("SELECT shard, seq FROM answered").fetchall())
        held: dict[TopicPartition, int] = {}
        strange = 0
        seen: dict[int, tuple[int, int]] = {}
        rows = []
        fills = []
        for record in records:
            trade = traded(record)
            if trade is None:
                strange += 1
                continue
            if until is not None and trade.seq > until:
                continue
            # The rest of its commit was not visible yet when the events were read: it is taken the next time.
            if trade.seq > answered.get(trade.shard, 0):
                held.setdefault((record.topic, record.partition), record.offset)
            if (record.topic, record.partition) in held:
                continue
            if trade.shard not in seen:
                last = "SELECT seq, number FROM trade WHERE shard = ? ORDER BY seq DESC, number DESC LIMIT 1"
                seen[trade.shard] = db.execute(last, (trade.shard,)).fetchone() or (0, 0)
            # What is written again after a torn commit comes again with the same place in history.
            if (trade.seq, trade.number) <= seen[trade.shard]:
                continue
            seen[trade.shard] = trade.seq, trade.number
            rows.append(trade)
            fills.append((trade.quantity, trade.seq, trade.buy_order, trade.buyer))
            fills.append((trade.quantity, trade.seq, trade.sell_order, trade.seller))
        db.executemany(f"INSERT INTO trade ({_TRADE_COLUMNS}) VALUES ({', '.join('?' * 13)})", rows)  # noqa: S608
        db.executemany(
            "UPDATE orders SET filled = filled + ?1, leaves = leaves - CASE WHEN leaves_seq < ?2 THEN ?1 ELSE 0 END "
            "WHERE order_id = ?3 AND participant = ?4",
            fills,
        )
        return Taken(strange, held)

    # --- questions -------------------------------------------------------------------------------------------

    def orders(
        self,
        *,
        symbols: Sequence[str] = (),
        participant: str | None = None,
        only_open: bool = False,
        within: "Within | None" = None,
    ) -> list[OrderRow]:
        """The last orders that answer to all of it, oldest first.

        Args:
            symbols: canonical; none: all.
            participant: whose.
            only_open: those that wait in a book.
            within: which of them.
        """
        conditions: list[_Condition] = [("participant = ?", [participant])] if participant else []
        if only_open:
            conditions.append(("status = 'ACCEPTED' AND leaves > 0", []))
        found = self._newest(_ORDER_COLUMNS, "orders", symbols, conditions, within or Within())
        return [OrderRow(*row) for row in found]

    def trades(
        self, *, symbols: Sequence[str] = (), participant: str | None = None, within: "Within | None" = None
    ) -> list[Traded]:
        """The last trades that answer to all of it, oldest first; the arguments are as those of `orders`."""
        of: list[_Condition] = [("(buyer = ? OR seller = ?)", [participant, participant])] if participant else []
        return [Traded(*row) for row in self._newest(_TRADE_COLUMNS, "trade", symbols, of, within or Within())]

    def _newest(
        self,
        columns: str,
        table: str,
        symbols: Sequence[str],
        conditions: Sequence["_Condition"],
        within: "Within",
    ) -> list[Any]:
        every = [*conditions, *_bounds(within, table)]
        if symbols:
            every.append((f"symbol IN ({', '.join('?' * len(symbols))})", list(symbols)))
        where = " AND ".join(["1", *(text for text, _ in every)])
        values = [value for _, some in every for value in some]
        limit = -1 if within.last is None else within.last
        text = f"SELECT {columns} FROM {table} WHERE {where} ORDER BY id DESC LIMIT ?"  # noqa: S608 - names of ours
        return self.store.db.execute(text, (*values, limit)).fetchall()[::-1]

    def named(self, text: str, *, participant: str | None = None) -> list[OrderRow]:
        """The orders with an id; if there are none, those whose id ends so."""
        for where, value in (("order_id = ?", text), ("substr(order_id, -length(?1)) = ?1", text)):
            query = f"SELECT {_ORDER_COLUMNS} FROM orders WHERE {where} ORDER BY id"  # noqa: S608 - names of ours
            rows = [OrderRow(*row) for row in self.store.db.execute(query, (value,))]
            found = [row for row in rows if participant in (None, row.participant)]
            if found:
                return found
        return []

    def trades_of(self, order: OrderRow) -> Iterator[Traded]:
        """The trades of an order, oldest first."""
        query = (
            f"SELECT {_TRADE_COLUMNS} FROM trade WHERE shard = ?1 AND seq >= ?2 AND "  # noqa: S608 - names of ours
            "((buy_order = ?3 AND buyer = ?4) OR (sell_order = ?3 AND seller = ?4)) ORDER BY seq, number"
        )
        left = order.filled
        with closing(self.store.db.execute(query, (order.shard, order.seq, order.order_id, order.participant))) as rows:
            while left > 0 and (row := rows.fetchone()) is not None:
                trade = Traded(*row)
                left -= trade.quantity
                yield trade

    def changes_of(self, order: OrderRow) -> list[Change]:
        """What was asked of an order, and what was taken off it, oldest first."""
        columns = ", ".join(Change._fields)
        query = f"SELECT {columns} FROM change WHERE order_id = ? AND participant = ? ORDER BY shard, seq"  # noqa: S608
        return [Change(*row) for row in self.store.db.execute(query, (order.order_id, order.participant))]


def _order_values(event: Told) -> tuple[object, ...]:
    accepted = event.status == Status.ACCEPTED
    return (
        event.order_id, event.participant, event.shard, event.seq, event.offset, event.time_ms, event.source,
        event.side, event.symbol, event.sent, event.price, event.price, event.time_in_force, event.status, event.reason,
        event.detail, event.quantity, 0, event.cancelled, event.leaves if accepted else 0, event.seq,
    )  # fmt: skip


_Condition = tuple[str, list[object]]


class Within(NamedTuple):
    """Which of the rows: from and until a point, and no more than the last so many.

    A point's number is an offset on the topic (of the answers, of an order), `-N` counts back from the newest row.
    """

    start: Point | None = None
    until: Point | None = None
    last: int | None = None


def _bounds(within: Within, table: str) -> Iterator[_Condition]:
    for point, holds, counts in ((within.start, ">=", ">"), (within.until, "<", "<=")):
        if point is None:
            continue
        if point.kind == "before_end":
            yield f"id {counts} (SELECT coalesce(max(id), 0) FROM {table}) - ?", [point.value]  # noqa: S608 - names of ours
        else:
            yield f"{'time_ms' if point.kind == 'time' else 'offset'} {holds} ?", [point.value]
