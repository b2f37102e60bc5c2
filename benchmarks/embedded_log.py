"""How fast the embedded log is on this machine: `python benchmarks/embedded_log.py [FOLDER]`.

Measures appends and commits in batches of 1, 100 and 1,000 records, reading back, and how long a record takes
from one process to the next: from just before the append to the moment at which the reader has it. Everything is
on disk before it counts, so the disk under FOLDER (default: a temporary folder) is measured as well. Takes about
ten seconds.
"""

import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from stocktrade.transport.base import NewRecord, TopicSpec
from stocktrade.transport.sqlite import SqliteLog

VALUE = b"x" * 200  # about an order
SECONDS = 1.0
SAMPLES = 400
PACE_S = 0.004  # between two samples, so that the next process waits when a record comes

RELAY = """
# The exchange in miniature: each input becomes one commit with an anchor.
import sys
from pathlib import Path
from stocktrade.transport.base import NewRecord
from stocktrade.transport.sqlite import SqliteLog

with SqliteLog(Path(sys.argv[1])) as log:
    member = log.member("bench", ["in"])
    member.poll(5)
    writer = log.claim(0)
    member.start(0, {"in": log.reader({("in", 0): None}).position("in", 0)})
    print("ready", flush=True)
    while True:
        for record in member.poll(5).records:
            writer.commit([NewRecord("out", None, record.value, 0)] * 4, anchor=b"head")
"""

READER = """
import sys, time
from pathlib import Path
from stocktrade.transport.sqlite import SqliteLog

folder, topic, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
delays = {}
with SqliteLog(folder) as log:
    reader = log.reader({(topic, 0): None})
    print("ready", flush=True)
    while len(delays) < count:
        for record in reader.poll(5):
            now = time.perf_counter_ns()
            delays.setdefault(record.value, now - int(record.value))
print(*delays.values())
"""


def main() -> None:
    """Measure, and print one line per figure."""
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"SQLite {sqlite3.sqlite_version}, write-ahead log, synchronous=FULL, records of {len(VALUE)} bytes\n")
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        folder = Path(name)
        with SqliteLog(folder) as log:
            log.ensure_topics([TopicSpec("in", append_time=True), TopicSpec("out")])
            writer = log.claim(0)
            for size in (1, 100, 1000):
                orders = [NewRecord("in", b"SBIN", VALUE, 0)] * size
                print_rate(f"append, batches of {size:>5,}", size, partial(log.append, orders))
            for size in (1, 100, 1000):
                events = [NewRecord("out", b"SBIN", VALUE, 0)] * size
                print_rate(f"commit with anchor, {size:>5,}", size, partial(writer.commit, events, anchor=b"head"))
            writer.close()
            reader = log.reader({("in", 0): 0, ("out", 0): 0})
            begin, count = time.perf_counter(), 0
            while records := reader.poll():
                count += len(records)
            print(f"{'read back, two topics merged':<32}{count / (time.perf_counter() - begin):>12,.0f} records/s")
            print_delays("client -> reader (2 processes)", log, folder, "in")
            with started(RELAY, str(folder)):
                print_delays("client -> owner -> reader (3)", log, folder, "out")


def print_rate(what: str, size: int, write: Callable[[], object]) -> None:
    """Write for a second."""
    count, begin = 0, time.perf_counter()
    while (now := time.perf_counter()) < begin + SECONDS:
        write()
        count += 1
    seconds = now - begin
    print(f"{what:<32}{count * size / seconds:>12,.0f} records/s {count / seconds:>8,.0f} transactions/s")


def print_delays(what: str, log: SqliteLog, folder: Path, topic: str) -> None:
    """Append records one by one and ask the last process when it had each."""
    with started(READER, str(folder), topic, str(SAMPLES)) as reader:
        for _ in range(SAMPLES):
            log.append([NewRecord("in", None, str(time.perf_counter_ns()).encode(), 0)])
            time.sleep(PACE_S)
        assert reader.stdout is not None
        delays_ms = sorted(int(delay) / 1e6 for delay in reader.stdout.readline().split())
    p99 = delays_ms[len(delays_ms) * 99 // 100]
    print(f"{what:<32}{statistics.median(delays_ms):>8.2f} ms p50 {p99:>8.2f} ms p99 {delays_ms[-1]:>8.2f} ms max")


@contextmanager
def started(script: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """A Python process that has printed its first line; killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


if __name__ == "__main__":
    main()
