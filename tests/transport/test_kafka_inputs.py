"""The order of a shard's inputs on Kafka, against an oracle that knows all partitions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import TopicPartition as Place

from stocktrade.errors import LogDamaged
from stocktrade.transport import kafka_inputs
from stocktrade.transport.base import UNBOUNDED, Record
from stocktrade.transport.kafka_inputs import ShardInputs

A, B = Place("a", 0), Place("b", 0)


class Brokers:
    """Two partitions; each record arrives later than the one before it, wherever that went."""

    def __init__(self) -> None:
        self.partitions: dict[Place, list[Record]] = {A: [], B: []}
        self.now = 0

    def append(self, place: Place) -> None:
        self.now += 1
        offset = len(self.partitions[place])
        self.partitions[place].append(Record(place.topic, 0, offset, self.now, self.now, None, b"", ()))

    def ends(self) -> dict[Place, int]:
        return {place: len(records) for place, records in self.partitions.items()}

    def fetch(self, inputs: ShardInputs, place: Place, most: int) -> None:
        (each,) = (each for each in inputs.inputs if each.place == place)
        each.take(self.partitions[place][each.position :][:most])


def arrivals(records: list[Record]) -> list[int]:
    return [record.arrival for record in records]


steps = st.lists(
    st.tuples(st.sampled_from(["append", "fetch", "look", "deliver"]), st.sampled_from([A, B]), st.integers(1, 3)),
    max_size=60,
)


@given(steps)
def test_nothing_arrived_before_a_horizon_that_is_still_to_be_delivered(taken: list[tuple[str, Place, int]]) -> None:
    brokers, inputs = Brokers(), ShardInputs({A: 0, B: 0})
    delivered: set[int] = set()
    looked_at = 0
    for what, place, count in taken:
        if what == "append":
            brokers.append(place)
        elif what == "fetch":
            brokers.fetch(inputs, place, count)
        elif what == "look":
            inputs.look(brokers.ends())
            looked_at = brokers.now
        else:
            popped = arrivals(inputs.pop(count))
            assert popped == sorted(popped)
            delivered.update(popped)
        # Without a limit it speaks of what was there when it looked.
        horizon = looked_at + 1 if inputs.horizon == UNBOUNDED else inputs.horizon
        assert delivered.issuperset(range(1, horizon))


@given(steps, st.sampled_from([A, B]))
def test_a_look_releases_what_was_fetched_before_it(taken: list[tuple[str, Place, int]], busy: Place) -> None:
    """However much comes to one topic meanwhile: once what was there is fetched, nobody waits for a standstill."""
    brokers, inputs = Brokers(), ShardInputs({A: 0, B: 0})
    for what, place, count in taken:
        if what == "append":
            brokers.append(place)
        elif what == "fetch":
            brokers.fetch(inputs, place, count)
    fetched = [record.arrival for each in inputs.inputs for record in each.waiting]
    inputs.look(brokers.ends())
    brokers.append(busy)
    for place in (A, B):
        brokers.fetch(inputs, place, 100)
    inputs.pop(1000)
    assert inputs.horizon > max(fetched, default=0)


@pytest.fixture
def unequal() -> tuple[Brokers, ShardInputs]:
    """Of one topic there is a record that was fetched, of the other one that arrived before it and was not."""
    brokers, inputs = Brokers(), ShardInputs({A: 0, B: 0})
    brokers.append(A)
    brokers.append(B)
    brokers.fetch(inputs, B, 1)
    return brokers, inputs


def test_a_record_says_nothing_of_the_other_topic(unequal: tuple[Brokers, ShardInputs]) -> None:
    """It waits for a look, and for what that has found."""
    brokers, inputs = unequal
    assert arrivals(inputs.pop(10)) == [2]
    assert (inputs.horizon, inputs.wants_a_look) == (0, True)
    inputs.look(brokers.ends())
    assert (inputs.horizon, inputs.wants_a_look) == (0, False)
    brokers.fetch(inputs, A, 1)
    assert (arrivals(inputs.pop(10)), inputs.horizon) == ([1], UNBOUNDED)


@given(steps, st.integers(1, 5))
def test_a_backlog_goes_on_without_a_look(taken: list[tuple[str, Place, int]], most: int) -> None:
    """What is delivered of inputs that last for it lies before the horizon, so nothing of it waits for a question."""
    brokers, inputs = Brokers(), ShardInputs({A: 0, B: 0})
    for _ in range(most):
        brokers.append(A)
        brokers.append(B)
    for what, place, count in taken:
        if what == "append":
            brokers.append(place)
        elif what == "fetch":
            brokers.fetch(inputs, place, count)
        elif what == "deliver" and inputs.lasts_for(most):
            popped = arrivals(inputs.pop(most))
            assert len(popped) == most
            assert popped[-1] < inputs.horizon < UNBOUNDED


def test_the_end_of_a_transaction_is_passed_without_a_record() -> None:
    inputs = ShardInputs({A: 0, B: 0})
    inputs.look({A: 2, B: 0})
    assert [each.place for each in inputs.inputs if each.is_behind] == [A]
    inputs.inputs[0].go_to(2)
    assert inputs.horizon == UNBOUNDED


def test_a_partition_that_is_too_short_is_damaged_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that is new may not know its end yet, so it is waited for."""
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    inputs = ShardInputs({A: 3, B: 0})
    short, whole = {A: 2, B: 0}, {A: 3, B: 0}
    inputs.look(short)
    assert inputs.horizon < UNBOUNDED
    now += kafka_inputs.SHORT_PATIENCE_S - 0.1
    inputs.look(short)
    inputs.look(whole)
    assert inputs.horizon == UNBOUNDED
    inputs.look(short)
    now += kafka_inputs.SHORT_PATIENCE_S
    with pytest.raises(LogDamaged, match=r"a@0 ends before what was taken from it"):
        inputs.look(short)
