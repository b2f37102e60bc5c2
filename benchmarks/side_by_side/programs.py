"""Every program by its name, and how one of them is run: in a process of its own.

    python -m side_by_side.programs NAME WHERE PREFIX ORDERS

It takes the orders from the log at WHERE whose topics begin with PREFIX, and prints one line of JSON: the seconds that
it took, and the versions of the libraries that it used.
"""

import json
import sys
from importlib import import_module
from importlib.metadata import version
from typing import Final, NamedTuple

EXACTLY: Final = "exactly once"
AT_LEAST: Final = "at least once"


class Program(NamedTuple):
    """A program to compare.

    `run` is `module:function` in this package, and takes WHERE, PREFIX and the number of orders. `orders` is how many
    it takes in a round, so that one takes some seconds. `libraries` are the distributions whose versions matter.
    `peer`: it runs in the virtual environment of the peers. `writes_all`: it answers and settles both sides.
    `killed`: it is also killed in the middle.
    """

    name: str
    title: str
    run: str
    promises: str
    orders: int
    libraries: tuple[str, ...]
    peer: bool = False
    embedded: bool = False
    writes_all: bool = True
    killed: bool = False


_CONFLUENT: Final = "confluent-kafka"

PROGRAMS: Final = {
    program.name: program
    for program in (
        Program(
            "nse-librdkafka",
            "stocktrade `nse`, librdkafka",
            "ours:run_librdkafka",
            EXACTLY,
            60_000,
            ("stocktrade", _CONFLUENT),
            killed=True,
        ),
        Program(
            "nse-kafka-python",
            "stocktrade `nse`, kafka-python",
            "ours:run",
            EXACTLY,
            40_000,
            ("stocktrade", "kafka-python"),
            killed=True,
        ),
        Program(
            "nse-embedded",
            "stocktrade `nse`, embedded log (no Kafka)",
            "ours:run",
            EXACTLY,
            80_000,
            ("stocktrade",),
            embedded=True,
        ),
        Program(
            "bare-librdkafka",
            "bare loop, librdkafka",
            "loops:run_librdkafka",
            EXACTLY,
            120_000,
            (_CONFLUENT,),
        ),
        Program(
            "bare-kafka-python",
            "bare loop, kafka-python",
            "loops:run_kafka_python",
            EXACTLY,
            30_000,
            ("kafka-python",),
        ),
        Program(
            "quix-exactly-once",
            "Quix Streams, exactly once",
            "quix:run_exactly_once",
            EXACTLY,
            30_000,
            ("quixstreams", _CONFLUENT),
            peer=True,
            killed=True,
        ),
        Program(
            "quix-at-least-once",
            "Quix Streams, at least once",
            "quix:run_at_least_once",
            AT_LEAST,
            30_000,
            ("quixstreams", _CONFLUENT),
            peer=True,
            killed=True,
        ),
        Program(
            "quix-state",
            "Quix Streams, exactly once, with its State",
            "quix:run_with_state",
            EXACTLY,
            20_000,
            ("quixstreams", _CONFLUENT),
            peer=True,
            killed=True,
        ),
        Program(
            "faststream",
            "FastStream",
            "fast_stream:run",
            AT_LEAST,
            20_000,
            ("faststream", _CONFLUENT),
            peer=True,
            killed=True,
        ),
        Program(
            "seed",
            "the first example's loop, kafka-python",
            "loops:run_seed",
            AT_LEAST,
            6_000,
            ("kafka-python",),
            writes_all=False,
            killed=True,
        ),
    )
}


def main() -> None:
    """Run one program."""
    name, where, prefix, orders = sys.argv[1:]
    program = PROGRAMS[name]
    module, _, function = program.run.partition(":")
    seconds = getattr(import_module(f"side_by_side.{module}"), function)(where, prefix, int(orders))
    print(json.dumps({"seconds": seconds, "versions": {each: version(each) for each in program.libraries}}))


if __name__ == "__main__":
    main()
