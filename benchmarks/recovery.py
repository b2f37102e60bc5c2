"""A million resting orders: snapshot, restart, and the longest pause of trading.

`python benchmarks/recovery.py [COUNT]`

On the embedded log in a temporary folder, through the shard protocol itself. Each measured start is a process of its
own, so that its memory is its own. It stops by itself.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stocktrade.shard import owner as protocol
from stocktrade.shard.history import to_the_end
from stocktrade.shard.node import Node
from stocktrade.transport import connect, topics
from stocktrade.transport.base import Log, NewRecord

SYMBOLS = 1_000
TRICKLE = 3


def order(number: int) -> NewRecord:
    """A bid that rests: no offers come."""
    symbol = f"S{number % SYMBOLS}"
    price = 100 + number // SYMBOLS % 500 * 0.05
    text = (
        f'{{"order_id":"B{number}","buyer":"P{number % 5000}","stock_symbol":"{symbol}",'
        f'"quantity":{1 + number % 90},"price_per_unit":{price:.2f}}}'
    )
    return NewRecord(topics.BUY_ORDERS, symbol.encode(), text.encode())


def start(log: Log) -> tuple[Node, float]:
    """A node that owns its shard, and how many seconds it took to."""
    began = time.monotonic()
    node = Node(log, name="benchmark", now_ms=lambda: 0)
    while not node.owners:
        node.step(0.0)
    return node, time.monotonic() - began


def fill(log: Log, count: int) -> None:
    """Let a node take `count` orders, and stop without a snapshot."""
    protocol.SNAPSHOT_EVERY_INPUTS = sys.maxsize  # type: ignore[misc]
    node, _ = start(log)
    for first in range(0, count, 5_000):
        log.append([order(number) for number in range(first, min(first + 5_000, count))])
        ends = node.backlog_ends()
        while not node.has_taken(ends):
            node.step(0.0)
    node.abandon()


def snapshot(log: Log, count: int) -> dict[str, float]:
    """Start from the journal, write a snapshot while orders trickle in, and note the longest step."""
    protocol.SNAPSHOT_EVERY_INPUTS = sys.maxsize  # type: ignore[misc]
    node, from_journal = start(log)
    (owner,) = node.owners.values()
    began = time.monotonic()
    owner.begin_snapshot()
    pauses = [time.monotonic() - began]  # to take the picture stops trading, too
    more, steps = True, 0
    while more:
        step_began = time.monotonic()
        log.append([order(count + steps * TRICKLE + number) for number in range(TRICKLE)])
        node.step(0.0)
        pauses.append(time.monotonic() - step_began)
        more, steps = owner._snapshot is not None, steps + 1  # noqa: SLF001 - when it ends is its own business
    took = time.monotonic() - began
    node.abandon()
    with connect(log.url) as again:
        reader = again.reader({(topics.SNAPSHOTS, 0): 0})
        largest = max(len(record.value or b"") for record in to_the_end(reader))
    return {
        "from_journal_s": from_journal,
        "snapshot_s": took,
        "longest_pause_ms": max(pauses) * 1000,
        "largest_record_kib": largest / 1024,
    }


def restart(log: Log) -> dict[str, float]:
    """Start from the snapshot."""
    node, seconds = start(log)
    (owner,) = node.owners.values()
    assert owner.recovered.from_snapshot
    node.abandon()
    return {"from_snapshot_s": seconds}


def main() -> None:
    """Run each part in a process of its own, and print what it measured."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    if len(sys.argv) > 2:
        with connect(f"sqlite:{sys.argv[3]}") as log:
            measured: dict[str, float] = {}
            if sys.argv[2] == "fill":
                fill(log, count)
            else:
                measured = snapshot(log, count) if sys.argv[2] == "snapshot" else restart(log)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**measured, "peak_mib": peak}))
        return
    with tempfile.TemporaryDirectory(prefix="stocktrade-bench-") as folder:
        for part in ("fill", "snapshot", "restart"):
            command = [sys.executable, __file__, str(count), part, str(Path(folder) / "log")]
            began = time.monotonic()
            out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            figures = "  ".join(f"{name} {value:,.1f}" for name, value in json.loads(out).items())
            print(f"{part:<10} {figures}  whole_s {time.monotonic() - began:.1f}", flush=True)


if __name__ == "__main__":
    main()
