"""The exchange's topics on a Kafka cluster: made as they should be, and refused when they are not.

Invariant: a topic that exists is never changed. One that differs is refused before anything is read or written,
with each difference named and the command that mends it.
"""

import time
from collections.abc import Collection, Sequence
from typing import Any, Final

from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType

from stocktrade.errors import Unavailable, UsageError
from stocktrade.transport.base import TopicSpec
from stocktrade.transport.kafka_client import Connection
from stocktrade.transport.topics import JOURNAL

MAX_REPLICATION: Final = 3
_MISSING: Final = 3  # UNKNOWN_TOPIC_OR_PARTITION
_CHECKED: Final = ("cleanup.policy", "message.timestamp.type", "retention.ms", "retention.bytes", "min.insync.replicas")
_METADATA_PATIENCE_S: Final = 10.0


class Topics:
    """The topics of one log, by the names that they have on the cluster.

    Args:
        connection: the cluster.
        replication: how many copies a new topic has; by default as many as there are brokers, three at most.
    """

    def __init__(self, connection: Connection, replication: int | None) -> None:
        self._connection = connection
        self._replication = replication
        self._partitions: dict[str, int] = {}

    def partitions(self, topic: str) -> int | None:
        """How many partitions a topic has; None when there is no such topic. Asked once: it never changes."""
        if topic not in self._partitions:
            self.find([topic])
        return self._partitions.get(topic)

    def find(self, names: Collection[str]) -> set[str]:
        """Which of the topics exist."""
        self._partitions.update({name: len(found["partitions"]) for name, found in self._describe(names).items()})
        return {name for name in names if name in self._partitions}

    def ensure(self, specs: Sequence[TopicSpec], partitions: int) -> None:
        """Make what is missing, check what is there.

        Raises:
            UsageError: a topic exists with other settings or another number of partitions.
            Unavailable: the cluster does not answer, or not for all partitions.
        """
        names = self.missing(specs, partitions)
        if names:
            missing = [spec for spec in specs if spec.name in names]
            self._make(missing, partitions)
            # Another process may have made them meanwhile, with other settings.
            self._check(missing, self._wait_for(names), partitions)
        self._partitions.update(dict.fromkeys([spec.name for spec in specs], partitions))

    def missing(self, specs: Sequence[TopicSpec], partitions: int) -> list[str]:
        """The names of those that are not there, after a check of the others; raises what `ensure` does."""
        there = self._describe([spec.name for spec in specs])
        self._check([spec for spec in specs if spec.name in there], there, partitions)
        return [spec.name for spec in specs if spec.name not in there]

    def remove(self, names: Sequence[str]) -> None:
        """Delete topics with everything in them, and wait until the cluster has none of them any more.

        Raises:
            Unavailable: the cluster does not answer, or still has one after a while.
            UsageError: this user may not delete one.
        """
        deadline = time.monotonic() + _METADATA_PATIENCE_S
        while there := sorted(self._describe(names)):
            done = self._connection.ask(
                "the topics cannot be deleted", lambda: self._connection.admin.delete_topics(there, raise_errors=False)
            )
            for topic in done["topics"]:
                error = kafka_errors.for_code(topic["error_code"])
                if error not in (kafka_errors.NoError, kafka_errors.UnknownTopicOrPartitionError):
                    message = topic.get("error_message") or ""
                    raise self._connection.translated(error(message), f"topic {topic['name']} cannot be deleted")
            if time.monotonic() >= deadline:
                raise Unavailable(f"topic {there[0]} was deleted, and is still there", hint="look at the brokers' logs")
            time.sleep(0.05)
        for name in names:
            self._partitions.pop(name, None)

    def settings(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """The settings that matter of topics which exist.

        A broker that has not heard of a topic yet says so in a code that the client drops, and tells no settings
        (seen on three brokers, right after a topic was made): it is asked again.

        Raises:
            Unavailable: the cluster does not answer, or goes on to tell nothing about a topic.
        """
        resources = [ConfigResource(ConfigResourceType.TOPIC, name, configs=dict.fromkeys(_CHECKED)) for name in names]
        deadline = time.monotonic() + _METADATA_PATIENCE_S
        while True:
            found = self._connection.ask(
                "the settings of the topics are not known",
                lambda: self._connection.admin.describe_configs(resources, config_filter="all"),
            )["topic"]
            untold = [name for name in names if not found.get(name)]
            if not untold:
                return {topic: {name: entry["value"] for name, entry in found[topic].items()} for topic in names}
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"the settings of topic {untold[0]} are not known",
                    cause="the broker tells none: it has not heard of the topic, or this client may not see them",
                    hint="try again; if that does not help, allow the client DescribeConfigs on the topics",
                )
            time.sleep(0.02)

    def _describe(self, names: Collection[str]) -> dict[str, Any]:
        if not names:
            return {}
        found = self._connection.ask(
            "the topics are not known", lambda: self._connection.admin.describe_topics(list(names))
        )
        for topic in found:
            code = topic["error_code"]
            if code not in (0, _MISSING):
                error = kafka_errors.for_code(code)(topic["name"])
                raise self._connection.translated(error, f"topic {topic['name']} cannot be described")
        return {topic["name"]: topic for topic in found if topic["error_code"] == 0}

    def _wait_for(self, names: Collection[str]) -> dict[str, Any]:
        deadline = time.monotonic() + _METADATA_PATIENCE_S
        while True:
            found = self._describe(names)
            waiting = [name for name in names if name not in found or not _has_leaders(found[name])]
            if not waiting:
                return found
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"no broker leads the new topic {waiting[0]}", hint="look at the brokers' logs, then try again"
                )
            time.sleep(0.02)

    def _make(self, specs: Sequence[TopicSpec], partitions: int) -> None:
        replication = self._replication or min(MAX_REPLICATION, self._connection.brokers())
        request = {
            spec.name: {
                "num_partitions": partitions,
                "replication_factor": replication,
                "configs": {**_settings(spec), "min.insync.replicas": str(_min_in_sync(replication))},
            }
            for spec in specs
        }
        done = self._connection.ask(
            "the topics cannot be made", lambda: self._connection.admin.create_topics(request, raise_errors=False)
        )
        for topic in done["topics"]:
            error = kafka_errors.for_code(topic["error_code"])
            if error is kafka_errors.InvalidReplicationFactorError:
                raise UsageError(
                    f"the cluster cannot keep {replication} copies of a topic",
                    cause=topic.get("error_message") or "it has fewer brokers",
                    hint="start more brokers, or ask for fewer copies with --replication",
                )
            if error not in (kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError):
                message = topic.get("error_message") or ""
                raise self._connection.translated(error(message), f"topic {topic['name']} cannot be made")

    def _check(self, specs: Sequence[TopicSpec], there: dict[str, Any], partitions: int) -> None:
        if not specs:
            return
        for spec in specs:
            count = len(there[spec.name]["partitions"])
            if spec.name.endswith(JOURNAL) and count != partitions:
                raise UsageError(
                    f"the exchange on this cluster has {count} partitions, not {partitions}",
                    cause="a symbol's partition follows from their number: with another one it would have two books",
                    hint="leave --partitions out, or make a new exchange on a cluster without these topics",
                )
        found = self.settings([spec.name for spec in specs])
        differences: list[str] = []
        repairs: list[str] = []
        server = self._connection.servers.partition(",")[0]
        for spec in specs:
            count = len(there[spec.name]["partitions"])
            if count != partitions:
                differences.append(f"{spec.name} has {count} partitions, not {partitions}")
                # More partitions can be added; fewer need a new topic.
                repairs.append(
                    f"kafka-topics.sh --bootstrap-server {server} --topic {spec.name} "
                    + (f"--alter --partitions {partitions}" if count < partitions else "--delete")
                )
            copies = min(len(each["replica_nodes"]) for each in there[spec.name]["partitions"])
            actual = found[spec.name]
            wanted = _settings(spec)
            wrong = {name: value for name, value in wanted.items() if actual[name] != value}
            if not _min_in_sync(copies) <= int(actual["min.insync.replicas"]) <= copies:
                wrong["min.insync.replicas"] = str(_min_in_sync(copies))
            if wrong:
                differences += [f"{spec.name} has {name}={actual[name]}, not {value}" for name, value in wrong.items()]
                add = ",".join(
                    f"{name}=[{value}]" if "," in value else f"{name}={value}" for name, value in wrong.items()
                )
                repairs.append(
                    f"kafka-configs.sh --bootstrap-server {server} --entity-type topics "
                    f"--entity-name {spec.name} --alter --add-config {add}"
                )
        if differences:
            raise UsageError(
                "the cluster has topics that the exchange cannot use as they are",
                cause="; ".join(differences),
                hint="mend them with\n" + "\n".join(repairs),
            )


def _settings(spec: TopicSpec) -> dict[str, str]:
    common = {
        "message.timestamp.type": "LogAppendTime" if spec.append_time else "CreateTime",
        "cleanup.policy": "compact" if spec.compacted else "delete",
    }
    # Journal and inputs are the exchange's memory: nothing of them goes away by itself.
    return common if spec.compacted else {**common, "retention.ms": "-1", "retention.bytes": "-1"}


def _min_in_sync(replication: int) -> int:
    return 1 if replication < 3 else 2


def _has_leaders(topic: Any) -> bool:
    return bool(topic["partitions"]) and all(
        each["error_code"] == 0 and each["leader_id"] >= 0 for each in topic["partitions"]
    )
