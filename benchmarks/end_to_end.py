"""The exchange as its users meet it: several processes on one embedded log, orders in, both legs out.

    python benchmarks/end_to_end.py [--json]

Five figures, each on a fresh log in a temporary folder (`synchronous=FULL`): the latency from the return of the
append to the moment a reader has seen both legs, at 100 orders/s in an open loop (orders are sent at their intended
moments, however slow the answers are); the pace of a burst; the time to recover resting orders; what idle processes
cost; and start-up. Bounded: about a minute.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stocktrade import __version__
from stocktrade.shard.node import Node
from stocktrade.transport import connect, topics
from stocktrade.transport.base import NewRecord

SECONDS = 10
RATE = 100
BURST = 100_000
RESTING = 200_000


def buy(number: int, price: float = 885.0) -> NewRecord:
    """A bid for 10 SBI; every number is another order."""
    text = f'{{"order_id":"b{number}","buyer":"HDFC","stock_symbol":"SBI","quantity":10,"price_per_unit":{price}}}'
    return NewRecord(topics.BUY_ORDERS, b"SBIN", text.encode())


def sell(number: int) -> NewRecord:
    """10 SBI at any price."""
    text = f'{{"offer_id":"s{number}","seller":"SELLER","stock_symbol":"SBI","quantity":10}}'
    return NewRecord(topics.SELL_OFFERS, b"SBIN", text.encode())


@contextmanager
def exchange(folder: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A real `nse` in a process of its own, ready to trade."""
    command = [sys.executable, "-m", "stocktrade", "nse", "--json"]
    process = subprocess.Popen(
        command, env={**os.environ, "STOCKTRADE_HOME": folder}, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    process.stdout.readline()  # it owns the shard
    drain = subprocess.Popen(["cat"], stdin=process.stdout, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)
        drain.wait(30)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` of the values lie."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


SENDER = """
import sys, time
from stocktrade.transport import connect
sys.path.insert(0, sys.argv[4])
from end_to_end import buy, sell
log = connect(sys.argv[1]); rate, count = float(sys.argv[2]), int(sys.argv[3])
began = time.monotonic() + 0.2
for n in range(count):
    due = began + n / rate
    time.sleep(max(0.0, due - time.monotonic()))
    log.append([buy(n) if n % 2 == 0 else sell(n)])
    print(n, time.monotonic(), flush=False)
log.close()
"""


def latency(folder: str) -> dict[str, float]:
    """Milliseconds from the return of the append of the order that trades to both buyer's legs seen."""
    count = RATE * SECONDS
    with connect(f"sqlite:{folder}") as log, exchange(folder):
        reader = log.reader({(topics.DEMAT_TRANSFERS, 0): 0, (topics.CASH_MOVEMENTS, 0): 0})
        sender = subprocess.Popen(
            [sys.executable, "-c", SENDER, f"sqlite:{folder}", str(RATE), str(count), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            text=True,
        )
        seen: dict[str, list[float]] = {}
        deadline = time.monotonic() + SECONDS + 20
        while len(seen) < count // 2 or any(len(times) < 2 for times in seen.values()):
            assert time.monotonic() < deadline, "the legs did not come"
            for record in reader.poll(0.5):
                now = time.monotonic()
                if record.key == b"SELLER":
                    seen.setdefault(json.loads(record.value or b"")["order_id"], []).append(now)
        sent = dict(line.split() for line in sender.communicate()[0].splitlines())
    took = [(max(times) - float(sent[order[1:]])) * 1000 for order, times in seen.items()]
    return {"p50_ms": percentile(took, 0.5), "p99_ms": percentile(took, 0.99), "max_ms": max(took)}


def burst(folder: str) -> dict[str, float]:
    """Orders a second that `nse` takes from a log on which they already wait, until the last is journalled."""
    with connect(f"sqlite:{folder}") as log:
        log.ensure_topics(topics.SPECS)
        for first in range(0, BURST, 1000):
            log.append([buy(n) if n % 2 == 0 else sell(n) for n in range(first, first + 1000)])
        reader = log.reader({(topics.ORDER_EVENTS, 0): 0})
        with exchange(folder):
            began, events = time.monotonic(), 0
            while events < BURST:
                events += len(reader.poll(1.0, max_records=10_000))
            seconds = time.monotonic() - began
        reader.close()
    return {"orders_per_s": BURST / seconds}


def recovery(folder: str) -> dict[str, float]:
    """Seconds to own a shard with resting orders: from the journal alone, and from a snapshot."""
    with connect(f"sqlite:{folder}") as log:
        log.ensure_topics(topics.SPECS)
        for first in range(0, RESTING, 1000):
            log.append([buy(n, 800 + n % 1000 / 10) for n in range(first, first + 1000)])
        for_owner = {"name": "bench", "now_ms": lambda: 0}
        figures = {}
        for kind in ("first", "journal and snapshot", "snapshot"):
            node = Node(log, **for_owner)  # type: ignore[arg-type]
            step = node.step(0.0)
            figures[kind] = step.started[0].recovered.seconds
            taken = 0
            while kind == "first" and taken < RESTING:
                taken += len(node.step(0.1).taken)
            if kind == "first":
                node.abandon()
            else:
                node.close()
    del figures["first"]
    return figures


def idle(folder: str) -> dict[str, float]:
    """Share of a core that `nse` and `watch` take while nothing happens, in percent."""
    environment = {**os.environ, "STOCKTRADE_HOME": folder}
    with exchange(folder) as nse:
        watch = subprocess.Popen(
            [sys.executable, "-m", "stocktrade", "watch"], env=environment, stdout=subprocess.DEVNULL
        )
        time.sleep(2)  # past their start
        before = {name: _cpu(process.pid) for name, process in (("nse", nse), ("watch", watch))}
        time.sleep(5)
        used = {
            name: (_cpu(process.pid) - before[name]) / 5 * 100 for name, process in (("nse", nse), ("watch", watch))
        }
        watch.terminate()
        watch.wait(10)
    return used


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start_up() -> dict[str, float]:
    """`stocktrade --help` against what it cannot do without, medians of nine in turn."""
    ours: list[float] = []
    floor: list[float] = []
    for _ in range(9):
        for times, command in ((ours, ["-m", "stocktrade", "--help"]), (floor, ["-c", "import typer, rich"])):
            began = time.monotonic()
            subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
            times.append((time.monotonic() - began) * 1000)
    return {
        "help_ms": sorted(ours)[4],
        "imports_ms": sorted(floor)[4],
        "ratio": sorted(ours)[4] / sorted(floor)[4],
    }


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    results: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "stocktrade": __version__,
    }
    for name, measure in (("latency", latency), ("burst", burst), ("recovery", recovery), ("idle", idle)):
        with tempfile.TemporaryDirectory(prefix="stocktrade-bench-") as folder:
            results[name] = measure(folder)
    results["start-up"] = start_up()
    if as_json:
        print(json.dumps(results))
        return
    for name, figures in results.items():
        text = figures if isinstance(figures, str) else "  ".join(f"{k} {v:,.2f}" for k, v in figures.items())
        print(f"{name:<11} {text}")


if __name__ == "__main__":
    main()
