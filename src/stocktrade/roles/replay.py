"""`replay`: messages put through a fresh exchange, from a file or from the journal of a log.

Invariant: no log is written to; what is printed is a function of the input and the rules alone, byte for byte.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, Protocol, TextIO

from rich.console import Console
from rich.text import Text

from stocktrade import tables
from stocktrade.audit.streams import BySequence, Stream, deviations
from stocktrade.core.book import Resting
from stocktrade.core.exchange import Exchange
from stocktrade.core.rules import Rules
from stocktrade.domain.facts import Action, Cancellation, Fact, Match, Outcome, Status
from stocktrade.domain.values import decimal_rupees, group_indian, visible
from stocktrade.errors import ExitCode, StocktradeError, UsageError
from stocktrade.progress import bar
from stocktrade.roles.order_file import Bad, Input, as_text, read
from stocktrade.shard.history import Applied, Replica, rerun, rules_of, to_the_end
from stocktrade.shard.node import tune_garbage_collection
from stocktrade.transport import topics
from stocktrade.transport.base import Log, NewRecord, Record
from stocktrade.transport.codec import Dead, decode_input, encode_facts, trade_id

PROGRESS_EVERY: Final = 2_000
"""Inputs between two looks at the progress."""


class BadLine(StocktradeError):
    """A line of the file is no input, and the run was to be strict."""

    exit_code = ExitCode.NO


class Options(NamedTuple):
    """How a replay runs: `speed` is a multiple of the times of the inputs, None as fast as it goes."""

    as_json: bool = False
    book: bool = False
    strict: bool = False
    speed: float | None = None


def speed_from(text: str) -> float | None:
    """A speed as it was typed: `max`, or `1x`, `10x`, `0.5x`.

    Raises:
        UsageError: it is something else.
    """
    if text == "max":
        return None
    try:
        speed = float(text.removesuffix("x")) if text.isascii() and "_" not in text else 0.0
    except ValueError:
        speed = 0.0
    if not 0.001 <= speed <= 1_000_000:
        raise UsageError(
            f"invalid speed {visible(text, 60)!r}",
            cause="a speed is max, or how many times as fast as it happened",
            hint="for example --speed 10x",
        )
    return speed


@contextmanager
def opened(path: str) -> Iterator[tuple[BinaryIO, int | None]]:
    """A file of orders, or standard input for `-`, and its size in bytes where that is known.

    Raises:
        UsageError: it cannot be read.
    """
    if path == "-":
        yield sys.stdin.buffer, None
        return
    try:
        file = Path(path)
        if file.is_dir():
            raise UsageError(f"cannot replay {visible(path)!r}", cause="it is a folder")
        with file.open("rb") as data:
            yield data, file.stat().st_size or None
    except (OSError, ValueError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        hint = "the journal of a log is replayed with --log"
        raise UsageError(f"cannot replay {visible(path)!r}", cause=reason, hint=hint) from error


class _Counts:
    """What came of a replay."""

    def __init__(self) -> None:
        self.inputs = 0
        self.trades = 0
        self.rejected = 0
        self.dead = 0
        self.bad = 0
        self.skipped = 0

    def note(self, facts: Sequence[Fact]) -> None:
        """Count what one input caused."""
        self.inputs += 1
        for fact in facts:
            self.trades += isinstance(fact, Match)
            self.rejected += isinstance(fact, Outcome) and fact.status is Status.REJECTED

    def sentence(self) -> str:
        """Them all in one line; what there was none of is left out."""
        parts = [tables.many(self.inputs, "input"), tables.many(self.trades, "trade")]
        if self.rejected:
            parts.append(f"{group_indian(self.rejected)} rejected")
        for count, thing in ((self.dead, "dead letter"), (self.bad, "bad line"), (self.skipped, "other record")):
            if count:
                parts.append(tables.many(count, thing))
        return " · ".join(parts)


class _Sink(Protocol):
    """Where the events go. `where` is the line of the file, or the position of the input."""

    def said(self, where: str, shard: int, facts: Sequence[Fact], outputs: Sequence[NewRecord]) -> None:
        """What one input caused."""

    def dead(self, where: str, why: Dead) -> None:
        """An input that is no message."""

    def bad(self, bad: Bad) -> None:
        """A line that is no input."""

    def rests(self, symbol: str, order: Resting) -> None:
        """An order in the final book."""


class _JsonLines(_Sink):
    """One JSON object for each event, in order."""

    def __init__(self, out: TextIO, name: str) -> None:
        self._out = out
        self._name = name

    def said(self, where: str, shard: int, facts: Sequence[Fact], outputs: Sequence[NewRecord]) -> None:
        matches = iter([fact for fact in facts if isinstance(fact, Match)])
        for output in outputs:
            extra = ""
            if output.topic == topics.TRADES:
                match = next(matches)
                sides = (match.buy_order_id, match.sell_order_id)
                maker, taker = sides if match.maker == "BUY" else sides[::-1]
                extra = f'"maker_order_id":{as_text(maker)},"taker_order_id":{as_text(taker)},'
            value = (output.value or b"null").decode()
            self._out.write(
                f'{{"{self._name}":{where},"topic":"{output.topic}","partition":{shard},{extra}"value":{value}}}\n'
            )

    def dead(self, where: str, why: Dead) -> None:
        self._out.write(
            f'{{"{self._name}":{where},"topic":"{topics.DEAD_LETTERS}",'
            f'"reason":{as_text(why.reason)},"detail":{as_text(why.detail)}}}\n'
        )

    def bad(self, bad: Bad) -> None:
        self._out.write(f'{{"line":{bad.line},"error":{as_text(bad.why)}}}\n')

    def rests(self, symbol: str, order: Resting) -> None:
        price = "null" if order.price is None else decimal_rupees(order.price)
        self._out.write(
            f'{{"book":{as_text(symbol)},"side":"{order.side}","price_per_unit":{price},"quantity":{order.leaves},'
            f'"participant":{as_text(order.participant)},"order_id":{as_text(order.order_id)},"seq":{order.seq}}}\n'
        )


class _Rows(_Sink):
    """Tab-separated rows: where, what happened, order, participant, side, symbol, quantity, price, and more."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def _row(self, *cells: str) -> None:
        self._out.write(tables.tsv(cells) + "\n")

    def said(self, where: str, shard: int, facts: Sequence[Fact], outputs: Sequence[NewRecord]) -> None:
        del outputs
        for fact in facts:
            self._row(where.strip('"'), *_cells(fact, shard))

    def dead(self, where: str, why: Dead) -> None:
        self._row(where.strip('"'), "dead", "", "", "", "", "", "", f"{why.reason}: {why.detail}")

    def bad(self, bad: Bad) -> None:
        self._row(str(bad.line), "bad", "", "", "", "", "", "", bad.why)

    def rests(self, symbol: str, order: Resting) -> None:
        price = "" if order.price is None else decimal_rupees(order.price)
        self._row("", "rests", order.order_id, order.participant, order.side, symbol, str(order.leaves), price, "")


_WIDTHS: Final = (6, 10, 16, 12, 5, 10, 8, 10, 0)


class _Screen(_Rows):
    """The same rows for people: in columns, with colour."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = False

    def _row(self, *cells: str) -> None:
        if not self._begun:
            self._begun = True
            heads = ("line", "event", "order", "participant", "side", "symbol", "qty", "price", "more")
            self._console.print(Text(self._columns(heads), tables.FAINT), soft_wrap=True)
        style = {"trade": tables.GOOD, "rejected": tables.BAD, "bad": tables.BAD, "dead": tables.BAD}.get(cells[1], "")
        self._console.print(Text(self._columns([tables.shown(cell, 200) for cell in cells]), style), soft_wrap=True)

    def _columns(self, cells: Sequence[str]) -> str:
        return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()


def _cells(fact: Fact, shard: int) -> tuple[str, ...]:
    """What happened, order, participant, side, symbol, quantity, price, more."""
    price = "" if fact.price is None else decimal_rupees(fact.price)
    if isinstance(fact, Match):
        orders = (fact.buy_order_id, fact.sell_order_id)
        maker, taker = orders if fact.maker == "BUY" else orders[::-1]
        more = f"{trade_id(shard, fact.seq, fact.number)} {fact.buyer} from {fact.seller}, maker {maker}"
        return ("trade", taker, "", "", fact.symbol, str(fact.quantity), price, more)
    if isinstance(fact, Cancellation):
        who = (fact.order_id, fact.participant, fact.side, fact.symbol_as_sent)
        return ("cancelled", *who, str(fact.quantity), price, "self-trade prevention")
    assert isinstance(fact, Outcome)
    who = (fact.order_id, fact.participant, fact.side, fact.symbol_as_sent)
    quantity = str(fact.quantity) if fact.quantity else ""
    return (fact.status.lower(), *who, quantity, price, _more(fact))


def _more(said: Outcome) -> str:
    if said.reason is not None:
        return f"{said.reason}: {said.detail}"
    if said.status is Status.DUPLICATE:
        return f"first {said.first_status} at {said.first_seq}"
    parts = [(said.filled, "filled"), (said.leaves, "rests"), (said.cancelled, "cancelled")]
    target = said.terms.target if said.terms is not None and said.terms.action is not Action.NEW else ""
    action = f"{said.terms.action} {target}: " if said.terms is not None and target else ""
    return action + ", ".join(f"{word} {count}" for count, word in parts if count)


def run_file(
    path: str, rules: Rules, options: Options, *, console: Console, progress: Console, out: TextIO
) -> ExitCode:
    """Replay a file of orders.

    Args:
        path: the file; `-` for standard input.
        rules: the rules of the fresh exchange.
        options: how.
        console: where rows for people go, if it is a terminal.
        progress: where the progress and what is wrong with lines goes.
        out: where anything else goes.

    Raises:
        UsageError: the file cannot be read.
        BadLine: a line is no input, and `strict` was asked for.
    """
    sink = _sink(options, console, out, "line")
    counts, clock = _Counts(), _Clock(options.speed)
    exchanges: dict[int, Exchange] = {}
    offsets = dict.fromkeys(topics.INPUTS, 0)
    tune_garbage_collection()
    with opened(path) as (file, size), bar(progress, "replay", "bytes") as show:
        for number, (line, done) in enumerate(read(file)):
            if number % PROGRESS_EVERY == 0:
                show(done, size)
            if isinstance(line, Bad):
                counts.bad += 1
                sink.bad(line)
                if options.strict:
                    raise BadLine(
                        f"line {line.line} is no input", cause=line.why, hint="without --strict it is left out"
                    )
                progress.print(Text(f"line {line.line} is no input: {visible(line.why)}"), soft_wrap=True)
            elif not isinstance(line, Input):
                counts.skipped += 1
            else:
                clock.wait(line.time_ms)
                _take(line, exchanges, rules, offsets, sink, counts)
    if options.book:
        for shard in sorted(exchanges):
            _tell_book(exchanges[shard], sink)
    _tell_counts(counts, options, console, progress)
    return ExitCode.OK


def _take(
    line: Input,
    exchanges: dict[int, Exchange],
    rules: Rules,
    offsets: dict[str, int],
    sink: _Sink,
    counts: _Counts,
) -> None:
    shard = line.partition or 0
    offset = offsets[line.topic] if line.offset is None else line.offset
    offsets[line.topic] = offset + 1
    decoded = decode_input(line.topic, line.value)
    if isinstance(decoded, Dead):
        counts.inputs += 1
        counts.dead += 1
        sink.dead(str(line.line), decoded)
        return
    exchange = exchanges.get(shard)
    if exchange is None:
        exchange = exchanges[shard] = Exchange(rules)
    facts = exchange.apply(decoded)
    counts.note(facts)
    outputs = encode_facts(facts, shard, f"{line.topic}@{shard}:{offset}", line.time_ms or 0)
    sink.said(str(line.line), shard, facts, outputs)


def run_log(log: Log, options: Options, *, compare: bool, console: Console, progress: Console, out: TextIO) -> ExitCode:
    """Replay the journals of a log, shard by shard.

    Args:
        log: the log.
        options: how.
        compare: print no events, but whether the topics hold what the replay gives.
        console: where rows for people go, if it is a terminal.
        progress: where the progress goes.
        out: where anything else goes.

    Returns:
        OK, or NO when `compare` found a difference.

    Raises:
        JournalBroken: a journal has a gap, or does not replay to its digests.
        UsageError: it was written under rules that this version does not know.
    """
    sink = _sink(options, console, out, "source")
    counts, clock = _Counts(), _Clock(options.speed)
    differences: list[str] = []
    compared = 0
    tune_garbage_collection()
    for shard in range(log.partitions()):
        with ExitStack() as stack:
            replica = Replica(shard, rules_of(log, shard))
            outputs = _Outputs(log, shard, stack, differences) if compare else None
            for applied in _applied(log, replica, counts, progress):
                if outputs is not None:
                    compared += len(applied.outputs)
                    outputs.compare(applied)
                    if differences:
                        break
                else:
                    clock.wait(applied.line.time_ms)
                    sink.said(as_text(str(applied.source)), shard, applied.facts, applied.outputs)
            if outputs is not None and not differences:
                outputs.compare_rest()
        if differences:
            break
        if options.book and not compare:
            _tell_book(replica.exchange, sink)
    if compare:
        return _tell_comparison(differences, compared, options, console, out)
    _tell_counts(counts, options, console, progress)
    return ExitCode.OK


def _applied(log: Log, replica: Replica, counts: _Counts, progress: Console) -> Iterator[Applied]:
    """The orders of a shard's journal, put through its replica."""
    journal = (topics.JOURNAL, replica.shard)
    with closing(log.reader({journal: 0})) as reader, bar(progress, "replay", "entries") as show:
        end = reader.ends()[journal]
        for record in to_the_end(reader):
            show(record.offset, end)
            entry = replica.entry_of(record)
            if entry is None:
                continue
            outputs: list[NewRecord] = []
            for applied in rerun(replica.exchange, replica.shard, entry):
                outputs += applied.outputs
                counts.note(applied.facts)
                yield applied
            replica.seal(entry, record, outputs)
            dead = sum(line.kind == "dead" for line in entry.inputs)
            counts.dead += dead
            counts.inputs += dead


class _Outputs:
    """The output topics of a shard, beside what a replay gives."""

    def __init__(self, log: Log, shard: int, stack: ExitStack, differences: list[str]) -> None:
        def stray(record: Record, what: str, known: bool) -> None:
            if not (known and log.remote):
                differences.append(f"{record.position} {what}")

        self._differences = differences
        self._topics: dict[str, BySequence] = {}
        for topic in topics.OUTPUTS:
            stream = stack.enter_context(closing(Stream(log, topic, shard)))
            self._topics[topic] = BySequence(stream, lambda fields: as_text(sorted(map(str, fields.items()))), stray)
        self._ends = {topic: output.stream.end for topic, output in self._topics.items()}

    def compare(self, applied: Applied) -> None:
        """Compare what one input caused."""
        outcome = applied.facts[0]
        for topic, output in self._topics.items():
            expected = [each for each in applied.outputs if each.topic == topic]
            found = output.take(outcome.seq, expected)
            for where, what in deviations(topic, str(applied.source), expected, found):
                self._differences.append(f"{where} {what}")

    def compare_rest(self) -> None:
        """What is left on the topics has no place."""
        for topic, output in self._topics.items():
            for _ in output.rest(self._ends[topic]):
                if self._differences:
                    return


class _Clock:
    """Paces a replay by the times of its inputs."""

    def __init__(self, speed: float | None) -> None:
        self._speed = speed
        self._began: tuple[float, int] | None = None

    def wait(self, time_ms: int | None) -> None:
        """Wait until it is the turn of an input of that time."""
        if self._speed is None or time_ms is None:
            return
        if self._began is None:
            self._began = (time.monotonic(), time_ms)
        began, first = self._began
        left = (time_ms - first) / 1000 / self._speed - (time.monotonic() - began)
        if left > 0:
            time.sleep(left)


def _sink(options: Options, console: Console, out: TextIO, name: str) -> _Sink:
    if options.as_json:
        return _JsonLines(out, name)
    return _Screen(console) if console.is_terminal else _Rows(out)


def _tell_book(exchange: Exchange, sink: _Sink) -> None:
    for symbol in exchange.symbols:
        for order in exchange.resting(symbol):
            sink.rests(symbol, order)


def _tell_counts(counts: _Counts, options: Options, console: Console, progress: Console) -> None:
    where = console if console.is_terminal and not options.as_json else progress
    where.print(Text(counts.sentence()), soft_wrap=True)


def _tell_comparison(
    differences: list[str], compared: int, options: Options, console: Console, out: TextIO
) -> ExitCode:
    first = differences[0] if differences else None
    if options.as_json:
        document = {"schema": "stocktrade.comparison/1", "equal": first is None, "compared": compared}
        out.write(as_text(document | ({} if first is None else {"first_difference": first})) + "\n")
    else:
        told = f"✓ equal: {tables.many(compared, 'record')}" if first is None else f"✗ differs: {visible(first)}"
        if console.is_terminal:
            console.print(Text(told, tables.GOOD if first is None else tables.BAD), soft_wrap=True)
        else:
            out.write(told + "\n")
    return ExitCode.OK if first is None else ExitCode.NO
