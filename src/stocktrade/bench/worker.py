"""What the processes of a bench do, each in one of its own: be the exchange, or send orders.

`python -m stocktrade.bench.worker` reads what to do from its standard input, a JSON object in the first line, and says
how far it is in objects on its standard output. It ends when its standard input does.

Invariant: the exchange is `shard.node.Node`, driven as `nse` drives it; only what is said on a screen is left out.
"""

import json
import os
import sys
import threading
import time
from array import array
from collections.abc import Mapping
from itertools import islice
from queue import SimpleQueue
from typing import Any, Final

from stocktrade.bench.load import Load
from stocktrade.bench.percentiles import percentiles
from stocktrade.bench.scratch import Site
from stocktrade.errors import ExitCode, StocktradeError
from stocktrade.shard.node import Node
from stocktrade.transport import topics

POLL_S: Final = 0.25
REPORT_EVERY_S: Final = 0.05
MAX_AT_ONCE: Final = 500
"""How many orders that are due are appended in one call: only a sender that is behind ever has so many."""

_END_WITHIN_S: Final = 4.0


class _Orders:
    """What whoever started this process says: messages, then the end."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self._messages: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> dict[str, Any] | None:
        """The next message; None at the end."""
        return self._messages.get()

    def _read(self) -> None:
        for line in sys.stdin:
            self._messages.put(json.loads(line))
        self._messages.put(None)
        self.ended.set()
        # Whatever it is doing, it must not outlive the bench.
        time.sleep(_END_WITHIN_S)
        os._exit(ExitCode.UNAVAILABLE)


def _say(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def be_the_exchange(site: Site, orders: _Orders) -> None:
    """Trade until the end, and say what is owned and how much was taken, and when (`time.monotonic`)."""
    with site.connect() as log:
        node = Node(log, name=f"bench, pid {os.getpid()}", now_ms=lambda: time.time_ns() // 1_000_000)
        shards = log.partitions()
        taken = owned = replayed = 0
        snapshots = False
        first_at: float | None = None
        last_at = told_at = 0.0
        told = True
        try:
            while not orders.ended.is_set():
                step = node.step(POLL_S)
                now = time.monotonic()
                if step.started:
                    replayed += sum(owner.recovered.inputs_replayed for owner in step.started)
                    snapshots |= any(owner.recovered.from_snapshot for owner in step.started)
                    if not owned:
                        _say(began=now)
                    owned = len(node.owners)
                    if owned == shards:
                        _say(owned_at=now, inputs_replayed=replayed, from_snapshot=snapshots)
                if step.taken:
                    taken += len(step.taken)
                    last_at = now
                    first_at = first_at or now
                    told = False
                if not told and (now - told_at >= REPORT_EVERY_S or not step.taken):
                    _say(taken=taken, first_at=first_at, last_at=last_at)
                    told, told_at = True, now
        finally:
            node.abandon()


def send_orders(site: Site, task: Mapping[str, Any], orders: _Orders) -> None:
    """Send the mixed load in an open loop: each order at its moment, whatever became of the ones before.

    Orders that are due together go in one call: a sender that fell behind catches up, and says how far it was behind.
    """
    rate, total, skipped = float(task["rate"]), int(task["total"]), int(task["warm_up"])
    load = Load(int(task["seed"]), int(task["symbols"])).mixed()
    behind_ms = array("f")
    with site.connect() as log:
        log.ensure_topics(topics.SPECS)
        _say(ready=True)
        start = orders.next()
        if start is None:
            return
        began = float(start["begin"])
        sent = calls = 0
        ended = began
        while sent < total and not orders.ended.is_set():
            due = began + sent / rate
            now = time.monotonic()
            if now < due:
                orders.ended.wait(due - now)
                continue
            count = min(total - sent, MAX_AT_ONCE, 1 + int((now - due) * rate))
            log.append(list(islice(load, count)))
            ended = time.monotonic()
            calls += 1
            for number in range(sent, sent + count):
                if number >= skipped:
                    behind_ms.append((now - began - number / rate) * 1000)
            sent += count
    behind = percentiles(behind_ms)
    _say(
        done=True,
        sent=sent,
        calls=calls,
        rate_reached=sent / max(ended - began, 1e-9),
        behind_p50_ms=behind.p50,
        behind_p99_ms=behind.p99,
        behind_max_ms=behind.max,
    )


def main() -> int:
    """Do what the first line says; the exit code."""
    orders = _Orders()
    task = orders.next()
    if task is None:
        return ExitCode.OK
    site = Site(**task["site"])
    try:
        if task["task"] == "exchange":
            be_the_exchange(site, orders)
        else:
            send_orders(site, task, orders)
            orders.ended.wait()
    except StocktradeError as error:
        _say(error=error.what, cause=error.cause, hint=error.hint, exit_code=int(error.exit_code))
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - whoever started it tells the user
        _say(error=f"a bug in stocktrade: {type(error).__name__}: {error}", cause="", hint="", exit_code=70)
        return ExitCode.BUG
    return ExitCode.OK


if __name__ == "__main__":
    sys.exit(main())
