"""The life of a shard's owner: claim, recover, take inputs, commit.

Start-up, crash recovery and take-over are one path.

A commit is begun and seen to later (`Writer.begin_commit`): meanwhile the other shards of the process match, and what
comes for this one is gathered. So a single order is committed at once, and a burst in large batches.

Invariant: what this process believes (books, ledger, positions) is what the journal says once the commits that are
under way are through, or the object is thrown away. A commit that fails leaves memory ahead of the log, so every error
in here ends the owner: make a new one, which recovers from the log, or stop.
"""

import json
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from hashlib import sha256
from heapq import heappop, heappush
from typing import Final, NamedTuple

from stocktrade.core.rules import RULES, Rules
from stocktrade.domain.facts import Fact, Instruction
from stocktrade.domain.messages import JournalRecord, SnapshotManifest
from stocktrade.errors import Fenced, JournalBroken, LogDamaged
from stocktrade.failpoints import hit
from stocktrade.shard import repair, snapshot
from stocktrade.shard.history import Replica, replica_from_snapshot, snapshots_of, to_the_end
from stocktrade.shard.journal import Head, InputLine, decode_entry, encode_batch, encode_owner, follows
from stocktrade.transport import topics
from stocktrade.transport.base import Log, NewRecord, Position, Reader, Record, Writer
from stocktrade.transport.codec import Dead, decode_input, encode_facts, key_of_symbol
from stocktrade.transport.partitioner import partition_for

MAX_BATCH_INPUTS: Final = 1000
MAX_BATCH_BYTES: Final = 384 * 1024
"""Bounds of one journal entry. With escapes, which double a text at worst, it stays below 1 MiB, a broker's limit."""

MAX_BATCH_OUTPUTS: Final = 20_000
"""Records that a batch causes, not counting its last input: one commit holds them all, and has seconds for it."""

_LINE_BYTES: Final = 128
"""What an entry says of an input beside its text, at most."""

MAX_UNDER_WAY: Final = 2
"""Batches of which the commits are begun at a time: one that is written, and a full one that is ready behind it."""

MAX_WAITING: Final = 4 * MAX_BATCH_INPUTS
"""Inputs that may wait to be matched. With more the owner waits for its commits, so a backlog stays on the log."""

MERGE_WAIT_S: Final = 0.25
"""How long an input waits for an earlier one on the other topic before it is taken as it stands."""

SNAPSHOT_EVERY_INPUTS: Final = 50_000
SNAPSHOT_EVERY_S: Final = 600.0
SNAPSHOTS_KEPT: Final = 2
DEAD_LETTER_PREFIX_BYTES: Final = 1024
"""How much of an oversized input its dead letter carries; its position finds the rest."""

_HEADER_BYTES: Final = 16
"""What a header counts beside its name and value: empty ones are not for nothing."""

MAX_AROUND_BYTES: Final = 4 * 1024
"""Of an input's key and headers. They travel on with a forward or a dead letter, to which a log has a limit, too."""


class _Batch(NamedTuple):
    """A batch of the journal and what the exchange said to it."""

    entry: JournalRecord
    outputs: list[NewRecord]


class _UnderWay(NamedTuple):
    """A batch whose commit is begun, and where the owner stands after it."""

    commit: Future[list[Position]]
    head: Head
    next_offsets: dict[str, int]
    taken: list["Taken"]


class Taken(NamedTuple):
    """One input that was committed, with the facts that followed from it (none for a dead letter or a forward)."""

    record: Record
    facts: list[Fact]
    dead: Dead | None = None


class Recovered(NamedTuple):
    """What it took to recover a shard."""

    from_snapshot: bool
    inputs_replayed: int
    ignored_entries: int
    seconds: float
    rewritten: int = 0
    """Records that the journal says were written, that the log did not hold, and that were written again."""


class Owner:
    """The owner of one shard of a log.

    Args:
        log: the log; one thread.
        shard: which shard to own.
        name: how this process calls itself in the journal.
        now_ms: the wall clock, for the owner entry only: nothing that is decided depends on it.
        rules: the exchange's rules; a journal of other rules is refused.

    Raises:
        Occupied: another live process owns the shard and the log lets it.
        JournalBroken: the journal has a gap, cannot be read, or does not replay to its digests.
        LogDamaged: the log ends before the entry that was last known to be durable.
        UsageError: the journal was written under other rules.
        Unavailable, Fenced: as the port says.
    """

    def __init__(self, log: Log, shard: int, *, name: str, now_ms: Callable[[], int], rules: Rules = RULES) -> None:
        began = time.monotonic()
        self.shard = shard
        self._log = log
        self._partitions = log.partitions()
        self._writer: Writer = log.claim(shard)
        hit("owner.claimed")
        self._reader: Reader | None = None
        try:
            self._recover(rules, began)
            hit("owner.recovered")
            self._enter(name, now_ms(), self._missing())
        except BaseException:
            self.abandon()
            raise

    # --- recover -------------------------------------------------------------------------------------------

    def _recover(self, rules: Rules, began: float) -> None:
        self._under_way: deque[_UnderWay] = deque()
        self._snapshot: Iterator[list[NewRecord]] | None = None
        self._snapshot_commit: Future[list[Position]] | None = None
        self._last_batches: deque[_Batch] = deque(maxlen=repair.CHECKED_ENTRIES)
        anchored = self._anchored()
        replica = self._restore(rules)
        replayed = 0
        self._reader = self._log.reader({(topics.JOURNAL, self.shard): replica.offset + 1})
        if replica.manifest is None and (kept := self._reader.starts().get((topics.JOURNAL, self.shard), 0)):
            # With entries left the chain would tell. Without, it looks like a new exchange, which trades all again.
            raise JournalBroken(
                f"the beginning of shard {self.shard}'s journal is not kept, and no snapshot stands for it",
                cause=f"{topics.JOURNAL}@{self.shard} is kept from offset {kept} on",
                hint="restore the log from a copy; nothing was written",
            )
        for record in to_the_end(self._reader):
            entry = replica.entry_of(record)
            if entry is None:
                continue
            outputs = replica.take(entry, record)
            if entry.inputs:
                self._last_batches.append(_Batch(entry, outputs))
            replayed += len(entry.inputs)
            if anchored is not None and anchored.entry == entry.entry and anchored.digest != entry.digest:
                raise _lost_its_end(anchored, replica.head)
        if anchored is not None and anchored.entry > replica.head.entry:
            raise _lost_its_end(anchored, replica.head)
        manifest = replica.manifest
        self.exchange = replica.exchange
        self.epoch = replica.epoch
        # What is committed; and where the newest batch that was begun leads to.
        self._head, self._head_offset, self._next = replica.head, replica.offset, replica.next_offsets
        self._last_head, self._last_next = self._head, self._next
        self._expected = dict(self._next)
        self._waiting: list[tuple[int, str, int, Record]] = []
        self._waiting_since: float | None = None
        self._waited_for = 0  # the latest arrival of what was there when the waiting began
        self._gaps: dict[tuple[str, int], int] = {}  # by topic and expected offset: the one that came instead
        self._unconfirmed: deque[tuple[bytes, Head]] = deque()
        self._confirmed = self._head
        self._since_snapshot = self.exchange.seq - (manifest.seq if manifest else 0)
        self._snapshot_at = time.monotonic()
        self.recovered = Recovered(manifest is not None, replayed, replica.ignored, time.monotonic() - began)

    def _anchored(self) -> Head | None:
        anchor = self._writer.anchor()
        return None if anchor is None else Head(**json.loads(anchor))

    def _restore(self, rules: Rules) -> Replica:
        stored = snapshots_of(self._log, self.shard)
        leftovers = stored.leftovers()
        if leftovers:
            self._writer.commit([NewRecord(topics.SNAPSHOTS, key, None, self.shard) for key in leftovers])
        self._manifests = stored.manifests()
        return replica_from_snapshot(self._log, self.shard, rules, stored)

    def _missing(self) -> list[NewRecord]:
        """What of the last batches is not on the log; there is nothing unless the log tore a commit."""
        if not self._last_batches:
            return []
        written = [record for batch in self._last_batches for record in batch.outputs]
        written += self._dead_and_forwarded()
        since_ms = min(line.time_ms for batch in self._last_batches for line in batch.entry.inputs)
        self._last_batches.clear()
        found = repair.missing(self._log, written, since_ms)
        self.recovered = self.recovered._replace(rewritten=len(found))
        return found

    def _dead_and_forwarded(self) -> Iterator[NewRecord]:
        """The dead letters and forwards of the last batches, made again from their inputs."""
        lines = [line for batch in self._last_batches for line in batch.entry.inputs if line.kind != "order"]
        for topic in topics.INPUTS:
            due = {line.offset for line in lines if line.topic == topic}
            if not due:
                continue
            with closing(self._log.reader({(topic, self.shard): min(due)})) as reader:
                for record in to_the_end(reader):
                    if record.offset > max(due):
                        break
                    if record.offset in due:
                        yield self._aside(record)

    def _aside(self, record: Record) -> NewRecord:
        """Where an input goes that is not traded here: to the dead letters, or to its own shard."""
        decoded = _decoded(record)
        if isinstance(decoded, Dead):
            return _dead_letter(record, decoded)
        return _forward(record, decoded.symbol, self._home(decoded.symbol))

    def _enter(self, name: str, time_ms: int, rewritten: Sequence[NewRecord]) -> None:
        self.epoch += 1
        value, head = encode_owner(
            shard=self.shard,
            head=self._head,
            epoch=self.epoch,
            rules=self.exchange.rules.name,
            instruments=self.exchange.rules.file,
            first_seq=self.exchange.seq + 1,
            next_offsets=self._next,
            owner=name,
            time_ms=time_ms,
        )
        self._begin(value, head, self._next, [], rewritten)
        self.settle()

    # --- take ----------------------------------------------------------------------------------------------

    @property
    def entry(self) -> int:
        """The number of the last committed journal entry."""
        return self._head.entry

    @property
    def digest(self) -> str:
        """The digest of the last committed journal entry."""
        return self._head.digest

    @property
    def positions(self) -> dict[str, int]:
        """The next offset of each input topic that is to be read."""
        return dict(self._expected)

    @property
    def committed(self) -> dict[str, int]:
        """The next offset of each input topic after what is journalled."""
        return dict(self._next)

    @property
    def is_waiting(self) -> bool:
        """Whether inputs were taken in that are not committed yet."""
        return bool(self._waiting or self._under_way)

    @property
    def is_committing(self) -> bool:
        """Whether a commit is under way."""
        return bool(self._under_way) or self._snapshot_commit is not None

    def offer(self, records: Iterable[Record]) -> bool:
        """Take records of the shard's inputs in; they wait until `commit_ready`.

        Whatever the log's client did in between, an offset that was done is skipped. One that lies ahead is
        believed only when it comes again after a seek: transaction markers leave legal gaps, a client that lost
        its place leaves the same ones. False says that the caller must seek to `positions` and poll again.
        """
        for record in records:
            expected = self._expected[record.topic]
            if record.offset < expected:
                continue
            # A client that lost its place twice would have to lose it to the same place.
            if record.offset > expected and record.offset > self._gaps.get((record.topic, expected), -1):
                self._gaps[record.topic, expected] = record.offset
                return False
            self._gaps.pop((record.topic, expected), None)
            self._expected[record.topic] = record.offset + 1
            heappush(self._waiting, (record.arrival, record.topic, record.offset, record))
        return True

    def commit_ready(self, horizon: int) -> list[Taken]:
        """Match the inputs that nothing earlier can precede any more and begin their commit, one batch at most.

        `horizon` is the poll's: inputs that arrived before it are taken in the order of (arrival, topic, offset).
        Later ones wait, at most MERGE_WAIT_S, for a possible earlier one of the other topic. While a commit is under
        way inputs gather, until there is a full batch of them.

        Returns:
            What has been committed since the last call.

        Raises:
            Fenced, Unavailable: nothing of the batch counts; this owner is finished.
        """
        horizon = self._extended(horizon)
        taken = self._settled()
        if len(self._under_way) == MAX_UNDER_WAY and len(self._waiting) >= MAX_WAITING:
            self._under_way[0].commit.exception()  # waits; what became of it comes next
            taken += self._settled()
        full = len(self._waiting) >= MAX_BATCH_INPUTS
        if not self._under_way or (full and len(self._under_way) < MAX_UNDER_WAY):
            self._begin_batch(horizon)
            taken += self._settled()
        return taken

    def settle(self) -> list[Taken]:
        """Wait until no batch's commit is under way any more; see `commit_ready`."""
        for each in self._under_way:
            each.commit.exception()
        return self._settled()

    def _settled(self) -> list[Taken]:
        taken: list[Taken] = []
        while self._under_way and self._under_way[0].commit.done():
            done = self._under_way.popleft()
            positions = done.commit.result()
            hit("owner.committed")
            self._head, self._head_offset, self._next = done.head, positions[0].offset, done.next_offsets
            self._since_snapshot += len(done.taken)
            taken += done.taken
        return taken

    def _begin_batch(self, horizon: int) -> None:
        taken: list[Taken] = []
        lines: list[InputLine] = []
        outputs: list[NewRecord] = []
        others: list[NewRecord] = []
        next_offsets = dict(self._last_next)
        first_seq = self.exchange.seq + 1
        size = 0
        waiting = self._waiting
        while (
            waiting
            and waiting[0][0] < horizon
            and len(lines) < MAX_BATCH_INPUTS
            and size < MAX_BATCH_BYTES
            and len(outputs) < MAX_BATCH_OUTPUTS
        ):
            record = heappop(waiting)[3]
            next_offsets[record.topic] = record.offset + 1
            value = record.value or b""
            decoded = _decoded(record)
            at = (record.topic, record.offset, record.time_ms)
            size += _LINE_BYTES
            if isinstance(decoded, Dead):
                lines.append(InputLine(*at, "dead", None, sha256(value).hexdigest(), decoded.reason))
                others.append(_dead_letter(record, decoded))
                taken.append(Taken(record, [], decoded))
                continue
            home = self._home(decoded.symbol)
            if home != self.shard:
                lines.append(InputLine(*at, "forwarded", None, sha256(value).hexdigest()))
                others.append(_forward(record, decoded.symbol, home))
                taken.append(Taken(record, []))
                continue
            facts = self.exchange.apply(decoded)
            outputs += encode_facts(facts, self.shard, str(record.position), record.time_ms)
            lines.append(InputLine(*at, "order", value.decode()))
            taken.append(Taken(record, facts))
            size += len(value)
        if not lines:
            return
        entry, head = encode_batch(
            shard=self.shard,
            head=self._last_head,
            epoch=self.epoch,
            rules=self.exchange.rules.name,
            first_seq=first_seq,
            next_offsets=next_offsets,
            inputs=lines,
            outputs=outputs,
        )
        self._begin(entry, head, next_offsets, taken, [*outputs, *others])

    def _extended(self, horizon: int) -> int:
        """The horizon, or the end of what has waited long enough for it."""
        if not self._waiting or self._waiting[0][0] < horizon:
            self._waiting_since = None
            return horizon
        now = time.monotonic()
        if self._waiting_since is None or self._waiting[0][0] > self._waited_for:
            self._waiting_since = now
            self._waited_for = max(self._waiting)[0]
        return self._waited_for + 1 if now - self._waiting_since >= MERGE_WAIT_S else horizon

    def _home(self, symbol: str) -> int:
        # A malformed symbol has no home; it is refused where it was met.
        return partition_for(key_of_symbol(symbol), self._partitions) if symbol else self.shard

    def _begin(
        self,
        value: bytes,
        head: Head,
        next_offsets: dict[str, int],
        taken: list[Taken],
        outputs: Sequence[NewRecord],
    ) -> None:
        hit("owner.commit")
        entry = NewRecord(topics.JOURNAL, str(self.shard).encode(), value, self.shard)
        commit = self._writer.begin_commit([entry, *outputs], anchor=json.dumps(head._asdict()).encode())
        self._under_way.append(_UnderWay(commit, head, next_offsets, taken))
        self._unconfirmed.append((value, head))
        self._last_head, self._last_next = head, next_offsets

    def confirm(self) -> None:
        """Read the own journal back: an owner that another one has replaced notices, even when it is idle.

        Raises:
            Fenced: somebody else continues the chain.
            JournalBroken: a record of the journal cannot be read.
        """
        assert self._reader is not None
        while records := self._reader.poll(0.0):
            for record in records:
                if self._unconfirmed and record.value == self._unconfirmed[0][0]:
                    self._confirmed = self._unconfirmed.popleft()[1]
                elif follows(decode_entry(record), self._confirmed):
                    raise Fenced(
                        f"shard {self.shard} has another owner",
                        cause=f"the journal goes on at {record.position} without this process",
                        hint="this exchange stops; the other one trades on",
                    )

    # --- snapshot ------------------------------------------------------------------------------------------

    def snapshot_due(self) -> bool:
        """Whether enough happened since the last snapshot to write one."""
        if self._snapshot is not None or not self._since_snapshot:
            return False
        waited = time.monotonic() - self._snapshot_at
        return self._since_snapshot >= SNAPSHOT_EVERY_INPUTS or waited >= SNAPSHOT_EVERY_S

    def begin_snapshot(self) -> list[Taken]:
        """Take the picture that `continue_snapshot` then writes; trading goes on in between.

        A picture is of what is committed, so the commits under way are waited for.

        Returns:
            What they committed.
        """
        taken = self.settle()
        self._since_snapshot = 0
        self._snapshot_at = time.monotonic()
        self._snapshot = self._snapshot_commits(self._slices())
        return taken

    def _slices(self) -> Iterator[NewRecord]:
        capture = self.exchange.capture()
        head, offset, next_offsets, epoch = self._head, self._head_offset, dict(self._next), self.epoch

        def manifest(parts: int, checksum: str) -> SnapshotManifest:
            made = SnapshotManifest(
                v=snapshot.FORMAT,
                shard=self.shard,
                entry=head.entry,
                epoch=epoch,
                journal_offset=offset,
                rules=self.exchange.rules.name,
                seq=capture.seq,
                next_offsets=next_offsets,
                digest=head.digest,
                parts=parts,
                checksum=checksum,
            )
            self._manifests.insert(0, made)
            return made

        # `capture` has run by now, so the picture is of this entry; only the encoding is left for later.
        return snapshot.encode_parts(capture.rows(), entry=head.entry, shard=self.shard, manifest=manifest)

    def _snapshot_commits(self, slices: Iterator[NewRecord]) -> Iterator[list[NewRecord]]:
        """What is committed one after the other: the parts, and then what takes the expired snapshots away."""
        for part in slices:
            hit("owner.snapshot")
            yield [part]
        expired, self._manifests = self._manifests[SNAPSHOTS_KEPT:], self._manifests[:SNAPSHOTS_KEPT]
        for manifest in expired:
            yield snapshot.tombstones(manifest)

    def continue_snapshot(self) -> bool:
        """Begin to write the next part of the snapshot, if the one before is written; True while there is more to do.

        Raises:
            Fenced, Unavailable: as `commit_ready`.
        """
        if self._snapshot is None or (self._snapshot_commit is not None and not self._snapshot_commit.done()):
            return self._snapshot is not None
        if self._snapshot_commit is not None:
            self._snapshot_commit.result()
            self._snapshot_commit = None
        records = next(self._snapshot, None)
        if records is None:
            self._snapshot = None
            return False
        self._snapshot_commit = self._writer.begin_commit(records)
        return True

    # --- stop ----------------------------------------------------------------------------------------------

    def close(self) -> list[Taken]:
        """Stop cleanly: a snapshot of what happened since the last one, then give the shard up.

        Returns:
            What was committed since `commit_ready` was called.
        """
        try:
            taken = self.settle()
            self._finish_snapshot()
            if self._since_snapshot:
                self.begin_snapshot()
                self._finish_snapshot()
            return taken
        finally:
            self.abandon()

    def _finish_snapshot(self) -> None:
        while self.continue_snapshot():
            if self._snapshot_commit is not None:
                self._snapshot_commit.result()

    def abandon(self) -> None:
        """Give the shard up at once; whoever comes next recovers it."""
        self._snapshot = self._snapshot_commit = None  # which would keep this owner
        if self._reader is not None:
            self._reader.close()
        self._writer.close()


def _decoded(record: Record) -> Instruction | Dead:
    around = len(record.key or b"")
    around += sum([_HEADER_BYTES + len(name) + len(value) for name, value in record.headers])
    if around > MAX_AROUND_BYTES:
        return Dead("TOO_LARGE", f"key and headers have {around} bytes, the limit is {MAX_AROUND_BYTES}")
    return decode_input(record.topic, record.value)


def _dead_letter(record: Record, dead: Dead) -> NewRecord:
    headers: dict[str, str] = {
        "__dlq.errors.topic": record.topic,
        "__dlq.errors.partition": str(record.partition),
        "__dlq.errors.offset": str(record.offset),
        "__dlq.errors.message": f"{dead.reason}: {dead.detail}",
    }
    key, value = record.key, record.value
    if dead.reason == "TOO_LARGE":
        key = None if key is None else key[:DEAD_LETTER_PREFIX_BYTES]
        if value is not None:
            headers["stocktrade.sha256"] = sha256(value).hexdigest()
            headers["stocktrade.bytes"] = str(len(value))
            value = value[:DEAD_LETTER_PREFIX_BYTES]
    return NewRecord(
        topics.DEAD_LETTERS,
        key,
        value,
        record.partition,
        record.time_ms,
        tuple((name, text.encode()) for name, text in headers.items()),
    )


def _forward(record: Record, symbol: str, home: int) -> NewRecord:
    origin = ("stocktrade.forwarded-from", str(record.position).encode())
    return NewRecord(record.topic, key_of_symbol(symbol), record.value, home, None, (*record.headers, origin))


def _lost_its_end(anchored: Head, head: Head) -> LogDamaged:
    return LogDamaged(
        "the log has lost its end: it does not hold what was already committed",
        cause=f"entry {anchored.entry} ({anchored.digest[:16]}…) was committed, "
        f"the journal ends at entry {head.entry} ({head.digest[:16]}…)",
        hint="restore the log from a copy; to accept the loss, move the shard's anchor file away",
    )
