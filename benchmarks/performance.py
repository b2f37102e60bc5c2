"""Everything that does the same work, side by side, on one broker: docs/performance.md is made of it.

    python benchmarks/performance.py [--bootstrap-server HOST:PORT] [--rounds N] [--scale SHARE]
                                     [--only NAME,...] [--json FILE | --from FILE] [--write]

It starts a broker in a container unless it is given one; on a machine without a container engine root has one started,
and where no image can be pulled one is built. In each round every program takes the same orders in turn, in a process
of its own and on topics of its own, and what it wrote is looked at afterwards. A round before the first is not
counted: a broker that was just started compiles itself meanwhile, and takes as much of the processor for that as for
its work. Then each is killed in the middle once, and the order books of PyPI are compared with the core. The peers have
a virtual environment of their own (`--peers`), for they want older libraries than the exchange. `make performance`
installs all of it and writes the page.

Bounded: about 20 minutes; `--scale 0.1` takes a tenth of the orders. Ends with 1 when a program failed, or when one of
the exchange's own was not exact.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from machine import machine
from side_by_side import page
from side_by_side.broker import broker
from side_by_side.judge import Verdict
from side_by_side.programs import PROGRAMS, Program
from side_by_side.runs import Python, killed, once
from stocktrade.transport.kafka import KafkaLog

SCHEMA: Final = "stocktrade.benchmark.performance/1"
ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "performance.md"
PICTURE: Final = ROOT / "docs" / "performance.svg"
BOOKS_DEADLINE_S: Final = 600.0


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr, flush=True)


def measure(servers: str, chosen: list[Program], rounds: int, scale: float, python: Python) -> dict[str, Any]:
    """Every program in turn, round by round, then each killed once; what failed has `failed`, with the reason."""
    programs: dict[str, Any] = {
        program.name: {"orders": even(program.orders * scale), "orders_per_s": [], "versions": {}, "verdicts": []}
        for program in chosen
    }
    deaths: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(rounds + 1):
            for program in chosen:
                into = programs[program.name]
                if into.get("failed"):
                    continue
                where = f"sqlite:{folder}" if program.embedded else servers
                try:
                    done = once(program, where, into["orders"] if number else even(into["orders"] / 2), python)
                except (RuntimeError, TimeoutError) as error:
                    into["failed"] = reason(error)
                    say(f"round {number}  {program.name:<20} {error}")
                    continue
                if not number:
                    continue
                into["orders_per_s"].append(done["orders_per_s"])
                into["versions"] |= done["versions"]
                into["verdicts"].append(done["verdict"])
                verdict = Verdict(**done["verdict"])
                say(f"round {number}  {program.name:<20} {done['orders_per_s']:>10,.0f} orders/s  {verdict}")
        for program in (each for each in chosen if each.killed):
            try:
                deaths[program.name] = killed(program, servers, even(program.orders * scale), python)
            except (RuntimeError, TimeoutError) as error:
                deaths[program.name] = {"failed": reason(error)}
                say(f"kill -9  {program.name:<20} {error}")
                continue
            say(f"kill -9  {program.name:<20} {Verdict(**deaths[program.name]['verdict'])}")
    return {"programs": programs, "killed": deaths}


def even(orders: float) -> int:
    """Orders come in pairs."""
    return max(2, round(orders / 2) * 2)


def reason(error: Exception) -> str:
    """The last line of what went wrong, for a page."""
    return str(error).strip().splitlines()[-1][:200]


def books(python: str, rounds: int, scale: float) -> dict[str, Any]:
    """The order books, in a process of the peers' environment."""
    command = [python, "-m", "side_by_side.books", str(rounds), str(even(100_000 * scale))]
    done = subprocess.run(
        command, cwd=Path(__file__).parent, stdout=subprocess.PIPE, check=True, timeout=BOOKS_DEADLINE_S
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def failures(results: dict[str, Any]) -> list[str]:
    """What failed, and which run of the exchange was not exact."""
    found = [
        f"{kind} {name}: {each['failed']}"
        for kind in ("programs", "killed")
        for name, each in results[kind].items()
        if each.get("failed")
    ]
    for name in (name for name in PROGRAMS if name.startswith("nse-")):
        verdicts = results["programs"].get(name, {}).get("verdicts", [])
        verdicts = [
            *verdicts,
            *(each["verdict"] for each in [results["killed"].get(name)] if each and "verdict" in each),
        ]
        found += [f"{name}: {said}" for verdict in verdicts if not (said := Verdict(**verdict)).exact]
    return found


def asked_for(asked: argparse.Namespace) -> str:
    """The command that measures the same again."""
    options = [f"--{name} {value:g}" for name, value in (("rounds", asked.rounds), ("scale", asked.scale))]
    changed = [option for option in options if option not in ("--rounds 5", "--scale 1")]
    if asked.only:
        changed.append(f"--only {','.join(asked.only)}")
    if not asked.write:
        return " ".join(["python benchmarks/performance.py", *changed])
    return f'make performance ARGS="{" ".join(changed)}"' if changed else "make performance"


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Measure everything."""
    chosen = [PROGRAMS[name] for name in asked.only] if asked.only else list(PROGRAMS.values())
    peers = asked.peers or ROOT / ".venv-peers" / "bin" / "python"
    if any(program.peer for program in chosen) and not peers.exists():
        sys.exit(f"error: the peers are not installed at {peers}; try: make performance")
    # Not resolved: a link to the interpreter is what makes it that of an environment.
    python = Python(peers=str(peers.absolute()))
    with broker(asked.bootstrap_server) as servers:
        with KafkaLog(servers) as log:
            about = log.about().partition(",")[0]
        measured = measure(servers, chosen, asked.rounds, asked.scale, python)
    return {
        "schema": SCHEMA,
        "machine": machine(),
        "python": platform.python_version(),
        "broker": about,
        "command": asked_for(asked),
        "rounds": asked.rounds,
        **measured,
        "books": books(python.peers, asked.rounds, asked.scale) if peers.exists() and not asked.only else {},
    }


def main() -> None:
    """Measure, or take what was measured; print it, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--bootstrap-server", help="HOST:PORT of a broker; without it one is started")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the orders (default: all)")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"of {', '.join(PROGRAMS)}")
    parser.add_argument("--peers", type=Path, help="the Python of the environment with the peers")
    files = parser.add_mutually_exclusive_group()
    files.add_argument("--json", type=Path, metavar="FILE", help="keep the results in a file")
    files.add_argument("--from", type=Path, dest="source", metavar="FILE", help="take the results from a file")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md and its picture")
    asked = parser.parse_args()
    if unknown := set(asked.only or ()) - PROGRAMS.keys():
        parser.error(f"there is no program {', '.join(sorted(unknown))}")

    results = json.loads(asked.source.read_text()) if asked.source else run(asked)
    if asked.json:
        asked.json.write_text(json.dumps(results, indent=1) + "\n")
    print(page.printed(results))
    if asked.write:
        PAGE.write_text(page.written_into(PAGE.read_text(), results))
        PICTURE.write_text(page.picture(results))
    for failure in (failed := failures(results)):
        say(f"failed: {failure}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
