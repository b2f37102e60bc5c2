"""What a command imports: an embedded one never a Kafka client, and `--help` next to nothing.

Kafka's client costs more to import than everything else together; every `--help` and every completion of a word would
pay for it.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

# Runs a command and then says which packages it has imported, apart from what it says itself.
SPY: Final = """
import sys
from stocktrade.cli import run
code = run(sys.argv[2:])
with open(sys.argv[1], "w") as out:
    out.write("\\n".join(sys.modules))
sys.exit(code)
"""


def imported(folder: Path, *arguments: str, code: int = 0) -> set[str]:
    """The modules that a command has imported by its end, which must be with `code`."""
    names = folder / "modules"
    done = subprocess.run(
        [sys.executable, "-c", SPY, str(names), *arguments],
        env={"STOCKTRADE_HOME": str(folder / "home"), "HOME": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return set(names.read_text().splitlines())


def packages(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--help",), 0),
        (("--version",), 0),
        (("nse", "--once"), 0),
        (("buy", "SBI", "100", "885"), 0),
        (("buy", "SBI", "100", "885", "--wait=1ms"), 4),
        (("buy", "SBI", "100", "885", "--json"), 0),
        (("buy", "SBI", "-1", "885"), 2),
        (("sell", "SBI", "100"), 0),
        (("sell", "SBI", "100", "--dry-run"), 0),
        (("watch", "--no-follow"), 0),
        (("demo", "--seconds", "0"), 0),
        (("doctor",), 0),
        (("bench", "--core", "--orders", "20"), 0),
        (("bench", "--orders", "20", "--seconds", "0"), 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_no_embedded_command_imports_a_kafka_client(tmp_path: Path, arguments: tuple[str, ...], code: int) -> None:
    """On the embedded log neither a Kafka client nor the adapter to it is imported, from start to end."""
    modules = imported(tmp_path, *arguments, code=code)
    assert packages(modules) & {"kafka", "confluent_kafka", "crc32c", "testcontainers"} == set()
    assert {name for name in modules if name.startswith("stocktrade.transport.kafka")} == set()
    assert "stocktrade.cli" in modules


def test_help_imports_no_more_than_typer_does(tmp_path: Path) -> None:
    """`--help` imports no package of others but those of Typer's own help: neither pydantic nor more of Rich."""
    bare = "import typer; app = typer.Typer(); app.command()(lambda: None); app(['--help'], standalone_mode=False)"
    names = subprocess.run(
        [sys.executable, "-c", f"{bare}; import sys; print('\\n' + '\\n'.join(sys.modules))"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout.splitlines()
    more = {
        name
        for name in imported(tmp_path, "--help") - set(names)
        if name.partition(".")[0] not in sys.stdlib_module_names | {"typer", "stocktrade"}
    }
    assert more == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("buy", "--help"),
        ("sell", "--help"),
        ("nse", "--help"),
        ("watch", "--help"),
        ("demo", "--help"),
        ("doctor", "--help"),
        ("bench", "--help"),
    ],
    ids=" ".join,
)
def test_help_needs_nothing_behind_the_command_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """The help of the program and of every command imports two modules of ours: no role, no log, no messages."""
    ours = {name for name in imported(tmp_path, *arguments) if name.startswith("stocktrade.")}
    assert ours == {"stocktrade.cli", "stocktrade.errors"}


def test_a_refused_order_opens_no_log(tmp_path: Path) -> None:
    """A wrong word is refused before the log's adapter is even imported."""
    modules = imported(tmp_path, "buy", "SBI", "100", "nan", code=2)
    assert "stocktrade.transport.sqlite" not in modules
    assert "sqlite3" not in modules
