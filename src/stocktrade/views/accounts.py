"""The view of the accounts: who holds and owes how many shares and rupees.

Invariant: it is what the trades say, each counted once. It may begin with the balances of a snapshot that the journal
vouches for, and goes on with the trades after it.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, NamedTuple

from stocktrade.core.ledger import CASH
from stocktrade.domain.values import CLEARING_HOUSE
from stocktrade.shard.history import fits, snapshots_of
from stocktrade.transport import topics
from stocktrade.transport.base import Log, Record, TopicPartition
from stocktrade.views.follow import Taken, View, is_there, last_not_after
from stocktrade.views.messages import seq_of_trade, traded
from stocktrade.views.store import Place, print_of

_CAPTURES: Final = (1, 2)
"""The formats of a snapshot's rows in which a balance is `["balance", asset, owner, amount]`."""

_MANY: Final = 10_000
"""From so many accounts on, reading all of them is faster than each by itself."""


class Balance(NamedTuple):
    """What one participant holds (or owes, below zero) of one asset: shares of a symbol, or paise of CASH."""

    owner: str
    asset: str
    amount: int


class Accounts(View):
    """See the module."""

    name: ClassVar[str] = "accounts"
    topics: ClassVar[tuple[str, ...]] = (topics.TRADES,)

    def begin(self, log: Log) -> Mapping[TopicPartition, Place]:
        """Take the balances of each shard's newest snapshot, and find the trades after it."""
        places = {}
        if not is_there(log, topics.SNAPSHOTS):
            return {}
        for shard in range(log.partitions()):
            stored = snapshots_of(log, shard)
            for manifest in stored.manifests():
                rows = stored.rows(manifest) if fits(log, manifest) else None
                if rows is None or rows[0][:2] not in [["exchange", known] for known in _CAPTURES]:
                    continue
                last = last_not_after(log, (topics.TRADES, shard), manifest.seq, seq_of_trade)
                if last is not None:
                    moved: dict[tuple[str, str], int] = {}
                    for tag, *row in rows:
                        if tag == "balance":
                            asset, owner, amount = row
                            moved[owner, asset] = amount
                    self._add(moved)
                    place = Place(last.offset + 1, last.offset, print_of(last))
                    places[topics.TRADES, shard] = place
                    self.store.move(self.name, (topics.TRADES, shard), place)
                    self._note({shard: (manifest.seq, _LAST_NUMBER)})
                break
        return places

    def take(self, records: Sequence[Record]) -> Taken:
        """Fold trades in."""
        seen = {shard: (seq, number) for shard, seq, number in self.store.db.execute("SELECT * FROM last_trade")}
        moved: defaultdict[tuple[str, str], int] = defaultdict(int)
        until = self.moment.seq
        strange = 0
        for record in records:
            trade = traded(record)
            if trade is None:
                strange += 1
                continue
            if until is not None and trade.seq > until:
                continue
            # What is written again after a torn commit comes again with the same place in history.
            if (trade.seq, trade.number) <= seen.get(trade.shard, (0, 0)):
                continue
            seen[trade.shard] = trade.seq, trade.number
            moved[trade.buyer, trade.symbol] += trade.quantity
            moved[trade.seller, trade.symbol] -= trade.quantity
            moved[trade.buyer, CASH] -= trade.amount
            moved[trade.seller, CASH] += trade.amount
        self._add(moved)
        self._note(seen)
        return Taken(strange)

    def balances(self, owner: str | None = None) -> list[Balance]:
        """Every account, or those of one participant, by participant and asset; the clearing house has none."""
        found = [Balance(of, asset, int(amount)) for of, asset, amount in self._rows(owner)]
        return sorted(each for each in found if each.owner != CLEARING_HOUSE)

    def _rows(self, owner: str | None = None, asset: str | None = None) -> list[tuple[str, str, str]]:
        given = {name: text for name, text in (("owner", owner), ("asset", asset)) if text is not None}
        where = " AND ".join(["1", *(f"{name} = :{name}" for name in given)])
        return self.store.db.execute(f"SELECT * FROM balance WHERE {where}", given).fetchall()  # noqa: S608 - names of ours

    def _add(self, moved: Mapping[tuple[str, str], int]) -> None:
        """Post to accounts. As text, because a sum over all trades need not fit what SQLite calls an integer."""
        if len(moved) > _MANY:
            held = {(owner, asset): amount for owner, asset, amount in self._rows()}
        else:
            held = {(of, asset): amount for of, asset in moved for _, asset, amount in self._rows(of, asset)}
        rows = [(*account, str(amount + int(held.get(account, 0)))) for account, amount in moved.items()]
        self.store.db.executemany("INSERT OR REPLACE INTO balance VALUES (?, ?, ?)", rows)

    def _note(self, seen: Mapping[int, tuple[int, int]]) -> None:
        rows = [(shard, *last) for shard, last in seen.items()]
        self.store.db.executemany("INSERT OR REPLACE INTO last_trade VALUES (?, ?, ?)", rows)


_LAST_NUMBER: Final = 2**62
"""More than any number that a trade has within its sequence."""
