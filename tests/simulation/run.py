"""Many simulated runs, until one has a finding: `python tests/simulation/run.py --runs 10000`.

A seed that has one is printed with the command that repeats it; `--trace` prints the steps of a single seed.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from simulation import simulate  # noqa: E402 - the path comes first


def main() -> int:
    """Run; 1 if a seed has a finding."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--trace", action="store_true", help="print the steps of the first seed, and end")
    arguments = parser.parse_args()
    began, trades = time.monotonic(), 0
    for seed in range(arguments.seed, arguments.seed + (1 if arguments.trace else arguments.runs)):
        run = simulate(seed)
        trades += run.trades
        if arguments.trace:
            sys.stdout.write("\n".join(run.trace) + "\n")
        if run.findings:
            for finding in run.findings:
                sys.stdout.write(f"{finding.rule}: {finding.where}: {finding.what}\n")
            sys.stdout.write(f"again: python tests/simulation/run.py --seed {seed} --trace\n")
            return 1
        if sys.stdout.isatty() and seed % 100 == 0:
            sys.stdout.write(f"\r{seed} ")
            sys.stdout.flush()
    rate = arguments.runs * 60 / (time.monotonic() - began)
    sys.stdout.write(f"{arguments.runs} runs without a finding, {trades} trades, {rate:.0f} runs a minute\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
