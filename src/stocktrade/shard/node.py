"""One process's share of the exchange: it joins the group and owns the shards that it is given.

Invariant: a shard is traded only between the claim that made this process its owner and the first sign that
somebody else is; what to own comes from the group, that there is one owner from the claim alone.
"""

import gc
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from types import MappingProxyType
from typing import Final, NamedTuple

from stocktrade.core.rules import RULES, Rules
from stocktrade.errors import Fenced, Hanging, StocktradeError, Unavailable, forget_frames
from stocktrade.shard.owner import Owner, Taken
from stocktrade.transport import topics
from stocktrade.transport.base import UNBOUNDED, Log, Record, TopicPartition

DEFAULT_GROUP: Final = "stocktrade-nse"

RETRY_S: Final = 0.5
"""How long after a failure a shard is claimed again."""

LOST_PATIENCE_S: Final = 30.0
"""How long a shard that was lost to another owner may stay without a new assignment. The group makes one within
its session timeout when members come and go; without one, somebody trades outside of the group."""

COMMITTING_POLL_S: Final = 0.010
"""How long a poll waits for inputs while a commit is under way: what has gathered behind it is to go on soon, but
a poll by kafka-python is several hops between threads, which take the processor from the commit."""

POLL_RECORDS: Final = 2000

CONFIRM_EVERY_S: Final = 1.0
"""How often an owner reads its journal: doing so with every step, or every commit, is most of a small one."""

HANGING_PATIENCE_S: Final = 60.0
"""How long an open transaction is waited for. The brokers end one of ours 15 s after it began and at their next
look, 10 s later at most: what stays longer hangs."""


class Step(NamedTuple):
    """What happened in one step.

    `taken` are the inputs committed, `started` the owners that began. `lost` are the shards that this process gave
    up and why; None: they are assigned to another. `waiting_for` says who owns the shards that are others'.
    `trouble` is why a shard that is assigned here cannot be traded now; it is tried again. `held_back` is the poll's.
    """

    taken: list[Taken]
    started: list[Owner]
    lost: dict[int, StocktradeError | None]
    waiting_for: dict[int, str]
    trouble: StocktradeError | None = None
    held_back: Mapping[TopicPartition, float] = MappingProxyType({})


class Node:
    """The shards of one process; drive it with `step` until it is to stop, then `close` it.

    A shard whose owner failed is given up alone, and claimed and recovered anew: when the log is back, or, after a
    newer owner was met, when the group assigns it again.

    Args:
        log: the log; its topics are made when they are missing.
        name: how this process calls itself in the journal.
        now_ms: the wall clock, for the owner entries.
        group: the group that shares out the shards.
        rules: the exchange's rules.
        outlasts_outages: wait for a log that went away; False raises instead.
    """

    def __init__(
        self,
        log: Log,
        *,
        name: str,
        now_ms: Callable[[], int],
        group: str = DEFAULT_GROUP,
        rules: Rules = RULES,
        outlasts_outages: bool = False,
    ) -> None:
        log.ensure_topics(topics.SPECS)
        self._log = log
        self._name = name
        self._now_ms = now_ms
        self._rules = rules
        self._outlasts_outages = outlasts_outages
        self._member = log.member(group, topics.INPUTS)
        self._trouble: StocktradeError | None = None
        self._retry_at = 0.0
        self._hanging_since: float | None = None
        self._fenced: dict[int, tuple[float, Fenced]] = {}
        self._confirm_at: dict[int, float] = {}
        self._backlog: dict[TopicPartition, int] = {}
        self._drained: set[int] = set()  # shards all of whose inputs were taken since `_backlog` was noted
        self.owners: dict[int, Owner] = {}

    def step(self, timeout_s: float) -> Step:
        """Poll once, match and commit what is ready; waits at most `timeout_s` seconds when there is nothing.

        Raises:
            Fenced: another owner trades a shard that the group assigns to this process.
            Unavailable: the log is away, and this node does not outlast it; or (`Hanging`) no shard can be traded.
            StocktradeError: a shard cannot be owned. Close the node.
        """
        try:
            committing = any(owner.is_committing for owner in self.owners.values())
            poll = self._member.poll(min(timeout_s, COMMITTING_POLL_S) if committing else timeout_s, POLL_RECORDS)
        except Unavailable as error:
            self._tolerate(error)
            time.sleep(min(timeout_s, RETRY_S))  # or a poll that fails at once would be asked again at once
            return Step([], [], {}, {}, error)
        lost: dict[int, StocktradeError | None] = {}
        taken: list[Taken] = []
        for shard in self.owners.keys() - poll.assigned:
            lost[shard] = None
            with suppress(Fenced, Unavailable):  # whoever comes next finds out what became of it
                taken += self.owners[shard].settle()
            self._give_up(shard)
        inputs: dict[int, list[Record]] = {shard: [] for shard in self.owners}
        for record in poll.records:
            if record.partition in inputs:
                inputs[record.partition].append(record)
        for shard, records in inputs.items():
            try:
                whole = self._trade(self.owners[shard], records, poll.horizons.get(shard, 0), taken)
                if whole and poll.horizons.get(shard) == UNBOUNDED and not self.owners[shard].is_waiting:
                    self._drained.add(shard)
            except (Fenced, Unavailable) as error:
                self._failed(shard, error)
                lost[shard] = error
        started = self._start(poll.assigned - self.owners.keys() - lost.keys())
        self._check_lost(poll.lost | lost.keys())
        return Step(taken, started, lost, poll.waiting_for, self._trouble, poll.held_back)

    def _give_up(self, shard: int) -> None:
        self._member.stop(shard)
        self.owners.pop(shard).abandon()

    def _failed(self, shard: int, error: Fenced | Unavailable) -> None:
        """An owner's memory may be ahead of the log: whatever failed, the shard is recovered from the log."""
        if isinstance(error, Unavailable):
            self._tolerate(error)
        if isinstance(error, Fenced):
            self._member.lose(shard)
            self._fenced[shard] = (time.monotonic(), error)
        if shard in self.owners:
            self._give_up(shard)
        forget_frames(error)  # which hold the owner, with books and client

    def _tolerate(self, error: Unavailable) -> None:
        if not self._outlasts_outages:
            raise error
        now = time.monotonic()
        if not isinstance(error, Hanging):
            self._hanging_since = None
        elif self._hanging_since is None:
            self._hanging_since = now
        elif now - self._hanging_since >= HANGING_PATIENCE_S:
            raise error
        self._trouble = error
        self._retry_at = now + RETRY_S

    def _start(self, shards: frozenset[int] | set[int]) -> list[Owner]:
        started: list[Owner] = []
        for shard in sorted(shards):
            if time.monotonic() < self._retry_at:
                return started  # one failure is enough: each would take its time
            try:
                started.append(self._own(shard))
            except (Fenced, Unavailable) as error:
                self._failed(shard, error)
        if time.monotonic() >= self._retry_at:
            self._trouble = self._hanging_since = None
        return started

    def _check_lost(self, lost: frozenset[int]) -> None:
        self._fenced = {shard: at for shard, at in self._fenced.items() if shard in lost}
        for since, error in self._fenced.values():
            if time.monotonic() - since >= LOST_PATIENCE_S:
                raise error

    def _own(self, shard: int) -> Owner:
        owner = Owner(self._log, shard, name=self._name, now_ms=self._now_ms, rules=self._rules)
        self.owners[shard] = owner
        self._member.start(shard, owner.positions)
        tune_garbage_collection()
        return owner

    def _trade(self, owner: Owner, records: list[Record], horizon: int, taken: list[Taken]) -> bool:
        """Take what a poll brought; False if it must come again, and then the poll's horizon says nothing."""
        if not owner.offer(records):
            self._member.start(owner.shard, owner.positions)
            return False
        before = len(taken)
        while batch := owner.commit_ready(horizon):
            taken += batch
        if len(taken) > before:
            self._member.note_progress(owner.shard, owner.committed)
        now = time.monotonic()
        if now >= self._confirm_at.get(owner.shard, now):
            self._confirm_at[owner.shard] = now + CONFIRM_EVERY_S
            owner.confirm()
        if owner.snapshot_due():
            taken += owner.begin_snapshot()
        owner.continue_snapshot()
        return True

    def backlog_ends(self) -> dict[TopicPartition, int]:
        """Where the inputs of every shard end now."""
        self._drained.clear()
        partitions = [(topic, shard) for topic in topics.INPUTS for shard in range(self._log.partitions())]
        with closing(self._log.reader(dict.fromkeys(partitions, 0))) as reader:
            self._backlog = reader.ends()
        return self._backlog

    def has_taken(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether every input before `ends` is journalled by this node's shards.

        What stands last may be the end of a transaction, which is no record: no input has the offset before it. Of the
        last `backlog_ends` it is known that everything before them was delivered.
        """
        drained = self._drained if ends == self._backlog else ()
        for (topic, shard), end in ends.items():
            owner = self.owners.get(shard)
            if owner is None or (owner.committed[topic] < end and shard not in drained):
                return False
        return True

    def close(self) -> Step:
        """Stop cleanly: each shard is left with a snapshot of where it stands. What was under way is told.

        Without that snapshot the next owner replays a little more. So a node that outlasts its log does not wait for
        one that is away, and tells which shard it had to leave as it was.

        Raises:
            Fenced, Unavailable: it is not known what became of a commit under way; or no snapshot could be written,
                and this node does not outlast its log.
        """
        taken: list[Taken] = []
        lost: dict[int, StocktradeError | None] = {}
        try:
            for owner in self.owners.values():
                taken += owner.settle()  # first: what is known is told, whatever becomes of the snapshots
            for shard, owner in self.owners.items() if self._trouble is None else ():
                try:
                    taken += owner.close()
                except (Fenced, Unavailable) as error:
                    if not self._outlasts_outages:
                        raise
                    lost[shard] = error
                    if isinstance(error, Unavailable):
                        break
            return Step(taken, [], lost, {}, self._trouble)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Stop at once, without snapshots: after an error, or when asked twice."""
        for owner in self.owners.values():
            owner.abandon()
        self.owners.clear()
        self._member.close()


def tune_garbage_collection() -> None:
    """Keep the collector from walking a book of a million orders over and over.

    The core makes no cycles: what it drops is freed at once. So what was recovered is set aside, and the rest is
    looked at a hundred times less often than by default, for the cycles that libraries make.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(70_000, 20, 20)
