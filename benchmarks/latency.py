"""From an order to both of its legs, on each log and at two rates, and who takes the processor's time meanwhile.

    python benchmarks/latency.py [--bootstrap-server HOST:PORT] [--rates N,N,…] [--seconds S] [--json FILE]

Each line is a `stocktrade bench --orders 0 --rate … --seconds …` of its own. Without a server it starts a broker in a
container, and has it warm up first: a broker that was just started compiles itself. The highest rate is measured for
`--seconds`, the others for a tenth of them. Processor time is counted in the middle of each, in cores, on Linux only.
By default 20 minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from machine import cpu_s, machine, parent
from side_by_side.broker import broker
from stocktrade.transport import CLIENTS, LIBRDKAFKA

EMBEDDED = "embedded"
RATES = (50, 500)
SECONDS = 300
WARM_UP_S = 60
_BEGIN_S = 5.0
"""Until the bench has started its processes and made its topics; its own warm-up is in it."""


class Line(NamedTuple):
    """What one bench said, in milliseconds, and the cores that each of its parts took."""

    log: str
    rate: int
    seconds: int
    latency: dict[str, Any]
    cores: dict[str, float]


def bench(log: str, servers: str, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start a bench."""
    where = ["--folder", str(folder)] if log == EMBEDDED else ["-b", servers, "--client", log]
    command = [sys.executable, "-m", "stocktrade", "bench", "--json", *where, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def said(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a bench says in the end."""
    out, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"a bench ended with {process.returncode}: {out}")
    found: dict[str, Any] = json.loads(out)
    return found


def parts(bench_pid: int) -> dict[int, str]:
    """The processes of a bench and the broker, those that can be found."""
    found: dict[int, str] = {}
    for pid in sorted(int(entry.name) for entry in Path("/proc").glob("[0-9]*")):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"kafka.Kafka" in command:
                found[pid] = "broker"
            elif parent(pid) == bench_pid:  # it starts the exchange, then the sender
                found[pid] = "sender" if "exchange" in found.values() else "exchange"
        except OSError:  # it has ended
            continue
    if found:
        found[bench_pid] = "reader"
    return found


def measure(log: str, servers: str, rate: int, seconds: int) -> Line:
    """One line."""
    with tempfile.TemporaryDirectory(prefix="stocktrade-latency-") as folder:
        process = bench(
            log, servers, Path(folder) / "log", "--orders", "0", "--rate", str(rate), "--seconds", str(seconds)
        )
        try:
            time.sleep(_BEGIN_S + seconds / 4)
            names = parts(process.pid)
            before, began = {pid: cpu_s(pid) for pid in names}, time.monotonic()
            time.sleep(seconds / 2)
            cores: dict[str, float] = {}
            for pid, name in names.items():
                cores[name] = cores.get(name, 0.0) + (cpu_s(pid) - before[pid]) / (time.monotonic() - began)
            return Line(log, rate, seconds, said(process)["latency"], cores)
        finally:
            process.kill()
            process.wait()


def lines(servers: str, rates: tuple[int, ...], seconds: int) -> Iterator[Line]:
    """All of them, the slowest rate first."""
    with tempfile.TemporaryDirectory(prefix="stocktrade-latency-") as folder:
        options = ["--orders", "100000", "--rate", str(max(rates)), "--seconds", str(min(seconds, WARM_UP_S))]
        said(bench(LIBRDKAFKA, servers, Path(folder), *options))
    for log in (EMBEDDED, *CLIENTS):
        for rate in sorted(rates):
            yield measure(log, servers, rate, seconds if rate == max(rates) else max(1, seconds // 10))


def row(line: Line) -> str:
    """A line of the table."""
    figures = [line.latency[name] for name in ("p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms")]
    latency = "".join(f"{figure:8,.1f}" for figure in figures)
    cores = "  ".join(f"{name} {share:.2f}" for name, share in sorted(line.cores.items()))
    return f"{line.log:<13}{line.rate:>6}{latency}   {cores}"


def main() -> None:
    """Measure and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bootstrap-server", help="a broker to use instead of one in a container")
    parser.add_argument("--rates", default=",".join(map(str, RATES)))
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--json", type=Path, help="where to write all that was measured")
    asked = parser.parse_args()
    found: list[Line] = []
    with broker(asked.bootstrap_server) as servers:
        print(machine())
        print(f"{'log':<13}{'rate':>6}{'p50':>8}{'p90':>8}{'p99':>8}{'p99.9':>8}{'max':>8}   cores")
        for line in lines(servers, tuple(int(rate) for rate in asked.rates.split(",")), asked.seconds):
            found.append(line)
            print(row(line), flush=True)
    if asked.json:
        text = json.dumps({"machine": machine(), "lines": [line._asdict() for line in found]}, indent=1)
        asked.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
