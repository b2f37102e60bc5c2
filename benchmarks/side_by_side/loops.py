"""Loops that are no exchange: what a client can carry at most, and what the first example of this project did.

The bare loops read, parse, and write as many records of as many bytes as the exchange, its journal included, in
transactions that hold the offsets of their inputs. They match nothing: each order is answered as if its partner had
come with it. One fixed program for each client, with Python's own JSON.
"""

import json
from collections import defaultdict, deque
from typing import Any, Final
from uuid import uuid4

import kafka
from kafka.structs import OffsetAndMetadata

from side_by_side.work import BUYER, SELLER, SESSION_S, SHARES, Answer, Stopwatch, settled
from stocktrade.transport import topics

BATCH: Final = 2000
"""Inputs in one transaction, at most."""

encode: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _answers(order: dict[str, Any], topic: str, partition: int, offset: int) -> list[Answer]:
    """The records of one order, as if it had met the other one of its pair."""
    symbol, source = order["stock_symbol"], f"{topic}@{partition}:{offset}"
    is_buy = "buyer" in order
    order_id = order["order_id"] if is_buy else order["offer_id"]
    fields = {
        "order_id": order_id,
        "participant": BUYER if is_buy else SELLER,
        "side": "BUY" if is_buy else "SELL",
        "stock_symbol": symbol,
        "status": "ACCEPTED",
        "quantity": SHARES,
        **({"price_per_unit": order["price_per_unit"]} if is_buy else {}),
        "filled_quantity": 0 if is_buy else SHARES,
        "leaves_quantity": SHARES if is_buy else 0,
        "shard": partition,
        "seq": 2 * offset + 1,
        "source": source,
    }
    event = Answer(topics.ORDER_EVENTS, BUYER if is_buy else SELLER, fields)
    if is_buy:
        return [event]
    return [event, *settled(symbol, (order_id, BUYER), (order_id, SELLER), "BUY", partition, 2 * offset + 1)]


def _journal(inputs: list[dict[str, Any]]) -> bytes:
    return encode({"prev": "0" * 64, "inputs": inputs, "digest": "0" * 64}).encode()


def run_kafka_python(servers: str, prefix: str, orders: int) -> float:
    """Seconds in which the bare loop on kafka-python took the orders."""
    watch = Stopwatch()
    consumer, producer = _kafka_python(
        servers,
        prefix,
        transactional_id=f"{prefix}bare",
        batch_size=256 * 1024,
        linger_ms=0,
        retry_backoff_ms=5,
        transaction_timeout_ms=15_000,
    )
    producer.init_transactions()
    taken = 0
    while taken < orders:
        batches = consumer.poll(timeout_ms=200, max_records=BATCH)
        if not batches:
            continue
        watch.consumed()
        producer.begin_transaction()
        futures, offsets = [], {}
        for place, records in batches.items():
            topic, inputs = place.topic[len(prefix) :], []
            for record in records:
                text = record.value.decode()
                inputs.append({"topic": topic, "offset": record.offset, "time_ms": record.timestamp, "text": text})
                for to, key, fields in _answers(json.loads(text), topic, place.partition, record.offset):
                    value = encode(fields).encode()
                    futures.append(producer.send(prefix + to, value, key.encode(), partition=place.partition))
            offsets[place] = OffsetAndMetadata(records[-1].offset + 1, "", -1)
            taken += len(records)
            futures.append(
                producer.send(prefix + topics.JOURNAL, _journal(inputs), b"0", partition=place.partition),
            )
        producer.send_offsets_to_transaction(offsets, consumer.group_metadata())
        producer.flush()
        assert all(future.succeeded() for future in futures)
        producer.commit_transaction()
    seconds = watch.seconds()
    producer.close()
    consumer.close()
    return seconds


def run_librdkafka(servers: str, prefix: str, orders: int) -> float:
    """Seconds in which the bare loop on librdkafka took the orders."""
    from confluent_kafka import Consumer, Producer  # noqa: PLC0415 - an extra of the package

    watch = Stopwatch()
    common = {"bootstrap.servers": servers}
    consumer = Consumer(
        common
        | {
            "group.id": f"{prefix}loop",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "session.timeout.ms": SESSION_S * 1000,
            "fetch.wait.max.ms": 20,
        }
    )
    producer = Producer(
        common
        | {
            "transactional.id": f"{prefix}bare",
            "transaction.timeout.ms": 15_000,
            "linger.ms": 5,
            "batch.size": 1024 * 1024,
            "queue.buffering.max.messages": 1_000_000,
        }
    )
    producer.init_transactions()
    consumer.subscribe([prefix + topic for topic in topics.INPUTS])
    taken = 0
    while taken < orders:
        # It waits for a whole batch; what there is less of comes after this time.
        records = consumer.consume(BATCH, 0.02)
        if not records:
            continue
        watch.consumed()
        producer.begin_transaction()
        journals = defaultdict(list)
        for record in records:
            assert record.error() is None, record.error()
            value = record.value()
            name, partition, offset = record.topic(), record.partition(), record.offset()
            assert value is not None
            assert name is not None
            assert partition is not None
            assert offset is not None
            topic, text = name[len(prefix) :], value.decode()
            entry = {"topic": topic, "offset": offset, "time_ms": record.timestamp()[1], "text": text}
            journals[partition].append(entry)
            for to, key, fields in _answers(json.loads(text), topic, partition, offset):
                producer.produce(prefix + to, encode(fields).encode(), key.encode(), partition)
        for partition, inputs in journals.items():
            producer.produce(prefix + topics.JOURNAL, _journal(inputs), b"0", partition)
        taken += len(records)
        positions = consumer.position(consumer.assignment())
        metadata = consumer.consumer_group_metadata()
        producer.send_offsets_to_transaction([place for place in positions if place.offset >= 0], metadata)
        producer.commit_transaction()  # raises if a record of it was not written
    seconds = watch.seconds()
    consumer.close()
    return seconds


def run_seed(servers: str, prefix: str, orders: int) -> float:
    """Seconds in which the seed's loop took the orders: each matched, told to the buyer in two messages, and flushed.

    It commits its offsets as its client does by default: every five seconds, on its own.
    """
    watch = Stopwatch()
    consumer, producer = _kafka_python(servers, prefix)
    waiting: dict[str, dict[str, deque[dict[str, Any]]]] = defaultdict(lambda: defaultdict(deque))
    taken = 0
    while taken < orders:
        batches = consumer.poll(timeout_ms=200, max_records=500)
        for record in [record for records in batches.values() for record in records]:
            watch.consumed()
            order = json.loads(record.value)
            taken += 1
            side, other = ("buy", "sell") if "buyer" in order else ("sell", "buy")
            symbol = order["stock_symbol"]
            if not waiting[symbol][other]:
                waiting[symbol][side].append(order)
                continue
            found = waiting[symbol][other].popleft()
            bid = order if side == "buy" else found
            shares = {
                "transfer_id": str(uuid4()),
                "from_entity": "NSE",
                "to_entity": bid["buyer"],
                "stock_symbol": symbol,
                "quantity": bid["quantity"],
                "order_id": bid["order_id"],
            }
            rupees = {
                "movement_id": str(uuid4()),
                "from_entity": "NSE",
                "to_entity": bid["buyer"],
                "amount": bid["quantity"] * bid["price_per_unit"],
                "order_id": bid["order_id"],
                "description": f"Payment for {bid['quantity']} {symbol} stocks @ ₹{bid['price_per_unit']:g}",
            }
            producer.send(prefix + topics.DEMAT_TRANSFERS, json.dumps(shares).encode())
            producer.send(prefix + topics.CASH_MOVEMENTS, json.dumps(rupees).encode())
            producer.flush()
    seconds = watch.seconds()
    producer.close()
    consumer.close()
    return seconds


def _kafka_python(servers: str, prefix: str, **producer: Any) -> tuple[Any, Any]:
    consumer = kafka.KafkaConsumer(
        bootstrap_servers=servers,
        group_id=f"{prefix}loop",
        isolation_level="read_committed",
        enable_auto_commit="transactional_id" not in producer,
        auto_offset_reset="earliest",
        session_timeout_ms=SESSION_S * 1000,
        heartbeat_interval_ms=SESSION_S * 1000 // 3,
        fetch_max_wait_ms=20,
        max_partition_fetch_bytes=1024 * 1024,
        metrics_enabled=False,
    )
    consumer.subscribe([prefix + topic for topic in topics.INPUTS])
    made = kafka.KafkaProducer(bootstrap_servers=servers, metrics_enabled=False, **producer)
    return consumer, made
