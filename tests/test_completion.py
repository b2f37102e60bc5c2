"""Completion: what the shells are offered, in the protocol of each, and never an error."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main

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
        ("stocktrade buy SBI 1 885 --stp cancel-a", "cancel-active"),
        ("stocktrade topics ta", "tail"),
        ("stocktrade schema stocktrade.ord", "stocktrade.order-state/1"),
        ("stocktrade replay --log --speed 1", "10x"),
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


SCRIPTS: Final = {
    "bash": Path(".bash_completions/stocktrade.sh"),
    "zsh": Path(".zfunc/_stocktrade"),
    "fish": Path(".config/fish/completions/stocktrade.fish"),
}


def in_home(folder: Path, *arguments: str) -> str:
    """What a command prints to somebody whose home is the folder, and who names the shell instead of being in it."""
    environment = {**os.environ, "HOME": str(folder), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    command = [sys.executable, "-m", "stocktrade", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("shell", SCRIPTS)
def test_what_is_shown_is_what_is_installed(home: Path, tmp_path: Path, shell: str) -> None:
    """In the place where the shell looks for it; a second time nothing is added; no log is made."""
    shown = in_home(tmp_path, "--show-completion", shell)
    assert f"complete_{shell}" in shown
    in_home(tmp_path, "--install-completion", shell)
    script = (tmp_path / SCRIPTS[shell]).read_text()
    assert script.strip() == shown.strip()
    start = tmp_path / f".{shell}rc"
    before = start.read_text().split() if start.exists() else []
    in_home(tmp_path, "--install-completion", shell)
    assert (tmp_path / SCRIPTS[shell]).read_text() == script
    assert (start.read_text().split() if start.exists() else []) == before
    assert not home.exists()


def test_bash_offers_what_the_installed_script_says(home: Path, tmp_path: Path) -> None:
    """In a real bash, which has read what was installed: the word is completed, and nothing else is printed."""
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash")
    in_home(tmp_path, "--install-completion", "bash")
    program = tmp_path / "stocktrade"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m stocktrade "$@"\n')
    program.chmod(0o755)
    script = """
        source "$HOME/.bashrc"
        COMP_WORDS=(stocktrade buy SB) COMP_CWORD=2
        function=$(complete -p stocktrade | sed "s/.*-F \\([^ ]*\\) .*/\\1/")
        $function stocktrade SB buy
        echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([bash, "--norc", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("SBI SBIN\n", "")
    assert not home.exists()


def test_a_damaged_log_offers_less_and_says_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """100 logs that were cut short or overwritten here and there."""
    with connect(f"sqlite:{home}") as log:
        log.ensure_topics(topics.SPECS)
        orders = [b'{"order_id":"O-%d","buyer":"P","stock_symbol":"S%d","quantity":1}' % (n, n) for n in range(500)]
        log.append([NewRecord(topics.BUY_ORDERS, b"S", order, 0) for order in orders])
    whole = shutil.copytree(home, home.parent / "whole")
    chance = random.Random(885)
    found = []
    for number in range(100):
        shutil.rmtree(home)
        shutil.copytree(whole, home)
        data = bytearray((home / "log.db").read_bytes())
        if number % 4:
            for _ in range(chance.choice([1, 20, 400])):
                data[chance.randrange(len(data))] = chance.randrange(256)
        else:
            del data[chance.randrange(len(data)) :]
        (home / "log.db").write_bytes(data)
        found.append(len(offered("symbols", "")))
    assert min(found) >= 2 < max(found)  # SBI and SBIN always, and those of a log that can still be read
    assert capsys.readouterr() == ("", "")


def test_each_word_that_is_one_of_a_few_is_offered() -> None:
    """An argument that is a symbol, an order or a topic, and an option that is one of some words, have a completion."""

    def without(path: str, command: Any) -> list[str]:
        lacking = [
            f"{path} {parameter.opts[0]}"
            for parameter in command.params
            if parameter.metavar in NAMED and parameter._custom_shell_complete is None
        ]
        for name, below in getattr(command, "commands", {}).items():
            lacking += without(f"{path} {name}".strip(), below)
        return lacking

    assert without("", typer.main.get_command(cli.app)) == []


NAMED: Final = {"SYMBOL", "ORDER", "TOPIC", "PARTICIPANT", "NAME", "KIND", "DAY|IOC|FOK", "1x|max"}
"""How what can be completed is called in the help."""
