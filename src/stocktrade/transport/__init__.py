"""The log behind the exchange: one port (`base`), its adapters, and `connect`, which picks one.

Invariant: only this module knows which adapters exist, and only an adapter imports its client library.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from stocktrade.errors import UsageError
from stocktrade.transport.base import Log

KAFKA_PYTHON: Final = "kafka-python"
LIBRDKAFKA: Final = "librdkafka"
CLIENTS: Final = (KAFKA_PYTHON, LIBRDKAFKA)
"""What can carry records to and from Kafka, the default first."""


def connect(
    url: str,
    *,
    partitions: int | None = None,
    replication: int | None = None,
    settings: Mapping[str, str] | None = None,
    client: str = KAFKA_PYTHON,
    prefix: str = "",
) -> Log:
    """Open a log.

    Args:
        url: `sqlite:FOLDER` is the embedded log in that folder, made when it is missing. `kafka:HOST:PORT,...` is the
            log of a Kafka cluster.
        partitions: into how many shards a new log is divided: by default one on the embedded log, four on Kafka.
        replication: on Kafka, how many copies of a new topic there are; by default one per broker, three at most.
        settings: on Kafka, its own options of the connection (`security.protocol` ...).
        client: on Kafka, which library carries the records: `kafka-python`, or `librdkafka` where it is installed.
        prefix: on Kafka, goes before the names of topics and groups: another exchange on the same cluster.

    Raises:
        UsageError: no such kind of log, or none that can be used as it is or with these arguments.
        Unavailable: the log cannot be opened.
        LogDamaged: the file is foreign, truncated, or of another version.
    """
    kind, _, rest = url.partition(":")
    # An adapter is imported when it is chosen: a client library costs more than all the rest.
    if kind == "sqlite" and rest:
        if replication is not None or settings or prefix:
            raise UsageError(
                "the embedded log has no copies and no options of Kafka",
                hint="give --bootstrap-server HOST:PORT to use Kafka",
            )
        from stocktrade.transport.sqlite import SqliteLog  # noqa: PLC0415

        return SqliteLog(Path(rest), partitions=1 if partitions is None else partitions)
    if kind == "kafka" and rest:
        from stocktrade.transport.kafka import KafkaLog  # noqa: PLC0415

        return KafkaLog(
            rest, partitions=partitions, replication=replication, settings=settings, client=client, prefix=prefix
        )
    raise UsageError(f"unknown kind of log: {url!r}", hint="use sqlite:FOLDER or kafka:HOST:PORT,...")


def remove(url: str, *, prefix: str, groups: Collection[str], settings: Mapping[str, str] | None = None) -> None:
    """Delete what an exchange of a prefix has on Kafka, with everything in it: its topics, and its groups.

    Args:
        url: `kafka:HOST:PORT,...`.
        prefix: that of the exchange. The one without a prefix is never deleted.
        groups: the names of its groups, without the prefix. Whoever is still in one is put out of it.
        settings: Kafka's own options of the connection.

    Raises:
        StocktradeError: something of it may still be there.
    """
    from stocktrade.transport.kafka import KafkaLog  # noqa: PLC0415 - see above

    with KafkaLog(url.removeprefix("kafka:"), prefix=prefix, settings=settings) as log:
        log.remove(groups)
