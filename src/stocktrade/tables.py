"""Rows as Rich draws them, and the same rows as tab-separated lines. Draws, never fetches.

Owns how money, times, names and progress look. Invariants: whatever came off a topic becomes visible text first
and a `Text` then, never markup; a number or an id is never cut. Where a table is too wide, names fold; where that
is not enough, whole columns go.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple
from unicodedata import category

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from stocktrade.core.ledger import CASH
from stocktrade.domain.facts import Match, Reason, Status
from stocktrade.domain.values import CLEARING_HOUSE, Paise, Side, group_indian, rupees_in_table, visible
from stocktrade.flow import REPLACED, Answer, Flow, Quote, Row
from stocktrade.ranges import moment
from stocktrade.transport import topics
from stocktrade.transport.codec import trade_id

BUY: Final = "blue"
SELL: Final = "red"
GOOD: Final = "green"
WAITING: Final = "yellow"
BAD: Final = "bold red"
FAINT: Final = "dim"
"""The styles. Blue and red are told apart by the colour-blind too."""

NAME_LIMIT: Final = 64
"""No participant and no id of ours is longer; what is, is cut."""

MAX_STACKED: Final = 2
"""How many combining marks a letter may carry before the rest is escaped."""


# --- text ----------------------------------------------------------------------------------------------------


def shown(text: str, limit: int = NAME_LIMIT) -> str:
    """Text off a topic as a screen may have it: nothing that steers it, at most `limit` characters."""
    safe = _safe(text, limit)
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def _safe(text: str, limit: int) -> str:
    """`visible`, and marks not piled up; escapes make it longer than `limit`."""
    safe = visible(text, limit)
    return safe if safe.isascii() else _unstacked(safe)


def _unstacked(text: str) -> str:
    out: list[str] = []
    stacked = MAX_STACKED  # a mark without a letter before it would sit on the cell's neighbour
    for character in text:
        if category(character) in {"Mn", "Me"}:
            stacked += 1
            out.append(character if stacked <= MAX_STACKED else f"\\u{ord(character):04x}")
        else:
            stacked = 0
            out.append(character)
    return "".join(out)


def tsv(cells: Iterable[str]) -> str:
    """Cells as one line of tab-separated text: no colour, nothing cut, nothing that steers a terminal."""
    return "\t".join(map(one_line, cells))


def one_line(text: str) -> str:
    """Text of any length with nothing in it that would end a line or steer a terminal."""
    return _safe(text, len(text))


def printable_json(text: str) -> str:
    """JSON with nothing in it that a terminal would obey, and no line break; it means the same."""
    if text.isprintable():
        return text
    # Breaks and tabs stand between tokens only, whatever else is not printable in strings only.
    return "".join([c if c.isprintable() else " " if c in "\t\n\r" else json.dumps(c)[1:-1] for c in text])


def side(text: str) -> Text:
    """`BUY` or `SELL` in its colour."""
    return Text(text, BUY if text == "BUY" else SELL)


def clock(time_ms: int, *, newest_ms: int | None = None, milliseconds: bool = False) -> str:
    """A time in India for a table: `09:15:00`, with the day when it is not that of `newest_ms`."""
    at = moment(time_ms)
    newest = None if newest_ms is None else moment(newest_ms)
    if at is None:
        return "no date"
    if milliseconds:
        return f"{at:%H:%M:%S}.{at.microsecond // 1000:03}"
    return f"{at:%H:%M:%S}" if newest is None or at.date() == newest.date() else f"{at:%d %b %H:%M:%S}"


def duration(ms: int) -> str:
    """How long something took: `18 ms`, `1.2 s`, `3 min`, `2 h`."""
    if ms < 1_000:
        return f"{ms} ms"
    if ms < 120_000:
        return f"{ms / 1000:.1f} s"
    return f"{ms // 60_000} min" if ms < 7_200_000 else f"{ms // 3_600_000} h"


def rate(per_second: float) -> str:
    """A rate for a person: `0.3/s`, `12/s`, `1,234/s`."""
    return f"{per_second:.1f}/s" if per_second < 9.95 else f"{group_indian(round(per_second))}/s"


def many(count: int, thing: str) -> str:
    """`1 trade`, `2 trades`."""
    return f"{group_indian(count)} {thing}{'' if count == 1 else 's'}"


# --- columns -------------------------------------------------------------------------------------------------


@dataclass
class _Column:
    head: str
    cells: list[Text]
    right: bool = False
    folds: bool = False
    limit: int = NAME_LIMIT

    def __post_init__(self) -> None:
        self._wide = [cell.cell_len for cell in self.cells]  # asked for many times while the columns are fitted
        self._head_wide = cell_len(self.head)
        self._widest = max([self._head_wide, *self._wide])

    def width(self) -> int:
        return min(self._widest, max(self.limit, self._head_wide)) if self.folds else self._widest

    def lines(self, place: int) -> int:
        """How many lines a cell takes."""
        return max(1, -(-self._wide[place] // self.width()))


class _Layout(NamedTuple):
    """The columns that fit in a width, and the gap between them."""

    columns: list[_Column]
    gap: int
    fits: bool


_FOLDS: Final = (NAME_LIMIT, 48, 32, 24, 20, 16, 12)


def _fitted(columns: Sequence[_Column], width: int, sacrifices: Sequence[Sequence[str]]) -> _Layout:
    """What fits in `width`: names fold first; then the columns of `sacrifices` go, group by group."""
    left = list(columns)
    for heads in ((), *sacrifices):
        left = [column for column in left if column.head not in heads]
        for limit in _FOLDS:
            for column in left:
                column.limit = limit
            needed = sum([column.width() for column in left])
            for gap in (2, 1):
                if needed + gap * (len(left) - 1) <= width:
                    return _Layout(left, gap, fits=True)
    return _Layout(left, 1, fits=False)


def _drawn(layout: _Layout, rows: slice = slice(None)) -> RenderableType:
    places = range(len(layout.columns[0].cells))[rows]
    if layout.fits and all(column.lines(place) == 1 for column in layout.columns for place in places):
        return Group(*_lines(layout, places))
    table = Table(box=None, padding=(0, layout.gap, 0, 0), pad_edge=False, header_style="bold")
    for column in layout.columns:
        table.add_column(
            Text(column.head),
            justify="right" if column.right else "left",
            # On a screen that is too narrow even for the last column a number goes on in the next line.
            width=column.width() if layout.fits else None,
            no_wrap=layout.fits and not column.folds,
            overflow="fold",
        )
    for cells in zip(*[column.cells[rows] for column in layout.columns], strict=True):
        table.add_row(*cells)
    return table


def _lines(layout: _Layout, places: Iterable[int]) -> Iterator[Text]:
    """A table of which no cell folds, line by line: a live view draws it in a third of the time of a `Table`."""
    gap = " " * layout.gap
    widths = [column.width() for column in layout.columns]
    rows = [[Text(column.head, "bold") for column in layout.columns]]
    rows += [[column.cells[place] for column in layout.columns] for place in places]
    for row in rows:
        line = Text(no_wrap=True)
        for number, (column, cell, width) in enumerate(zip(layout.columns, row, widths, strict=True)):
            padding = " " * (width - cell.cell_len)
            line.append(gap if number else "")
            if column.right:
                line.append(padding).append_text(cell)
            else:
                line.append_text(cell).append(padding)
        yield line


class TableColumn(NamedTuple):
    """A column of a table that `columns_table` makes; see `listing.Column`."""

    head: str
    cells: list[Text]
    right: bool = False
    folds: bool = False
    rank: int = 0


def columns_table(columns: Sequence[TableColumn], width: int) -> RenderableType:
    """A table that fits in `width`: names fold first, then columns go by rank, highest first; rank 0 stays."""
    ranks = sorted({column.rank for column in columns if column.rank}, reverse=True)
    sacrifices = [[column.head for column in columns if column.rank == rank] for rank in ranks]
    drawn = [_Column(column.head, column.cells, column.right, column.folds) for column in columns]
    return _drawn(_fitted(drawn, width, sacrifices))


# --- lines of `buy`, `sell` and `nse` ------------------------------------------------------------------------


def _side_style(side: Side) -> str:
    return BUY if side == "BUY" else SELL


def _step(mark: str, word: str, style: str, *parts: str | tuple[str, str]) -> Text:
    return Text.assemble((f"{mark} {word:<9} ", style), *parts)


def order_accepted(
    *, side: Side, participant: str, symbol: str, quantity: int, price: Paise | None, position: str
) -> Text:
    """The log has an order: `✓ accepted  buy 100 SBI at ₹885.00 as HDFC  …`; `position` says where."""
    unpriced = "at the market" if side == "BUY" else "at any price"
    at = unpriced if price is None else f"at {rupees_in_table(price)}"
    return _step(
        "✓",
        "accepted",
        GOOD,
        (side.lower(), _side_style(side)),
        f" {group_indian(quantity)} {shown(symbol)} {at} as {shown(participant)}  ",
        (shown(position), FAINT),
    )


def order_refused(*, reason: Reason | str, detail: str = "") -> Text:
    """The exchange said no: `✗ rejected  PRICE_OFF_TICK: …`."""
    return _step("✗", "rejected", BAD, shown(str(reason)), f": {shown(detail, 200)}" if detail else "")


def order_repeated(*, first_status: Status | str, first_seq: int, first_reason: Reason | str | None = None) -> Text:
    """The id was taken before; nothing happened now: `= repeated  …`."""
    first = f"{first_status} ({first_reason})" if first_reason else str(first_status)
    return _step("=", "repeated", WAITING, f"no effect: answered before as {shown(first)}, sequence {first_seq}")


def order_filled(
    *, side: Side, symbol: str, quantity: int, price: Paise, trade: str, leaves: int | None = None
) -> Text:
    """One trade of an order: `✓ filled    100 SBI at ₹885.00  T0-2-1`, and what is left open."""
    rest = f", {group_indian(leaves)} left" if leaves else ""
    what = f"{group_indian(quantity)} {shown(symbol)} at {rupees_in_table(price)}{rest}  "
    return _step("✓", "filled", _side_style(side), what, (shown(trade), FAINT))


def order_settled(*, side: Side, symbol: str, quantity: int, amount: int, ms: int | None = None) -> Text:
    """Shares and money have moved: `✓ settled   +100 SBI  -₹88,500.00  18 ms`."""
    shares, money = ("+", "-") if side == "BUY" else ("-", "+")
    what = f"{shares}{group_indian(quantity)} {shown(symbol)}  {money}{rupees_in_table(amount)}"
    return _step("✓", "settled", GOOD, what, ("" if ms is None else f"  {duration(ms)}", FAINT))


def order_cancelled(*, symbol: str, quantity: int, why: str = "") -> Text:
    """Shares that will not be traded: `✓ cancelled 60 SBI`, and why, unless that was asked for."""
    what = f"{group_indian(quantity)} {shown(symbol)}"
    return _step("✓", "cancelled", WAITING, what, f": {shown(why, 200)}" if why else "")


def amendment_sent(*, action: str, order_id: str, participant: str, symbol: str, what: str, position: str) -> Text:
    """The log has a cancel or a replace: `✓ accepted  cancel B-1 (SBI) as HDFC  …`."""
    return _step(
        "✓",
        "accepted",
        GOOD,
        f"{action} {shown(order_id)} ({shown(symbol)}){what} as {shown(participant)}  ",
        (shown(position), FAINT),
    )


def amendment_waiting(*, exchange_running: bool) -> Text:
    """There is no answer yet to a cancel or a replace."""
    why = "the exchange has not answered yet" if exchange_running else "no exchange is running"
    return _step("…", "waiting", WAITING, f"{why}; the message is safe on the log")


def order_replaced(*, symbol: str, open_quantity: int, price: Paise | None) -> Text:
    """An order waits with what a replace gave it: `✓ replaced  50 SBI at ₹886.00 wait in the book`."""
    at = "at any price" if price is None else f"at {rupees_in_table(price)}"
    return _step("✓", "replaced", GOOD, f"{group_indian(open_quantity)} {shown(symbol)} {at} wait in the book")


def order_waiting(*, symbol: str, leaves: int, exchange_running: bool) -> Text:
    """Nothing more happens for now: the rest of an order waits in the book, or for an exchange."""
    if exchange_running:
        return _step("…", "open", WAITING, f"{group_indian(leaves)} {shown(symbol)} wait in the book")
    return _step("…", "waiting", WAITING, "no exchange is running; the order is safe on the log")


def trade_line(match: Match, *, shard: int, time_ms: int) -> Text:
    """A trade as `nse` tells it, cleared and settled: `09:15:00  T0-2-1  100 SBI at ₹885.00 …`."""
    return Text.assemble(
        (clock(time_ms), FAINT),
        f"  {trade_id(shard, match.seq, match.number)}  ",
        (f"{group_indian(match.quantity)} {shown(match.buy_symbol_as_sent)}", "bold"),
        f" at {rupees_in_table(match.price)} = {rupees_in_table(match.quantity * match.price)}  ",
        (shown(match.buyer), BUY),
        " ← ",
        (shown(match.seller), SELL),
        ("  ✓ settled", GOOD),
    )


class ShardStart(NamedTuple):
    """What an owner found when it took a shard: its fields after `epoch` are those of `shard.owner.Recovered`."""

    shard: int
    epoch: int
    from_snapshot: bool
    inputs_replayed: int
    ignored_entries: int
    seconds: float
    rewritten: int = 0


def shard_line(start: ShardStart) -> Text:
    """What was recovered of a shard, and how fast."""
    if start.inputs_replayed or start.from_snapshot:
        source = "a snapshot and " if start.from_snapshot else ""
        speed = start.inputs_replayed / start.seconds if start.seconds > 0 and start.inputs_replayed >= 1000 else 0
        pace = f" ({group_indian(round(speed))}/s)" if speed else ""
        replayed = many(start.inputs_replayed, "input")
        what = f"recovered from {source}{replayed} in {duration(round(start.seconds * 1000))}{pace}"
    else:
        what = "new" if start.epoch == 1 else "nothing to recover"
    text = Text.assemble(what, (f", owner {group_indian(start.epoch)}", FAINT))
    if start.ignored_entries:
        text.append(f", {start.ignored_entries} foreign journal entries ignored", WAITING)
    if start.rewritten:
        text.append(f", {many(start.rewritten, 'torn record')} written again", WAITING)
    return text


def start_panel(
    *,
    log: str,
    partitions: int,
    shards: Sequence[ShardStart],
    waiting: Mapping[int, str | None] | None = None,
    client: str = "",
    rules: str = "",
) -> Panel:
    """How `nse` begins: the log, its client, topics and shards, what was recovered, whose shards it waits for."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style=FAINT)
    grid.add_column(overflow="fold")
    grid.add_row("log", Text(shown(log, 500)))
    if client:
        grid.add_row("client", Text(shown(client)))
    grid.add_row("takes", Text(", ".join(topics.INPUTS)))
    grid.add_row("tells", Text(", ".join(topics.OUTPUTS)))
    if rules:
        grid.add_row("rules", Text(shown(rules)))
    grid.add_row("shards", Text(f"{len(shards)} of {partitions} owned here"))
    for start in shards:
        grid.add_row(f"shard {start.shard}", shard_line(start))
    for shard, owner in sorted((waiting or {}).items()):
        who = f"standing by for {shown(owner)}" if owner else "standing by"
        grid.add_row(f"shard {shard}", Text(who, WAITING))
    return Panel(grid, title=Text("stocktrade nse"), title_align="left", expand=False, box=box.ROUNDED)


# --- sums ----------------------------------------------------------------------------------------------------

SUMS_HEAD: Final = ("asset", "accounts", "held", "owed", "sum", "clearing house", "check")


def sums_cells(balances: Iterable[tuple[str, str, int]]) -> list[tuple[str, ...]]:
    """For each asset of (asset, owner, balance) the texts under SUMS_HEAD; the rupees come last.

    `balances` is what `core.ledger.Ledger.balances` gives: shares of a symbol, or paise of CASH.
    """
    assets: dict[str, list[int]] = {}
    for asset, owner, balance in balances:
        sums = assets.setdefault(asset, [0, 0, 0, 0])
        sums[0] += owner != CLEARING_HOUSE
        sums[1 if balance > 0 else 2] += balance
        sums[3] += balance if owner == CLEARING_HOUSE else 0
    rows = []
    for asset in sorted(assets, key=lambda asset: (asset == CASH, asset)):
        accounts, held, owed, house = assets[asset]
        show = rupees_in_table if asset == CASH else group_indian
        check = "✓" if held + owed == 0 == house else "✗"
        name = "rupees" if asset == CASH else shown(asset)
        rows.append((name, group_indian(accounts), *[show(value) for value in (held, owed, held + owed, house)], check))
    return rows


@dataclass
class SumsTable:
    """Shares by symbol, rupees, and the clearing house: that every sum is zero."""

    balances: Sequence[tuple[str, str, int]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = sums_cells(self.balances)
        columns = []
        for place, head in enumerate(SUMS_HEAD):
            cells = [Text(row[place]) for row in rows]
            if head == "check":
                cells = [Text(cell.plain, GOOD if cell.plain == "✓" else BAD) for cell in cells]
            columns.append(_Column(head, cells, right=0 < place < 6))
        yield _drawn(_fitted(columns, options.max_width, (("accounts",), ("owed",), ("held",))))


# --- settlement ----------------------------------------------------------------------------------------------

SETTLEMENT_HEAD: Final = (
    "time",
    "trade",
    "symbol",
    "qty",
    "price",
    "amount",
    "buyer",
    "seller",
    "shares",
    "funds",
    "status",
)
_SETTLEMENT_SACRIFICES: Final = (
    ("shares", "funds"),  # the status says it, too
    ("trade",),
    ("time",),
    ("price",),
    ("buyer", "seller"),
    ("qty",),
    ("status",),
    ("symbol",),
)
"""The order in which columns go on a narrow screen. The amount stays."""

SYMBOL_LIMIT: Final = 24
TRADE_LIMIT: Final = 32
_HALF: Final = {0: "…", 1: "1/2", 2: "✓"}


def status_of(row: Row) -> str:
    """How far a trade is: `… pending`, `… funds pending`, `✓ settled`, `✓ settled 18 ms`."""
    if row.settled:
        return "✓ settled" if row.settled_ms is None else f"✓ settled {duration(row.settled_ms)}"
    if row.shares < 2 and row.funds < 2:
        return "… pending"
    return "… funds pending" if row.funds < 2 else "… shares pending"


def _settlement_cells(row: Row, time: str) -> tuple[str, ...]:
    return (
        time,
        shown(row.trade_id, TRADE_LIMIT),
        shown(row.shown, SYMBOL_LIMIT),
        group_indian(row.quantity),
        rupees_in_table(row.price),
        rupees_in_table(row.amount),
        shown(row.buyer),
        shown(row.seller),
        _HALF[row.shares],
        _HALF[row.funds],
        status_of(row),
    )


def settlement_line(row: Row) -> str:
    """A trade as a line of tab-separated text, under SETTLEMENT_HEAD; the time is RFC 3339 in India."""
    at = moment(row.time_ms)
    return tsv(_settlement_cells(row, "no date" if at is None else at.isoformat(timespec="milliseconds")))


def _settlement(rows: Sequence[Row], width: int) -> _Layout:
    newest_ms = rows[-1].time_ms if rows else None
    texts = [_settlement_cells(row, clock(row.time_ms, newest_ms=newest_ms)) for row in rows]
    columns = []
    for place, head in enumerate(SETTLEMENT_HEAD):
        style = {"time": FAINT, "buyer": BUY, "seller": SELL}.get(head, "")
        cells = [Text(text[place], style) for text in texts]
        if head in {"shares", "funds", "status"}:
            for cell in cells:
                cell.stylize(GOOD if cell.plain.startswith("✓") else WAITING)
        columns.append(_Column(head, cells, head in {"qty", "price", "amount"}, head in {"buyer", "seller"}))
    return _fitted(columns, width, _SETTLEMENT_SACRIFICES)


@dataclass
class SettlementTable:
    """Trades, oldest first, and how far the settlement of each has come."""

    rows: Sequence[Row]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield _drawn(_settlement(self.rows, options.max_width))


# --- records -------------------------------------------------------------------------------------------------

RECORD_HEAD: Final = ("time", "record", "key", "value")
RECORD_TEXT_LIMIT: Final = 400
_KEY_WIDTH: Final = 12
_VALUE_FROM: Final = 30


class RecordRow(NamedTuple):
    """A record of any topic: when, where, and what it says."""

    time_ms: int
    position: str
    key: str
    value: str


def record_line(row: RecordRow) -> str:
    """A record as a line of tab-separated text, under RECORD_HEAD; the time is RFC 3339 in India."""
    at = moment(row.time_ms)
    return tsv(("no date" if at is None else at.isoformat(timespec="milliseconds"), row.position, row.key, row.value))


def _records(rows: Sequence[RecordRow], width: int) -> _Layout:
    newest_ms = rows[-1].time_ms if rows else None
    columns = [
        _Column("time", [Text(clock(row.time_ms, newest_ms=newest_ms), FAINT) for row in rows]),
        _Column("record", [Text(shown(row.position, 200)) for row in rows]),
        _Column("key", [Text(shown(row.key)) for row in rows], folds=True),
        _Column("value", [Text(shown(row.value, RECORD_TEXT_LIMIT)) for row in rows], folds=True),
    ]
    columns[2].limit = _KEY_WIDTH
    while True:  # the value takes what is left; where that is little, the key goes, then the time
        rest = width - sum([column.width() + 2 for column in columns[:-1]])
        if rest >= _VALUE_FROM or len(columns) == 2:
            columns[-1].limit = max(rest, 1)
            return _Layout(columns, 2, fits=rest > 0)
        del columns[2 if len(columns) == 4 else 0]


# --- the picture ---------------------------------------------------------------------------------------------

_ARROWS: Final = (
    (topics.BUY_ORDERS, True, BUY),
    (topics.SELL_OFFERS, True, SELL),
    (topics.DEMAT_TRANSFERS, False, "cyan"),
    (topics.CASH_MOVEMENTS, False, "cyan"),
)
_NAME_WIDTH: Final = max(len(topic) for topic, _, _ in _ARROWS)
_LONGEST_ARROW: Final = 60
_WIDEST_BOX: Final = 28
_NARROW: Final = 10
_BOXES_FROM: Final = 56
"""Below this width the four topics are drawn without boxes."""


def picture_lines(flow: Flow, *, now_ms: int, width: int) -> list[Text]:
    """The seed's picture: participants on the left, NSE on the right, the four topics between them."""
    counts = [group_indian(flow.topics[topic].count) for topic, _, _ in _ARROWS]
    rates = [rate(flow.topics[topic].rate(now_ms)) for topic, _, _ in _ARROWS]
    behind = [flow.lag(topic) if inwards else 0 for topic, inwards, _ in _ARROWS]
    lags = [f" lag {group_indian(lag)}" if lag else "" for lag in behind]
    count_width, rate_width, lag_width = max(map(len, counts)), max(6, *map(len, rates)), max(map(len, lags))
    told = _told(flow, spelled=True)
    arrow = _NAME_WIDTH + count_width + rate_width + lag_width + 9
    left = width - arrow - 8 - max(map(len, told))
    if left < _NARROW:
        told = _told(flow, spelled=False)
        left = width - arrow - 8 - max(map(len, told))
    if left < 8:  # huge numbers on a narrow screen: the box of NSE stays empty
        told = ["   "]
        left = width - arrow - 8 - 3
    right = max(map(len, told))
    boxed = width >= _BOXES_FROM and left >= 6
    if boxed:
        arrow += max(0, min(_LONGEST_ARROW - arrow, left - 16))
        left = min(_WIDEST_BOX, width - arrow - right - 8)
    names = _names(flow, left, len(_ARROWS)) if boxed else []
    lines = []
    if boxed:
        title = " participants " if left >= 14 else " members "[: left + 2]
        lines.append(Text(f"╭{title:─<{left + 2}}╮{'':{arrow}}╭{' NSE ':─<{right + 2}}╮", no_wrap=True))
    for place, (topic, inwards, style) in enumerate(_ARROWS):
        numbers = f" {counts[place]:>{count_width}} {rates[place]:>{rate_width}}{lags[place]} "
        after = "─" * (lag_width - len(lags[place]))
        room = arrow - len(topic) - len(numbers) - len(after) - 6 if boxed else _NAME_WIDTH - len(topic)
        line = Text(no_wrap=True)
        if boxed:
            line.append("│ ").append_text(names[place]).append(" │")
        line.append("──" if inwards else "◀─", style).append(f" {topic} ").append("─" * room, style)
        line.append(numbers, "bold").append(after + ("─▶" if inwards else "──"), style)
        if boxed:
            line.append(f"│ {told[place] if place < len(told) else '':<{right}} │")
        lines.append(line)
    if boxed:
        lines.append(Text(f"╰{'':─<{left + 2}}╯{'':{arrow}}╰{'':─<{right + 2}}╯", no_wrap=True))
    return lines


def _told(flow: Flow, *, spelled: bool) -> list[str]:
    """What stands in the box of NSE."""
    told = [many(flow.topics[topics.TRADES].count, "trade")]
    if refused := flow.statuses[Status.REJECTED]:
        told.append(f"{group_indian(refused)} rejected")
    if cancelled := flow.cancelled:
        told.append(f"{group_indian(cancelled)} cancelled")
    if dead := flow.topics[topics.DEAD_LETTERS].count:
        told.append(many(dead, "dead letter") if spelled else f"{group_indian(dead)} dead")
    if flow.unreadable:
        told.append(
            f"{group_indian(flow.unreadable)} unreadable" if spelled else f"{group_indian(flow.unreadable)} odd"
        )
    return told


def _names(flow: Flow, width: int, most: int) -> list[Text]:
    """The participants that fit, each padded to `width`; how many more there are stands in the last line."""
    known = [(shown(name), BUY if side == "BUY" else SELL) for name, side in flow.participants.items()]
    fitting = [(name, style) for name, style in known if cell_len(name) <= width]
    if len(known) > most or len(fitting) < len(known):
        fitting = fitting[: most - 1]
        fitting.append((f"+{group_indian(len(known) - len(fitting))} more", FAINT))
    texts = [Text(name, style) for name, style in fitting]
    texts += [Text() for _ in range(most - len(texts))]
    for text in texts:
        text.append(" " * (width - text.cell_len))
    return texts


def market_line(quotes: Mapping[str, Quote], width: int) -> Text:
    """The last prices with the range of the day, as many as fit whole."""
    line, left = Text(), len(quotes)
    for symbol, quote in quotes.items():
        item = Text.assemble((shown(symbol, SYMBOL_LIMIT), "bold"), f" {rupees_in_table(quote.last)}")
        if quote.low != quote.high:
            item.append(f" ({rupees_in_table(quote.low)} to {rupees_in_table(quote.high)})", FAINT)
        rest = f"  +{left - 1} more" if left > 1 else ""
        if line.cell_len + 2 * bool(line) + item.cell_len + len(rest) > width:
            break
        line.append("  " if line else "").append_text(item)
        left -= 1
    if left:
        line.append(f"{'  ' if line else ''}+{left} more", FAINT)
    return line


# --- the live view -------------------------------------------------------------------------------------------

_ROWS_FIRST_BELOW: Final = 8
"""Of so few lines all go to the trades."""

_ROOMY_HEIGHT: Final = 30
_ANSWER_SHOWN_MS: Final = 300_000


@dataclass
class FlowView:
    """What `watch` shows: the picture, the last prices, the trades that fit, the newest at the bottom.

    Attributes:
        flow: What is known.
        now_ms: The observer's clock, for the rates.
        title: One line above all: which log, which filter.
        notices: What the watcher should know, below all.
        records: Shown in the place of the trades, if given.
        height: How many lines to fill at most; None for the height of the console.
        paused: How many records came since it stands still, if it does.
    """

    flow: Flow
    now_ms: int
    title: str = ""
    notices: Sequence[str] = ()
    records: Sequence[RecordRow] | None = None
    height: int | None = None
    paused: int | None = None

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = options.max_width
        height = self.height or options.height or console.height

        def folded(text: Text) -> list[Text]:
            return list(text.wrap(console, width, overflow="fold"))

        below = []
        notices = self.notices if self.paused is None else [*self.notices, PAUSED_HINT]
        for notice in notices if height >= _ROWS_FIRST_BELOW else ():
            below += folded(Text(shown(notice, 200), WAITING))
        head = Text.assemble((shown(self.title, 200), "bold"), *paused_note(self.paused))
        title = folded(head) if head and height >= _ROWS_FIRST_BELOW else []
        prices = folded(market_line(self.flow.quotes, width)) if self.flow.quotes else []
        above = title + prices
        picture = picture_lines(self.flow, now_ms=self.now_ms, width=width)
        if height - len(above) - len(below) - len(picture) >= _ROWS_FIRST_BELOW + 2:
            above = [*title, *picture, *prices, Text()]
            fresh = [a for a in self.flow.answers if a.time_ms > self.now_ms - _ANSWER_SHOWN_MS]
            recent = fresh[-2 if height >= _ROOMY_HEIGHT else -1 :]
            below = [line for answer in recent for line in folded(answer_text(answer))] + below
        yield from above
        yield self._body(width, max(1, height - len(above) - len(below) - 1))
        yield from below

    def _body(self, width: int, lines: int) -> RenderableType:
        if self.records is None:
            rows = self.flow.recent(lines)
            if not rows:
                return Text("no such trade yet" if self.flow.topics[topics.TRADES].count else "no trade yet", FAINT)
            layout, count = _settlement(rows, width), len(rows)
        else:
            records = self.records[-lines:]
            layout, count = _records(records, width), len(records)
        first, left = count, lines
        while first > 0 and (left := left - max([column.lines(first - 1) for column in layout.columns])) >= 0:
            first -= 1
        if first == count:  # not even the newest row, for its names fold: then without them
            layout = layout._replace(columns=[column for column in layout.columns if not column.folds])
            first = max(0, count - lines)
        return _drawn(layout, slice(first, None))


PAUSED_HINT: Final = "p goes on, q ends"
"""Stands below a view that stands still."""


def paused_note(unseen: int | None) -> list[tuple[str, str]]:
    """What stands behind the title of a view that stands still: `  paused, 123 new`; None: it does not."""
    return [] if unseen is None else [(f"  paused, {group_indian(unseen)} new", WAITING)]


_MARKS: Final = {
    Status.DUPLICATE.value: ("=", WAITING),
    Status.CANCELLED.value: ("-", WAITING),
    REPLACED: ("~", WAITING),
}
"""How an answer is marked that is no refusal."""


def answer_text(answer: Answer) -> Text:
    """An answer that somebody may want to see: `✗ REJECTED 09:15:00 HDFC buy 100 SBI (B-1): PRICE_OFF_TICK`."""
    mark, style = _MARKS.get(answer.status, ("✗", BAD))
    who = f" {shown(answer.who)}" if answer.who else ""
    why = f": {shown(answer.why, 200)}" if answer.why else ""
    return Text.assemble(
        (f"{mark} {shown(answer.status)}", style),
        (f" {clock(answer.time_ms)}", FAINT),
        f"{who} {shown(answer.what, 200)}{why}",
    )
