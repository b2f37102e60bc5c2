"""How long `funds`, `orders`, `trades` and `orders show` take on a log of a million trades: first, and then.

`python benchmarks/views.py [TRADES] [FOLDER]`

On the embedded log in a temporary folder (or FOLDER, which is kept and used again). Each command is a process of its
own, timed from outside. It stops by itself.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stocktrade.shard.node import Node
from stocktrade.transport import connect, topics
from stocktrade.transport.base import NewRecord

SYMBOLS = 100
PARTICIPANTS = 197
BLOCK = 2_500
TIMES = 5

COMMANDS = (
    ("funds", "P7"),
    ("holdings", "P7"),
    ("trades", "-n", "20"),
    ("orders", "-n", "20"),
    ("orders", "--as", "P7"),
    ("orders", "show", "B5"),
    ("funds", "P7", "--statement"),
)


def pair(number: int) -> list[NewRecord]:
    """A buy and a sell that trade."""
    symbol = f"S{number % SYMBOLS}"
    price = 100 + number // SYMBOLS % 500 * 0.05
    buy = {"order_id": f"B{number}", "buyer": f"P{number % PARTICIPANTS}"}
    sell = {"offer_id": f"O{number}", "seller": f"P{(number * 7 + 1) % PARTICIPANTS}"}
    rest = {"stock_symbol": symbol, "quantity": 1 + number % 90}
    texts = {
        topics.BUY_ORDERS: {**buy, **rest, "price_per_unit": round(price, 2)},
        topics.SELL_OFFERS: {**sell, **rest},
    }
    return [NewRecord(topic, symbol.encode(), json.dumps(text).encode()) for topic, text in texts.items()]


def fill(folder: Path, trades: int) -> None:
    """Let a node take the pairs, and leave as `nse` does."""
    with connect(f"sqlite:{folder}") as log:
        node = Node(log, name="benchmark", now_ms=lambda: time.time_ns() // 1_000_000)
        while not node.owners:
            node.step(0.0)
        for first in range(0, trades, BLOCK):
            log.append([record for number in range(first, min(first + BLOCK, trades)) for record in pair(number)])
            ends = node.backlog_ends()
            while not node.has_taken(ends):
                node.step(0.0)
        node.close()


def seconds(folder: Path, command: tuple[str, ...]) -> float:
    """How long a command takes, its process and all."""
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "stocktrade", *command],
        env={**os.environ, "STOCKTRADE_HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def main() -> None:
    """Fill a log if need be, and time each command."""
    trades = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp(prefix="stocktrade-views-"))
    try:
        if not (folder / "log.db").exists():
            began = time.perf_counter()
            fill(folder, trades)
            print(f"{trades} trades made in {time.perf_counter() - began:.0f} s")
        shutil.rmtree(folder / "views", ignore_errors=True)
        for command in COMMANDS:
            first = seconds(folder, command)
            again = sorted(seconds(folder, command) for _ in range(TIMES))
            print(f"{' '.join(command):24} first {first:6.2f} s   then {again[TIMES // 2]:.3f} s (median of {TIMES})")
        size = sum(file.stat().st_size for file in (folder / "views").iterdir())
        print(f"the views take {size / 2**20:.0f} MiB, the log {(folder / 'log.db').stat().st_size / 2**20:.0f} MiB")
    finally:
        if len(sys.argv) <= 2:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
