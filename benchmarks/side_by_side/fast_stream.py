"""FastStream on confluent-kafka: a subscriber of batches that publishes, acknowledged when all of it is written.

At least once: it has no transactions. Types are not checked on the way in (`apply_types=False`) and a batch is decoded
here, which is what makes it fast; each record carries the headers that FastStream adds. Found by trying: batches of
2,000 are no faster, nor is its client on aiokafka; `publish_batch` instead of `publish` is slower.
"""

import asyncio
from typing import Any, Final

import orjson
from faststream import AckPolicy, FastStream
from faststream.confluent import KafkaBroker

from side_by_side.work import SESSION_S, Desk, Stopwatch
from stocktrade.transport import topics

BATCH: Final = 500


def run(servers: str, prefix: str, orders: int) -> float:
    """Seconds in which it took the orders."""
    watch, desk, taken, seconds = Stopwatch(), Desk(), 0, 0.0
    broker = KafkaBroker(
        servers,
        apply_types=False,
        logger=None,
        allow_auto_create_topics=False,
        linger_ms=5,
        config={"batch.size": 1024 * 1024, "queue.buffering.max.messages": 1_000_000},
    )
    app = FastStream(broker, logger=None)

    async def raw(message: Any) -> Any:
        return message.raw_message

    async def match(records: Any) -> None:
        nonlocal taken, seconds
        watch.consumed()
        written = []
        for record in records:
            topic = record.topic()[len(prefix) :]
            for answer in desk.take(orjson.loads(record.value()), topic, record.partition(), record.offset()):
                publishing = broker.publish(
                    orjson.dumps(answer.fields), prefix + answer.topic, key=answer.key.encode(), no_confirm=True
                )
                written.append(await publishing)
        await asyncio.gather(*written)
        taken += len(records)
        if taken >= orders:
            seconds = watch.seconds()
            app.exit()

    broker.subscriber(
        *(prefix + topic for topic in topics.INPUTS),
        group_id=f"{prefix}faststream",
        batch=True,
        max_records=BATCH,
        auto_offset_reset="earliest",
        ack_policy=AckPolicy.NACK_ON_ERROR,
        session_timeout_ms=SESSION_S * 1000,
        fetch_max_wait_ms=20,
        isolation_level="read_committed",
        decoder=raw,
    )(match)
    asyncio.run(app.run())
    return seconds
