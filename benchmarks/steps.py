"""What each step of an order costs the exchange, measured alone and one after the other, without a log.

    python benchmarks/steps.py [--json]

Microseconds of processor time for one of two orders that make a trade, medians of 200 batches of a thousand orders, as
large as in a burst: to read its JSON, to match and clear it, to write the JSON of what follows, and to make the
journal's entry with its digest. Bounded: some ten seconds.
"""

import argparse
import json
import time
from collections import defaultdict
from statistics import median
from typing import Any, Final

from machine import machine
from side_by_side.work import pair
from stocktrade import __version__
from stocktrade.core.exchange import Exchange
from stocktrade.shard.journal import Head, InputLine, encode_batch
from stocktrade.shard.node import tune_garbage_collection
from stocktrade.shard.owner import MAX_BATCH_INPUTS
from stocktrade.transport.codec import Dead, decode_input, encode_facts

ROUNDS: Final = 200
TIME_MS: Final = 1_800_000_000_000


def measure() -> dict[str, float]:
    """The medians, in microseconds an order."""
    exchange = Exchange()
    tune_garbage_collection()
    took: dict[str, list[float]] = defaultdict(list)
    for first in range(0, ROUNDS * MAX_BATCH_INPUTS, MAX_BATCH_INPUTS):
        records = [each for number in range(first, first + MAX_BATCH_INPUTS, 2) for each in pair(number)]
        moments = [time.thread_time()]
        decoded = [decode_input(each.topic, each.value) for each in records]
        moments.append(time.thread_time())
        facts = [exchange.apply(each) for each in decoded if not isinstance(each, Dead)]
        moments.append(time.thread_time())
        outputs = [
            output
            for each, record in zip(facts, records, strict=True)
            for output in encode_facts(each, 0, f"{record.topic}@0:{first}", TIME_MS)
        ]
        moments.append(time.thread_time())
        encode_batch(
            shard=0,
            head=Head(),
            epoch=1,
            rules=exchange.rules.name,
            first_seq=first + 1,
            next_offsets={},
            inputs=[InputLine(each.topic, first, TIME_MS, "order", (each.value or b"").decode()) for each in records],
            outputs=outputs,
        )
        moments.append(time.thread_time())
        for step, began, ended in zip(
            ("read", "match_and_clear", "write", "journal"), moments, moments[1:], strict=False
        ):
            took[step].append((ended - began) / MAX_BATCH_INPUTS * 1e6)
    return {step: median(each) for step, each in took.items()}


def main() -> None:
    """Measure and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    steps: dict[str, Any] = measure()
    steps["together"] = sum(steps.values())
    if as_json:
        print(json.dumps({"machine": machine(), "stocktrade": __version__, "us_per_order": steps}))
        return
    print("us an order  " + "  ".join(f"{step} {us:.1f}" for step, us in steps.items()))


if __name__ == "__main__":
    main()
