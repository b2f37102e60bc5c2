"""The checks of an exchange on Kafka can fail: with one guard switched off, the fault that it is there for is found.

Beside each guard the sound exchange meets the same fault and is found to be sound, unless that is a test elsewhere:
`test_kafka_faults`. Two scenes without a guard off stand here because they need the same broker.
"""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from kafka import KafkaProducer

sys.path.insert(0, str(Path(__file__).parents[1]))

from clients import Message, make_order
from kafka_faults import BROKER, ROUNDS, SHARDS, TIMES, Exchanges, make_topics
from sabotaged_kafka import LEADERLESS_WHILE

from auditor import Report, Told, examine
from kafka_container import KafkaContainer
from stocktrade.transport import CLIENTS
from stocktrade.transport.base import Position

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SABOTAGED: Final = Path(__file__).with_name("sabotaged_kafka.py")
LONG: Final = {
    **TIMES,
    "request.timeout.ms": "20000",
    "delivery.timeout.ms": "25000",
    "transaction.timeout.ms": "30000",
}
"""So that transactions and connections outlive the stop of a process, and it goes on where it stood."""

SYMBOL: Final = "LT"
"""Of shard 0, which an exchange claims first."""


@pytest.fixture(scope="module")
def broker(new_module_broker: Callable[..., KafkaContainer]) -> KafkaContainer:
    """A broker for all of them: each has its topics anew."""
    return new_module_broker(**BROKER)


NewExchanges = Callable[..., Exchanges]


@pytest.fixture
def client(request: pytest.FixtureRequest) -> str:
    """What carries the records."""
    return str(request.param)


on_both = pytest.mark.parametrize("client", CLIENTS, indirect=True)
"""For guards that are each client's own."""

of_the_shard = pytest.mark.parametrize("client", CLIENTS if ROUNDS > 1 else CLIENTS[:1], indirect=True)
"""For guards that stand above the clients: tested on both when there is time."""


@pytest.fixture
def exchanges(
    broker: KafkaContainer, tmp_path: Path, request: pytest.FixtureRequest, client: str
) -> Iterator[NewExchanges]:
    """Makes exchanges with guards off, on empty topics."""
    begun = contextlib.ExitStack()

    def sabotaged(*words: str, **options: object) -> Exchanges:
        program = (sys.executable, str(SABOTAGED), ",".join(words))
        made = Exchanges(
            broker.bootstrap_servers,
            tmp_path,
            group=re.sub(r"\W", "-", request.node.name),
            client=client,
            program=program,
            **options,  # type: ignore[arg-type]
        )
        make_topics(made)
        begun.enter_context(made.ending())
        return made

    with begun:
        yield sabotaged


def pair(number: int) -> list[Message]:
    """An order and an offer that trade."""
    return [
        make_order("BUY", SYMBOL, f"B-{number}", 10, 885),
        make_order("SELL", SYMBOL, f"S-{number}", 10, 880),
    ]


def place(exchanges: Exchanges, *messages: Message) -> None:
    """Put orders on the log."""
    with exchanges.open() as log:
        assert exchanges.clients[0].send(log, messages)


def rules(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


@of_the_shard
def test_a_commit_in_two_transactions_is_found(exchanges: NewExchanges) -> None:
    """Killed in between, the exchange leaves orders without answers and trades without legs."""
    torn = exchanges("atomic")
    place(torn, *pair(1))
    torn.must_end(torn.nse(failpoints="sabotage.between=kill@1"), -9)
    assert rules(torn.settle()) >= {"answers", "outputs"}


@on_both
def test_an_order_that_was_taken_back_is_found_in_the_journal(exchanges: NewExchanges) -> None:
    """Read uncommitted, an order of a participant's aborted transaction is traded."""
    uncommitted = exchanges("committed")
    with contextlib.closing(
        KafkaProducer(bootstrap_servers=uncommitted.servers, transactional_id="participant")
    ) as participant:
        participant.init_transactions()
        participant.begin_transaction()
        record = make_order("BUY", SYMBOL, "B-0", 10, 885)[0]
        participant.send(record.topic, record.value, record.key, partition=0).get(10)
        participant.abort_transaction()
    place(uncommitted, *pair(1))
    assert rules(uncommitted.settle()) >= {"inputs"}


@on_both
def test_an_owner_that_nobody_fences_is_found(exchanges: NewExchanges) -> None:
    """Stopped before a commit and replaced, it commits all the same: an entry that does not count."""
    unfenced = exchanges("fence")
    first = unfenced.nse(failpoints=f"owner.commit=stop@{SHARDS + 1}")  # its first batch
    unfenced.wait_until_owned_by(first)
    place(unfenced, *pair(1))
    unfenced.wait_until_frozen(first)
    second = unfenced.nse()
    unfenced.wait_until_owned_by(second)
    unfenced.wait_for(second, "trade")
    unfenced.thaw(first)
    unfenced.wait_for(first, "gave-up")
    unfenced.stop(first, second)
    assert unfenced.settle().ignored > 0


@of_the_shard
@pytest.mark.parametrize("words", [("offsets", "twice"), ("twice",)], ids=["off", "on"])
def test_an_input_that_is_handed_over_twice_is_taken_once(exchanges: NewExchanges, words: tuple[str, ...]) -> None:
    """Without the comparison of offsets, and only then, the journal has inputs twice."""
    forgetful = exchanges(*words)
    place(forgetful, *pair(1))
    report = forgetful.settle()
    assert rules(report) >= {"inputs"} if "offsets" in words else report.findings == []


@of_the_shard
def test_an_owner_that_reads_before_it_claims_is_found(exchanges: NewExchanges) -> None:
    """It misses what its predecessor commits in between, and writes an entry that does not count."""
    late = exchanges("claim", times=LONG)
    first = late.nse(failpoints=f"kafka.commit.sent=stop@{SHARDS + 1}")  # its first batch
    late.wait_until_owned_by(first)
    place(late, *pair(1))
    late.wait_until_frozen(first)
    second = late.nse(failpoints="owner.recovered=stop@1")
    late.wait_until_frozen(second)
    late.thaw(first)
    late.wait_for(first, "trade")
    first.kill()
    late.thaw(second)
    late.wait_for(second, "gave-up")
    late.stop(second)
    assert late.settle().ignored > 0


@on_both
@pytest.mark.parametrize("words", [("futures", "leaderless"), ("leaderless",)], ids=["off", "on"])
def test_a_record_that_could_not_be_sent_is_not_left_out(
    exchanges: NewExchanges, words: tuple[str, ...], tmp_path: Path
) -> None:
    """While the trades' topic has no leader nothing is committed; unless futures are not checked: then trades lack."""
    lasting = tmp_path / "leaderless"
    trusting = exchanges(*words, environment={LEADERLESS_WHILE: str(lasting)})
    exchange = trusting.nse()
    trusting.wait_until_owned_by(exchange)
    lasting.touch()
    place(trusting, *pair(1))
    trusting.wait_for(exchange, "trade" if "futures" in words else "waits-for-the-log")
    lasting.unlink()
    trusting.wait_for(exchange, "trade")
    trusting.stop(exchange)
    report = trusting.settle()
    assert rules(report) >= {"outputs", "legs"} if "futures" in words else report.findings == []


@on_both
def test_once_takes_what_lies_behind_the_end_of_a_transaction(exchanges: NewExchanges) -> None:
    """A participant's transaction leaves a gap in the offsets; what follows it is taken all the same."""
    sound = exchanges()
    client = sound.clients[0]
    record, participant, name = make_order("BUY", SYMBOL, "B-0", 10, 870)
    with contextlib.closing(KafkaProducer(bootstrap_servers=sound.servers, transactional_id="participant")) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        offset = producer.send(record.topic, record.value, record.key, partition=0).get(10).offset
        producer.commit_transaction()
    where = Position(record.topic, 0, offset)
    client.told.append(Told(record.topic, participant, name, record.value or b"", "acknowledged", where))
    place(sound, *pair(1))
    place(sound, *pair(2))
    sound.must_end(sound.nse("--once"), 0)
    with sound.open() as log:
        report = examine(log, client.told)
    assert (report.findings, report.inputs, report.trades) == ([], 5, 2)


@on_both
def test_an_order_that_is_sent_again_and_again_is_taken_once(exchanges: NewExchanges) -> None:
    """Twice in a row, after a kill and a recovery, and after a clean stop: it trades once and nothing is doubled."""
    sound = exchanges()
    order, offer = pair(1)
    place(sound, order, offer, order, offer)
    first = sound.nse()
    sound.wait_for(first, "trade")
    first.kill()
    place(sound, order, offer)
    second = sound.nse()
    sound.wait_until_owned_by(second)
    place(sound, offer, order)
    sound.stop(second)
    place(sound, order, offer)
    report = sound.settle()
    assert (report.findings, report.inputs, report.trades) == ([], 10, 1)
