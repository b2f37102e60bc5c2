"""How fast a million messages replay, in how much memory: `python benchmarks/replay.py [COUNT]`.

Writes a file of seeded orders to a temporary folder, replays it with the real command, and prints what it took.
"""

import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def write(path: Path, count: int) -> None:
    """`count` orders over 100 symbols, both sides, around one price."""
    chance = random.Random(885)
    with path.open("w") as file:
        for number in range(count):
            symbol, price = f"S{chance.randrange(100)}", 885 + chance.randrange(-20, 21) * 0.05
            rest = f'"stock_symbol":"{symbol}","quantity":{chance.randrange(1, 100)},"price_per_unit":{price:.2f}'
            if chance.random() < 0.5:
                file.write(f'{{"topic":"buy-orders","value":{{"order_id":"B{number}","buyer":"HDFC",{rest}}}}}\n')
            else:
                file.write(f'{{"topic":"sell-offers","value":{{"offer_id":"S{number}","seller":"LIC",{rest}}}}}\n')


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(prefix="stocktrade-bench-") as folder:
        path = Path(folder) / "orders.jsonl"
        write(path, count)
        command = [sys.executable, "-m", "stocktrade", "replay", str(path), "--json"]
        began = time.monotonic()
        with (Path(folder) / "out").open("wb") as out:
            subprocess.run(command, stdout=out, stderr=subprocess.DEVNULL, check=True)
        seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    rate = f"seconds {seconds:.1f}  inputs_per_s {count / seconds:,.0f}"
    print(f"replay        inputs {count:,}  {rate}  peak_mib {peak:.0f}")


if __name__ == "__main__":
    main()
