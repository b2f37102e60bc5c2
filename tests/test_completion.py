"""Completion: what the shells are offered, in the protocol of each, and never an error."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stocktrade import cli, settings
from stocktrade.completion import offered
from stocktrade.transport import connect, topics
from stocktrade.transport.base import NewRecord


def test_what_was_met_last_comes_first(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Symbols, participants and orders of the log, in any case; what is no order offers nothing."""
    for number, (symbol, who) in enumerate((("INFY", "LIC"), ("SBI", "HDFC"), ("ITC", "LIC-2"))):
        assert cli.run(["buy", symbol, "1", "885", "--as", who, f"--id=B-{number}", "-q"]) == 0
    capsys.readouterr()
    with connect(f"sqlite:{home}") as log:
        log.append([NewRecord(topics.BUY_ORDERS, None, b"\x1b[2J", 0)])
    assert offered("symbols", "") == ["ITC", "SBIN", "INFY", "SBI"]
    assert offered("symbols", "i") == ["ITC", "INFY"]
    assert offered("participants", "l") == ["LIC-2", "LIC"]
    assert offered("orders", "b-") == ["B-2", "B-1", "B-0"]
    assert offered("orders", "x") == []
    assert offered("topics", "tr") == ["trades"]
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("trouble", ["none", "foreign", "no right", "kafka", "wrong", "no topics"])
def test_trouble_offers_less_and_says_nothing(
    home: Path, trouble: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No log, something else in its place, a wrong setting, Kafka: the words that are always there, at once."""
    if trouble == "foreign":
        home.mkdir()
        (home / "log.db").write_bytes(b"not a log" * 1000)
    elif trouble == "no right":
        home.write_text("a file")
    elif trouble == "kafka":
        monkeypatch.setenv(settings.BOOTSTRAP_SERVERS, "localhost:1")
    elif trouble == "wrong":
        monkeypatch.setenv(settings.BOOTSTRAP_SERVERS, "nonsense")
    elif trouble == "no topics":
        connect(f"sqlite:{home}").close()
    assert offered("symbols", "s") == ["SBI", "SBIN"]
    assert offered("participants", "") == ["HDFC", "SELLER"]
    assert offered("orders", "") == []
    assert capsys.readouterr() == ("", "")
    assert home.exists() == (trouble in ("foreign", "no right", "no topics"))


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("stocktrade bu", "buy"),
        ("stocktrade buy SB", "SBIN"),
        ("stocktrade buy SBI 1 885 --tif F", "FOK"),
        ("stocktrade watch --only tr", "trades"),
        ("stocktrade topics tail dea", "dead-letters"),
        ("stocktrade funds HD", "HDFC"),
        ("stocktrade nse --on", "--once"),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_is_answered_in_its_own_way(home: Path, shell: str, words: str, wanted: str) -> None:
    """Through the environment that the installed script of each shell sets."""
    environment = {**os.environ, "_STOCKTRADE_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": words}
    environment |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    environment |= {"_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    command = [sys.executable, "-c", "from stocktrade.cli import main; main()"]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert wanted in said.stdout
    assert said.stderr == ""
    assert not home.exists()
