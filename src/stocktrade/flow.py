"""What a watcher knows: a fold over the records of the topics.

Owns the counts and rates of the topics, one `Row` for each trade with the arrival of its four legs, the last
prices and the answers worth showing. Invariant: no I/O and no clock of its own; any record can be fed in any order
of topics, the same one again included, and none raises; memory is bounded whatever comes.

Names and ids are kept as they were sent (shortened when nobody's name is that long): whoever draws them makes
them safe for a screen.
"""

import re
from collections import Counter, OrderedDict, deque
from collections.abc import Collection
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from stocktrade.domain.facts import Action, Status
from stocktrade.domain.messages import CashMovement, DematTransfer, OrderEvent, Trade
from stocktrade.domain.values import (
    MAX_PRICE,
    MAX_QUANTITY,
    Paise,
    Side,
    canonical_symbol,
    group_indian,
    rupees_in_table,
)
from stocktrade.transport import topics
from stocktrade.transport.base import Record, TopicPartition
from stocktrade.transport.codec import Dead, decode_input, decode_message, leg_id

WATCHED: Final = (
    topics.BUY_ORDERS,
    topics.SELL_OFFERS,
    topics.ORDER_EVENTS,
    topics.TRADES,
    topics.DEMAT_TRANSFERS,
    topics.CASH_MOVEMENTS,
    topics.DEAD_LETTERS,
)
"""The topics whose records mean something here."""

MAX_SETTLED: Final = 1_000
MAX_PENDING: Final = 1_000
MAX_EARLY: Final = 10_000
"""How many trades are kept: settled, waiting for a leg, and known by their legs alone."""

MAX_ANSWERS: Final = 100
MAX_SYMBOLS: Final = 5_000
MAX_PARTICIPANTS: Final = 5_000
MAX_TEXT: Final = 64
"""No name and no id of ours is longer; of a longer text this much is kept."""

MAX_PLACES: Final = 10_000
"""Of how many input partitions it is known how far they were taken."""

_NUMBER: Final = re.compile(r"\d{1,18}", re.ASCII)

RATE_WINDOW_S: Final = 10
"""A rate is the mean over this many seconds."""

_IST_OFFSET_MS: Final = 19_800_000
_DAY_MS: Final = 86_400_000

_SHARES_IN, _SHARES_OUT, _FUNDS_OUT, _FUNDS_IN = 1, 2, 4, 8
_SHARES: Final = _SHARES_IN | _SHARES_OUT
_FUNDS: Final = _FUNDS_OUT | _FUNDS_IN


@dataclass(slots=True)
class Row:
    """A trade and how far its settlement has come.

    `symbol` is canonical; `shown` is what its buyer called it, once the buyer's demat leg is here. `settled_ms` is
    the time from the input's arrival on the log to the moment when the last leg was seen; it is known only of
    trades that were seen as they happened (`live`).
    """

    number: int
    trade_id: str
    time_ms: int
    symbol: str
    shown: str
    quantity: int
    price: Paise
    amount: Paise
    buyer: str
    seller: str
    legs: int = 0
    live: bool = True
    settled_ms: int | None = None

    @property
    def shares(self) -> int:
        """How many of the two demat advices have arrived."""
        return (self.legs & _SHARES).bit_count()

    @property
    def funds(self) -> int:
        """How many of the two cash advices have arrived."""
        return (self.legs & _FUNDS).bit_count()

    @property
    def settled(self) -> bool:
        """Whether all four advices have arrived."""
        return self.legs == _SHARES | _FUNDS


class Quote(NamedTuple):
    """The last price of a symbol, and the lowest and highest of that trade's day in India."""

    day: int
    last: Paise
    low: Paise
    high: Paise


REPLACED: Final = "REPLACED"
"""The status of an `Answer` about a replaced order; on the wire there is none."""


class Answer(NamedTuple):
    """An answer that somebody may want to see: a rejected, cancelled, replaced or repeated order, or a dead letter."""

    time_ms: int
    status: str
    who: str
    what: str
    why: str


@dataclass(slots=True)
class TopicStats:
    """The records of one topic that were seen, and how many of them in each of the last seconds."""

    count: int = 0
    _seconds: deque[list[int]] = field(default_factory=deque)

    def add(self, now_ms: int, *, live: bool) -> None:
        """Count one record; only what is seen as it happens has a rate."""
        self.count += 1
        if not live:
            return
        second = now_ms // 1000
        if self._seconds and self._seconds[-1][0] >= second:
            self._seconds[-1][1] += 1
        else:
            self._seconds.append([second, 1])
            self._expire(second)

    def rate(self, now_ms: int) -> float:
        """Records a second, as the mean of the last RATE_WINDOW_S seconds."""
        self._expire(now_ms // 1000)
        return sum([seen for _, seen in self._seconds]) / RATE_WINDOW_S

    def _expire(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - RATE_WINDOW_S:
            self._seconds.popleft()


class Flow:
    """Everything a watcher knows.

    Args:
        symbols: canonical symbols; of other symbols no row, quote or answer is kept. Empty: all.
        participant: keep rows and answers of this participant only.
        answers: whether the answers will be fed, too; without them nobody knows how far the exchange is behind.

    Attributes:
        topics: What was seen of each topic, by its name.
        statuses: How many inputs were answered how.
        cancelled: How many orders were cancelled, in whole or in what they could not trade.
        quotes: By canonical symbol, in the order in which they were first traded.
        participants: On which side each participant was last seen, in the order in which they first were.
        answers: The last answers worth a look, oldest first.
        unreadable: Records that are not what their topic holds, and legs whose id is not that of their trade.
        repeated: Trades and legs that came again.
        forgotten: Trades that were given up with a leg missing, to stay within MAX_PENDING.
        version: Changes whenever something was fed.
    """

    def __init__(self, symbols: Collection[str] = (), participant: str | None = None, *, answers: bool = True) -> None:
        self._answers = answers
        self._reached: dict[TopicPartition, int] = {}
        self._taken: dict[TopicPartition, int] = {}
        self._symbols = frozenset(symbols)
        self._participant = participant
        self.topics = {topic: TopicStats() for topic in WATCHED}
        self.statuses: Counter[Status] = Counter()
        self.cancelled = 0
        self.quotes: dict[str, Quote] = {}
        self._earlier: dict[str, Quote] = {}
        self.participants: dict[str, Side] = {}
        self.answers: deque[Answer] = deque(maxlen=MAX_ANSWERS)
        self.unreadable = self.repeated = self.forgotten = self.version = 0
        self._rows_made = 0
        self._settled: OrderedDict[str, Row] = OrderedDict()
        self._pending: OrderedDict[str, Row] = OrderedDict()
        self._early: OrderedDict[str, _Early] = OrderedDict()
        self._unwanted: OrderedDict[str, None] = OrderedDict()

    def feed(self, record: Record, *, now_ms: int, live: bool) -> Row | None:
        """Take one record in; the row that is settled by it, if one is.

        Args:
            record: a committed record of any topic; others than WATCHED are passed over.
            now_ms: the observer's clock.
            live: the record was seen as it happened, not read from the past.
        """
        stats = self.topics.get(record.topic)
        if stats is None:
            return None
        stats.add(now_ms, live=live)
        self.version += 1
        try:
            match record.topic:
                case topics.TRADES:
                    return self._trade(record, now_ms, live=live)
                case topics.DEMAT_TRANSFERS:
                    demat = decode_message(DematTransfer, record.value)
                    bit = _SHARES_IN if demat.direction == "CREDIT" else _SHARES_OUT
                    shown = _short(demat.stock_symbol) if bit == _SHARES_IN else None
                    return self._leg(demat, demat.transfer_id, "SECURITIES", bit, shown, now_ms, live=live)
                case topics.CASH_MOVEMENTS:
                    cash = decode_message(CashMovement, record.value)
                    bit = _FUNDS_IN if cash.direction == "CREDIT" else _FUNDS_OUT
                    return self._leg(cash, cash.movement_id, "FUNDS", bit, None, now_ms, live=live)
                case topics.ORDER_EVENTS:
                    self._answer(record)
                case topics.DEAD_LETTERS:
                    self._dead_letter(record)
                case _:
                    self._order(record)
        except ValueError:  # pydantic's errors are ValueErrors, too
            self.unreadable += 1
        return None

    def look_back(self, symbol: str, price: Paise, time_ms: int) -> None:
        """Take in a trade that came before all that is fed, for the range of its day; see `looked_back`."""
        if not self._symbols or symbol in self._symbols:
            _quote(self._earlier, symbol, price, time_ms)

    def looked_back(self) -> None:
        """All earlier trades were taken in: from now on the quotes tell of them, too."""
        for symbol, before in self._earlier.items():
            quote = self.quotes.get(symbol)
            if quote is None and len(self.quotes) < MAX_SYMBOLS:
                self.quotes[symbol] = before
            elif quote is not None and quote.day == before.day:
                self.quotes[symbol] = quote._replace(low=min(quote.low, before.low), high=max(quote.high, before.high))
        self._earlier = {}
        self.version += 1

    def recent(self, limit: int) -> list[Row]:
        """The last trades, oldest first."""
        rows = [*_last(self._settled, limit), *_last(self._pending, limit)]
        rows.sort(key=lambda row: row.number)
        return rows[max(0, len(rows) - limit) :]

    def lag(self, topic: str) -> int:
        """How many inputs of a topic were seen after the last one whose answer, or dead letter, was seen."""
        if not self._answers:
            return 0
        behind = [end - self._taken.get(at, end) for at, end in self._reached.items() if at[0] == topic]
        return sum([count for count in behind if count > 0])

    def is_lively(self, now_ms: int) -> bool:
        """Whether any topic has a rate."""
        return any(stats.rate(now_ms) for stats in self.topics.values())

    @property
    def pending(self) -> int:
        """How many trades wait for a leg."""
        return len(self._pending)

    def wants(self, trade_id: str) -> bool | None:
        """Whether a trade is of the symbols and the participant asked for; None while its record is not seen."""
        if trade_id in self._pending or trade_id in self._settled:
            return True
        return False if trade_id in self._unwanted else None

    # --- one topic each ------------------------------------------------------------------------------------

    def _trade(self, record: Record, now_ms: int, *, live: bool) -> Row | None:
        trade = decode_message(Trade, record.value)
        price = _paise(trade.price_per_unit, MAX_PRICE)
        amount = _paise(trade.amount, MAX_PRICE * MAX_QUANTITY)
        possible = 0 < trade.quantity <= MAX_QUANTITY and price * trade.quantity == amount
        if not possible or len(trade.trade_id) > MAX_TEXT:
            raise ValueError("not a trade of this exchange")
        if self.wants(trade.trade_id) is not None:
            self.repeated += 1
            return None
        symbol, buyer, seller = _short(trade.stock_symbol), _short(trade.buyer), _short(trade.seller)
        self._seen(buyer, "BUY")
        self._seen(seller, "SELL")
        if not self._symbols or symbol in self._symbols:
            _quote(self.quotes, symbol, price, record.time_ms)
        early = self._early.pop(trade.trade_id, None)
        if not self._wanted(symbol, buyer, seller):
            _keep(self._unwanted, trade.trade_id, None, MAX_EARLY)
            return None
        self._rows_made += 1
        row = Row(
            self._rows_made,
            trade.trade_id,
            record.time_ms,
            symbol,
            symbol,
            trade.quantity,
            price,
            amount,
            buyer,
            seller,
            live=live,
        )
        if early is not None:
            row.legs, row.live = early.legs, live and early.live
            row.shown = early.shown or symbol
        if row.settled:
            return self._settle(row, now_ms)
        self.forgotten += _keep(self._pending, row.trade_id, row, MAX_PENDING)
        return None

    def _leg(
        self,
        advice: DematTransfer | CashMovement,
        unique: str,
        kind: str,
        bit: int,
        shown: str | None,
        now_ms: int,
        *,
        live: bool,
    ) -> Row | None:
        trade = advice.trade_id
        # The id is a function of trade and leg, so a leg counts once by its place; a stranger's does not count.
        if trade is None or len(trade) > MAX_TEXT or unique != leg_id(trade, kind, str(advice.direction)):
            raise ValueError("not a leg of this exchange")
        if trade in self._settled:
            self.repeated += 1
            return None
        if trade in self._unwanted:
            return None
        entry: Row | _Early | None = self._pending.get(trade) or self._early.get(trade)
        if entry is None:
            entry = _Early()
            _keep(self._early, trade, entry, MAX_EARLY)
        if entry.legs & bit:
            self.repeated += 1
            return None
        entry.legs |= bit
        entry.live = entry.live and live
        if shown is not None:
            entry.shown = shown
        if isinstance(entry, Row) and entry.settled:
            del self._pending[trade]
            return self._settle(entry, now_ms)
        return None

    def _settle(self, row: Row, now_ms: int) -> Row:
        if row.live:
            row.settled_ms = max(0, now_ms - row.time_ms)
        _keep(self._settled, row.trade_id, row, MAX_SETTLED)
        return row

    def _answer(self, record: Record) -> None:
        event = decode_message(OrderEvent, record.value)
        topic, _, place = (event.source or "").partition("@")
        self._took(topic, *place.partition(":")[::2])
        self.statuses[event.status] += 1
        self.cancelled += event.cancelled_quantity > 0
        self._seen(_short(event.participant), event.side)
        canonical = canonical_symbol(event.stock_symbol) or event.stock_symbol
        if not self._wanted(canonical, event.participant, event.participant):
            return
        told = _told(event)
        if told is not None:
            status, what, why = told
            self.answers.append(Answer(record.time_ms, status, _short(event.participant), what, _short(why, 200)))

    def _dead_letter(self, record: Record) -> None:
        headers = {name: value.decode(errors="replace") for name, value in record.headers}
        at = [_short(headers.get(f"__dlq.errors.{part}", "?")) for part in ("topic", "partition", "offset")]
        self._took(*at)
        why = _short(headers.get("__dlq.errors.message", ""), 200)
        if not self._symbols and self._participant is None:
            self.answers.append(Answer(record.time_ms, "DEAD LETTER", "", f"{at[0]}@{at[1]}:{at[2]}", why))

    def _took(self, topic: str, partition: str, offset: str) -> None:
        """The exchange has taken an input, and so all before it on its partition."""
        if topic in topics.INPUTS and _NUMBER.fullmatch(partition) and _NUMBER.fullmatch(offset):
            at = (topic, int(partition))
            if at in self._taken or len(self._taken) < MAX_PLACES:
                self._taken[at] = max(int(offset) + 1, self._taken.get(at, 0))

    def _order(self, record: Record) -> None:
        at = (record.topic, record.partition)
        self._reached[at] = max(record.offset + 1, self._reached.get(at, 0))
        self._taken.setdefault(at, record.offset)
        order = decode_input(record.topic, record.value)
        if isinstance(order, Dead):
            return  # the exchange says so on the dead letters
        self._seen(order.participant, order.side)

    def _seen(self, participant: str, side: Side) -> None:
        if participant in self.participants or len(self.participants) < MAX_PARTICIPANTS:
            self.participants[participant] = side

    def _wanted(self, symbol: str, buyer: str, seller: str) -> bool:
        if self._symbols and symbol not in self._symbols:
            return False
        return self._participant is None or self._participant in {buyer, seller}


def _quote(quotes: dict[str, Quote], symbol: str, price: Paise, time_ms: int) -> None:
    day = (time_ms + _IST_OFFSET_MS) // _DAY_MS
    quote = quotes.get(symbol)
    if quote is None or quote.day < day:
        quote = Quote(day, price, price, price)
    elif quote.day == day:
        quote = Quote(day, price, min(price, quote.low), max(price, quote.high))
    # The first ones stay, so that what is on the screen keeps its place.
    if symbol in quotes or len(quotes) < MAX_SYMBOLS:
        quotes[symbol] = quote


def _told(event: OrderEvent) -> tuple[str, str, str] | None:
    """Status, what and why of an answer that is worth a look; None of one that is not.

    Raises:
        ValueError: its price is none.
    """
    side, symbol, own = event.side.lower(), _short(event.stock_symbol), _short(event.order_id)
    target = own if event.target_order_id is None else _short(event.target_order_id)
    quantity = "" if event.quantity is None else f" {group_indian(event.quantity)}"
    if event.status in (Status.REJECTED, Status.DUPLICATE):
        changes = event.action in (Action.CANCEL, Action.REPLACE)
        what = f"{event.action} {target}, {symbol} ({own})" if changes else f"{side}{quantity} {symbol} ({own})"
        if event.status is Status.DUPLICATE:
            return Status.DUPLICATE, what, f"answered before: {event.first_status}, sequence {event.first_seq}"
        return Status.REJECTED, what, ": ".join([part for part in (event.reason, event.detail) if part])
    if event.action is Action.REPLACE:
        price = event.price_per_unit
        at = "at any price" if price is None else f"at {rupees_in_table(_paise(price, MAX_PRICE))}"
        return REPLACED, f"{side}{quantity} {symbol} {at} ({target})", ""
    if not event.cancelled_quantity:
        return None
    what = f"{side} {group_indian(event.cancelled_quantity)} {symbol} ({target})"
    if event.status is Status.CANCELLED:
        return Status.CANCELLED, what, "self-trade prevention"
    return Status.CANCELLED, what, "" if event.action is Action.CANCEL else "could not trade at once"


@dataclass(slots=True)
class _Early:
    """Legs that came before their trade."""

    legs: int = 0
    shown: str | None = None
    live: bool = True


_Value = TypeVar("_Value")


def _keep(entries: OrderedDict[str, _Value], key: str, value: _Value, most: int) -> int:
    """Put an entry at the end; how many were dropped at the front to keep `most`."""
    entries[key] = value
    entries.move_to_end(key)
    if len(entries) <= most:
        return 0
    entries.popitem(last=False)
    return 1


def _last(entries: OrderedDict[str, Row], limit: int) -> list[Row]:
    return list(islice(reversed(entries.values()), limit))


def _short(text: str, limit: int = MAX_TEXT) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _paise(rupees: Decimal, most: int) -> Paise:
    """Rupees of a trade in paise.

    Raises:
        ValueError: no amount that a trade of this exchange can have.
    """
    if not rupees.is_finite() or rupees.adjusted() > 18:
        raise ValueError("not an amount")
    paise = rupees * 100
    if paise != int(paise) or not 0 < paise <= most:
        raise ValueError("not an amount")
    return Paise(int(paise))
