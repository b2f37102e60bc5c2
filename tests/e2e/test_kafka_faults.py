"""Every fault that an exchange on Kafka must survive, under load, one after the other; then an audit of the whole log.

On each client. `make fault-test` repeats them, `make kafka-soak` for an hour.
"""

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from kafka_faults import BROKER, FAULTS, ROUNDS, SEED, Exchanges, Venue, make_topics

from kafka_container import KafkaContainer
from stocktrade.transport import CLIENTS

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SECONDS: Final = float(os.environ.get("STOCKTRADE_TEST_FAULT_SECONDS", "0"))
"""More rounds until so many seconds are over."""


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.timeout(300 + 400 * ROUNDS + 2 * SECONDS)
def test_faults_lose_and_double_nothing(new_broker: Callable[..., KafkaContainer], tmp_path: Path, client: str) -> None:
    """Each acknowledged order is in the journal once, each unknown one at most once, and the auditor finds nothing."""
    broker = new_broker(**BROKER)
    exchanges = Exchanges(broker.bootstrap_servers, tmp_path, group="faults", client=client)
    make_topics(exchanges)
    chance = random.Random(SEED)
    done: Counter[str] = Counter()
    with exchanges.ending():
        venue = Venue(exchanges, broker, chance)
        began = time.monotonic()
        rounds = 0
        with exchanges.loaded():
            while rounds < ROUNDS or time.monotonic() - began < SECONDS:
                rounds += 1
                for fault in chance.sample(FAULTS, len(FAULTS)):
                    begun = time.monotonic()
                    fault(venue)
                    done[fault.__name__] += 1
                    sys.stdout.write(f"{fault.__name__}: {time.monotonic() - begun:.1f} s\n")
        exchanges.stop(venue.owner)
        report = exchanges.settle()
    told = Counter(each.answer for each in exchanges.told())
    sys.stdout.write(f"{report.inputs} inputs, {report.trades} trades, {report.ignored} ignored; {dict(told)}\n")
    assert report.findings == []
    # The brokers refused whatever came from an owner that had been replaced, and tore nothing.
    assert (report.ignored, report.redelivered, exchanges.torn()) == (0, 0, [])
    assert done == dict.fromkeys([fault.__name__ for fault in FAULTS], rounds)
    assert report.trades > 50 * rounds
