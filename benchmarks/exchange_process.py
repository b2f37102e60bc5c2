"""An exchange on Kafka in a process of its own, which says what it owns and how much it has taken.

Invariant: it runs until whoever started it ends it.
"""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

DEADLINE_S: Final = 300.0


class ExchangeProcess:
    """An exchange; `said` is the last that it said: `owned` shards, orders `taken`, and `at` which monotonic second.

    Args:
        servers: the brokers.
        prefix: of its topics.
        partitions: into how many its topics are divided.
        client: what carries its records.
    """

    def __init__(self, servers: str, prefix: str, partitions: int, client: str) -> None:
        self.said: dict[str, Any] = {"owned": 0, "taken": 0, "at": 0.0}
        self._process = subprocess.Popen(
            [sys.executable, __file__, servers, prefix, str(partitions), client], stdout=subprocess.PIPE
        )
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said = json.loads(line)

    def tell(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def end(self) -> None:
        """End it (SIGKILL), also when it is frozen."""
        self._process.kill()
        self._process.wait(30)
        self._listener.join()


def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, "what was waited for did not come"
        time.sleep(0.005)


def trade(servers: str, prefix: str, partitions: int, client: str) -> None:
    """Trade until this process is ended."""
    from stocktrade.shard.node import Node  # noqa: PLC0415 - who starts such a process need not have it all in memory
    from stocktrade.transport.kafka import KafkaLog  # noqa: PLC0415

    with KafkaLog(servers, prefix=prefix, partitions=partitions, client=client) as log:
        node = Node(log, name="bench", now_ms=lambda: time.time_ns() // 1_000_000, outlasts_outages=True)
        taken = 0
        while True:
            step = node.step(0.2)
            taken += len(step.taken)
            if step.started or step.lost or step.taken:
                print(json.dumps({"owned": len(node.owners), "taken": taken, "at": time.monotonic()}), flush=True)


if __name__ == "__main__":
    trade(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
