"""The compose files are true: a broker that is given what they say is one that the exchange can trade on.

They are read by a reader of its own, of the little YAML that they use, so that no package is needed for it. Where
Docker Compose is installed, both must read the same.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import kafka
import pytest

from kafka_container import DEFAULT_IMAGE, KafkaContainer
from kafka_image import KAFKA_VERSION
from stocktrade.transport import topics
from stocktrade.transport.base import NewRecord
from stocktrade.transport.kafka import KafkaLog

ROOT: Final = Path(__file__).parent.parent
SINGLE: Final = ROOT / "compose.yaml"
CLUSTER: Final = ROOT / "compose.cluster.yaml"
BOTH: Final = pytest.mark.parametrize("path", [SINGLE, CLUSTER], ids=lambda path: path.name)

_LINE = re.compile(r"(?P<indent> *)(?P<key>[\w<-]+):(?: +&(?P<anchor>\w+))?(?: +(?P<value>[^\s#&].*?))?(?: +#.*)?")


def read(path: Path) -> dict[str, Any]:
    """Mappings, lists of texts, anchors and merges; anything else is refused."""
    document: dict[str, Any] = {}
    anchors: dict[str, Any] = {}
    stack: list[tuple[int, Any]] = [(-1, document)]
    for line in path.read_text().splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if item := re.fullmatch(r"( *)- \"([^\"]*)\"(?: +#.*)?|( *)- ([\w./:-]+)", line):
            parent = stack[-1][1]
            parent.setdefault("-", []).append(item[2] or item[4])
            continue
        match = _LINE.fullmatch(line)
        assert match is not None, f"{path.name}: {line}"
        indent, key, value = len(match["indent"]), match["key"], match["value"]
        while stack[-1][0] >= indent:
            stack.pop()
        if key == "<<":
            stack[-1][1].update(anchors[value.removeprefix("*")])
        elif value is not None:
            stack[-1][1][key] = json.loads(value) if value[0] in '"[' else value
        else:
            nested: dict[str, Any] = {}
            stack[-1][1][key] = nested
            stack.append((indent, nested))
            if match["anchor"]:
                anchors[match["anchor"]] = nested
    return document


def services(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = read(path)["services"]
    return found


def environment(service: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = service["environment"]
    return found


@BOTH
def test_docker_compose_reads_the_same(path: Path) -> None:
    compose = ["docker", "compose"]
    there = shutil.which("docker") and subprocess.run([*compose, "version"], capture_output=True, check=False)
    if not there or there.returncode:
        pytest.skip("no Docker Compose")
    command = [*compose, "-f", str(path), "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    said = json.loads(done.stdout)
    assert said["name"] == read(path)["name"]
    assert {name: each["environment"] for name, each in said["services"].items()} == {
        name: environment(each) for name, each in services(path).items()
    }


@BOTH
def test_a_broker_is_of_the_tested_version_and_for_this_machine_only(path: Path) -> None:
    for name, service in services(path).items():
        assert service["image"].partition(" ")[0] == DEFAULT_IMAGE == f"apache/kafka:{KAFKA_VERSION}"
        (port,) = service["ports"]["-"]
        outside = re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)
        assert outside, f"{name}: {port}"
        variables = environment(service)
        assert f"://127.0.0.1:{outside[1]}" in variables["KAFKA_ADVERTISED_LISTENERS"]
        assert f"://0.0.0.0:{outside[1]}," in variables["KAFKA_LISTENERS"]
        (volume,) = service["volumes"]["-"]
        assert volume.partition(":")[2] == variables["KAFKA_LOG_DIRS"], "the data would go with the container"
        assert volume.partition(":")[0] in read(path)["volumes"]


def test_the_cluster_outlasts_one_broker() -> None:
    brokers = services(CLUSTER)
    assert len(brokers) == len({environment(each)["KAFKA_NODE_ID"] for each in brokers.values()}) == 3
    for name, service in brokers.items():
        variables = environment(service)
        for setting, value in variables.items():
            if setting.endswith("REPLICATION_FACTOR"):
                assert value == "3", f"{name}: {setting}"
            if setting.endswith(("MIN_ISR", "MIN_INSYNC_REPLICAS")):
                assert value == "2", f"{name}: {setting}"
        assert f"{variables['KAFKA_NODE_ID']}@{name}:29093" in variables["KAFKA_CONTROLLER_QUORUM_VOTERS"].split(",")
        assert f"INTERNAL://{name}:19092" in variables["KAFKA_ADVERTISED_LISTENERS"]


class AsComposed(KafkaContainer):
    """A broker with nothing but the variables of compose.yaml, at a port that is free, with its data in a volume."""

    def __init__(self, volume: str) -> None:
        super().__init__()
        self.with_volume_mapping(volume, "/var/lib/kafka/data", "rw")

    def _broker_env(self) -> dict[str, str]:
        (service,) = services(SINGLE).values()
        return {name: re.sub(r"\b9092\b", str(self._port), value) for name, value in environment(service).items()}


@pytest.fixture
def volume(kafka_servers: str) -> Iterator[str]:
    """A Docker volume of the test's own. Without Docker, as with a broker that was given, the test is skipped."""
    import docker  # type: ignore[import-untyped, unused-ignore]

    try:
        client = docker.from_env()
    except docker.errors.DockerException:
        pytest.skip("no Docker")
    made = client.volumes.create()
    yield made.name
    made.remove(force=True)
    client.close()


@pytest.mark.kafka
@pytest.mark.slow
def test_a_broker_of_the_compose_file_is_one_to_trade_on_and_keeps_its_data(volume: str) -> None:
    """As after `docker compose down` and `up`: another container finds what the first one wrote."""
    with AsComposed(volume) as broker:
        with KafkaLog(broker.bootstrap_servers) as log:
            log.ensure_topics(topics.SPECS)
            log.append([NewRecord(topics.BUY_ORDERS, b"SBIN", b"kept")])
            writer = log.claim(2)
            writer.commit([NewRecord(topics.TRADES, None, b"kept", 2)])  # its own topic of transactions works
            writer.close()
        admin = kafka.KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        resource = kafka.admin.ConfigResource(kafka.admin.ConfigResourceType.BROKER, "1")
        found = admin.describe_configs([resource], config_filter="all")["broker"]["1"]
        admin.close()
        (service,) = services(SINGLE).values()
        for name in ("AUTO_CREATE_TOPICS_ENABLE", "TRANSACTION_ABORT_TIMED_OUT_TRANSACTION_CLEANUP_INTERVAL_MS"):
            option = name.lower().replace("_", ".")
            assert found[option]["value"] == environment(service)[f"KAFKA_{name}"], option
        broker.stop_broker()
    with AsComposed(volume) as again, KafkaLog(again.bootstrap_servers) as log:
        for topic in (topics.BUY_ORDERS, topics.TRADES):
            reader = log.reader({(topic, 2): 0})
            assert [record.value for record in reader.poll(20)] == [b"kept"]
            reader.close()
