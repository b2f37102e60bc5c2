"""`book`: the market depth of a symbol, now or as of a moment, from snapshot and journal.

Invariant: it reads only; what it shows is the book of the exchange after one exchange sequence, and says which.
"""

import json
from collections.abc import Sequence
from contextlib import closing
from typing import Final, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from stocktrade import tables
from stocktrade.core.exchange import Exchange
from stocktrade.core.rules import RULES
from stocktrade.domain.messages import JournalRecord
from stocktrade.domain.values import canonical_symbol, decimal_rupees, group_indian, rupees_in_table
from stocktrade.errors import ExitCode, StocktradeError, UsageError
from stocktrade.ranges import Moment
from stocktrade.roles.typed import checked_symbol
from stocktrade.shard.history import Replica, replica_from_snapshot, rerun, rules_in, snapshots_of, to_the_end
from stocktrade.shard.journal import decode_entry
from stocktrade.transport import topics
from stocktrade.transport.base import Log, Record
from stocktrade.transport.codec import key_of_symbol
from stocktrade.transport.partitioner import partition_for

MAX_LEVELS: Final = 100_000


class NotKept(StocktradeError):
    """The moment lies before what the log keeps."""

    exit_code = ExitCode.NO


def exchange_at(log: Log, shard: int, moment: Moment) -> Exchange:
    """The exchange of a shard as it was at a moment.

    Raises:
        UsageError: the sequence is beyond the journal's end.
        NotKept: the journal does not go back so far.
        JournalBroken: the journal does not replay to its digests.
    """
    with closing(log.reader({(topics.JOURNAL, shard): 0})) as reader:
        first = next(to_the_end(reader, at_most=1), None)
    if first is None:
        if moment.seq:
            raise _beyond(0)
        return Exchange(RULES)
    replica = _nearest(log, shard, decode_entry(first), first, moment)
    with closing(log.reader({(topics.JOURNAL, shard): replica.offset + 1})) as reader:
        for record in to_the_end(reader):
            entry = replica.entry_of(record)
            if entry is None:
                continue
            if _ends_in(entry, moment):
                return _within(replica, entry, moment)
            replica.take(entry, record)
    if moment.seq is not None and moment.seq > replica.exchange.seq:
        raise _beyond(replica.exchange.seq)
    return replica.exchange


def _nearest(log: Log, shard: int, entry: JournalRecord, first: Record, moment: Moment) -> Replica:
    """The newest state from which the moment can still be reached."""
    # A journal whose beginning is not kept can be continued from a snapshot under the built-in rules alone.
    rules = RULES if entry.entry else rules_in(entry, first.position)
    # What a snapshot's time is nobody knows, so a time is reached from the beginning.
    until = 0 if moment.time_ms is not None else moment.seq
    replica = replica_from_snapshot(log, shard, rules, snapshots_of(log, shard), before_seq=until)
    if entry.entry > replica.head.entry + 1:
        raise NotKept(
            f"not available before sequence {entry.first_seq}",
            cause=f"the journal of shard {shard} is kept from entry {entry.entry} on",
        )
    return replica


def _ends_in(entry: JournalRecord, moment: Moment) -> bool:
    """Whether the moment lies within an entry, or before it."""
    orders = [line for line in entry.inputs if line.kind == "order"]
    if moment.seq is not None:
        return entry.first_seq + len(orders) - 1 > moment.seq
    return moment.time_ms is not None and any(line.time_ms > moment.time_ms for line in orders)


def _within(replica: Replica, entry: JournalRecord, moment: Moment) -> Exchange:
    """Put those orders of an entry through the exchange that came before the moment."""
    exchange = replica.exchange
    orders = [line for line in entry.inputs if line.kind == "order"]
    if moment.seq is not None:
        count = moment.seq - exchange.seq
    else:
        assert moment.time_ms is not None
        times = [line.time_ms for line in orders]
        count = next(place for place, time_ms in enumerate(times) if time_ms > moment.time_ms)
    before = entry.model_copy(update={"inputs": orders[:count]})
    for _ in rerun(exchange, replica.shard, before):
        pass
    return exchange


def _beyond(seq: int) -> UsageError:
    return UsageError(
        "--at lies beyond the end of the journal",
        cause=f"the last exchange sequence of this symbol's shard is {seq}",
        hint="leave --at out for the book as it is now",
    )


def run(
    log: Log,
    symbol: str,
    *,
    levels: int,
    orders: bool,
    moment: Moment,
    as_json: bool,
    console: Console,
    out: TextIO,
) -> ExitCode:
    """Show the book of a symbol.

    Args:
        log: the log.
        symbol: as it was typed.
        levels: how many price levels of each side.
        orders: every order by itself instead of levels.
        moment: as of when.
        as_json: one JSON document.
        console: where a table for people goes, if it is a terminal.
        out: where anything else goes.

    Raises:
        UsageError: no symbol, or a moment that has not come.
        NotKept: the journal does not go back so far.
    """
    canonical = canonical_symbol(checked_symbol(symbol))
    assert canonical is not None
    shard = partition_for(key_of_symbol(canonical), log.partitions())
    exchange = exchange_at(log, shard, moment)
    if orders:
        _tell_orders(exchange, canonical, as_json=as_json, console=console, out=out)
        return ExitCode.OK
    bids, asks = exchange.depth(canonical, levels)
    if as_json:
        document = {
            "schema": "stocktrade.book/1",
            "stock_symbol": canonical,
            "shard": shard,
            "seq": exchange.seq,
            "bids": [_level(level) for level in bids],
            "asks": [_level(level) for level in asks],
        }
        out.write(json.dumps(document, ensure_ascii=False) + "\n")
    elif console.is_terminal:
        _draw(canonical, exchange.seq, bids, asks, console)
    else:
        for side, found in (("BUY", bids), ("SELL", asks)):
            for price, quantity, count in found:
                cells = (side, "" if price is None else decimal_rupees(price), str(quantity), str(count))
                out.write(tables.tsv(cells) + "\n")
    return ExitCode.OK


def _level(level: Sequence[int | None]) -> dict[str, int | None]:
    return dict(zip(("price_paise", "quantity", "orders"), level, strict=True))


def _tell_orders(exchange: Exchange, symbol: str, *, as_json: bool, console: Console, out: TextIO) -> None:
    for order in exchange.resting(symbol):
        if as_json:
            document = {
                "schema": "stocktrade.resting/1",
                "stock_symbol": symbol,
                "side": order.side,
                "price_paise": order.price,
                "quantity": order.leaves,
                "participant": order.participant,
                "order_id": order.order_id,
                "seq": order.seq,
            }
            out.write(json.dumps(document, ensure_ascii=False) + "\n")
            continue
        price = "" if order.price is None else decimal_rupees(order.price)
        cells = (order.side, price, str(order.leaves), order.participant, order.order_id, str(order.seq))
        if console.is_terminal:
            shown = Text(
                "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, (4, 12, 10, 12, 0, 0), strict=True))
            )
            shown.stylize(tables.BUY if order.side == "BUY" else tables.SELL)
            console.print(shown, soft_wrap=True)
        else:
            out.write(tables.tsv(cells) + "\n")


def _draw(
    symbol: str, seq: int, bids: Sequence[Sequence[int | None]], asks: Sequence[Sequence[int | None]], console: Console
) -> None:
    console.print(
        Text.assemble(("Market depth  ", "bold"), symbol, (f"  after sequence {group_indian(seq)}", tables.FAINT))
    )
    if not bids and not asks:
        console.print(Text("nobody waits", tables.FAINT))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for head, style in (("orders", tables.BUY), ("qty", tables.BUY), ("bid", tables.BUY)):
        table.add_column(head, justify="right", style=style, no_wrap=True)
    for head in ("offer", "qty", "orders"):
        table.add_column(head, justify="right", style=tables.SELL, no_wrap=True)
    for place in range(max(len(bids), len(asks))):
        left = _cells(bids[place])[::-1] if place < len(bids) else ("", "", "")
        right = _cells(asks[place]) if place < len(asks) else ("", "", "")
        table.add_row(*left, *right)
    console.print(table)


def _cells(level: Sequence[int | None]) -> tuple[str, str, str]:
    price, quantity, count = level
    return ("any" if price is None else rupees_in_table(price), group_indian(quantity or 0), group_indian(count or 0))
