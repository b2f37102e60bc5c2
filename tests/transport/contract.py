"""The one contract of every log: an adapter passes it, or the exchange does not run on it.

An adapter's test class derives from `LogContract` and says how a log is opened and how an owner is made to look
dead. The tests use nothing but the port. Those about what must never happen are named after the anomalies of
Jepsen's Kafka workload: lost write, duplicate, aborted read, inconsistent offsets, non-monotonic poll, skipped
record, torn commit, zombie write.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import pytest

from stocktrade.errors import Fenced, StocktradeError, UsageError
from stocktrade.transport.base import (
    UNBOUNDED,
    Log,
    Member,
    NewRecord,
    Poll,
    Reader,
    Record,
    TopicPartition,
    TopicSpec,
    Writer,
)
from stocktrade.transport.partitioner import partition_for

OpenLog = Callable[[], Log]
"""Opens another instance of the same log: as another process would, for nothing is shared between instances."""

PARTITIONS = (1, 4)

# A client in a process of its own: appends numbered values in small batches and prints what was acknowledged.
PRODUCER = """
import sys
from stocktrade.transport import connect
from stocktrade.transport.base import NewRecord

url, topic, name, count = sys.argv[1:]
with connect(url) as log:
    print("ready", flush=True)
    sys.stdin.readline()
    for i in range(0, int(count), 4):
        batch = [NewRecord(topic, f"key-{n % 7}".encode(), f"{name}-{n}".encode()) for n in range(i, i + 4)]
        for record, place in zip(batch, log.append(batch)):
            print(place.partition, place.offset, record.value.decode())
"""

# A client that appends one record a little after it was told to: when whoever told it waits for the record.
LATER = """
import sys, time
from stocktrade.transport import connect
from stocktrade.transport.base import NewRecord

url, topic = sys.argv[1:]
with connect(url) as log:
    print("ready", flush=True)
    for line in sys.stdin:
        time.sleep(float(line))
        log.append([NewRecord(topic, None, str(time.time_ns()).encode())])
"""


class Acknowledged(NamedTuple):
    """What a client was told of its record."""

    partition: int
    offset: int
    value: bytes


class History(NamedTuple):
    """What clients saw of one topic: `polls` of a reader that followed live and of one that came afterwards."""

    acknowledged: list[Acknowledged]
    polls: dict[str, list[list[Record]]]


class LogContract:
    """What every log does. One instance of the log per thread; several per test stand for several processes."""

    patience_s = 10.0
    """How long to wait for what must happen, in seconds. Every wait ends as soon as it has happened."""

    reaction_s = 1.0
    """How soon after an append a waiting reader must have the record."""

    exact_arrival = True
    """Whether `arrival` orders all records of the log exactly, not only to the millisecond."""

    @classmethod
    def connect(cls, folder: Path, partitions: int) -> Log:
        """Open a log that is this test's own, known by the folder; a new one has so many partitions."""
        raise NotImplementedError

    def abandon(self, writer: Writer) -> None:
        """Make a writer's owner look dead to others, without the writer noticing."""
        raise NotImplementedError

    @pytest.fixture(params=PARTITIONS, ids=lambda count: f"{count}-partitions")
    def open_log(self, request: pytest.FixtureRequest) -> Iterator[OpenLog]:
        with quick_folder() as folder:
            yield lambda: self.connect(folder, request.param)

    @pytest.fixture(scope="class", params=PARTITIONS, ids=lambda count: f"{count}-partitions")
    @classmethod
    def history(cls, request: pytest.FixtureRequest) -> History:
        """Three processes append to one topic at once, while one reader follows; a second one reads afterwards."""
        with quick_folder() as folder, cls.connect(folder, request.param) as log:
            topic = make_topic(log)
            everything: dict[TopicPartition, int | None] = {(topic, p): 0 for p in range(log.partitions())}
            reader = log.reader(everything)
            live: list[list[Record]] = []
            count = 240
            with running(PRODUCER, *((log.url, topic, f"client{n}", str(count)) for n in range(3))) as clients:
                outputs: list[str] = []
                threads = [threading.Thread(target=lambda c=c: outputs.append(c.communicate("\n")[0])) for c in clients]
                for thread in threads:
                    thread.start()
                deadline = time.monotonic() + cls.patience_s
                while sum(len(poll) for poll in live) < 3 * count and time.monotonic() < deadline:
                    live.append(reader.poll(0.2, max_records=50))
                for thread in threads:
                    thread.join(cls.patience_s)
                assert [client.returncode for client in clients] == [0, 0, 0]
            live.append(reader.poll())
            after = log.reader(everything)
            late = drain(after, after.ends())
        lines = [line.split() for output in outputs for line in output.splitlines()]
        acknowledged = [Acknowledged(int(p), int(offset), value.encode()) for p, offset, value in lines]
        assert len(acknowledged) == 3 * count
        return History(acknowledged, {"live": live, "late": late})

    # What is told of a log without changing it

    def test_missing_topics_are_named_and_not_made(self, open_log: OpenLog) -> None:
        """In the order in which they were asked for; another kind of topic of that name is refused as it always is."""
        with open_log() as log, open_log() as other:
            there = make_topic(log)
            specs = [TopicSpec(unique()), TopicSpec(there), TopicSpec(unique(), compacted=True)]
            for _ in range(2):
                assert other.missing_topics(specs) == [specs[0].name, specs[2].name]
            log.ensure_topics(specs)
            assert other.missing_topics(specs) == []
            with pytest.raises(UsageError):
                other.missing_topics([TopicSpec(there, append_time=True)])
            assert other.about()

    def test_written_ends_are_those_of_committed_records(self, open_log: OpenLog) -> None:
        """As long as nobody has a transaction open."""
        with open_log() as log:
            topic = make_topic(log)
            log.append([NewRecord(topic, None, b"record", 0)])
            reader = log.reader({(topic, shard): 0 for shard in range(log.partitions())})
            ends = reader.ends()
            assert reader.written_ends() == ends
            assert ends[topic, 0] == 1

    # Anomalies that clients could meet

    @pytest.mark.parametrize("who", ["live", "late"])
    def test_no_lost_write(self, history: History, who: str) -> None:
        read = {record.value for poll in history.polls[who] for record in poll}
        assert {write.value for write in history.acknowledged} <= read

    @pytest.mark.parametrize("who", ["live", "late"])
    def test_no_duplicate(self, history: History, who: str) -> None:
        read = Counter(record.value for poll in history.polls[who] for record in poll)
        assert [value for value, count in read.items() if count > 1] == []

    @pytest.mark.parametrize("who", ["live", "late"])
    def test_no_inconsistent_offsets(self, history: History, who: str) -> None:
        """One offset, one record: what the client was told is where every reader finds it."""
        told = {(write.partition, write.offset): write.value for write in history.acknowledged}
        read = {(record.partition, record.offset): record.value for poll in history.polls[who] for record in poll}
        assert read == told

    @pytest.mark.parametrize("who", ["live", "late"])
    def test_no_non_monotonic_poll(self, history: History, who: str) -> None:
        offsets: dict[int, list[int]] = defaultdict(list)
        for poll in history.polls[who]:
            for record in poll:
                offsets[record.partition].append(record.offset)
        assert all(found == sorted(set(found)) for found in offsets.values())

    @pytest.mark.parametrize("who", ["live", "late"])
    def test_no_skipped_record(self, history: History, who: str) -> None:
        """A client's records are read in the order in which it sent them, and between two none is missing."""
        sent: dict[tuple[bytes, int], list[bytes]] = defaultdict(list)
        for write in history.acknowledged:
            sent[write.value.split(b"-")[0], write.partition].append(write.value)
        read: dict[tuple[bytes, int], list[bytes]] = defaultdict(list)
        for poll in history.polls[who]:
            for record in poll:
                assert record.value is not None
                read[record.value.split(b"-")[0], record.partition].append(record.value)
        assert read == sent

    def test_no_lost_write_to_a_topic_that_was_just_made(self, open_log: OpenLog) -> None:
        """Whoever appends much at once to partitions that are new finds all of it, where it was told to be.

        On a broker a leader may be new for a moment, and refuse one batch and take the next.
        """
        for _ in range(4):
            with open_log() as log:
                topic = make_topic(log)
                partitions = log.partitions()
                sent = [NewRecord(topic, None, b"%d" % number, number % partitions) for number in range(3000)]
                places = log.append(sent)
                found = {record.position: record.value for record in self.everything(log, topic)}
                assert len(found) == len(sent)
                assert [found[place] for place in places] == [record.value for record in sent]

    def test_no_aborted_read(self, open_log: OpenLog) -> None:
        """A commit that fails leaves nothing, and nothing that comes after it brings it back."""
        with open_log() as log, open_log() as other:
            topic = make_topic(log)
            reader = other.reader({(topic, 0): 0})
            with owning(log) as writer:
                writer.commit([NewRecord(topic, None, b"before", 0)])
                impossible = NewRecord(topic, None, b"no such partition", log.partitions())
                with pytest.raises(StocktradeError):
                    writer.commit([NewRecord(topic, None, b"aborted", 0), impossible])
                with pytest.raises(StocktradeError):  # its owner has to claim again, whatever it thinks
                    writer.commit([NewRecord(topic, None, b"aborted, too", 0)])
            with owning(log) as writer:
                writer.commit([NewRecord(topic, None, b"after", 0)])
            assert values(read_to_end(reader)) == [b"before", b"after"]

    def test_commits_begun_together_are_done_in_their_order(self, open_log: OpenLog) -> None:
        """Nobody waits between them; each is whole, at the places that it names, and after the ones before it."""
        with open_log() as log, owning(log) as writer:
            a, b = make_topic(log), make_topic(log)
            begun = [
                writer.begin_commit([NewRecord(topic, None, b"%d" % number, 0) for topic in (a, b, a)])
                for number in range(6)
            ]
            places = [place for commit in begun for place in commit.result()]
            for topic, times in ((a, 2), (b, 1)):
                records = read_to_end(log.reader({(topic, 0): 0}))
                assert values(records) == [b"%d" % number for number in range(6) for _ in range(times)]
                assert [record.position for record in records] == [place for place in places if place.topic == topic]

    def test_commits_begun_behind_one_that_fails_fail_too(self, open_log: OpenLog) -> None:
        """Whoever begins several has memory ahead of the log: after a failure nothing of it may come to be."""
        with open_log() as log:
            topic = make_topic(log)
            with owning(log) as writer:
                impossible = NewRecord(topic, None, b"no such partition", log.partitions())
                begun = [
                    writer.begin_commit([NewRecord(topic, None, value, 0), *more])
                    for value, more in ((b"before", []), (b"failed", [impossible]), (b"behind", []))
                ]
                assert len(begun[0].result()) == 1
                for commit in begun[1:]:
                    with pytest.raises(StocktradeError):
                        commit.result()
            assert values(read_to_end(log.reader({(topic, 0): 0}))) == [b"before"]

    def test_no_torn_commit(self, open_log: OpenLog) -> None:
        """Who has seen one record of a commit can read all of them."""
        with open_log() as log:
            a, b = make_topic(log), make_topic(log)
            rounds = 50

            def write() -> None:
                with open_log() as own, owning(own) as writer:
                    for i in range(rounds):
                        value = str(i).encode()
                        writer.commit([NewRecord(topic, None, value, 0) for topic in (a, b, a)])

            readers = {topic: log.reader({(topic, 0): 0}) for topic in (a, b)}
            seen: dict[str, Counter[int]] = {a: Counter(), b: Counter()}

            def look(topic: str) -> int:
                """Read all there is now; the newest commit of which there is something."""
                for record in read_to_end(readers[topic]):
                    seen[topic][int(record.value or b"")] += 1
                return max(seen[topic], default=-1)

            with in_background(write) as writing:
                finished = False
                while not finished:
                    finished = not writing.is_alive()  # and then one more look
                    newest = look(a)
                    assert look(b) >= newest, "a commit was visible in one topic and not yet in the other"
                    assert look(a) >= max(seen[b], default=-1), "a commit was visible in one topic only"
                    assert set(seen[a].values()) <= {2}, "half of a commit was visible"
            assert seen == {a: Counter(dict.fromkeys(range(rounds), 2)), b: Counter(range(rounds))}

    def test_no_zombie_write(self, open_log: OpenLog) -> None:
        """An owner that was thought dead cannot write once its successor's claim has returned."""
        with open_log() as log, open_log() as successor:
            topic = make_topic(log)
            zombie = log.claim(0)
            zombie.commit([NewRecord(topic, None, b"old", 0)])
            self.abandon(zombie)
            with owning(successor) as writer:
                for _ in range(2):
                    with pytest.raises(Fenced):
                        zombie.commit([NewRecord(topic, None, b"zombie", 0)])
                writer.commit([NewRecord(topic, None, b"new", 0)])
                zombie.close()
                writer.commit([NewRecord(topic, None, b"newer", 0)])
            reader = successor.reader({(topic, 0): 0})
            assert values(read_to_end(reader)) == [b"old", b"new", b"newer"]

    def test_a_second_claim_fences_the_first_writer_of_the_same_log(self, open_log: OpenLog) -> None:
        with open_log() as log:
            topic = make_topic(log)
            first, second = log.claim(0), log.claim(0)
            with pytest.raises(Fenced):
                first.commit([NewRecord(topic, None, b"first", 0)])
            first.close()
            second.commit([NewRecord(topic, None, b"second", 0)])
            second.close()
            assert values(read_to_end(log.reader({(topic, 0): 0}))) == [b"second"]

    # Records

    @pytest.mark.parametrize(
        ("key", "value", "headers"),
        [
            (b"SBIN", b"{}", ()),
            (None, b"no key", ()),
            (b"tombstone", None, ()),
            (None, None, ()),
            (b"", b"", ()),
            (b"\x00\xff", bytes(range(256)), (("a", b"1"), ("a", b"2"), ("", b""), ("schlüssel", b"\x00"))),
            (b"large", b"x" * 100_000, (("h", b"y" * 1_000),)),
        ],
        ids=["plain", "null-key", "tombstone", "all-null", "empty-is-not-null", "headers", "large"],
    )
    def test_a_record_comes_back_as_it_was_sent(
        self, open_log: OpenLog, key: bytes | None, value: bytes | None, headers: tuple[tuple[str, bytes], ...]
    ) -> None:
        with open_log() as log, open_log() as other, owning(log) as writer:
            topic = make_topic(log)
            sent = NewRecord(topic, key, value, 0, 1_700_000_000_123, headers)
            log.append([sent])
            writer.commit([sent])
            for record in read_to_end(other.reader({(topic, 0): 0})):
                assert (record.key, record.value, record.headers) == (key, value, headers)
                assert record.time_ms == 1_700_000_000_123
                assert str(record.position) == f"{topic}@0:{record.offset}"

    def test_a_key_chooses_the_partition_as_kafka_does(self, open_log: OpenLog) -> None:
        with open_log() as log:
            topic = make_topic(log)
            count = log.partitions()
            keys = [b"SBIN", b"TCS", b"INFY", b"RELIANCE", b"", b"\xff"]
            places = log.append([NewRecord(topic, key, b"") for key in keys])
            assert [place.partition for place in places] == [partition_for(key, count) for key in keys]
            chosen = log.append([NewRecord(topic, b"SBIN", b"", count - 1), NewRecord(topic, None, b"")])
            assert [place.partition for place in chosen] == [count - 1, 0]

    def test_positions_are_given_in_the_order_of_the_records(self, open_log: OpenLog) -> None:
        with open_log() as log, owning(log) as writer:
            topic = make_topic(log)
            records = [NewRecord(topic, b"k", str(n).encode(), n % log.partitions()) for n in range(20)]
            for places in (log.append(records), writer.commit(records)):
                by_place = {record.position: record.value for record in self.everything(log, topic)}
                assert [by_place[place] for place in places] == [record.value for record in records]

    def test_appending_nothing_does_nothing(self, open_log: OpenLog) -> None:
        with open_log() as log, owning(log) as writer:
            topic = make_topic(log)
            assert log.append([]) == []
            assert writer.commit([]) == []
            assert self.everything(log, topic) == []

    def test_append_time_ignores_what_the_producer_says(self, open_log: OpenLog) -> None:
        with open_log() as log:
            stamped, kept = make_topic(log, append_time=True), make_topic(log)
            before = time.time_ns() // 1_000_000 - 1_000
            for topic in (stamped, kept):
                log.append([NewRecord(topic, None, b"", 0, time_ms) for time_ms in (5, 2**40, None)])
            after = time.time_ns() // 1_000_000 + 1_000
            times = [record.time_ms for record in read_to_end(log.reader({(stamped, 0): 0}))]
            assert times == sorted(times)
            assert before <= times[0] <= times[-1] <= after
            first, second, third = [record.time_ms for record in read_to_end(log.reader({(kept, 0): 0}))]
            assert (first, second) == (5, 2**40)
            assert before <= third <= after

    def test_the_newest_record_of_each_key_survives_compaction(self, open_log: OpenLog) -> None:
        """When the older ones go is the log's business; a reader that replays gets the same table."""
        with open_log() as log, owning(log) as writer:
            topic = make_topic(log, compacted=True)
            writer.commit([NewRecord(topic, key, b"old", 0) for key in (b"a", b"b", b"c")])
            writer.commit([NewRecord(topic, b"a", b"newer", 0), NewRecord(topic, b"b", None, 0)])
            log.append([NewRecord(topic, b"a", b"newest", 0)])
            table: dict[bytes | None, bytes | None] = {}
            reader = log.reader({(topic, 0): 0})
            for record in read_to_end(reader):
                table[record.key] = record.value
            assert table.pop(b"b", None) is None
            assert table == {b"a": b"newest", b"c": b"old"}
            assert reader.caught_up(reader.ends())

    # Readers

    def test_a_reader_starts_where_it_is_told(self, open_log: OpenLog) -> None:
        with open_log() as log, open_log() as other:
            topic = make_topic(log)
            places = log.append([NewRecord(topic, None, str(n).encode(), 0) for n in range(5)])
            middle = log.reader({(topic, 0): places[3].offset})
            end = other.reader({(topic, 0): None})
            assert values(read_to_end(middle)) == [b"3", b"4"]
            assert end.poll() == []
            assert end.position(topic, 0) == end.ends()[topic, 0] > places[4].offset
            log.append([NewRecord(topic, None, b"5", 0)])
            assert values(read_to_end(end)) == [b"5"]
            assert values(read_to_end(middle)) == [b"5"]

    def test_a_reader_goes_on_where_it_seeks(self, open_log: OpenLog) -> None:
        """Back, ahead, to the end and in the middle of what it was bringing; each record after it comes once."""
        with open_log() as log:
            topic = make_topic(log)
            places = log.append([NewRecord(topic, None, str(n).encode(), 0) for n in range(200)])
            reader = log.reader({(topic, 0): 0})
            ends = reader.ends()
            for start in (150, 3, 199, 0, 100, 99, 101):
                reader.seek(topic, 0, places[start].offset)
                assert reader.position(topic, 0) == places[start].offset
                (first, *_) = poll_some(reader, 7, self.patience_s)
                assert first.value == str(start).encode()
            reader.seek(topic, 0, places[190].offset)
            assert values(read_to_end(reader)) == [str(n).encode() for n in range(190, 200)]
            reader.seek(topic, 0, ends[topic, 0])
            assert reader.poll() == []
            log.append([NewRecord(topic, None, b"new", 0)])
            assert values(read_to_end(reader)) == [b"new"]
            reader.seek(topic, 0, places[199].offset)
            assert values(read_to_end(reader)) == [b"199", b"new"]

    def test_position_and_ends_say_when_a_reader_has_caught_up(self, open_log: OpenLog) -> None:
        with open_log() as log:
            topic = make_topic(log)
            reader = log.reader({(topic, 0): 0})
            assert reader.caught_up(reader.ends())
            log.append([NewRecord(topic, None, b"", 0)] * 3)
            ends = reader.ends()
            assert not reader.caught_up(ends)
            (record,) = poll_some(reader, 1, self.patience_s)
            assert reader.position(topic, 0) == record.offset + 1
            assert not reader.caught_up(ends)
            read_to_end(reader)
            assert reader.caught_up(ends)
            reader.close()
            reader.close()

    def test_a_poll_brings_no_more_than_asked_for(self, open_log: OpenLog) -> None:
        with open_log() as log:
            topic = make_topic(log)
            log.append([NewRecord(topic, str(n).encode(), b"") for n in range(25)])
            reader = log.reader({(topic, p): 0 for p in range(log.partitions())})
            polls = drain(reader, reader.ends(), max_records=10)
            assert max(map(len, polls)) <= 10
            assert sum(map(len, polls)) == 25

    def test_records_come_in_the_order_of_their_arrival(self, open_log: OpenLog) -> None:
        with open_log() as log, owning(log) as writer:
            a, b = make_topic(log), make_topic(log)
            count = log.partitions()
            for n in range(30):
                record = NewRecord((a, b)[n % 2], None, str(n).encode(), n % count)
                writer.commit([record]) if n % 3 else log.append([record])
            reader = log.reader({(topic, p): 0 for topic in (a, b) for p in range(count)})
            polls = drain(reader, reader.ends(), max_records=7)
            for poll in polls:
                arrivals = [record.arrival for record in poll]
                assert arrivals == sorted(arrivals)
            if self.exact_arrival:
                assert [value for poll in polls for value in values(poll)] == [str(n).encode() for n in range(30)]
                arrivals = [record.arrival for poll in polls for record in poll]
                assert arrivals == sorted(set(arrivals))

    def test_an_empty_poll_returns_after_its_timeout(self, open_log: OpenLog) -> None:
        with open_log() as log:
            topic = make_topic(log)
            reader = log.reader({(topic, 0): 0})
            for timeout_s in (0.0, 0.3):
                begin = time.monotonic()
                assert reader.poll(timeout_s) == []
                assert timeout_s <= time.monotonic() - begin < timeout_s + self.reaction_s

    def test_a_reader_at_the_end_wakes_up_on_append_without_busy_waiting(self, open_log: OpenLog) -> None:
        with open_log() as log:
            topic = make_topic(log)
            reader = log.reader({(topic, 0): None})
            with running(LATER, (log.url, topic)) as (client,):
                assert client.stdin is not None
                client.stdin.write("0.4\n")
                client.stdin.flush()
                cpu = time.process_time()
                (record,) = poll_some(reader, 1, self.patience_s)
                now = time.time_ns()
                cpu = time.process_time() - cpu
            assert (now - int(record.value or b"0")) / 1e9 < self.reaction_s
            assert cpu < 0.1, "a quarter of the time it waited was spent on the processor"

    # Owners

    def test_claims_raise_the_epoch(self, open_log: OpenLog) -> None:
        epochs = []
        for _ in range(3):
            with open_log() as log, owning(log) as writer:
                make_topic(log)
                epochs.append(writer.epoch)
                assert writer.shard == 0
        with open_log() as log, owning(log) as first, owning(log, shard=log.partitions() - 1) as last:
            epochs.append(first.epoch)
            assert last.epoch >= 1
        assert epochs == sorted(set(epochs))

    def test_a_closed_writer_cannot_commit(self, open_log: OpenLog) -> None:
        with open_log() as log:
            topic = make_topic(log)
            writer = log.claim(0)
            writer.close()
            writer.close()
            with pytest.raises(StocktradeError):
                writer.commit([NewRecord(topic, None, b"", 0)])
            assert self.everything(log, topic) == []

    def test_a_commit_is_visible_when_it_returns(self, open_log: OpenLog) -> None:
        with open_log() as log, open_log() as other, owning(log) as writer:
            a, b = make_topic(log), make_topic(log)
            readers = [other.reader({(topic, 0): 0}) for topic in (a, b)]
            for n in range(5):
                value = str(n).encode()
                writer.commit([NewRecord(a, None, value, 0), NewRecord(b, None, value, 0)])
                assert [values(read_to_end(reader)) for reader in readers] == [[value], [value]]

    def test_an_anchor_is_kept_for_the_next_owner(self, open_log: OpenLog) -> None:
        """Or is not needed: a log that cannot lose its end says None."""
        with open_log() as log, owning(log) as writer:
            topic = make_topic(log)
            for head in (b"one", b"two, longer", b""):
                writer.commit([NewRecord(topic, None, b"", 0)], anchor=head)
                assert writer.anchor() in (head, None)
            writer.commit([NewRecord(topic, None, b"", 0)], anchor=b"last")
            writer.commit([NewRecord(topic, None, b"", 0)])
        with open_log() as log, owning(log) as writer:
            assert writer.anchor() in (b"last", None)

    def test_owners_are_known(self, open_log: OpenLog) -> None:
        with open_log() as log, open_log() as other:
            topic = make_topic(log)
            assert set(other.owners()) == set(range(log.partitions()))
            member = log.member(topic, [topic])
            assigned = assignment(member, log.partitions(), self.patience_s)
            with owning(log):
                owners = other.owners()
                assert all(owners[shard] is not None for shard in assigned)
            member.close()

    # Members

    def test_a_lone_member_gets_all_shards_and_only_records_of_started_ones(self, open_log: OpenLog) -> None:
        with open_log() as log:
            topic, unwanted = make_topic(log), make_topic(log)
            count = log.partitions()
            log.append([NewRecord(name, None, b"%d" % p, p) for name in (topic, unwanted) for p in range(count)])
            member = log.member(topic, [topic])
            assert assignment(member, count, self.patience_s) == set(range(count))
            assert member.poll(0.1).records == []
            last = count - 1
            member.start(last, {topic: 0})
            polls = poll_until(member, lambda polls: has_records(polls, 1), self.patience_s)
            assert [record.value for poll in polls for record in poll.records] == [b"%d" % last]
            assert set(polls[-1].horizons) == {last}
            member.close()
            member.close()

    def test_a_member_starts_stops_and_starts_again_where_it_is_told(self, open_log: OpenLog) -> None:
        with open_log() as log:
            topic = make_topic(log)
            places = log.append([NewRecord(topic, None, str(n).encode(), 0) for n in range(5)])
            member = log.member(topic, [topic])
            assignment(member, log.partitions(), self.patience_s)
            member.start(0, {topic: places[3].offset})
            assert member_values(member, 2, self.patience_s) == [b"3", b"4"]
            member.stop(0)
            log.append([NewRecord(topic, None, b"5", 0)])
            stopped = member.poll(0.2)
            assert (stopped.records, stopped.horizons) == ([], {})
            assert 0 in stopped.assigned
            member.start(0, {topic: places[4].offset})
            assert member_values(member, 2, self.patience_s) == [b"4", b"5"]
            member.start(0, {topic: places[1].offset})  # back, without a stop
            assert member_values(member, 5, self.patience_s) == [b"1", b"2", b"3", b"4", b"5"]
            member.note_progress(0, {topic: places[4].offset + 1})
            member.close()

    def test_a_lost_shard_brings_nothing_until_it_is_started_again(self, open_log: OpenLog) -> None:
        """Who was told of a newer owner stops delivering; how it is assigned anew is the log's own matter."""
        with open_log() as log:
            topic = make_topic(log)
            count = log.partitions()
            member = log.member(topic, [topic])
            for shard in assignment(member, count, self.patience_s):
                member.start(shard, {})
            member.lose(0)
            log.append([NewRecord(topic, None, b"%d" % p, p) for p in range(count)])
            polls = poll_until(member, lambda polls: has_records(polls, count - 1), self.patience_s)
            polls.append(member.poll(0.2))
            kept = sorted(record.value or b"" for poll in polls for record in poll.records)
            assert kept == [b"%d" % p for p in range(1, count)]
            member.close()

    @pytest.mark.parametrize("max_records", [1, 3, 1000])
    def test_a_horizon_is_true(self, open_log: OpenLog, max_records: int) -> None:
        """However small the polls: what arrived before a horizon has come, and in the end everything has."""
        with open_log() as log:
            topics = [make_topic(log), make_topic(log)]
            count = log.partitions()
            for n in range(20):
                log.append([NewRecord(topics[n % 2], None, b"", n * n % count)])
            waiting = {record.position: record for topic in topics for record in self.everything(log, topic)}
            member = log.member(topics[0], topics)
            for shard in assignment(member, count, self.patience_s):
                member.start(shard, {})
            deadline = time.monotonic() + self.patience_s
            horizons: dict[int, int] = {}
            while set(horizons.values()) != {UNBOUNDED} and time.monotonic() < deadline:
                poll = member.poll(0.1, max_records)
                assert len(poll.records) <= max_records
                horizons = poll.horizons
                for record in poll.records:
                    assert waiting.pop(record.position) == record
                for record in waiting.values():
                    assert record.arrival >= horizons[record.partition] < UNBOUNDED
            assert waiting == {}
            assert horizons == dict.fromkeys(range(count), UNBOUNDED)
            member.close()

    def test_nothing_comes_from_before_a_horizon(self, open_log: OpenLog) -> None:
        """What a poll called complete stays complete while others append."""
        with open_log() as log:
            topics = [make_topic(log, append_time=True), make_topic(log, append_time=True)]
            count, batches = log.partitions(), 60

            def write() -> None:
                with open_log() as own:
                    for n in range(batches):
                        own.append([NewRecord(topics[(n + m) % 2], None, b"", m % count) for m in range(5)])

            member = log.member(topics[0], topics)
            for shard in assignment(member, count, self.patience_s):
                member.start(shard, dict.fromkeys(topics, 0))
            complete = [0] * count  # everything of the shard that arrived before this has come
            total = 0
            deadline = time.monotonic() + self.patience_s
            with in_background(write):
                while total < 5 * batches and time.monotonic() < deadline:
                    poll = member.poll(0.1, max_records=3)
                    total += len(poll.records)
                    for record in poll.records:
                        assert record.arrival >= complete[record.partition]
                    for shard, horizon in poll.horizons.items():
                        newest = max((r.arrival for r in poll.records if r.partition == shard), default=0)
                        complete[shard] = max(complete[shard], newest if horizon == UNBOUNDED else horizon)
            assert total == 5 * batches
            member.close()

    def test_a_member_that_waits_wakes_up_on_append(self, open_log: OpenLog) -> None:
        with open_log() as log:
            topic = make_topic(log)
            member = log.member(topic, [topic])
            assignment(member, log.partitions(), self.patience_s)
            member.start(0, {topic: 0})
            with running(LATER, (log.url, topic)) as (client,):
                assert client.stdin is not None
                client.stdin.write("0.3\n")
                client.stdin.flush()
                cpu = time.process_time()
                poll = poll_until(member, lambda polls: has_records(polls, 1), self.patience_s)[-1]
                now = time.time_ns()
                cpu = time.process_time() - cpu
            assert (now - int(poll.records[0].value or b"0")) / 1e9 < self.reaction_s
            assert cpu < 0.1
            member.close()

    def test_when_a_member_closes_another_gets_its_shards(self, open_log: OpenLog) -> None:
        with open_log() as log, open_log() as other:
            topic = make_topic(log)
            shards = set(range(log.partitions()))
            first = log.member(topic, [topic])
            assert assignment(first, len(shards), self.patience_s) == shards
            second = other.member(topic, [topic])
            both: tuple[set[int], set[int]] = (shards, set())
            deadline = time.monotonic() + self.patience_s
            settled = 0  # polls in a row that together cover all shards, each once
            while settled < 3 and time.monotonic() < deadline:
                both = (set(first.poll(0.05).assigned), set(second.poll(0.05).assigned))
                settled = settled + 1 if both[0] | both[1] == shards and not both[0] & both[1] else 0
            assert settled, f"no agreement: {both}"
            first.close()
            assert assignment(second, len(shards), self.patience_s) == shards
            for shard in shards:
                with owning(other, shard=shard):
                    pass
            second.close()

    # Topics

    def test_topics_are_made_once_and_are_what_they_are(self, open_log: OpenLog) -> None:
        with open_log() as log, open_log() as other:
            topic = make_topic(log)
            for each in (log, other):
                each.ensure_topics([TopicSpec(topic)])
            log.append([NewRecord(topic, None, b"still there", 0)])
            other.ensure_topics([TopicSpec(topic), TopicSpec(unique())])
            assert values(read_to_end(other.reader({(topic, 0): 0}))) == [b"still there"]
            for settings in ({"compacted": True}, {"append_time": True}):
                with pytest.raises(UsageError):
                    log.ensure_topics([TopicSpec(topic, **settings)])

    def test_a_log_is_closed_twice_without_harm(self, open_log: OpenLog) -> None:
        log = open_log()
        make_topic(log)
        log.claim(0)
        log.close()
        log.close()
        with open_log() as again, owning(again):  # what it owned is free
            pass

    def everything(self, log: Log, topic: str) -> list[Record]:
        return read_to_end(log.reader({(topic, p): 0 for p in range(log.partitions())}))


def unique() -> str:
    """A name that no other test uses: adapters may share one log between tests."""
    return f"test-{uuid4().hex[:12]}"


def make_topic(log: Log, *, append_time: bool = False, compacted: bool = False) -> str:
    name = unique()
    log.ensure_topics([TopicSpec(name, append_time=append_time, compacted=compacted)])
    return name


def values(records: Iterable[Record]) -> list[bytes | None]:
    return [record.value for record in records]


def drain(
    reader: Reader, ends: Mapping[TopicPartition, int], *, max_records: int = 1000, patience_s: float = 10.0
) -> list[list[Record]]:
    """The polls that a reader needs up to the ends."""
    polls = []
    deadline = time.monotonic() + patience_s
    while not reader.caught_up(ends):
        assert time.monotonic() < deadline, "the reader does not reach the end"
        if poll := reader.poll(0.2, max_records):
            polls.append(poll)
    return polls


def read_to_end(reader: Reader) -> list[Record]:
    """Everything that is on the log now and that the reader has not polled yet."""
    return [record for poll in drain(reader, reader.ends()) for record in poll]


def poll_some(reader: Reader, max_records: int, patience_s: float) -> list[Record]:
    """The next poll that is not empty."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if records := reader.poll(deadline - time.monotonic(), max_records):
            return records
    raise AssertionError(f"no record came within {patience_s} s")


def poll_until(member: Member, enough: Callable[[list[Poll]], bool], patience_s: float) -> list[Poll]:
    """Poll until what came is enough."""
    polls = []
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        polls.append(member.poll(0.1))
        if enough(polls):
            return polls
    raise AssertionError(f"not within {patience_s} s: {polls[-3:]}")


def has_records(polls: list[Poll], count: int) -> bool:
    return sum(len(poll.records) for poll in polls) >= count


def member_values(member: Member, count: int, patience_s: float) -> list[bytes | None]:
    polls = poll_until(member, lambda polls: has_records(polls, count), patience_s)
    return [record.value for poll in polls for record in poll.records]


def assignment(member: Member, count: int, patience_s: float) -> set[int]:
    """The member's shards as soon as it has `count` of them."""
    return set(poll_until(member, lambda polls: len(polls[-1].assigned) >= count, patience_s)[-1].assigned)


@contextmanager
def quick_folder() -> Iterator[Path]:
    """The name of a folder to be made, in memory if possible: a busy disk may pause a sync for seconds."""
    memory = Path("/dev/shm")
    usable = memory.is_dir() and os.access(memory, os.W_OK)
    with tempfile.TemporaryDirectory(dir=memory if usable else None) as parent:
        yield Path(parent) / "log"


@contextmanager
def owning(log: Log, shard: int = 0) -> Iterator[Writer]:
    writer = log.claim(shard)
    try:
        yield writer
    finally:
        writer.close()


@contextmanager
def in_background(work: Callable[[], None]) -> Iterator[threading.Thread]:
    """Run `work` in a thread meanwhile; what it raises fails the test."""
    errors = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(30)
    assert not thread.is_alive(), "the background work does not end"
    if errors:
        raise errors[0]


@contextmanager
def running(
    script: str, *arguments: tuple[str, ...], environment: Mapping[str, str] | None = None
) -> Iterator[list["subprocess.Popen[str]"]]:
    """Python processes, one per tuple of arguments, that have printed `ready`; killed at the end if need be."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, *given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        for given in arguments
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        yield processes
    finally:
        for process in processes:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
            process.wait()
