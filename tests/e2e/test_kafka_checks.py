"""The checks of an exchange on Kafka can fail: with one guard switched off, the fault that it is there for is found.

Beside each guard the sound exchange meets the same fault and is found to be sound, unless that is a test elsewhere:
`test_kafka_faults`.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from kafka import KafkaProducer

sys.path.insert(0, str(Path(__file__).parents[1]))

from clients import Message, make_order
from kafka_faults import BROKER, SHARDS, TIMES, Exchanges, make_topics

from auditor import Report
from kafka_container import KafkaContainer

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SABOTAGED: Final = Path(__file__).with_name("sabotaged_kafka.py")
LONG: Final = {**TIMES, "transaction.timeout.ms": "30000"}
"""So that a transaction outlives its owner's stop."""

SYMBOL: Final = "LT"
"""Of shard 0, which an exchange claims first."""


@pytest.fixture(scope="module")
def broker(new_module_broker: Callable[..., KafkaContainer]) -> KafkaContainer:
    """A broker for all of them: each has its topics anew."""
    return new_module_broker(**BROKER)


NewExchanges = Callable[..., Exchanges]


@pytest.fixture
def exchanges(broker: KafkaContainer, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[NewExchanges]:
    """Makes exchanges with guards off, on empty topics."""
    begun = contextlib.ExitStack()

    def sabotaged(*words: str, **options: object) -> Exchanges:
        program = (sys.executable, str(SABOTAGED), ",".join(words))
        made = Exchanges(broker.bootstrap_servers, tmp_path, group=request.node.name, program=program, **options)  # type: ignore[arg-type]
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


def test_a_commit_in_two_transactions_is_found(exchanges: NewExchanges) -> None:
    """Killed in between, the exchange leaves orders without answers and trades without legs."""
    torn = exchanges("atomic")
    place(torn, *pair(1))
    torn.must_end(torn.nse(failpoints="sabotage.between=kill@1"), -9)
    assert rules(torn.settle()) >= {"one event", "outputs"}


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
    assert rules(uncommitted.settle()) >= {"inputs once"}


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


@pytest.mark.parametrize("words", [("offsets", "twice"), ("twice",)], ids=["off", "on"])
def test_an_input_that_is_handed_over_twice_is_taken_once(exchanges: NewExchanges, words: tuple[str, ...]) -> None:
    """Without the comparison of offsets, and only then, the journal has inputs twice."""
    forgetful = exchanges(*words)
    place(forgetful, *pair(1))
    report = forgetful.settle()
    assert rules(report) >= {"inputs once"} if "offsets" in words else report.findings == []
