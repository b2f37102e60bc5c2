"""What the exchange costs while nothing happens, and what a command costs before it does anything.

    python benchmarks/idle.py [--json]

`idle` is the share of a core, in percent, that `nse` and `watch` take on an embedded log where nothing comes;
`start-up` is the time of `stocktrade --help` beside that of a Python that only imports Typer and Rich. Bounded: some
15 seconds.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from machine import cpu_s, machine
from stocktrade import __version__

SECONDS = 5


@contextmanager
def running(folder: str, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A command in a process of its own, until it is not needed any more."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stocktrade", *arguments],
        env={**os.environ, "STOCKTRADE_HOME": folder},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


def idle(folder: str) -> dict[str, float]:
    """Percent of a core, once they have started."""
    with running(folder, "nse") as nse, running(folder, "watch") as watch:
        processes = {"nse": nse, "watch": watch}
        time.sleep(3)
        before = {name: cpu_s(process.pid) for name, process in processes.items()}
        time.sleep(SECONDS)
        return {name: (cpu_s(each.pid) - before[name]) / SECONDS * 100 for name, each in processes.items()}


def start_up() -> dict[str, float]:
    """Milliseconds, medians of nine in turn."""
    ours: list[float] = []
    floor: list[float] = []
    for _ in range(9):
        for times, command in ((ours, ["-m", "stocktrade", "--help"]), (floor, ["-c", "import typer, rich"])):
            began = time.monotonic()
            subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True)
            times.append((time.monotonic() - began) * 1000)
    return {"help_ms": median(ours), "imports_ms": median(floor), "ratio": median(ours) / median(floor)}


def main() -> None:
    """Measure and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    with tempfile.TemporaryDirectory(prefix="stocktrade-bench-") as folder:
        results: dict[str, Any] = {"idle": idle(folder), "start-up": start_up()}
    if as_json:
        print(json.dumps({"machine": machine(), "stocktrade": __version__, **results}))
        return
    for name, figures in results.items():
        print(f"{name:<9} {'  '.join(f'{k} {v:,.2f}' for k, v in figures.items())}")


if __name__ == "__main__":
    main()
