"""`book`: the market depth of a symbol, now, as of a moment, or as it changes, from snapshot and journal.

Invariant: it reads only; what it shows is the book of the exchange after one exchange sequence, and says which.
"""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Final, NamedTuple, TextIO

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from stocktrade import tables, window
from stocktrade.core.exchange import Exchange
from stocktrade.core.rules import RULES
from stocktrade.domain.messages import JournalRecord, Trade
from stocktrade.domain.values import (
    canonical_symbol,
    decimal_rupees,
    group_indian,
    paise_from_rupees,
    rupees_in_table,
    visible,
)
from stocktrade.errors import ExitCode, StocktradeError, UsageError
from stocktrade.keys import NO_KEYS, Keys
from stocktrade.listing import Form, json_line
from stocktrade.ranges import NOW, Moment
from stocktrade.roles.typed import checked_symbol
from stocktrade.screen import Screen, is_deaf
from stocktrade.shard.history import Replica, replica_from_snapshot, rerun, rules_in, snapshots_of, to_the_end
from stocktrade.shard.journal import decode_entry
from stocktrade.transport import topics
from stocktrade.transport.base import Log, Record
from stocktrade.transport.codec import decode_message, key_of_symbol
from stocktrade.transport.partitioner import partition_for
from stocktrade.views.follow import last_not_after
from stocktrade.views.messages import seq_of_trade, traded
from stocktrade.window import Tail, Window

MAX_LEVELS: Final = 100_000

SEARCHED: Final = 20_000
"""How many trades of a shard are looked through for a symbol's last price, newest first."""

AT_A_TIME: Final = 1_000
"""So many are read at a time."""


class NotKept(StocktradeError):
    """The moment lies before what the log keeps."""

    exit_code = ExitCode.NO


def replica_at(log: Log, shard: int, moment: Moment) -> Replica:
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
        return Replica(shard, RULES)
    replica = _nearest(log, shard, decode_entry(first), first, moment)
    with closing(log.reader({(topics.JOURNAL, shard): replica.offset + 1})) as reader:
        for record in to_the_end(reader):
            entry = replica.entry_of(record)
            if entry is None:
                continue
            if _ends_in(entry, moment):
                _go_on_within(replica, entry, moment)
                return replica
            replica.take(entry, record)
    if moment.seq is not None and moment.seq > replica.exchange.seq:
        raise _beyond(replica.exchange.seq)
    return replica


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


def _go_on_within(replica: Replica, entry: JournalRecord, moment: Moment) -> None:
    """Put those orders of an entry through the exchange that came before the moment."""
    orders = [line for line in entry.inputs if line.kind == "order"]
    if moment.seq is not None:
        count = moment.seq - replica.exchange.seq
    else:
        assert moment.time_ms is not None
        times = [line.time_ms for line in orders]
        count = next(place for place, time_ms in enumerate(times) if time_ms > moment.time_ms)
    before = entry.model_copy(update={"inputs": orders[:count]})
    for _ in rerun(replica.exchange, replica.shard, before):
        pass


def _beyond(seq: int) -> UsageError:
    return UsageError(
        "--at lies beyond the end of the journal",
        cause=f"the last exchange sequence of this symbol's shard is {seq}",
        hint="leave --at out for the book as it is now",
    )


class Depth(NamedTuple):
    """The market depth of a symbol after an exchange sequence; each level is price (None: any), quantity, orders."""

    symbol: str
    shard: int
    seq: int
    last: int | None
    bids: list[list[int | None]]
    asks: list[list[int | None]]

    def is_as(self, other: "Depth | None") -> bool:
        """Whether nobody would see a difference but in the sequence."""
        return other is not None and other._replace(seq=self.seq) == self


def run(
    log: Log,
    symbol: str,
    *,
    levels: int,
    orders: bool,
    moment: Moment,
    form: Form,
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
        form: a table, TSV or JSON.
        console: where a table for people goes.
        out: where anything else goes.

    Raises:
        UsageError: no symbol, or a moment that has not come.
        NotKept: the journal does not go back so far.
    """
    canonical, shard = _place(log, symbol)
    if topics.JOURNAL in log.missing_topics(topics.SPECS):
        replica = Replica(shard, RULES)
    else:
        replica = replica_at(log, shard, moment)
    exchange = replica.exchange
    if orders:
        _tell_orders(exchange, canonical, form=form, console=console, out=out)
        return ExitCode.OK
    last = last_price(log, shard, canonical, exchange.seq if moment.is_past else None)
    _tell(Depth(canonical, shard, exchange.seq, last, *exchange.depth(canonical, levels)), form, console, out)
    return ExitCode.OK


def watch(
    log: Log,
    symbol: str,
    *,
    levels: int,
    form: Form,
    console: Console,
    out: TextIO,
    err: TextIO,
    stop: Callable[[], bool],
    keys: Keys = NO_KEYS,
    pause: Callable[[float], None] = time.sleep,
) -> ExitCode:
    """Show the book of a symbol, and again whenever it has changed, until `stop` says so.

    On a terminal it is drawn in place; for programs each state is a block of rows with an empty line after it, or a
    JSON object. Where the log goes away it is waited for.

    Args:
        log: the log.
        symbol: as it was typed.
        levels: how many price levels of each side.
        form: a table, TSV or JSON.
        console: where a table for people goes; drawn in place if it is a terminal.
        out: where anything else goes.
        err: where trouble is told, if it is not drawn.
        stop: whether a clean stop was asked for.
        keys: what is typed meanwhile: `p` pauses the screen and goes on, `q` ends.
        pause: sleeps that many seconds.

    Raises:
        UsageError: no symbol.
        Unavailable: the log cannot be read when watching begins; later, it is tried again.
    """
    canonical, shard = _place(log, symbol)
    log.ensure_topics(topics.SPECS)
    replica = replica_at(log, shard, NOW)
    last = last_price(log, shard, canonical, None)

    def depth() -> Depth:
        return Depth(canonical, shard, replica.exchange.seq, last, *replica.exchange.depth(canonical, levels))

    onward = Window.onward({(topics.JOURNAL, shard): replica.offset + 1})
    tail = Tail(log, onward, stop=stop, now_ms=lambda: 0, pause=pause)
    view: _Drawn | _Told
    on_screen = form is Form.TABLE and console.file.isatty()
    view = _Drawn(console, keys) if on_screen else _Told(form, console, out, err)
    with closing(tail), closing(view), suppress(BrokenPipeError, KeyboardInterrupt):
        view.show(depth())
        while not stop() and not view.is_over():
            for record, _ in tail.poll(view.patience_s()):
                last = _taken(replica, record, canonical, last)
                view.show(depth())
            if tail.news:
                view.tell(tail.news)
                tail.news = ""
            view.draw()
    return ExitCode.OK


class _Told:
    """Each state as text, below the one before."""

    def __init__(self, form: Form, console: Console, out: TextIO, err: TextIO) -> None:
        self._form = form
        self._console = console
        self._out = out
        self._err = err
        self._told: Depth | None = None

    def patience_s(self) -> float:
        return window.POLL_S

    def show(self, depth: Depth) -> None:
        if depth.is_as(self._told):
            return
        self._told = depth
        _tell(depth, self._form, self._console, self._out)
        self._out.write("\n" if self._form is Form.TSV else "")
        self._out.flush()

    def tell(self, news: str) -> None:
        self._err.write(f"{visible(news, 500)}\n")
        self._err.flush()

    def draw(self) -> None:
        pass

    def is_over(self) -> bool:
        return is_deaf(self._out)

    def close(self) -> None:
        pass


class _Drawn:
    """The newest state, drawn in place. While it is paused, the one that was the newest then."""

    def __init__(self, console: Console, keys: Keys) -> None:
        self._console = console
        self._screen = Screen(console, keys)
        self._newest: Depth | None = None
        self._still: Depth | None = None
        self._unseen = 0
        self._news = ""

    def patience_s(self) -> float:
        return self._screen.patience_s(self._state(), window.POLL_S)

    def show(self, depth: Depth) -> None:
        if not depth.is_as(self._newest):
            self._newest = depth
            self._unseen += 1

    def tell(self, news: str) -> None:
        self._news = news

    def draw(self) -> None:
        self._screen.obey()
        if self._screen.is_paused != (self._still is not None):
            self._still = self._newest if self._screen.is_paused else None
            self._unseen = 0
        self._screen.draw(self._state(), self._view)

    def is_over(self) -> bool:
        return self._screen.is_over

    def close(self) -> None:
        self._screen.close()
        if self._newest is not None:  # what was seen last stays
            self._console.print(*_drawing(self._newest), sep="\n")

    def _state(self) -> object:
        unseen = None if self._still is None else self._unseen
        return self._still or self._newest, unseen, self._news

    def _view(self) -> Group:
        shown = self._still or self._newest
        assert shown is not None
        unseen = None if self._still is None else self._unseen
        below = [self._news] if unseen is None else [self._news, tables.PAUSED_HINT]
        notices = [Text(tables.shown(notice, 200), tables.WAITING) for notice in below if notice]
        return Group(*_drawing(shown, unseen), *notices)


def _taken(replica: Replica, record: Record, symbol: str, last: int | None) -> int | None:
    """Take the next record of the journal; the last price after it."""
    entry = replica.entry_of(record)
    if entry is None:
        return last
    key = key_of_symbol(symbol)
    for output in replica.take(entry, record):
        if output.topic == topics.TRADES and output.key == key:
            trade = decode_message(Trade, output.value)
            last = paise_from_rupees(trade.price_per_unit)
    return last


def _place(log: Log, symbol: str) -> tuple[str, int]:
    canonical = canonical_symbol(checked_symbol(symbol))
    assert canonical is not None
    return canonical, partition_for(key_of_symbol(canonical), log.partitions())


def last_price(log: Log, shard: int, symbol: str, seq: int | None) -> int | None:
    """The price of a symbol's last trade, in paise; None if there is none among the last SEARCHED of its shard.

    Args:
        log: the log.
        shard: that of the symbol.
        symbol: canonical.
        seq: no trade of a later exchange sequence; None: any.
    """
    at = (topics.TRADES, shard)
    if topics.TRADES in log.missing_topics(topics.SPECS):
        return None
    with closing(log.reader({at: None})) as reader:
        end = reader.ends()[at]
    if seq is not None:
        newest = last_not_after(log, at, seq, seq_of_trade)
        end = 0 if newest is None else newest.offset + 1
    first = end
    while first > max(0, end - SEARCHED):
        upto, first = first, max(0, first - AT_A_TIME)
        price = None
        with closing(log.reader({at: first})) as reader:
            while reader.position(*at) < upto and (records := reader.poll(1.0)):
                found = [traded(record) for record in records if record.offset < upto]
                prices = [trade.price for trade in found if trade is not None and trade.symbol == symbol]
                price = prices[-1] if prices else price
        if price is not None:
            return price
    return None


def _tell(depth: Depth, form: Form, console: Console, out: TextIO) -> None:
    if form is Form.JSON:
        document = {
            "stock_symbol": depth.symbol,
            "shard": depth.shard,
            "seq": depth.seq,
            "last_price_paise": depth.last,
            "bids": [_level(level) for level in depth.bids],
            "asks": [_level(level) for level in depth.asks],
        }
        out.write(json_line("stocktrade.book/1", document))
    elif form is Form.TABLE:
        console.print(*_drawing(depth), sep="\n")
    else:
        for side, found in (("BUY", depth.bids), ("SELL", depth.asks)):
            for price, quantity, count in found:
                cells = (side, "" if price is None else decimal_rupees(price), str(quantity), str(count))
                out.write(tables.tsv(cells) + "\n")


def _level(level: Sequence[int | None]) -> dict[str, int | None]:
    return dict(zip(("price_paise", "quantity", "orders"), level, strict=True))


def _tell_orders(exchange: Exchange, symbol: str, *, form: Form, console: Console, out: TextIO) -> None:
    for order in exchange.resting(symbol):
        if form is Form.JSON:
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
        if form is Form.TABLE:
            shown = Text(
                "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, (4, 12, 10, 12, 0, 0), strict=True))
            )
            shown.stylize(tables.BUY if order.side == "BUY" else tables.SELL)
            console.print(shown, soft_wrap=True)
        else:
            out.write(tables.tsv(cells) + "\n")


def _drawing(depth: Depth, unseen: int | None = None) -> list[RenderableType]:
    """The table below its title; `unseen` counts what came since it stands still, if it does."""
    last = "no trade yet" if depth.last is None else f"last {rupees_in_table(depth.last)}"
    head = Text.assemble(
        ("Market depth  ", "bold"),
        depth.symbol,
        f"  {last}",
        (f"  after sequence {group_indian(depth.seq)}", tables.FAINT),
        *tables.paused_note(unseen),
    )
    if not depth.bids and not depth.asks:
        return [head, Text("nobody waits", tables.FAINT)]
    return [head, DepthTable(depth)]


@dataclass
class DepthTable:
    """Bids on the left, offers on the right, the best ones at the top."""

    depth: Depth

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bids, asks = ([_cells(level) for level in levels] for levels in (self.depth.bids, self.depth.asks))
        height = max(len(bids), len(asks))
        columns = []
        for side, place, rank in (("B", 2, 1), ("B", 1, 2), ("B", 0, 0), ("S", 0, 0), ("S", 1, 2), ("S", 2, 1)):
            levels, style = (bids, tables.BUY) if side == "B" else (asks, tables.SELL)
            texts = [cells[place] for cells in levels] + [""] * (height - len(levels))
            head = ("bid" if side == "B" else "offer", "qty", "orders")[place]
            columns.append(tables.TableColumn(head, [Text(text, style) for text in texts], right=True, rank=rank))
        yield tables.columns_table(columns, options.max_width)


def _cells(level: Sequence[int | None]) -> tuple[str, str, str]:
    price, quantity, count = level
    return ("any" if price is None else rupees_in_table(price), group_indian(quantity or 0), group_indian(count or 0))
