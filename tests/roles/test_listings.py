"""`orders`, `orders show`, `trades`, `holdings`, `funds`: the seed's trade and a little more, in every form."""

import csv
import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from stocktrade import cli, settings
from stocktrade.listing import Column, Form, Listing, form_of, write
from stocktrade.transport import connect, topics
from stocktrade.transport.base import NewRecord

LISTS = (
    ("trades",),
    ("orders",),
    ("holdings",),
    ("funds",),
    ("funds", "HDFC", "--statement"),
    ("orders", "show", "B-1"),
)
Run = Callable[..., str]


@pytest.fixture
def market(run: Run) -> Run:
    """A buy of 100 at 885 of which 60 were sold in two parts and the rest cancelled; one offer waits."""
    run("buy", "SBI", "100", "885", "--id", "B-1", "-q")
    run("sell", "SBI", "50", "--id", "S-1", "-q")
    run("sell", "SBI", "10", "--id", "S-2", "--as", "LIC", "-q")
    run("nse", "--once")
    run("cancel", "B-1", "--id", "C-1", "-q")
    run("sell", "INFY", "7", "1500", "--id", "S-3", "-q")
    run("buy", "SBI", "10", "885.01", "--id", "B-2", "-q", "--dry-run")
    run("nse", "--once")
    return run


def rows(text: str) -> list[list[str]]:
    return [line.split("\t") for line in text.splitlines()]


def test_the_seed_on_both_accounts(market: Run) -> None:
    """Shares and rupees went where the trades say, and their sums are zero."""
    assert rows(market("holdings")) == [["HDFC", "SBIN", "60"], ["LIC", "SBIN", "-10"], ["SELLER", "SBIN", "-50"]]
    assert rows(market("funds")) == [["HDFC", "-53100.0"], ["LIC", "8850.0"], ["SELLER", "44250.0"]]
    assert rows(market("funds", "LIC")) == [["LIC", "8850.0"]]
    assert rows(market("holdings", "HDFC", "--at", "2")) == [["HDFC", "SBIN", "50"]]
    assert market("holdings", "--at", "@2000-01-01") == ""
    statement = [row[1:] for row in rows(market("funds", "HDFC", "--statement"))]
    assert statement == [
        ["T0-2-1", "BUY", "SBIN", "50", "885.0", "-44250.0", "-44250.0"],
        ["T0-3-1", "BUY", "SBIN", "10", "885.0", "-8850.0", "-53100.0"],
    ]
    assert [row[1:] for row in rows(market("funds", "HDFC", "--statement", "-n", "1"))] == statement[1:]
    assert [row[1:] for row in rows(market("funds", "HDFC", "--statement", "--at", "2"))] == statement[:1]


def test_orders_in_each_state(market: Run) -> None:
    """What is filled, open and cancelled is what the exchange said, now and before."""
    listed = [(row[1], row[6], row[7], row[8], row[9], row[10]) for row in rows(market("orders"))]
    assert listed == [
        ("B-1", "100", "60", "0", "40", "cancelled"),
        ("S-1", "50", "50", "0", "0", "filled"),
        ("S-2", "10", "10", "0", "0", "filled"),
        ("S-3", "7", "0", "7", "0", "open"),
    ]
    assert [row[1] for row in rows(market("orders", "--open"))] == ["S-3"]
    assert [row[1] for row in rows(market("orders", "--as", "SELLER", "--symbol", "sbi"))] == ["S-1"]
    assert [row[1] for row in rows(market("orders", "-n", "1"))] == ["S-3"]
    (before,) = rows(market("orders", "--at", "2", "--as", "HDFC"))
    assert (before[7], before[8], before[10]) == ("50", "50", "partly filled")
    assert market("orders", "--symbol", "TCS") == ""


def test_trades_of_a_range(market: Run) -> None:
    """Symbols under any name, a participant on either side, and points as `watch` takes them."""
    assert [row[1] for row in rows(market("trades"))] == ["T0-2-1", "T0-3-1"]
    assert [row[1] for row in rows(market("trades", "NSE:SBIN", "INFY"))] == ["T0-2-1", "T0-3-1"]
    assert [row[1] for row in rows(market("trades", "--as", "LIC"))] == ["T0-3-1"]
    assert [row[1] for row in rows(market("trades", "--from", "1"))] == ["T0-3-1"]
    assert [row[1] for row in rows(market("trades", "--until", "-1"))] == ["T0-2-1"]
    assert market("trades", "INFY") == ""


def test_the_trace_of_the_seed(market: Run) -> None:
    """From the append to both legs, with what happened in between, each with its record."""
    steps = [json.loads(line) for line in market("orders", "show", "1", "--as", "HDFC", "--json").splitlines()]
    assert {step["schema"] for step in steps} == {"stocktrade.step/1"}
    assert [(step["what"], step["position"]) for step in steps] == [
        ("sent", "buy-orders@0:0"),
        ("taken", "exchange-journal@0:1"),
        ("accepted", "order-events@0:0"),
        ("met", "sell-offers@0:0"),
        ("taken", "exchange-journal@0:1"),
        ("traded", "trades@0:0"),
        ("shares", "demat-transfers@0:0"),
        ("funds", "cash-movements@0:0"),
        ("met", "sell-offers@0:1"),
        ("taken", "exchange-journal@0:1"),
        ("traded", "trades@0:1"),
        ("shares", "demat-transfers@0:2"),
        ("funds", "cash-movements@0:2"),
        ("asked", "buy-orders@0:1"),
        ("taken", "exchange-journal@0:3"),
        ("cancelled", "order-events@0:3"),
    ]
    assert [step["text"] for step in steps if step["what"] == "funds"] == ["-₹44,250.00", "-₹8,850.00"]


def test_an_order_that_waits_for_an_exchange_is_found(run: Run) -> None:
    """Before anybody has taken it, its trace is where it stands; and then it goes on."""
    run("buy", "SBI", "1", "885", "--id", "B-1", "-q")
    (step,) = [json.loads(line) for line in run("orders", "show", "B-1", "--json").splitlines()]
    assert (step["what"], step["position"]) == ("waits", "buy-orders@0:0")
    run("nse", "--once")
    assert len(run("orders", "show", "B-1").splitlines()) == 3


@pytest.mark.parametrize("arguments", LISTS, ids=" ".join)
def test_every_form_has_the_same_rows(market: Run, arguments: tuple[str, ...]) -> None:
    """TSV, CSV with a line of names, and JSON Lines, each whole."""
    tsv = rows(market(*arguments))
    names, *lines = csv.reader(io.StringIO(market(*arguments, "--csv")))
    assert [[cell.removeprefix("'") for cell in line] for line in lines] == tsv
    documents = [json.loads(line) for line in market(*arguments, "--json").splitlines()]
    assert len(documents) == len(tsv) > 0
    assert len(names) == len(tsv[0])
    assert {document["schema"].partition("/")[2] for document in documents} == {"1"}
    for document in documents:
        money = {name: value for name, value in document.items() if name.endswith("_paise") and value is not None}
        assert all(isinstance(value, int) for value in money.values())


@pytest.mark.parametrize("arguments", LISTS[:4], ids=" ".join)
def test_a_log_that_nobody_has_used_has_no_rows(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """It is no error, for a program and for a person."""
    connect(f"sqlite:{home}").close()
    for form in ((), ("--json",)):
        assert cli.run([*arguments, *form]) == 0
        assert capsys.readouterr().out == ""
    with connect(f"sqlite:{home}") as log:
        log.ensure_topics(topics.SPECS)
    assert cli.run([*arguments]) == 0


def test_who_is_not_there_is_an_answer(market: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """An unknown participant or order ends with 1, an id that could mean two orders with 2, each with a hint."""
    for arguments in (("funds", "hdfc"), ("holdings", "X"), ("funds", "X", "--statement"), ("orders", "show", "zz")):
        assert cli.run([*arguments]) == 1
        said = capsys.readouterr()
        assert said.out == ""
        assert [line.split(":")[0].strip() for line in said.err.splitlines()] == ["error", "cause", "hint"]
    assert cli.run(["orders", "show", "-1"]) == 2
    capsys.readouterr()
    market("buy", "INFY", "1", "1", "--id", "S-1", "--as", "LIC", "-q")
    market("nse", "--once")
    assert cli.run(["orders", "show", "S-1"]) == 2
    assert "S-1 of SELLER, S-1 of LIC" in capsys.readouterr().err
    assert market("orders", "show", "S-1", "--as", "LIC") != ""


def test_a_sequence_needs_one_shard(home: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """Each shard counts its own, so `--at 5` would be a guess."""
    run("topics", "create", "--partitions=2")
    assert cli.run(["funds", "--at", "5"]) == 2
    assert "2 shards" in capsys.readouterr().err
    assert run("funds", "--at", "@-1m") == ""


class Anything:
    """A row of one text."""

    def __init__(self, text: str) -> None:
        self.text = text


HOSTILE = ["a\tb", 'a"b,c', "line\nbreak", "\x1b[2Jx", "=1+1", "@cmd", "[red]x[/]", "\u202eabc", "é" * 50, ""]
ANY = Listing[Anything](
    "x/1",
    (Column("a", "a", lambda row: row.text), Column("b", "b", lambda _: "end")),
    lambda row: {"a": row.text},
    "none",
)


@pytest.mark.parametrize("form", [Form.TSV, Form.CSV, Form.JSON])
@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_text_stays_in_its_cell(text: str, form: Form) -> None:
    """One line for a row, nothing that steers a terminal, no formula for a spreadsheet; JSON gives the text back."""
    out = io.StringIO()
    console = Console(file=io.StringIO())
    assert write(ANY, [Anything(text), Anything("x")], form, console=console, out=out) == 2
    lines = out.getvalue().splitlines()
    assert len(lines) == (3 if form is Form.CSV else 2)
    assert "\x1b" not in out.getvalue()
    if form is Form.JSON:
        assert json.loads(lines[0])["a"] == text
    elif form is Form.CSV:
        (_, row, _) = csv.reader(io.StringIO(out.getvalue()))
        assert row[1] == "end"
        assert not row[0].startswith(("=", "+", "@"))
    else:
        assert lines[0].split("\t")[1:] == ["end"]


def test_two_forms_at_once_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And without a flag it depends on where it goes."""
    assert cli.run(["trades", "--json", "--csv"]) == 2
    assert "--json and --csv are two forms" in capsys.readouterr().err
    for terminal, form in ((True, Form.TABLE), (False, Form.TSV)):
        assert form_of(Console(force_terminal=terminal), as_json=False) is form


def screen(home: Path, *arguments: str, columns: int) -> str:
    """What a command writes to a terminal of that width."""
    master, slave = pty.openpty()
    environment = {**os.environ, settings.HOME: str(home), "COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "stocktrade", *arguments], stdout=slave, stderr=slave, env=environment
    )
    os.close(slave)
    said = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([master], [], [], 1)[0]:
            try:
                more = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            said += more
        elif process.poll() is not None:
            break
    os.close(master)
    assert process.wait(10) == 0
    return re.sub("\x1b\\[[0-9;]*m", "", said.decode().replace("\r\n", "\n"))


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_money_and_ids_are_never_cut(home: Path, run: Run, columns: int) -> None:
    """On a narrow screen columns go and names fold; a number and an id that are there are whole."""
    symbol, who = "S" * 20, "P" * 64
    run("buy", symbol, "100000", "12345", "--id", "B-" + "7" * 14, "--as", who, "-q")
    run("sell", symbol, "100000", "--id", "S-1", "--as", "Q" * 64, "-q")
    run("nse", "--once")
    for arguments, wanted in (
        (("trades",), ["1,00,000", "₹12,345.00", "T0-2-1"]),
        (("orders",), ["B-" + "7" * 14, "filled"]),
        (("funds",), ["-₹1,23,45,00,000.00"]),
        (("funds", who, "--statement"), ["-₹1,23,45,00,000.00", "T0-2-1"]),
        (("holdings",), ["-1,00,000", symbol]),
    ):
        shown = screen(home, *arguments, columns=columns)
        if columns > 60:
            assert [text for text in wanted if text not in shown] == [], shown
            assert max(len(line) for line in shown.splitlines()) <= columns
        assert "…" not in shown


def test_a_stranger_among_the_trades_is_told(home: Path, market: Run, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no trade counts for nobody; a person is told where to look."""
    with connect(f"sqlite:{home}") as log:
        log.append([NewRecord(topics.TRADES, None, b"no trade", 0)])
    assert cli.run(["funds", "LIC"]) == 0
    said: Any = capsys.readouterr()
    assert rows(said.out) == [["LIC", "8850.0"]]
    assert "1 record on `trades` passed over" in said.err
