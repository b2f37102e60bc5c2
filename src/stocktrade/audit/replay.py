"""The one rule that is asked of the exchange's own code: its journal gives its digests and its outputs again."""

from stocktrade.audit.findings import Report, Rule
from stocktrade.domain.messages import JournalRecord, SnapshotManifest
from stocktrade.errors import JournalBroken, StocktradeError
from stocktrade.shard import snapshot
from stocktrade.shard.history import Replica, rerun, rules_in
from stocktrade.transport.base import NewRecord, Record


class Replay:
    """A shard's journal, run again entry by entry; after the first digest that differs it says nothing more.

    Attributes:
        replica: the exchange; None when there is nothing to rely on.
        remembered_ids: for how many inputs the rules in force remember an id.
    """

    def __init__(self, report: Report, shard: int, first: JournalRecord, record: Record) -> None:
        self._report = report
        self._shard = shard
        self.replica: Replica | None = None
        self.why = ""
        if first.entry:
            self.why = f"the journal is kept from entry {first.entry} on"
            return
        try:
            self.replica = Replica(shard, rules_in(first, record.position))
        except StocktradeError as error:
            self.why = f"{error.what}: {error.cause}"

    @property
    def remembered_ids(self) -> int:
        """How many ids the rules in force remember."""
        return self.replica.exchange.rules.remembered_ids if self.replica is not None else 250_000

    def reference_price(self, symbol: str) -> int | None:
        """A symbol's reference price under the rules in force, in paise."""
        instrument = None if self.replica is None else self.replica.exchange.rules.instrument(symbol)
        return None if instrument is None else instrument.reference_price

    def outputs_of(self, entry: JournalRecord, record: Record) -> list[list[NewRecord] | None]:
        """For each order of an entry that continues the chain what the journal says it caused; None if unknown."""
        orders = sum(line.kind == "order" for line in entry.inputs)
        replica = self.replica
        if replica is None:
            self._report.unchecked(Rule.REPLAY, self.why)
            return [None] * orders
        self._report.checked(Rule.REPLAY)
        try:
            if entry.rules != replica.exchange.rules.name:
                raise JournalBroken(f"is under rules {entry.rules!r}", cause="the journal began under others")
            applied = list(rerun(replica.exchange, self._shard, entry))
            replica.seal(entry, record, [output for each in applied for output in each.outputs])
        except StocktradeError as error:
            self._report.broken(Rule.REPLAY, record.position, f"{error.what}: {error.cause}")
            self.replica, self.why = None, f"the replay ended at {record.position}"
            return [None] * orders
        return [each.outputs for each in applied]

    def check_state(self, place: str) -> None:
        """Prove the invariants of the exchange that the journal made."""
        if self.replica is None:
            return
        try:
            self.replica.exchange.check()
        except AssertionError as error:
            self._report.broken(Rule.REPLAY, place, str(error))

    def check_snapshot(self, manifest: SnapshotManifest) -> None:
        """Compare a snapshot with the state after the entry that was taken last, which is the snapshot's."""
        replica = self.replica
        if replica is None:
            self._report.unchecked(Rule.SNAPSHOTS, self.why)
            return
        sums: list[str] = []

        def sealed(parts: int, checksum: str) -> SnapshotManifest:
            sums.append(checksum)
            return manifest.model_copy(update={"parts": parts})

        rows = replica.exchange.capture().rows()
        for _ in snapshot.encode_parts(rows, entry=manifest.entry, shard=manifest.shard, manifest=sealed):
            pass
        if sums != [manifest.checksum]:
            where = f"exchange-snapshots@{manifest.shard}"
            self._report.broken(Rule.SNAPSHOTS, where, f"of entry {manifest.entry} is not the state of the journal")
