"""The walk: each shard's journal entry by entry, and beside it what stands on the topics for each input."""

import json
from collections.abc import Callable, Iterable
from contextlib import ExitStack, closing
from hashlib import sha256
from typing import Any, Final, NamedTuple

from stocktrade.audit.findings import Head, Report, Rule
from stocktrade.audit.orders import Orders, asked
from stocktrade.audit.replay import Replay
from stocktrade.audit.settlement import Settlement
from stocktrade.audit.streams import BySequence, Message, Stream, deviations, fields_of
from stocktrade.domain.messages import JournalInput, JournalRecord, SnapshotManifest
from stocktrade.domain.values import visible
from stocktrade.errors import JournalBroken
from stocktrade.shard.history import snapshots_of
from stocktrade.shard.journal import GENESIS, decode_entry
from stocktrade.transport import topics
from stocktrade.transport.base import Log, NewRecord, Record
from stocktrade.transport.codec import decode_json

FORWARDED: Final = "stocktrade.forwarded-from"

_ID_FIELDS: Final = {
    topics.TRADES: "trade_id",
    topics.DEMAT_TRANSFERS: "transfer_id",
    topics.CASH_MOVEMENTS: "movement_id",
}
_RULES: Final = {
    topics.ORDER_EVENTS: Rule.ANSWERS,
    topics.TRADES: Rule.TRADES,
    topics.DEMAT_TRANSFERS: Rule.LEGS,
    topics.CASH_MOVEMENTS: Rule.LEGS,
}
"""By which rule a record is wrong that has no place."""

_LETTERS_AHEAD: Final = 1_000
"""How far ahead a dead letter is looked for."""


class ExpectedHead(NamedTuple):
    """What somebody knows to be in a journal: the entry `entry` of `shard` has a digest that begins so."""

    shard: int
    entry: int
    digest: str


def audit(
    log: Log,
    *,
    expected: Iterable[ExpectedHead] = (),
    chain_decides: bool | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Check everything that is on the log; an exchange may be trading on it.

    Args:
        log: the log.
        expected: heads that must be in the journals.
        chain_decides: whether what came again with the same content, and entries that do not continue the chain, are
            counted (True) or are findings. By default as the log is a remote one or not: no second writer can get
            at the embedded one.
        on_progress: called with the number of inputs that were checked, and of all that there are.
    """
    report = Report()
    places = [(topic, shard) for topic in topics.INPUTS for shard in range(log.partitions())]
    with closing(log.reader(dict.fromkeys(places, 0))) as reader:
        total = sum(reader.ends().values())
    tolerant = log.remote if chain_decides is None else chain_decides
    forwards = _Forwards(report, tolerant=tolerant)
    wanted = list(expected)
    for shard in range(log.partitions()):
        with ExitStack() as stack:
            walk = _Walk(log, shard, report, forwards, stack, tolerant=tolerant, expected=wanted)
            walk.go(lambda: on_progress and on_progress(report.inputs, total))
    forwards.close()
    return report


class _Forwards:
    """What one shard sent on to another. `cut`: the shards whose journal's beginning is not kept."""

    def __init__(self, report: Report, *, tolerant: bool) -> None:
        self._report = report
        self._tolerant = tolerant
        self._due: dict[str, int] = {}
        self._met: dict[str, tuple[Record, int]] = {}
        self._done: set[int] = set()
        self.cut: set[int] = set()

    def sent(self, source: str, value: bytes) -> None:
        """The journal says that an input was forwarded."""
        self._report.checked(Rule.ANSWERS)
        self._due[source] = hash(value)
        self._settle(source)

    def arrived(self, source: str, record: Record) -> None:
        """An input says that it was forwarded from there."""
        if source in self._met or hash(source) in self._done:
            if not self._tolerant:
                self._report.broken(Rule.ANSWERS, record.position, f"{source} was forwarded before")
            return
        self._met[source] = (record, hash(record.value or b""))
        self._settle(source)

    def _settle(self, source: str) -> None:
        if source in self._due and source in self._met:
            record, content = self._met.pop(source)
            if self._due.pop(source) != content:
                self._report.broken(Rule.ANSWERS, record.position, f"is not what was forwarded from {source}")
            self._done.add(hash(source))

    def close(self) -> None:
        """Say what is missing."""
        for source in self._due:
            if self.cut:
                self._report.unchecked(Rule.ANSWERS, "the journal that took what was forwarded is not kept")
                continue
            self._report.broken(Rule.ANSWERS, source, "the journal says it was forwarded, and it is nowhere")
        for source, (record, _) in self._met.items():
            if source.rpartition("@")[2].partition(":")[0] in map(str, self.cut):
                self._report.unchecked(Rule.ANSWERS, "the journal that forwarded them is not kept")
                continue
            self._report.broken(Rule.ANSWERS, record.position, f"no journal says that {source} was forwarded")


class _Walk:
    """The audit of one shard."""

    def __init__(
        self,
        log: Log,
        shard: int,
        report: Report,
        forwards: _Forwards,
        stack: ExitStack,
        *,
        tolerant: bool,
        expected: list[ExpectedHead],
    ) -> None:
        def stream(topic: str) -> Stream:
            return stack.enter_context(closing(Stream(log, topic, shard)))

        self._log = log
        self._shard = shard
        self._report = report
        self._forwards = forwards
        self._tolerant = tolerant
        self._expected = {each.entry: each.digest for each in expected if each.shard == shard}
        # Before the journal's end is asked for, which they must not be ahead of.
        anchor = log.anchor(shard)
        if anchor is not None:
            known = json.loads(anchor)
            self._expected.setdefault(known["entry"], known["digest"])
        self._manifests = self._whole_snapshots()
        # The outputs' ends are asked for first: whatever stands before them is of an entry of the journal.
        self._outputs = {
            topic: BySequence(stream(topic), self._id_of(topic), self._stray_of(topic)) for topic in topics.OUTPUTS
        }
        self._ends = {topic: output.stream.end for topic, output in self._outputs.items()}
        self._letters = stream(topics.DEAD_LETTERS)
        self._letters_end = self._letters.end
        self._journal = stream(topics.JOURNAL)
        self._inputs = {topic: stream(topic) for topic in topics.INPUTS}
        self._head = Head(-1, GENESIS, 0)
        self._epoch = 0
        self._next = dict.fromkeys(topics.INPUTS, 0)
        self._settlement = Settlement(report)
        self._known_letters: dict[str, int] = {}
        self._is_cut = False
        self._first: dict[str, int] = {}

    def _whole_snapshots(self) -> dict[int, SnapshotManifest]:
        stored = snapshots_of(self._log, self._shard)
        place = f"{topics.SNAPSHOTS}@{self._shard}"
        for key in stored.unreadable():
            what = f"{visible(key.decode(errors='replace'))} cannot be read: it will not be used"
            self._report.broken(Rule.SNAPSHOTS, place, what)
        whole = {}
        for manifest in stored.manifests():
            self._report.checked(Rule.SNAPSHOTS)
            if stored.is_whole(manifest):
                whole[manifest.entry] = manifest
            else:
                what = f"of entry {manifest.entry} is not whole: it will not be used"
                self._report.broken(Rule.SNAPSHOTS, place, what)
        return whole

    # --- the journal ---------------------------------------------------------------------------------------

    def go(self, on_progress: Callable[[], object]) -> None:
        """Walk to the end of the journal as it was when the audit began."""
        report, journal = self._report, self._journal
        end, replay, orders = journal.end, None, None
        while (record := journal.peek()) is not None and record.offset < end:
            journal.pop()
            try:
                entry = decode_entry(record)
            except JournalBroken as error:
                report.broken(Rule.JOURNAL, record.position, f"{error.what}: {error.cause}")
                break
            if self._log.remote and self._head.entry < 0 < entry.entry:
                self._begin_later(entry)
            if not self._continues(entry, record):
                continue
            if replay is None or orders is None:
                replay = Replay(report, self._shard, entry, record)
                orders = Orders(
                    report,
                    self._shard,
                    reference_price=replay.reference_price,
                    remembered_ids=replay.remembered_ids,
                )
            self._entry(entry, record, replay, orders)
            on_progress()
        if journal.peek() is None and journal.is_cut:
            report.broken(Rule.JOURNAL, journal.place, f"ends before {journal.end}")
        if replay is not None:
            replay.check_state(journal.place)
        self._close()

    def _begin_later(self, entry: JournalRecord) -> None:
        """The beginning of the journal is not kept: what rested then is not known."""
        self._is_cut = True
        self._forwards.cut.add(self._shard)
        self._head = Head(entry.entry - 1, entry.prev, entry.first_seq - 1)
        self._epoch = entry.epoch - (entry.kind == "owner")
        why = f"{self._journal.place} is kept from entry {entry.entry} on"
        for rule in (Rule.REPLAY, Rule.OUTPUTS, Rule.FILLS, Rule.PRIORITY, Rule.IDS, Rule.TRADES, Rule.LEGS):
            self._report.unchecked(rule, why)
        for earlier in [number for number in self._manifests if number < entry.entry]:
            del self._manifests[earlier]
            self._report.unchecked(Rule.SNAPSHOTS, why)
        for topic, output in self._outputs.items():
            for message in output.skip_before(entry.first_seq):
                if topic in (topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS):
                    self._settlement.add(message)

    def _continues(self, entry: JournalRecord, record: Record) -> bool:
        """Whether an entry counts, and if so whether it is as it must be."""
        report, head = self._report, self._head
        report.checked(Rule.JOURNAL)
        if entry.entry > head.entry + 1:
            report.broken(Rule.JOURNAL, record.position, f"entry {entry.entry} after {head.entry}")
        if (entry.entry, entry.prev) != (head.entry + 1, head.digest):
            report.ignored += 1
            if not self._tolerant:
                report.broken(Rule.JOURNAL, record.position, "does not continue the chain")
            return False
        self._epoch += entry.kind == "owner"
        if (entry.shard, entry.epoch) != (self._shard, self._epoch):
            report.broken(Rule.JOURNAL, record.position, "shard or epoch")
        if entry.first_seq != head.seq + 1:
            report.broken(Rule.JOURNAL, record.position, f"begins at sequence {entry.first_seq} after {head.seq}")
        return True

    def _entry(self, entry: JournalRecord, record: Record, replay: Replay, orders: Orders) -> None:
        seq = entry.first_seq - 1
        said = iter(replay.outputs_of(entry, record))
        for line in entry.inputs:
            self._report.inputs += 1
            source = f"{line.topic}@{self._shard}:{line.offset}"
            record_in = self._input(line, source)
            if line.kind == "order":
                seq += 1
                self._order(seq, source, line, next(said), orders)
            elif line.kind == "dead":
                self._dead(source, record_in)
        if self._is_cut:
            self._next = dict(entry.next_offsets)
        elif entry.next_offsets != self._next:
            self._report.broken(Rule.JOURNAL, record.position, f"next_offsets are not {self._next}")
        self._head = Head(entry.entry, entry.digest, seq)
        digest = self._expected.pop(entry.entry, None)
        if digest is not None:
            self._report.checked(Rule.HEAD)
            if not entry.digest.startswith(digest):
                what = f"entry {entry.entry} was {digest[:16]}…, and is {entry.digest[:16]}…"
                self._report.broken(Rule.HEAD, record.position, what)
        manifest = self._manifests.pop(entry.entry, None)
        if manifest is not None:
            said_there = (manifest.digest, manifest.journal_offset, manifest.seq, manifest.epoch, manifest.rules)
            if said_there == (entry.digest, record.offset, seq, entry.epoch, entry.rules) and (
                manifest.next_offsets == entry.next_offsets
            ):
                replay.check_snapshot(manifest)
            else:
                place = f"{topics.SNAPSHOTS}@{self._shard}"
                self._report.broken(Rule.SNAPSHOTS, place, f"of entry {entry.entry} does not fit the journal")

    # --- inputs and what answers them ----------------------------------------------------------------------

    def _input(self, line: JournalInput, source: str) -> Record | None:
        """Find an input on its topic, as the journal has it."""
        report, stream = self._report, self._inputs[line.topic]
        report.checked(Rule.INPUTS)
        if line.offset < self._next[line.topic]:
            report.broken(Rule.INPUTS, source, "was taken again")
            return None
        is_first = self._is_cut and line.topic not in self._first
        self._first.setdefault(line.topic, line.offset)
        self._next[line.topic] = line.offset + 1
        while (record := stream.peek()) is not None and record.offset < line.offset:
            stream.pop()
            if is_first:
                report.unchecked(Rule.INPUTS, "the journal that took them is not kept")
                continue
            report.broken(Rule.INPUTS, record.position, "was passed over: no entry of the journal has it")
        if record is None or record.offset > line.offset:
            if line.offset < (kept_from := stream.kept_from()):
                report.unchecked(Rule.INPUTS, f"{stream.place} is kept from offset {kept_from} on")
            else:
                report.broken(Rule.INPUTS, source, "is in the journal, but not on its topic")
            return None
        stream.pop()
        value = record.value or b""
        same = line.text == value.decode(errors="replace") if line.text is not None else False
        if not same and line.sha256 is not None:
            same = line.sha256 == sha256(value).hexdigest()
        if not same or line.time_ms != record.time_ms:
            report.broken(Rule.INPUTS, source, "is not what the journal has")
        for name, text in record.headers:
            if name == FORWARDED:
                self._forwards.arrived(text.decode(errors="replace"), record)
        if line.kind == "forwarded":
            self._forwards.sent(source, value)
        return record

    def _order(self, seq: int, source: str, line: JournalInput, said: list[NewRecord] | None, orders: Orders) -> None:
        """Check one order against everything that stands on the topics for it."""
        report = self._report
        found: dict[str, list[Message]] = {}
        for topic, output in self._outputs.items():
            expected = None if said is None else [each for each in said if each.topic == topic]
            found[topic] = output.take(seq, expected)
            if expected is None:
                report.unchecked(Rule.OUTPUTS, "the journal could not be replayed")
                continue
            report.checked(Rule.OUTPUTS, len(expected))
            for where, what in deviations(topic, source, expected, found[topic]):
                report.broken(Rule.OUTPUTS, where, what)
        answers = [each for each in found[topics.ORDER_EVENTS] if each.fields.get("status") != "CANCELLED"]
        cancelled = [each for each in found[topics.ORDER_EVENTS] if each.fields.get("status") == "CANCELLED"]
        fields = _message(line)
        report.checked(Rule.ANSWERS)
        if len(answers) != 1 or fields is None:
            report.broken(Rule.ANSWERS, source, f"has {len(answers)} events")
        given = asked(seq, source, fields or {})
        for answer in answers:
            expected_answer = (source, given.order_id, given.participant, given.side, self._shard)
            names = ("source", "order_id", "participant", "side", "shard")
            if tuple(answer.fields.get(name) for name in names) != expected_answer:
                report.broken(Rule.ANSWERS, answer.where, f"is not an answer to {source}")
        if self._is_cut:
            return
        trades = found[topics.TRADES]
        legs = [*found[topics.DEMAT_TRANSFERS], *found[topics.CASH_MOVEMENTS]]
        try:
            self._settlement.take(line.time_ms, trades, legs, orders.symbols_as_sent(given, trades))
            if answers and fields is not None:
                orders.take(given, answers[0], cancelled, trades)
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            report.broken(Rule.OUTPUTS, source, f"an output of it lacks a field or has a wrong one: {error!r}")

    def _dead(self, source: str, said: Record | None) -> None:
        """What is no order went to the dead letters, in its turn and as it was."""
        report = self._report
        report.checked(Rule.ANSWERS)
        ahead = 0
        while (letter := self._letters.peek(ahead)) is not None and ahead < _LETTERS_AHEAD:
            if _origin(letter) == source:
                self._letters.remove(ahead)
                self._known_letters[source] = hash(letter.value)
                if said is not None and not _is_letter_of(letter, said):
                    report.broken(Rule.ANSWERS, letter.position, f"is not what stands at {source}")
                return
            ahead += 1
        report.broken(Rule.ANSWERS, source, "has no dead letter")

    # --- what is left --------------------------------------------------------------------------------------

    def _close(self) -> None:
        report = self._report
        for topic, output in self._outputs.items():
            for _ in output.rest(self._ends[topic]):
                pass
            if output.stream.peek() is None and output.stream.is_cut:
                report.broken(Rule.OUTPUTS, output.stream.place, f"ends before {output.stream.end}")
        while (letter := self._letters.peek()) is not None and letter.offset < self._letters_end:
            self._letters.pop()
            if self._is_cut and self._is_before(_origin(letter)):
                report.unchecked(Rule.ANSWERS, "the journal that put them aside is not kept")
                continue
            known = self._known_letters.get(_origin(letter)) == hash(letter.value)
            report.redelivered += known and self._tolerant
            if not (known and self._tolerant):
                report.broken(Rule.ANSWERS, letter.position, "is a dead letter of nothing that the journal has")
        for stream in self._inputs.values():
            while (record := stream.peek()) is not None and record.offset < stream.end:
                stream.pop()
                report.waiting += record.offset >= self._next[stream.topic]
            if stream.is_cut:
                report.broken(Rule.INPUTS, stream.place, f"ends before {stream.end}")
        for entry, digest in self._expected.items():
            report.checked(Rule.HEAD)
            what = f"entry {entry} ({digest[:16]}…) is not there: it ends at entry {self._head.entry}"
            report.broken(Rule.HEAD, self._journal.place, what)
        for entry in self._manifests:
            place = f"{topics.SNAPSHOTS}@{self._shard}"
            report.broken(Rule.SNAPSHOTS, place, f"of entry {entry}: the journal has no such entry")
        self._settlement.close()
        report.heads[self._shard] = self._head

    def _is_before(self, origin: str) -> bool:
        """Whether an input was taken before the journal that is kept."""
        topic, _, place = origin.partition("@")
        offset = place.rpartition(":")[2]
        return offset.isdecimal() and int(offset) < self._first.get(topic, self._next.get(topic, 0))

    def _id_of(self, topic: str) -> Callable[[dict[str, Any]], str]:
        name = _ID_FIELDS.get(topic)

        def identity(fields: dict[str, Any]) -> str:
            if name is not None:
                return str(fields.get(name))
            # An event is the answer to its input, or what its cause did to one order.
            return str(fields.get("source") or (fields.get("cause"), fields.get("order_id")))

        return identity

    def _stray_of(self, topic: str) -> Callable[[Record, str, bool], None]:
        def stray(record: Record, what: str, known: bool) -> None:
            if known and self._tolerant:
                self._report.redelivered += 1
                return
            self._report.broken(Rule.OUTPUTS, record.position, what)
            self._report.broken(_RULES[topic], record.position, what)
            fields = fields_of(record)
            if topic in (topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS) and fields is not None:
                self._settlement.add(Message(record, fields))

        return stray


def _origin(letter: Record) -> str:
    """The position of the input that a dead letter holds; empty if it does not say."""
    headers = {name: text.decode(errors="replace") for name, text in letter.headers}
    parts = [headers.get(f"__dlq.errors.{part}", "") for part in ("topic", "partition", "offset")]
    return "{}@{}:{}".format(*parts)


def _is_letter_of(letter: Record, said: Record) -> bool:
    """Whether a dead letter has the bytes of its input; of an oversized one it has a prefix and a checksum."""
    value, headers = said.value, dict(letter.headers)
    checksum = headers.get("stocktrade.sha256")
    if checksum is None:
        return (letter.value, letter.key) == (value, said.key)
    whole = value or b""
    return checksum.decode() == sha256(whole).hexdigest() and whole.startswith(letter.value or b"")


def _message(line: JournalInput) -> dict[str, Any] | None:
    try:
        fields = decode_json((line.text or "").encode())
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None
