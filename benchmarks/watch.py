"""What `watch` costs while a thousand records a second come in: its share of a core, and how often it draws.

`python benchmarks/watch.py [RECORDS_PER_SECOND] [SECONDS]`

On the embedded log in a temporary folder; `watch` runs in a terminal of its own, 120 columns wide. It stops by itself.
"""

import fcntl
import os
import pty
import select
import signal
import struct
import sys
import tempfile
import termios
import time

from machine import cpu_s
from stocktrade.shard.node import Node
from stocktrade.transport import connect
from views import pair

RECORDS_OF_A_TRADE = 9  # two inputs, two answers, a trade, four legs
TICK_S = 0.05


def main() -> None:
    """Start `watch`, feed it, and say what it took."""
    per_second = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 15.0
    with tempfile.TemporaryDirectory() as folder, connect(f"sqlite:{folder}") as log:
        node = Node(log, name="benchmark", now_ms=lambda: time.time_ns() // 1_000_000)
        while not node.owners:
            node.step(0.0)
        child, terminal = pty.fork()
        if child == 0:
            environment = {**os.environ, "STOCKTRADE_HOME": folder, "TERM": "xterm-256color"}
            os.execve(sys.executable, [sys.executable, "-m", "stocktrade", "watch"], environment)
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        drawn = b""
        began = at = time.monotonic()
        cpu_before = cpu_s(child)
        trades = 0
        while at - began < seconds:
            due = int((at - began) * per_second / RECORDS_OF_A_TRADE)
            log.append([record for number in range(trades, due) for record in pair(number)])
            trades = max(trades, due)
            node.step(0.0)
            while select.select([terminal], [], [], max(0.0, at + TICK_S - time.monotonic()))[0]:
                drawn += os.read(terminal, 1 << 16)
            at += TICK_S
        cpu = cpu_s(child) - cpu_before
        took = time.monotonic() - began
        os.kill(child, signal.SIGTERM)
        while select.select([terminal], [], [], 0.5)[0]:
            try:
                os.read(terminal, 1 << 16)
            except OSError:
                break
        os.waitpid(child, 0)
        node.close()
        frames = drawn.count(b"\x1b[H")
        records = trades * RECORDS_OF_A_TRADE
        print(
            f"watch         records_per_s {records / took:,.0f}  share_of_a_core {cpu / took:.1%}  "
            f"frames_per_s {frames / took:.1f}  seconds {took:.0f}"
        )


if __name__ == "__main__":
    main()
