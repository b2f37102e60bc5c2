"""The shard protocol on the embedded log: claim, recover, take, commit, and what makes an owner refuse."""

import gc
import json
import shutil
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from later import Begun
from stocktrade.core.instruments import parse_instruments
from stocktrade.core.rules import RULES, Rules
from stocktrade.domain.facts import Match
from stocktrade.errors import Fenced, JournalBroken, LogDamaged, StocktradeError, Unavailable, Unknown, UsageError
from stocktrade.shard import history, snapshot
from stocktrade.shard import owner as protocol
from stocktrade.shard.journal import Head, InputLine, encode_batch
from stocktrade.shard.node import Node
from stocktrade.shard.owner import Owner
from stocktrade.transport import connect, topics
from stocktrade.transport.base import UNBOUNDED, Log, NewRecord, Position, Record
from stocktrade.transport.partitioner import partition_for


def buy(number: int, price: float = 885, symbol: str = "SBI") -> NewRecord:
    text = {
        "order_id": f"b{number}",
        "buyer": "HDFC",
        "stock_symbol": symbol,
        "quantity": 10,
        "price_per_unit": price,
    }
    return NewRecord(topics.BUY_ORDERS, b"SBIN", json.dumps(text).encode())


def sell(number: int, price: float | None = None, symbol: str = "SBI") -> NewRecord:
    text = {"offer_id": f"s{number}", "seller": "SELLER", "stock_symbol": symbol, "quantity": 10}
    if price is not None:
        text["price_per_unit"] = price
    return NewRecord(topics.SELL_OFFERS, b"SBIN", json.dumps(text).encode())


def own(log: Log, rules: Rules | None = None) -> Owner:
    return Owner(log, 0, name="test", now_ms=lambda: 0, rules=rules or RULES)


def feed(log: Log, owner: Owner) -> list[protocol.Taken]:
    """Let an owner take all inputs that are on the log."""
    reader = log.reader({(topic, 0): offset for topic, offset in owner.positions.items()})
    taken = []
    while records := reader.poll():
        assert owner.offer(records)
        while batch := owner.commit_ready(UNBOUNDED):
            taken += batch
    reader.close()
    return taken


def records_of(log: Log, topic: str, partition: int = 0) -> list[Record]:
    reader = log.reader({(topic, partition): 0})
    found = []
    while records := reader.poll():
        found += records
    reader.close()
    return found


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with connect(f"sqlite:{tmp_path / 'log'}") as opened:
        opened.ensure_topics(topics.SPECS)
        yield opened


def test_recovery_gives_the_state_that_was_left(log: Log) -> None:
    """An owner that died without a word leaves a journal from which the next one has the same book and ledger."""
    owner = own(log)
    log.append([buy(1), sell(1), buy(2), buy(3, 884), sell(2, 900), sell(3)])
    feed(log, owner)
    left = list(owner.exchange.capture().rows())
    owner.abandon()
    again = own(log)
    assert list(again.exchange.capture().rows()) == left
    assert (again.recovered.inputs_replayed, again.epoch) == (6, 2)
    again.abandon()


def test_recovery_from_a_snapshot_replays_only_what_came_after(log: Log) -> None:
    """A clean stop leaves a snapshot; the next owner replays what was journalled after it and nothing before."""
    owner = own(log)
    log.append([buy(1), buy(2), sell(1)])
    feed(log, owner)
    owner.close()
    second = own(log)
    log.append([sell(2), buy(3)])
    feed(log, second)
    left = list(second.exchange.capture().rows())
    second.abandon()
    third = own(log)
    assert list(third.exchange.capture().rows()) == left
    assert (third.recovered.from_snapshot, third.recovered.inputs_replayed) == (True, 2)
    third.abandon()


def test_a_damaged_snapshot_is_not_used(log: Log) -> None:
    """A snapshot whose checksum is wrong is passed over: the whole journal gives the same state."""
    owner = own(log)
    log.append([buy(1), sell(1), buy(2)])
    feed(log, owner)
    left = list(owner.exchange.capture().rows())
    owner.close()
    part = next(r for r in records_of(log, topics.SNAPSHOTS) if r.value and not (r.key or b"").endswith(b"manifest"))
    log.append([NewRecord(topics.SNAPSHOTS, part.key, (part.value or b"").replace(b"HDFC", b"HDFD"), 0)])
    again = own(log)
    assert (list(again.exchange.capture().rows()), again.recovered.from_snapshot) == (left, False)
    again.abandon()


def test_snapshots_older_than_the_last_two_are_removed(log: Log) -> None:
    """However often an exchange stops, only its newest two snapshots stay on the log."""
    for number in range(5):
        owner = own(log)
        log.append([buy(number)])
        feed(log, owner)
        owner.close()
    manifests = {r.key for r in records_of(log, topics.SNAPSHOTS) if r.value and (r.key or b"").endswith(b"manifest")}
    assert len(manifests) == protocol.SNAPSHOTS_KEPT


def tear(owner: Owner, kept: int) -> None:
    """Let the owner's commits write their first records only."""
    commit = owner._writer.commit

    def torn(records: Sequence[NewRecord], *, anchor: bytes | None = None) -> list[Position]:
        return commit(records[:kept], anchor=anchor)

    owner._writer.commit = torn  # type: ignore[method-assign]


@pytest.mark.parametrize("kept", [1, 2, 6, 7, 8])
def test_what_a_torn_commit_left_out_is_written_again(tmp_path: Path, kept: int) -> None:
    """The journal's entry is there and only some of its outputs: the next owner writes the others, once, as they were.

    Among them are a dead letter and an order of another shard, which would be lost otherwise.
    """
    mine, others = symbols_by_shard(2)[0], symbols_by_shard(2)[1]
    inputs = [
        *([buy(n, symbol=mine), sell(n, symbol=mine)] for n in range(100)),
        [buy(100, symbol=mine)],
        [buy(101, symbol=others), NewRecord(topics.SELL_OFFERS, None, b"no offer"), sell(102, symbol=mine)],
    ]
    said = []
    for name in ("whole", "torn"):
        with connect(f"sqlite:{tmp_path / name}", partitions=2) as log:
            log.ensure_topics(topics.SPECS)
            owner = own(log)
            for batch in inputs[:-1]:
                log.append([record._replace(partition=0) for record in batch])
                feed(log, owner)
            if name == "torn":
                tear(owner, kept)
            log.append([record._replace(partition=0) for record in inputs[-1]])
            feed(log, owner)
            owner.abandon()
            again = own(log)
            again.abandon()
            third = own(log)
            third.abandon()
            assert (again.recovered.rewritten > 0, third.recovered.rewritten) == (name == "torn", 0)
            said.append(
                {
                    (topic, shard): [(r.key, r.value, r.headers) for r in records_of(log, topic, shard)]
                    for topic in (*topics.OUTPUTS, topics.DEAD_LETTERS, *topics.INPUTS)
                    for shard in range(2)
                }
            )
    assert said[0] == said[1]


def test_a_foreign_journal_record_is_ignored(log: Log) -> None:
    """A valid entry that does not continue the chain changes nothing for the next owner, who counts it."""
    owner = own(log)
    log.append([buy(1), sell(1)])
    feed(log, owner)
    left = list(owner.exchange.capture().rows())
    owner.abandon()
    forged, _ = encode_batch(
        shard=0,
        head=Head(1, "f" * 64),
        epoch=1,
        rules="2026.1",
        first_seq=3,
        next_offsets={},
        inputs=[],
        outputs=[],
    )
    log.append([NewRecord(topics.JOURNAL, b"0", forged, 0)])
    again = own(log)
    assert (list(again.exchange.capture().rows()), again.recovered.ignored_entries) == (left, 1)
    again.abandon()


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"garbage", "cannot be read at exchange-journal@0:1"),
        (b'{"v":2,"entry":1}', "cannot be read at exchange-journal@0:1"),
        (b"", "cannot be read at exchange-journal@0:1"),
    ],
)
def test_an_undecodable_journal_record_stops_the_shard(log: Log, value: bytes, says: str) -> None:
    """Nobody trades on a journal that he cannot read; the position is named."""
    own(log).abandon()
    log.append([NewRecord(topics.JOURNAL, b"0", value, 0)])
    with pytest.raises(JournalBroken, match=says):
        own(log)


def test_a_gap_in_the_journal_stops_the_shard(log: Log) -> None:
    """An entry that skips a number shows that one was lost; the shard does not trade on."""
    own(log).abandon()
    ahead, _ = encode_batch(
        shard=0,
        head=Head(4, "a" * 64),
        epoch=1,
        rules="2026.1",
        first_seq=1,
        next_offsets={},
        inputs=[],
        outputs=[],
    )
    log.append([NewRecord(topics.JOURNAL, b"0", ahead, 0)])
    with pytest.raises(JournalBroken, match="gap before exchange-journal@0:1"):
        own(log)


def test_a_journal_that_replays_otherwise_stops_the_shard(log: Log) -> None:
    """An entry with the right chain whose outputs its replay does not give is not traded on."""
    owner = own(log)
    head = Head(owner.entry, owner.digest)
    owner.abandon()
    line = InputLine(topics.BUY_ORDERS, 0, 0, "order", (buy(1).value or b"").decode())
    other, _ = encode_batch(
        shard=0, head=head, epoch=1, rules="2026.1", first_seq=1, next_offsets={}, inputs=[line], outputs=[]
    )
    log.append([NewRecord(topics.JOURNAL, b"0", other, 0)])
    with pytest.raises(JournalBroken, match="does not replay to its digest at exchange-journal@0:1"):
        own(log)


def test_other_rules_are_refused(log: Log) -> None:
    """A journal is continued under the rules it was written under, or not at all."""
    own(log).abandon()
    with pytest.raises(UsageError, match=r"written under rules '2026\.1'"):
        own(log, Rules(name="other"))


def test_the_journal_holds_the_instruments_file_that_it_was_written_under(log: Log) -> None:
    """The rules of a journal are read from its first entry alone, and are the ones of the file."""
    rules = parse_instruments(b'version = "v1"\n[symbols.SBIN]  # "tick" \\ of one\ntick = 1\n', source="test")
    own(log, rules).close()
    own(log, rules).close()
    assert history.rules_of(log, 0) == rules
    assert [json.loads(r.value or b"").get("instruments") for r in records_of(log, topics.JOURNAL)] == [
        rules.file,
        None,
    ]
    with pytest.raises(UsageError, match=r"written under rules '2026\.1\+v1@"):
        own(log, RULES)


def test_a_log_that_lost_its_end_is_refused(tmp_path: Path) -> None:
    """A log rolled back to an older copy lacks what was committed: the anchor beside it tells, and nothing starts."""
    folder = tmp_path / "log"
    with connect(f"sqlite:{folder}") as log:
        log.ensure_topics(topics.SPECS)
        owner = own(log)
        owner.close()
    shutil.copy(folder / "log.db", tmp_path / "older.db")
    with connect(f"sqlite:{folder}") as log:
        owner = own(log)
        log.append([buy(1)])
        feed(log, owner)
        owner.abandon()
    for leftover in folder.glob("log.db-*"):
        leftover.unlink()
    shutil.copy(tmp_path / "older.db", folder / "log.db")
    with connect(f"sqlite:{folder}") as log, pytest.raises(LogDamaged, match="lost its end"):
        own(log)


def test_inputs_are_taken_in_the_order_in_which_the_log_took_them(log: Log) -> None:
    """An exchange started late does not take all buys first: alternating bids and offers give alternating prices."""
    log.append([buy(1, 885), sell(1, 880), sell(2, 870), buy(2, 890)])
    owner = own(log)
    facts = [fact for taken in feed(log, owner) for fact in taken.facts]
    assert [(fact.price, fact.maker) for fact in facts if isinstance(fact, Match)] == [
        (88_500, "BUY"),
        (87_000, "SELL"),
    ]
    owner.abandon()


def test_an_input_waits_for_an_earlier_one_of_the_other_topic(log: Log) -> None:
    """What arrived after the horizon is not taken, until the wait is over; then it is."""
    owner = own(log)
    log.append([buy(1)])
    reader = log.reader({(topics.BUY_ORDERS, 0): 0})
    (record,) = reader.poll()
    reader.close()
    assert owner.offer([record])
    assert owner.commit_ready(record.arrival) == []
    owner._waiting_since = -1e9
    assert [taken.record for taken in owner.commit_ready(record.arrival)] == [record]
    owner.abandon()


def test_all_that_has_waited_for_an_earlier_one_is_taken_together(log: Log) -> None:
    """Without a horizon, as when the other topic is away, each waits as long as the first of them, not in turn."""
    owner = own(log)
    log.append([buy(1), buy(2), buy(3)])
    with closing(log.reader({(topics.BUY_ORDERS, 0): 0})) as reader:
        first, second, third = reader.poll()
    assert owner.offer([first, second])
    assert owner.commit_ready(first.arrival) == []
    assert owner.offer([third])
    owner._waiting_since = -1e9
    assert ids(owner.commit_ready(first.arrival)) == ["b1", "b2"]
    assert owner.commit_ready(first.arrival) == []
    owner._waiting_since = -1e9
    assert ids(owner.commit_ready(first.arrival)) == ["b3"]
    owner.abandon()


def test_a_log_that_brings_no_more_is_not_waited_for_without_end(log: Log) -> None:
    log.append([buy(1), buy(2)])
    with closing(log.reader({(topics.BUY_ORDERS, 0): 0})) as reader:
        records = history.to_the_end(reader, ends={(topics.BUY_ORDERS, 0): 3}, patience_s=0.0)
        assert [next(records).offset, next(records).offset] == [0, 1]
        with pytest.raises(Unavailable, match="cannot be read to its end"):
            next(records)


def test_headers_that_hold_nothing_are_too_large_all_the_same(log: Log) -> None:
    """Whatever travels on with a record counts, or it could be too large for where it goes."""
    owner = own(log)
    log.append([buy(1)._replace(headers=(("", b""),) * 300)])
    (taken,) = feed(log, owner)
    assert taken.dead is not None
    assert taken.dead.reason == "TOO_LARGE"
    owner.abandon()


def test_an_offset_that_was_done_is_skipped_and_a_gap_is_believed_the_second_time(log: Log) -> None:
    """Whatever a client redelivers has no effect; an unexpected gap asks for one seek and is then taken as it is."""
    owner = own(log)
    log.append([buy(number) for number in range(4)])
    reader = log.reader({(topics.BUY_ORDERS, 0): 0})
    first, second, _, fourth = reader.poll()
    reader.close()
    assert owner.offer([first, second, first])
    assert not owner.offer([fourth])
    assert owner.positions[topics.BUY_ORDERS] == 2
    assert owner.offer([fourth])
    assert [taken.record.offset for taken in owner.commit_ready(UNBOUNDED)] == [0, 1, 3]
    assert owner.offer([first, fourth])
    assert owner.commit_ready(UNBOUNDED) == []
    owner.abandon()


def test_an_owner_notices_that_somebody_else_continues_the_chain(log: Log) -> None:
    """Reading its own journal back, an idle owner finds the entry of another one and stops."""
    owner = own(log)
    owner.confirm()
    head = Head(owner.entry, owner.digest)
    others, _ = encode_batch(
        shard=0, head=head, epoch=2, rules="2026.1", first_seq=1, next_offsets={}, inputs=[], outputs=[]
    )
    log.append([NewRecord(topics.JOURNAL, b"0", others, 0)])
    with pytest.raises(Fenced, match="another owner"):
        owner.confirm()
    owner.abandon()


def begun_later(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> Begun:
    """From now on the owner's commits are done when the test says so, or when they are waited for."""
    begun = Begun(owner._writer.commit)
    monkeypatch.setattr(owner._writer, "begin_commit", begun.begin)
    return begun


def offered(log: Log, owner: Owner, *records: NewRecord) -> None:
    log.append(records)
    with closing(log.reader({(topic, 0): offset for topic, offset in owner.positions.items()})) as reader:
        assert owner.offer(reader.poll())


def ids(taken: list[protocol.Taken]) -> list[str]:
    return [json.loads(each.record.value or b"")["order_id"] for each in taken]


def test_inputs_gather_while_a_commit_is_under_way(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single order is committed at once; what comes before that is through goes into the next batch, together."""
    owner = own(log)
    begun = begun_later(owner, monkeypatch)
    offered(log, owner, buy(1))
    assert (ids(owner.commit_ready(UNBOUNDED)), len(begun)) == ([], 1)
    for number in (2, 3):
        offered(log, owner, buy(number))
        assert (ids(owner.commit_ready(UNBOUNDED)), len(begun)) == ([], 1)
    assert (owner.is_waiting, owner.is_committing, owner.committed[topics.BUY_ORDERS]) == (True, True, 0)
    begun.go_on()
    assert (ids(owner.commit_ready(UNBOUNDED)), len(begun)) == (["b1"], 1)
    assert owner.committed[topics.BUY_ORDERS] == 1
    assert (ids(owner.settle()), owner.is_waiting, owner.is_committing) == (["b2", "b3"], False, False)
    owner.confirm()
    left = list(owner.exchange.capture().rows())
    owner.abandon()
    again = own(log)
    assert list(again.exchange.capture().rows()) == left
    again.abandon()


def test_a_full_batch_is_begun_behind_a_commit_and_a_third_waits(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under load the next batch is ready when the one before is through; with too much behind it the owner waits."""
    monkeypatch.setattr(protocol, "MAX_BATCH_INPUTS", 2)
    monkeypatch.setattr(protocol, "MAX_WAITING", 3)
    owner = own(log)
    begun = begun_later(owner, monkeypatch)
    offered(log, owner, *(buy(number) for number in range(7)))
    assert (ids(owner.commit_ready(UNBOUNDED)), len(begun)) == ([], 1)
    assert (ids(owner.commit_ready(UNBOUNDED)), len(begun)) == ([], 2)
    # Three are still waiting: it goes on when the first commit is through, which is waited for.
    assert (ids(owner.commit_ready(UNBOUNDED)), len(begun)) == (["b0", "b1"], 2)
    assert (ids(owner.commit_ready(UNBOUNDED)), len(begun)) == ([], 2)
    assert ids(owner.close()) == ["b2", "b3", "b4", "b5"]


def failing(error: StocktradeError) -> Callable[..., None]:
    """Something that cannot be done."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_what_a_batch_causes_is_bounded(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """One commit holds it all and has seconds: orders that trade with many others make smaller batches."""
    monkeypatch.setattr(protocol, "MAX_BATCH_OUTPUTS", 7)
    owner = own(log)
    offered(log, owner, buy(1), sell(1), buy(2), sell(2), buy(3))  # one answer for a bid, six records for an offer
    assert [len(owner.commit_ready(UNBOUNDED)) for _ in range(4)] == [2, 2, 1, 0]
    owner.abandon()


@pytest.mark.parametrize("within_a_snapshot", [False, True])
def test_a_shard_that_was_given_up_leaves_nothing_in_memory(
    log: Log, monkeypatch: pytest.MonkeyPatch, within_a_snapshot: bool
) -> None:
    """An exchange may lose its log for days, again and again: each time it drops a whole book."""
    monkeypatch.setattr("stocktrade.shard.node.RETRY_S", 0.05)
    node = Node(log, name="test", now_ms=lambda: 0, outlasts_outages=True)
    given_up = []
    for number in range(3):
        while not node.owners:
            node.step(0.0)
        log.append([buy(number)])
        while not node.step(0.0).taken:
            pass
        if within_a_snapshot:
            node.owners[0].begin_snapshot()
        node.owners[0]._writer.commit = failing(Unavailable("the log is away"))  # type: ignore[assignment, method-assign]
        given_up.append(weakref.ref(node.owners[0]))
        log.append([sell(number)])
        while not node.step(0.0).lost:
            pass
    while not node.owners:
        node.step(0.0)
    gc.collect()
    assert [owner() for owner in given_up] == [None, None, None]
    node.abandon()


def test_a_commit_that_failed_ends_the_owner_when_it_is_seen_to(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is ahead of the log then: nothing is told as committed, and a new owner finds what the journal says."""
    owner = own(log)
    begun = begun_later(owner, monkeypatch)
    offered(log, owner, buy(1))
    assert owner.commit_ready(UNBOUNDED) == []
    owner._writer.close()
    begun.go_on()
    with pytest.raises(Unavailable, match="closed"):
        owner.commit_ready(UNBOUNDED)
    owner.abandon()
    again = own(log)
    assert (again.exchange.seq, again.committed[topics.BUY_ORDERS]) == (0, 0)
    again.abandon()


def test_a_snapshot_is_of_what_is_committed(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture is taken when no commit is under way; what was waited for is told; its parts are written later."""
    owner = own(log)
    begun = begun_later(owner, monkeypatch)
    offered(log, owner, buy(1), buy(2))
    assert owner.commit_ready(UNBOUNDED) == []
    assert ids(owner.begin_snapshot()) == ["b1", "b2"]
    assert (owner.continue_snapshot(), owner.is_committing, len(begun)) == (True, True, 1)
    assert (owner.continue_snapshot(), len(begun)) == (True, 1)
    left = list(owner.exchange.capture().rows())
    assert owner.close() == []
    again = own(log)
    assert list(again.exchange.capture().rows()) == left
    assert (again.recovered.from_snapshot, again.recovered.inputs_replayed) == (True, 0)
    again.abandon()


def symbols_by_shard(partitions: int) -> dict[int, str]:
    found: dict[int, str] = {}
    for number in range(100):
        symbol = f"SYM{number}"
        found.setdefault(partition_for(symbol.encode(), partitions), symbol)
    return found


def test_a_misrouted_order_is_matched_once_by_its_own_shard(tmp_path: Path) -> None:
    """Orders put on a wrong partition, or sent without a key, end up in the one book of their symbol."""
    with connect(f"sqlite:{tmp_path / 'log'}", partitions=4) as log:
        node = Node(log, name="test", now_ms=lambda: 0)
        symbol = symbols_by_shard(4)[2]
        for number, partition in enumerate((0, 1, 2, 3)):
            log.append([buy(number, symbol=symbol)._replace(partition=partition)])
            log.append([sell(number, symbol=symbol)._replace(partition=3 - partition)])
        while not node.has_taken(node.backlog_ends()):
            node.step(0.05)
        trades = [
            [json.loads(r.value or b"")["stock_symbol"] for r in records_of(log, topics.TRADES, p)] for p in range(4)
        ]
        events = [len(records_of(log, topics.ORDER_EVENTS, p)) for p in range(4)]
        node.close()
    assert trades == [[], [], [symbol] * 4, []]
    assert events == [0, 0, 8, 0]


def two_shards_with_a_trade_each(log: Log, *, outlasts_outages: bool) -> Node:
    """A node whose shards both have a snapshot to write."""
    node = Node(log, name="test", now_ms=lambda: 0, outlasts_outages=outlasts_outages)
    for symbol in symbols_by_shard(2).values():
        log.append([buy(1, symbol=symbol), sell(1, symbol=symbol)])
    while not node.has_taken(node.backlog_ends()):
        node.step(0.05)
    return node


def with_snapshots(log: Log) -> list[int]:
    return [shard for shard in range(2) if records_of(log, topics.SNAPSHOTS, shard)]


@pytest.mark.parametrize(
    ("error", "left"),
    [(Unavailable("the log is away"), []), (Fenced("another one has it"), [1]), (None, [0, 1])],
    ids=["away", "fenced", "there"],
)
def test_a_node_that_outlasts_its_log_ends_without_the_snapshots_that_it_cannot_write(
    tmp_path: Path, error: StocktradeError | None, left: list[int]
) -> None:
    """It says which shard that was; where the log is away, the next one would be waited for in vain."""
    with connect(f"sqlite:{tmp_path / 'log'}", partitions=2) as log:
        node = two_shards_with_a_trade_each(log, outlasts_outages=True)
        if error is not None:
            node.owners[0]._writer.commit = failing(error)  # type: ignore[assignment, method-assign]
        assert node.close().lost == ({} if error is None else {0: error})
        assert with_snapshots(log) == left


def test_a_node_that_has_lost_its_log_ends_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No snapshot is tried while the log is known to be away; and it is still told so."""
    away = Unavailable("the log is away")
    with connect(f"sqlite:{tmp_path / 'log'}", partitions=2) as log:
        node = two_shards_with_a_trade_each(log, outlasts_outages=True)
        monkeypatch.setattr(node._member, "poll", failing(away))
        node.step(0.0)
        end = node.close()
        assert (end.lost, end.trouble, with_snapshots(log)) == ({}, away, [])


@pytest.mark.parametrize("outlasts_outages", [False, True])
def test_a_commit_whose_fate_is_not_known_is_told_at_the_end(tmp_path: Path, outlasts_outages: bool) -> None:
    """Also by a node that outlasts its log: what it took may be committed or not."""
    with connect(f"sqlite:{tmp_path / 'log'}", partitions=2) as log:
        node = two_shards_with_a_trade_each(log, outlasts_outages=outlasts_outages)
        node.owners[0]._writer.commit = failing(Unknown("nobody knows"))  # type: ignore[assignment, method-assign]
        node.owners[0]._begin(b"", node.owners[0]._head, {}, [], [])
        with pytest.raises(Unknown, match="nobody knows"):
            node.close()


def test_a_node_that_does_not_outlast_its_log_says_that_it_could_write_no_snapshot(tmp_path: Path) -> None:
    """On a full disk, for one."""
    with connect(f"sqlite:{tmp_path / 'log'}", partitions=2) as log:
        node = two_shards_with_a_trade_each(log, outlasts_outages=False)
        node.owners[0]._writer.commit = failing(Unavailable("full"))  # type: ignore[assignment, method-assign]
        with pytest.raises(Unavailable, match="full"):
            node.close()


def test_a_large_snapshot_is_written_in_parts_while_trading_goes_on(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inputs committed between two parts are not in the snapshot, and are replayed after it."""
    monkeypatch.setattr(snapshot, "PART_BYTES", 2_000)
    owner = own(log)
    log.append([buy(number) for number in range(200)])
    feed(log, owner)
    owner.begin_snapshot()
    assert owner.continue_snapshot()
    log.append([sell(1)])
    feed(log, owner)
    while owner.continue_snapshot():
        pass
    left = list(owner.exchange.capture().rows())
    owner.abandon()
    again = own(log)
    assert list(again.exchange.capture().rows()) == left
    assert (again.recovered.from_snapshot, again.recovered.inputs_replayed) == (True, 1)
    again.abandon()


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    """Two exchanges that took the same inputs in other batches said the same, byte for byte, but for times."""
    said = []
    drained: Callable[[Log], list[bytes | None]] = lambda log: [  # noqa: E731
        record.value for topic in topics.OUTPUTS for record in records_of(log, topic)
    ]
    for name, step in (("one", 1), ("all", 50)):
        with connect(f"sqlite:{tmp_path / name}") as log:
            log.ensure_topics(topics.SPECS)
            owner = own(log)
            orders = [made(number) for number in range(25) for made in (buy, sell)]
            for first in range(0, 50, step):
                log.append(orders[first : first + step])
                feed(log, owner)
            owner.abandon()
            said.append(drained(log))
    assert said[0] == said[1]
