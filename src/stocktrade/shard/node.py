"""One process's share of the exchange: it joins the group and owns the shards that it is given.

Invariant: a shard is traded only between the claim that made this process its owner and the first sign that
somebody else is; what to own comes from the group, that there is one owner from the claim alone.
"""

import gc
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Final, NamedTuple

from stocktrade.core.rules import RULES, Rules
from stocktrade.shard.owner import Owner, Taken
from stocktrade.transport import topics
from stocktrade.transport.base import Log, Record, TopicPartition

DEFAULT_GROUP: Final = "stocktrade-nse"


class Step(NamedTuple):
    """What happened in one step: the inputs committed, the owners that began, and who owns the other shards."""

    taken: list[Taken]
    started: list[Owner]
    lost: list[int]
    waiting_for: dict[int, str]


class Node:
    """The shards of one process; drive it with `step` until it is to stop, then `close` it.

    Args:
        log: the log; its topics are made when they are missing.
        name: how this process calls itself in the journal.
        now_ms: the wall clock, for the owner entries.
        group: the group that shares out the shards.
        rules: the exchange's rules.
    """

    def __init__(
        self,
        log: Log,
        *,
        name: str,
        now_ms: Callable[[], int],
        group: str = DEFAULT_GROUP,
        rules: Rules = RULES,
    ) -> None:
        log.ensure_topics(topics.SPECS)
        self._log = log
        self._name = name
        self._now_ms = now_ms
        self._rules = rules
        self._member = log.member(group, topics.INPUTS)
        self._busy = False  # a snapshot is being written: do not wait for inputs in between
        self.owners: dict[int, Owner] = {}

    def step(self, timeout_s: float) -> Step:
        """Poll once, match and commit what is ready; waits at most `timeout_s` seconds when there is nothing.

        Raises:
            StocktradeError: a shard cannot be owned or its commit failed; close the node.
        """
        poll = self._member.poll(0.0 if self._busy else timeout_s)
        lost = [shard for shard in self.owners if shard not in poll.assigned]
        for shard in lost:
            self._member.stop(shard)
            self.owners.pop(shard).abandon()
        inputs: dict[int, list[Record]] = {shard: [] for shard in self.owners}
        for record in poll.records:
            if record.partition in inputs:
                inputs[record.partition].append(record)
        taken: list[Taken] = []
        self._busy = False
        for shard, records in inputs.items():
            taken += self._trade(self.owners[shard], records, poll.horizons.get(shard, 0))
        started = [self._own(shard) for shard in sorted(poll.assigned - self.owners.keys())]
        return Step(taken, started, lost, poll.waiting_for)

    def _own(self, shard: int) -> Owner:
        owner = Owner(self._log, shard, name=self._name, now_ms=self._now_ms, rules=self._rules)
        self.owners[shard] = owner
        self._member.start(shard, owner.positions)
        tune_garbage_collection()
        return owner

    def _trade(self, owner: Owner, records: list[Record], horizon: int) -> list[Taken]:
        if not owner.offer(records):
            self._member.start(owner.shard, owner.positions)
        taken: list[Taken] = []
        while batch := owner.commit_ready(horizon):
            taken += batch
        if taken:
            self._member.note_progress(owner.shard, owner.committed)
        owner.confirm()
        if owner.snapshot_due():
            owner.begin_snapshot()
        self._busy |= owner.continue_snapshot()
        return taken

    def backlog_ends(self) -> dict[TopicPartition, int]:
        """Where the inputs of every shard end now."""
        partitions = [(topic, shard) for topic in topics.INPUTS for shard in range(self._log.partitions())]
        with closing(self._log.reader(dict.fromkeys(partitions, 0))) as reader:
            return reader.ends()

    def has_taken(self, ends: Mapping[TopicPartition, int]) -> bool:
        """Whether every input before `ends` is journalled by this node's shards."""
        for (topic, shard), end in ends.items():
            owner = self.owners.get(shard)
            if owner is None or owner.committed[topic] < end:
                return False
        return True

    def close(self) -> None:
        """Stop cleanly: each shard is left with a snapshot of where it stands."""
        try:
            for owner in self.owners.values():
                owner.close()
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
