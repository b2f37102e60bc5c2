"""Quix Streams: an application as its documentation shows one, set as fast as it was found to go.

Who waits is in a dictionary of the process, which is faster than the library's State and is lost with
the process; `run_with_state` keeps it in the State, which survives. Found by trying: `commit_every` of 1,000 to 20,000
and `linger.ms` from 5 to 100 differ by less than two runs do; it works record by record, and that is where its time is.
"""

import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final, Literal

import orjson
from quixstreams import Application, State, message_context
from quixstreams.models import Serializer

from side_by_side.work import ENDLESS, SESSION_S, Answer, Desk, Stopwatch
from stocktrade.transport import topics

Guarantee = Literal["exactly-once", "at-least-once"]

COMMIT_EVERY: Final = 5_000


class Fields(Serializer):  # type: ignore[misc] # a class of an untyped library
    """The fields of an answer, by the JSON library that Quix Streams uses itself."""

    def __call__(self, value: Answer, ctx: Any) -> bytes:  # noqa: ARG002 - it is given by name
        """As it is written."""
        encoded: bytes = orjson.dumps(value.fields)
        return encoded


def run_exactly_once(servers: str, prefix: str, orders: int) -> float:
    """Seconds in which it took the orders, in transactions."""
    return _run(servers, prefix, orders, "exactly-once")


def run_at_least_once(servers: str, prefix: str, orders: int) -> float:
    """Seconds in which it took the orders, without transactions."""
    return _run(servers, prefix, orders, "at-least-once")


def run_with_state(servers: str, prefix: str, orders: int) -> float:
    """Seconds in which it took the orders in transactions, who waits being in its State."""
    return _run(servers, prefix, orders, "exactly-once", keeps_state=True)


def _run(servers: str, prefix: str, orders: int, guarantee: Guarantee, *, keeps_state: bool = False) -> float:
    watch, taken, seconds = Stopwatch(), 0, 0.0

    def processed(_topic: str, _partition: int, _offset: int) -> None:
        nonlocal taken
        taken += 1
        if taken == orders:
            context = app._processing_context  # noqa: SLF001 - the one place where the last commit can be seen
            commit = context.commit_checkpoint

            def last_commit(*, force: bool = False, revoking: bool = False) -> None:
                nonlocal seconds
                commit(force=force, revoking=revoking)
                if force:
                    seconds = seconds or watch.seconds()

            context.commit_checkpoint = last_commit
            app.stop()

    producer = {"linger.ms": 20, "batch.size": 1024 * 1024, "queue.buffering.max.messages": 1_000_000}
    # The same id after a restart, so that what a killed process left open is ended at once; by default it is a new one.
    transactional = {"transactional.id": f"{prefix}quix", "transaction.timeout.ms": 15_000}
    with tempfile.TemporaryDirectory() as folder:
        app = Application(
            servers,
            consumer_group=f"{prefix}quix",
            auto_offset_reset="earliest",
            processing_guarantee=guarantee,
            commit_every=COMMIT_EVERY,
            commit_interval=1.0,
            loglevel="WARNING",
            on_message_processed=processed,
            auto_create_topics=keeps_state,  # the log of its State
            state_dir=folder,
            consumer_extra_config={
                "session.timeout.ms": SESSION_S * 1000,
                "fetch.wait.max.ms": 20,
                "isolation.level": "read_committed",
            },
            producer_extra_config=producer | (transactional if guarantee == "exactly-once" else {}),
        )
        outputs = {
            name: app.topic(prefix + name, key_serializer="str", value_serializer=Fields()) for name in topics.OUTPUTS
        }
        inputs = [app.topic(prefix + name, key_deserializer="str", value_deserializer="json") for name in topics.INPUTS]
        frames = [app.dataframe(topic) for topic in inputs]
        desk = Desk()

        def match(order: dict[str, Any]) -> Iterator[Answer]:
            watch.consumed()
            place = message_context()
            return desk.take(order, place.topic[len(prefix) :], place.partition, place.offset)

        def match_with_state(order: dict[str, Any], state: State) -> list[Answer]:
            symbol = order["stock_symbol"]
            sides = {is_buy: state.get(str(is_buy)) or [] for is_buy in (True, False)}
            for is_buy, waiting in sides.items():
                desk.waiting[symbol, is_buy] = deque(tuple(each) for each in waiting)
            answers = list(match(order))
            for is_buy, before in sides.items():
                after = desk.waiting[symbol, is_buy]
                if len(after) != len(before):
                    state.set(str(is_buy), list(after))
            return answers

        if keeps_state:
            frames = [frames[0].concat(frames[1])]  # one State for both topics
        for frame in frames:
            matched = frame.apply(match_with_state if keeps_state else match, stateful=keeps_state, expand=True)
            matched.to_topic(lambda answer, *_: outputs[answer.topic], key=lambda answer: answer.key)
        with suppress(KeyboardInterrupt):
            app.run()
    assert taken >= orders or orders == ENDLESS
    return seconds
