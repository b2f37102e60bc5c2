"""An exchange on three brokers, of which one is killed: that which leads an input, the journal, the commits.

Topics have three copies and a write counts when two have it, so trading must go on while one broker is away.
"""

import contextlib
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from kafka import KafkaAdminClient

sys.path.insert(0, str(Path(__file__).parents[1]))

from kafka_faults import BROKER, ROUNDS, SEED, SHARDS, Exchanges, make_topics
from processes import until

from kafka_container import KafkaCluster
from stocktrade.transport import CLIENTS, topics

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SMALL: Final = {**BROKER, "KAFKA_HEAP_OPTS": "-Xms96m -Xmx256m"}
TRANSACTIONS: Final = "__transaction_state"


@pytest.fixture(scope="module")
def cluster(need_docker: None) -> Iterator[KafkaCluster]:
    cluster = KafkaCluster(SMALL).start()
    try:
        yield cluster
    finally:
        cluster.stop()


def described(servers: str, *names: str) -> dict[str, list[dict[str, Any]]]:
    """The partitions of topics, by their numbers."""
    with contextlib.closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
        found = admin.describe_topics(list(names))
    return {topic["name"]: sorted(topic["partitions"], key=lambda each: each["partition_index"]) for topic in found}


def leader(servers: str, topic: str, partition: int) -> int:
    """The number of the broker that leads a partition."""
    return int(described(servers, topic)[topic][partition]["leader_id"])


def coordinator(servers: str, transactional_id: str) -> int:
    """The number of the broker that decides about the transactions of a shard's owner."""
    partitions = described(servers, TRANSACTIONS)[TRANSACTIONS]
    # The hash of a Java string decides.
    value = 0
    for letter in transactional_id:
        value = (value * 31 + ord(letter)) & 0xFFFFFFFF
    return int(partitions[(value & 0x7FFFFFFF) % len(partitions)]["leader_id"])


def is_whole(servers: str) -> bool:
    """Whether every copy of every partition is up to date."""
    found = described(servers, TRANSACTIONS, *[spec.name for spec in topics.SPECS])
    return all(len(each["isr_nodes"]) == 3 for partitions in found.values() for each in partitions)


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.timeout(240 + 180 * ROUNDS)
def test_trading_goes_on_while_one_broker_of_three_is_away(cluster: KafkaCluster, tmp_path: Path, client: str) -> None:
    """Whatever the broker led that was killed, nothing is lost or doubled, and trades are made before it is back."""
    exchanges = Exchanges(cluster.bootstrap_servers, tmp_path, group=f"cluster-{client}", client=client)
    make_topics(exchanges)
    servers, chance = exchanges.servers, random.Random(SEED)
    with exchanges.ending():
        exchange = exchanges.nse()
        exchanges.wait_until_owned_by(exchange)
        with exchanges.loaded():
            for _ in range(ROUNDS):
                for role in ("input", "journal", "coordinator"):
                    shard = chance.randrange(SHARDS)
                    until(lambda: is_whole(servers), within_s=60, what="all copies")
                    begun = time.monotonic()
                    if role == "coordinator":
                        number = coordinator(servers, f"{topics.JOURNAL}-{shard}")
                    else:
                        number = leader(servers, topics.JOURNAL if role == "journal" else topics.BUY_ORDERS, shard)
                    cluster.brokers[number].kill_broker()
                    exchanges.wait_for_trades(exchange, 20, shard=shard)
                    sys.stdout.write(f"{role}: 20 trades in shard {shard} after {time.monotonic() - begun:.1f} s\n")
                    exchanges.wait_until_owned_by(exchange)
                    cluster.brokers[number].start_broker()
                    exchanges.wait_for_trades(exchange)
        exchanges.stop(exchange)
        report = exchanges.settle()
    assert report.findings == []
    assert (report.ignored, report.redelivered, exchanges.torn()) == (0, 0, [])
    assert report.trades > 60 * ROUNDS
