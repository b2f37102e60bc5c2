"""Wrong uses of the command line: each ends with its exit code and at most three plain lines, and sends nothing.

Never a traceback, never a control character from what was typed, never a file where the user's own file was.
"""

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, NamedTuple

import pytest

from stocktrade import cli, settings
from stocktrade.errors import UsageError
from stocktrade.transport import connect, topics

CONTROLS: Final = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e]")


class Wrong(NamedTuple):
    """A wrong use: its words, and what the error says."""

    arguments: tuple[str, ...]
    error: str


PRICES: Final = (
    "nan", "NaN", "inf", "-inf", "1e999", "1e3", "1_0.5", "0x10", "١٢", " 5 ", "5\n", "1.005", "885.001", "-1",
    "-885", "0", "0.00", "", "+5", "5.", ".5", "1,0", "1,0000", "₹", "₹₹5", "885 rupees", "1" * 20, "10000000.05",
    "99999999999", "\udcff", "\x1b[2J",
)  # fmt: skip
QUANTITIES: Final = (
    "0", "-1", "-0", "1.0", "1e3", "0x10", "1_000", "ten", "", " 5", "5\n", "١٢", "nan", "+5", "1" * 30,
    "1000000001", "1,0", "\x1b[2J", "\udcff",
)  # fmt: skip
SYMBOLS: Final = (
    "", " SBI", "SBI ", "SBI\n", "S" * 21, "S" * 10_240, "[red]x", "[/foo]", "\udcff\udcfe", "BSE:SBI", "NSE:", "S.B",
    "\x1b[2J", "\x1b]52;c;ZXZpbA==\x07", "\x9b2J", "SBI\u202e", "ＳＢＩ", "SBI\0", "../SBI",
)  # fmt: skip
NAMES: Final = (
    "", " ", "A B", "HDFC\n", "A" * 65, "[red]x", "..", "../x", "CON", "'; DROP TABLE records", "\x1b[31mX", "\udcff",
    "é", "-x",
)  # fmt: skip

WRONG: Final = [
    *(Wrong(("buy", "SBI", "100", price), "invalid price") for price in PRICES),
    *(Wrong(("sell", "SBI", "100", price), "invalid price") for price in PRICES),
    *(Wrong(("buy", "SBI", quantity, "885"), "invalid quantity") for quantity in QUANTITIES),
    *(Wrong(("sell", "SBI", quantity), "invalid quantity") for quantity in QUANTITIES),
    *(Wrong(("buy", symbol, "100", "885"), "invalid symbol") for symbol in SYMBOLS),
    *(Wrong(("sell", symbol, "100"), "invalid symbol") for symbol in SYMBOLS),
    *(Wrong(("buy", "SBI", "1", "885", f"--as={name}"), "invalid participant") for name in (*NAMES, "NSE", "nse")),
    *(Wrong(("sell", "SBI", "1", f"--as={name}"), "invalid participant") for name in (*NAMES, "NSE", "nse")),
    *(Wrong(("buy", "SBI", "1", "885", f"--id={name}"), "invalid order id") for name in NAMES),
    *(
        Wrong(("buy", "SBI", "1", "885", f"--wait={wait}"), "invalid duration")
        for wait in ("x", "-1", "5h", "1e9", "nan", "", "\x1b[2J", "9999999")
    ),
    Wrong((), ""),
    Wrong(("frobnicate",), "No such command"),
    Wrong(("\x1b[2J",), "No such command"),
    Wrong(("--frobnicate",), "No such option"),
    Wrong(("buy",), "Missing argument"),
    Wrong(("buy", "SBI"), "Missing argument"),
    *(
        Wrong((side, "SBI", "1", "885", f"{option}={word}"), error)
        for side in ("buy", "sell")
        for option, error in (("--tif", "invalid time in force"), ("--stp", "invalid self-trade prevention"))
        for word in ("GTC", "", "DAY IOC", "\x1b[2J")
    ),
    Wrong(("replay",), "replay needs a file, - or --log"),
    Wrong(("replay", "orders.jsonl", "--log"), "replay needs a file or --log, not both"),
    Wrong(("replay", "orders.jsonl", "--compare"), "--compare needs --log"),
    Wrong(("replay", "--log", "--strict"), "--strict is for a file"),
    Wrong(("replay", "--log", "--instruments=x"), "--instruments is for a file"),
    *(Wrong(("replay", path), "cannot replay") for path in ("", "/", "/no/such/file", "x\0y", "\x1b[2J")),
    *(
        Wrong(("replay", "orders.jsonl", f"--speed={speed}"), "invalid speed")
        for speed in ("", "x", "0x", "-1x", "nan", "inf", "1e9x", "1_0x", "fast", "\x1b[2J")
    ),
    Wrong(("book",), "Missing argument"),
    Wrong(("book", "S BI"), "invalid symbol"),
    *(Wrong(("book", "SBI", f"--levels={count}"), "--levels") for count in ("0", "-1", "1.5", "many", "")),
    *(
        Wrong(("book", "SBI", f"--at={moment}"), "--at is no moment")
        for moment in ("", "start", "end", "-5", "+5", "@yesterday", "@2026-02-30", "09:15", "1_0", "\x1b[2J")
    ),
    *(
        Wrong((command, f"--at={moment}"), "--at is no moment")
        for command in ("trades", "orders", "holdings", "funds")
        for moment in ("", "start", "-5", "@yesterday", "@2026-02-30", "\x1b[2J")
    ),
    *(
        Wrong((*command, f"--{name}={point}"), "not a point on the log")
        for command in (("trades",), ("orders",), ("funds", "HDFC", "--statement"))
        for name in ("from", "until")
        for point in ("", "yesterday", "--1", "@-10y", "1.5", "@2026-13-01")
    ),
    *(Wrong((command, "-n", count), "-n") for command in ("trades", "orders") for count in ("0", "-1", "x", "1.5")),
    *(
        Wrong((command, name), "invalid participant")
        for command in ("holdings", "funds")
        for name in ("", "NSE", "a b")
    ),
    *(Wrong((command, "--as=NSE"), "invalid participant") for command in ("trades", "orders")),
    Wrong(("trades", "S BI"), "invalid symbol"),
    Wrong(("orders", "--symbol=S BI"), "invalid symbol"),
    Wrong(("orders", "SBI"), "No such command"),
    Wrong(("orders", "show"), "Missing argument"),
    *(Wrong(("orders", "show", name), "invalid order id") for name in NAMES if name and not name.startswith("-")),
    Wrong(("funds", "--statement"), "--statement needs a participant"),
    Wrong(("funds", "-n", "5"), "choose lines of a --statement"),
    Wrong(("book", "SBI", "--watch", "--at=5"), "--watch shows the levels as they are now"),
    Wrong(("book", "SBI", "--watch", "--orders"), "--watch shows the levels as they are now"),
    Wrong(("cancel",), "Missing argument"),
    *(Wrong(("cancel", name), "invalid order id") for name in NAMES if name and not name.startswith("-")),
    Wrong(("cancel", "B-1", "--as=NSE"), "invalid participant"),
    Wrong(("cancel", "B-1", "--price=3"), "No such option"),
    Wrong(("replace", "B-1"), "a replace needs --quantity, --price or both"),
    Wrong(("replace", "B-1", "--quantity=0"), "invalid quantity"),
    Wrong(("replace", "B-1", "--quantity=-5"), "invalid quantity"),
    Wrong(("replace", "B-1", "--price=nan"), "invalid price"),
    *(
        Wrong(("nse", f"--instruments={path}"), "--instruments")
        for path in ("", "/", "/dev/null", "/no/such/file", "x\0y", "\x1b[2J")
    ),
    *(
        Wrong(("audit", f"--expect-head={head}"), "--expect-head is no head of a journal")
        for head in ("", "5", "5:", ":abcdef01", "5:abc", "5:xyzxyzxyz", "-1:abcdef01", "1:2:3:abcdef01", "\x1b[2J")
    ),
    Wrong(("sell",), "Missing argument"),
    Wrong(("buy", "SBI", "1", "885", "7"), "unexpected extra argument"),
    Wrong(("buy", "SBI", "1", "885", "--frob"), "--frob"),
    Wrong(("buy", "SBI", "1", "885", "--\x1b[2J"), "unexpected extra argument"),
    Wrong(("nse", "--frob"), "No such option"),
    Wrong(("nse", "now"), "unexpected extra argument"),
    *(
        Wrong(("bench", f"--{name}={number}"), f"--{name}")
        for name, numbers in {
            "rate": ("0", "-1", "nan", "inf", "1e9", "fast", "", "0.5", "\x1b[2J"),
            "seconds": ("-1", "nan", "inf", "1e9", "86401", "long", ""),
            "orders": ("-2", "1.5", "10000001", "1" * 30, "many", ""),
            "symbols": ("0", "-1", "10001", "1.5", ""),
            "seed": ("1.5", "", "\x1b[2J"),
        }.items()
        for number in numbers
    ),
    Wrong(("bench", "--rate=100000", "--seconds=3600"), "--rate 100000 for --seconds 3600 is too much"),
    Wrong(("bench", "--rate=1", "--seconds=0.5"), "gives no latency"),
    Wrong(("bench", "--orders=0", "--seconds=0"), "there is nothing to measure"),
    Wrong(("bench", "--core", "--orders=0"), "there is nothing to measure"),
    Wrong(("bench", "--core", "--rate=5"), "--rate is for a log"),
    Wrong(("bench", "--core", "--seconds=5"), "--seconds is for a log"),
    Wrong(("bench", "--core", "-b", "127.0.0.1:1"), "--core touches no log"),
    Wrong(("bench", "--core", "--client=librdkafka"), "--core touches no log"),
    *(
        Wrong(("bench", "--core", option), "--folder, --topic-prefix and --audit are for a log")
        for option in ("--folder=x", "--topic-prefix=x", "--audit")
    ),
    Wrong(("bench", "--client=librdkafka"), "--client is given, but no Kafka server"),
    Wrong(("bench", "--client=java", "-b", "127.0.0.1:1"), "--client cannot be 'java'"),
    Wrong(("bench", "--tolerance=5%"), "--tolerance needs --baseline"),
    *(
        Wrong(("bench", f"--baseline={path}"), "--baseline")
        for path in ("", "/", "/dev/null", "/no/such/file", "x\0y", "\x1b[2J", __file__)
    ),
    *(Wrong(("bench", f"--folder={path}"), "--folder") for path in ("", "/", "/dev/null", __file__, "x\0y")),
    Wrong(("bench", "--topic-prefix=x"), "--topic-prefix is for Kafka"),
    Wrong(("bench", "--folder=x", "-b", "127.0.0.1:1"), "--folder is for the embedded log"),
    *(
        Wrong(("bench", "-b", "127.0.0.1:1", f"--topic-prefix={name}"), "--topic-prefix cannot be")
        for name in ("", ".", "..", "a b", "x" * 101, "é", "../x", "a/b", "\x1b[2J")
    ),
    Wrong(("bench", "now"), "unexpected extra argument"),
    Wrong(("demo", "--seconds", "long"), "--seconds"),
    Wrong(("demo", "--seconds", "nan"), "--seconds"),
    Wrong(("demo", "--seconds", "-1"), "--seconds"),
    Wrong(("demo", "--rate", "inf"), "--rate"),
    Wrong(("demo", "--rate", "0"), "--rate"),
    Wrong(("demo", "--seed", "1.5"), "--seed"),
    Wrong(("demo", "--keep", "/dev/null/x"), "--keep"),
    *(
        Wrong(("topics", "create", f"--{name}={number}"), f"--{name}")
        for name in ("partitions", "replication")
        for number in ("0", "-1", "1001", "1.5", "four", "", "\x1b[2J")
    ),
    Wrong(("topics", "create", "--replication=1"), "the embedded log has no copies"),
    Wrong(("topics", "create", "8"), "unexpected extra argument"),
    Wrong(("topics", "destroy"), "No such command"),
    *(Wrong(("schema", name), "nothing has a schema called") for name in ("", "trad", "Trade", "\x1b[2J")),
    Wrong(("schema", "trades", "--asyncapi"), "--asyncapi is about all topics"),
    Wrong(("schema", "--asyncapi", "-b", "nowhere"), "--bootstrap-server"),
    *(Wrong(("topics", "tail", name), "no topic of the exchange") for name in ("", "trade", "Trades", "\x1b[2J")),
    Wrong(("topics", "tail"), "Missing argument"),
    Wrong(("topics", "-b", "127.0.0.1:1", "create"), "an option stands before `create`"),
    Wrong(("topics", "--csv", "list"), "an option stands before `list`"),
    Wrong(("orders", "--as=HDFC", "show", "B-1"), "an option stands before `show`"),
    Wrong(("topics", "tail", "trades", "-n", "-1"), "-n"),
    Wrong(("topics", "tail", "trades", "-n", "1", "--from", "0"), "both say where to begin"),
    Wrong(("topics", "tail", "trades", "--follow", "--until", "end"), "--follow has no end"),
    Wrong(("topics", "tail", "trades", "--from", "yesterday"), "not a point on the log"),
    *(
        Wrong(("dlq", command, place), "not a dead letter's place")
        for command in ("show", "redrive")
        for place in ("", "0", "0:", ":0", "0:x", "trades@0:1", "x@0:1", "0:1:2", "0:" + "9" * 30, "\x1b[2J")
    ),
    Wrong(("dlq", "redrive"), "redrive needs places, or --all"),
    Wrong(("dlq", "redrive", "0:1", "--all"), "redrive needs places, or --all"),
    Wrong(("dlq", "redrive", "0:1", "--reason=X"), "--reason chooses among --all"),
    Wrong(("dlq", "redrive", "0:1"), "nobody is there to answer"),
    Wrong(("dlq", "redrive", "--all", "--value=x", "--yes"), "--value is for one dead letter"),
    Wrong(("dlq", "redrive", "0:1", "--value=/no/such/file", "--yes"), "--value"),
    Wrong(("dlq", "list", "--from", "yesterday"), "not a point on the log"),
    Wrong(("dlq", "purge"), "No such command"),
]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the log that a command would use; it is not there yet."""
    folder = tmp_path / "home"
    monkeypatch.setenv(settings.HOME, str(folder))
    monkeypatch.delenv(settings.BOOTSTRAP_SERVERS, raising=False)
    monkeypatch.delenv(settings.COMMAND_CONFIG, raising=False)
    monkeypatch.delenv(cli.DEBUG, raising=False)
    return folder


def check_lines(text: str, *, about: str) -> None:
    """An error: at most three lines, plain, about what it should be."""
    lines = text.splitlines()
    starts = [re.split(r"(?<=:) ", line, maxsplit=1)[0] for line in lines]
    assert starts in (["error:"], ["error:", "  cause:"], ["error:", "  hint:"], ["error:", "  cause:", "  hint:"])
    assert about in lines[0]
    assert CONTROLS.findall(text) == []
    assert "Traceback" not in text
    assert len(text) < 2_000


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: ascii(" ".join(wrong.arguments))[1:50])
def test_a_wrong_use_is_refused_before_anything_is_sent(
    home: Path, capsys: pytest.CaptureFixture[str], wrong: Wrong
) -> None:
    """It ends with 2 and says what is wrong in plain lines; there is not even a log afterwards."""
    assert cli.run(list(wrong.arguments)) == 2
    said = capsys.readouterr()
    if wrong.arguments:
        check_lines(said.err, about=wrong.error)
        assert said.out == ""
    else:
        assert "Usage: stocktrade" in said.out
        assert said.err == ""
    assert not home.exists()


@pytest.mark.parametrize("wrong", WRONG[1::7], ids=lambda wrong: ascii(" ".join(wrong.arguments))[1:50])
def test_with_json_an_error_is_one_object(home: Path, capsys: pytest.CaptureFixture[str], wrong: Wrong) -> None:
    """The same errors with --json are one JSON object on stderr, with the exit code in it."""
    # A `--` of its own would end the options, so the flag goes first.
    words = 2 if wrong.arguments[0] in ("topics", "dlq", "orders") and len(wrong.arguments) > 1 else 1
    assert cli.run([*wrong.arguments[:words], "--json", *wrong.arguments[words:]]) == 2
    said = capsys.readouterr()
    error = json.loads(said.err)
    assert said.err.count("\n") == 1
    assert error.keys() == {"schema", "error", "cause", "hint", "exit_code"}
    assert (error["schema"], error["exit_code"]) == ("stocktrade.error/1", 2)
    assert CONTROLS.findall("".join(str(value) for value in error.values())) == []
    assert not home.exists()


@pytest.mark.parametrize(
    ("arguments", "fields"),
    [
        (("buy", "sbi", "100", "885"), {"stock_symbol": "sbi", "quantity": 100, "price_per_unit": 885.0}),
        (("buy", "NSE:SBIN", "1,00,000", "₹885"), {"quantity": 100_000, "price_per_unit": 885.0}),
        (("buy", "SBI", "1", "1,00,885.05"), {"price_per_unit": 100_885.05}),
        (("buy", "SBI", "1", "884.95", "--as", "LIC", "--id", "x-1"), {"buyer": "LIC", "order_id": "x-1"}),
        (("sell", "M&M", "5"), {"seller": "SELLER", "stock_symbol": "M&M"}),
    ],
)
def test_what_is_right_is_accepted_as_typed(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], fields: dict[str, Any]
) -> None:
    """Prices with rupee signs and commas and symbols in any case are understood."""
    assert cli.run([*arguments, "--dry-run"]) == 0
    order = json.loads(capsys.readouterr().out)
    assert order | fields == order


@pytest.mark.parametrize(
    "servers",
    [
        "", "localhost", "localhost:", ":9092", "localhost:0", "localhost:99999", "localhost:x", "http://x:9092",
        "localhost:9092,", ",", " localhost:9092", "user:secret@x:9092", "\x1b[2J:9092", "x\n:9092", "[red]:9092",
        ",".join(f"h{n}:9092" for n in range(5_000)), "\udcff:9092",
    ],
    ids=ascii,
)  # fmt: skip
@pytest.mark.parametrize("by_flag", [True, False], ids=["flag", "environment"])
def test_wrong_servers_are_refused_by_name(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    servers: str,
    by_flag: bool,
) -> None:
    """BI-63: the setting is named, made safe to show, and nothing is tried."""
    arguments = ["buy", "SBI", "1", "885"]
    if by_flag:
        arguments.append(f"--bootstrap-server={servers}")
    else:
        monkeypatch.setitem(os.environ, settings.BOOTSTRAP_SERVERS, servers)
    assert cli.run(arguments) == 2
    name = "--bootstrap-server" if by_flag else settings.BOOTSTRAP_SERVERS
    check_lines(capsys.readouterr().err, about=name)
    assert not home.exists()


# --- Kafka's options -------------------------------------------------------------------------------------------

SECRET: Final = "s3cret"
JAAS: Final = "org.apache.kafka.common.security.plain.PlainLoginModule required"
WRONG_FILES: Final[list[tuple[bytes, str]]] = [
    (b"acks=all\nno.such.option=" + SECRET.encode(), "unknown option of Kafka: no.such.option (FILE, line 2)"),
    (b"\x1b[2J=1", "unknown option of Kafka: \\x1b[2J (FILE, line 1)"),
    (b"# a comment\n\n  acks \\\n = 1\n", "acks (FILE, line 3) cannot be '1'"),
    (b"acks=all\nclient.id=a\nacks=all\n", "FILE, line 3 sets acks again"),
    (b"request.timeout.ms=soon", "request.timeout.ms (FILE, line 1) is not a number"),
    (b"client.id=a\n=b\n", "FILE, line 2 is not NAME=VALUE"),
    (b"client.id=a\\u12g4", "FILE, line 1: \\u is followed by four hexadecimal digits"),
    (b"client.id=a\\u12", "FILE, line 1: \\u is followed by four hexadecimal digits"),
    (b"client.id=\\ud83d!", "FILE, line 1: \\u stands for half a character"),
    (b"acks=all\r\nclient.id=\xff\xfe\n", "FILE, line 2 is no text"),
    (b"\x00\x01\x02\x03", "unknown option of Kafka: \\x00"),
    (b"bootstrap.servers=", "bootstrap.servers in FILE is not a list of servers"),
    (b"bootstrap.servers=h:1;h:2", "bootstrap.servers in FILE is not a list of servers"),
    (b"sasl.mechanism=PLAIN", "sasl.mechanism (FILE, line 1) is given, but security.protocol is PLAINTEXT"),
    (b"security.protocol=SASL_SSL\nsasl.mechanism=GSSAPI", "sasl.mechanism (FILE, line 2) cannot be 'GSSAPI'"),
    (b"security.protocol=SSL\nssl.truststore.location=/no/ca.pem", "ssl.truststore.location (FILE, line 2) cannot be"),
    (b"sasl.password=" + SECRET.encode() + b"\nclient.id=\\u", "FILE, line 2: \\u is followed"),
    (b"client.id=" + b"x" * 10_000_000, "--command-config 'FILE' is too large"),
]


@pytest.mark.parametrize(("content", "error"), WRONG_FILES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_file_of_options_is_refused_by_its_line(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, error: str
) -> None:
    """BI-65: exit code 2, the file, the line and the option; no secret, no connection."""
    file = tmp_path / "client.properties"
    file.write_bytes(content)
    file.chmod(0o600)
    servers = [] if b"bootstrap" in content else ["--bootstrap-server=127.0.0.1:1"]
    assert cli.run(["buy", "SBI", "1", "885", f"--command-config={file}", *servers]) == 2
    said = capsys.readouterr()
    check_lines(said.err, about=error.replace("FILE", str(file)))
    assert SECRET not in said.err
    assert said.out == ""
    assert not home.exists()


@pytest.mark.parametrize("by_flag", [True, False], ids=["flag", "environment"])
@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device", "unreadable name", "empty name"])
def test_a_file_of_options_that_is_none_is_refused_at_once(
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    by_flag: bool,
) -> None:
    """BI-65: a pipe that nobody writes to holds nobody up; the flag or the variable is named."""
    path = tmp_path / "client.properties"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    name = {"device": "/dev/zero", "unreadable name": "\udcff\x1b[2J", "empty name": ""}.get(kind, str(path))
    flags = [f"--command-config={name}"] if by_flag else []
    if not by_flag:
        monkeypatch.setenv(settings.COMMAND_CONFIG, name)
    assert cli.run(["nse", "--once", "-b", "127.0.0.1:1", *flags]) == 2
    check_lines(capsys.readouterr().err, about="--command-config" if by_flag else settings.COMMAND_CONFIG)
    assert not home.exists()


def test_a_secret_that_everybody_can_read_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """BI-65: mode 0644 and a password in it. Without the password, or without the right to read it, it is taken."""
    file = tmp_path / "client.properties"
    password = f'sasl.jaas.config={JAAS} username="me" password="{SECRET}";'
    for content, mode, code in ((password, 0o644, 2), ("acks=all", 0o644, 3), (password, 0o640, 3)):
        file.write_text(f"security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\n{content}\n")
        if "sasl" not in content:
            file.write_text(content)
        file.chmod(mode)
        assert cli.run(["buy", "SBI", "1", "885", "-b", "127.0.0.1:1", "--command-config", str(file)]) == code
        said = capsys.readouterr().err
        assert SECRET not in said
        if code == 2:
            check_lines(said, about=f"{file}, line 3 holds a secret, sasl.jaas.config")
            assert f"hint: chmod o-r {file}" in said


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (f"sasl.password={SECRET}", "--command-property cannot set sasl.password"),
        (f" sasl.password ={SECRET}", "--command-property cannot set sasl.password"),
        (f"sasl.jaas.config={SECRET}", "--command-property cannot set sasl.jaas.config"),
        (f"ssl.key.password={SECRET}", "--command-property cannot set ssl.key.password"),
        (f"sasl.password:{SECRET}", "--command-property is not NAME=VALUE"),
        (f"={SECRET}", "--command-property is not NAME=VALUE"),
        ("", "--command-property is not NAME=VALUE"),
        (f"sasl.pasword={SECRET}", "unknown option of Kafka: sasl.pasword (--command-property)"),
        (f"\x1b[2J={SECRET}", "unknown option of Kafka: \\x1b[2J (--command-property)"),
        ("client.id=\udcff", "client.id (--command-property) is no text"),
        ("acks=0", "acks (--command-property) cannot be '0'"),
        ("bootstrap.servers=h", "--command-property bootstrap.servers is not a list of servers"),
    ],
    ids=ascii,
)
def test_a_wrong_property_is_refused_and_a_secret_is_not_shown(
    home: Path, capsys: pytest.CaptureFixture[str], text: str, error: str
) -> None:
    """Flags are seen in the list of processes, so secrets are none; not even a mistyped one is repeated."""
    servers = [] if "bootstrap" in text else ["-b", "127.0.0.1:1"]
    assert cli.run(["watch", "--no-follow", *servers, f"--command-property={text}"]) == 2
    said = capsys.readouterr().err
    check_lines(said, about=error)
    assert SECRET not in said


@pytest.mark.parametrize(
    "command", [("buy", "SBI", "1", "885"), ("nse",), ("watch",), ("topics", "create")], ids=" ".join
)
@pytest.mark.parametrize("given", ["--command-config", "--command-property", settings.COMMAND_CONFIG])
def test_options_without_a_server_are_not_ignored(
    home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: tuple[str, ...],
    given: str,
) -> None:
    """Whoever gave Kafka's options did not mean the embedded log."""
    file = tmp_path / "client.properties"
    file.write_text("acks=all")
    values = {"--command-config": str(file), "--command-property": "acks=all"}
    flags = [f"{given}={values[given]}"] if given in values else []
    if not flags:
        monkeypatch.setenv(given, str(file))
    assert cli.run([*command, *flags]) == 2
    check_lines(capsys.readouterr().err, about=f"{given} is given, but no Kafka server")
    assert not home.exists()


ON_THE_LOG: Final = (
    "nse --once", "buy SBI 1 885", "sell SBI 1", "cancel 7c2f", "replace 7c2f --price 886", "watch --no-follow",
    "book SBI", "trades", "holdings", "funds", "orders", "audit", "replay --log", "topics", "topics create", "dlq list",
    "dlq show buy-orders@0:0", "dlq redrive buy-orders@0:0 --yes",
)  # fmt: skip
"""Every command that opens the log, but doctor, which goes on."""


@pytest.fixture
def without_librdkafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package without its extra."""
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    monkeypatch.delitem(sys.modules, "stocktrade.transport.librdkafka", raising=False)


@pytest.mark.parametrize("command", ON_THE_LOG)
@pytest.mark.parametrize(
    ("client", "error", "hint"),
    [
        ("librdkafka", "librdkafka is not installed", "pip install 'stocktrade[fast]'"),
        ("rdkafka", "STOCKTRADE_CLIENT cannot be 'rdkafka'", "it can be kafka-python or librdkafka"),
    ],
)
def test_a_client_that_is_not_there_is_told_by_every_command(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    without_librdkafka: None,
    command: str,
    client: str,
    error: str,
    hint: str,
) -> None:
    """Before any broker is looked for, with the command that installs it."""
    monkeypatch.setenv(settings.CLIENT, client)
    assert cli.run([*command.split(), "-b", "127.0.0.1:1"]) == 2
    said = capsys.readouterr().err
    check_lines(said, about=error)
    assert said.endswith(f"hint: {hint}\n")
    assert not home.exists()


@pytest.mark.parametrize(
    ("client", "check", "found", "hint"),
    [
        ("librdkafka", "log", "librdkafka is not installed", "pip install 'stocktrade[fast]'"),
        ("rdkafka", "settings", "STOCKTRADE_CLIENT cannot be 'rdkafka'", "it can be kafka-python or librdkafka"),
    ],
)
def test_a_client_that_is_not_there_is_a_finding_of_doctor(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    without_librdkafka: None,
    client: str,
    check: str,
    found: str,
    hint: str,
) -> None:
    monkeypatch.setenv(settings.CLIENT, client)
    assert cli.run(["doctor", "-b", "127.0.0.1:1", "--json"]) == 1
    checks = {each["check"]: each for each in json.loads(capsys.readouterr().out)["checks"]}
    assert checks[check]["state"] == "failed"
    assert checks[check]["found"].startswith(found)
    assert checks[check]["hint"] == hint


def test_help_shows_no_value_of_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither servers nor a file's name that are set are repeated by --help."""
    for name in (settings.BOOTSTRAP_SERVERS, settings.COMMAND_CONFIG, settings.HOME):
        monkeypatch.setenv(name, "s3cret:9092")
    for command in (("nse",), ("buy",), ("sell",), ("watch",), ("topics", "create")):
        assert cli.run([*command, "--help"]) == 0
        said = capsys.readouterr().out
        assert "--command-config" in said
        assert "s3cret" not in said


def test_a_command_that_mends_is_whole_and_on_a_line_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    """It can be pasted; with --json the lines are in the hint."""
    command = "kafka-configs.sh --alter " + "x" * 900

    def refuse(*_: object, **__: object) -> None:
        raise UsageError("what", cause="c" * 900, hint=f"mend it with\n{command}")

    monkeypatch.setattr("stocktrade.roles.order_entry.send", refuse)
    assert cli.run(["buy", "SBI", "1", "885"]) == 2
    assert capsys.readouterr().err.splitlines()[1:] == [
        "error: what", f"  cause: {'c' * 900}", "  hint: mend it with", f"    {command}",
    ]  # fmt: skip
    assert cli.run(["buy", "SBI", "1", "885", "--json"]) == 2
    assert json.loads(capsys.readouterr().err.splitlines()[1])["hint"] == f"mend it with\n{command}"


# --- a home that is none ---------------------------------------------------------------------------------------

COMMANDS: Final = (("buy", "SBI", "1", "885"), ("sell", "SBI", "1"), ("nse", "--once"))


def log_file(home: Path) -> Path:
    """A whole log with one order on it; its file."""
    with connect(f"sqlite:{home}") as log:
        log.ensure_topics(topics.SPECS)
    assert cli.run(["buy", "SBI", "1", "885", "--id", "O-1"]) == 0
    return home / "log.db"


def zero_bytes(file: Path) -> None:
    file.write_bytes(b"")


def random_bytes(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 64)


def text(file: Path) -> None:
    file.write_text("not a database, but a letter to my aunt\n" * 100)


def cut_in_the_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:50])


def cut_in_the_middle(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:8_192])


def of_another_program(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as db:
        db.execute("CREATE TABLE contacts (name TEXT)")
        db.commit()


def of_a_newer_version(file: Path) -> None:
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA user_version = 99")
        db.execute("PRAGMA journal_mode = DELETE")


def of_an_unknown_version(file: Path) -> None:
    with closing(sqlite3.connect(file)) as db:
        db.execute("PRAGMA user_version = 0")
        db.execute("PRAGMA journal_mode = DELETE")


def other_tables(file: Path) -> None:
    with closing(sqlite3.connect(file)) as db:
        db.execute("ALTER TABLE records ADD COLUMN mine TEXT")
        db.execute("PRAGMA journal_mode = DELETE")


def a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: Final = (
    zero_bytes, random_bytes, text, cut_in_the_header, cut_in_the_middle, of_another_program, of_a_newer_version,
    of_an_unknown_version, other_tables, a_folder,
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_file_that_is_no_log_of_ours_is_left_as_it_is(
    home: Path, capsys: pytest.CaptureFixture[str], damage: Any, command: tuple[str, ...]
) -> None:
    """BI-68: it ends with 3 and names the file; not a byte of it changes, and no new one takes its place."""
    file = log_file(home)
    damage(file)
    before = file.read_bytes() if file.is_file() else None
    capsys.readouterr()
    assert cli.run(list(command)) == 3
    said = capsys.readouterr()
    check_lines(said.err, about=str(file))
    assert said.out == ""
    assert (file.read_bytes() if file.is_file() else None) == before


def test_a_file_of_a_newer_version_says_so(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two versions of the schema: the older stocktrade names both and says to upgrade."""
    of_a_newer_version(log_file(home))
    capsys.readouterr()
    assert cli.run(["buy", "SBI", "1", "885"]) == 3
    said = capsys.readouterr().err
    check_lines(said, about="was made by a newer stocktrade")
    assert "version 99" in said
    assert "hint: upgrade stocktrade" in said


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_home_that_is_a_file_is_left_as_it_is(
    home: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    """STOCKTRADE_HOME names a file: it ends with 3, says to name a folder, and the file stays."""
    home.write_text("mine")
    assert cli.run(list(command)) == 3
    said = capsys.readouterr().err
    check_lines(said, about=str(home))
    assert "name a folder, not a file" in said
    assert home.read_text() == "mine"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


# Another user may not be able to read the interpreter's own files, so the command is run once on a folder of its own:
# by then everything is imported. Root may write everywhere, hence another user.
WITHOUT_RIGHTS: Final = """
import contextlib, io, os, sys
from stocktrade.cli import run
home, warm, *arguments = sys.argv[1:]
os.environ["STOCKTRADE_HOME"] = warm
with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    assert run(arguments) == 0
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
os.environ["STOCKTRADE_HOME"] = home
sys.exit(run(arguments))
"""


def without_rights(home: Path, warm: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command on the log in `home` as a user who is not root, after it was run on `warm` as who we are."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_RIGHTS, str(home), str(warm), *arguments],
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("made", [False, True], ids=["new", "existing"])
def test_a_folder_without_rights_ends_with_3(
    tmp_path: Path,
    open_folder: Path,
    command: tuple[str, ...],
    made: bool,
) -> None:
    """A read-only folder, and one that may not be made: it ends with 3 and names it, and nothing appears."""
    home = open_folder / "home"
    if made:
        home.mkdir()
    (home if made else open_folder).chmod(0o555)
    done = without_rights(home, tmp_path / "warm", *command)
    assert done.returncode == 3
    check_lines(done.stderr, about=str(home))
    assert home.exists() == made
    assert not made or list(home.iterdir()) == []


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_log_of_another_user_ends_with_3(tmp_path: Path, open_folder: Path, command: tuple[str, ...]) -> None:
    """A log that this user may read but not write ends with 3, and is as it was."""
    if os.geteuid():
        pytest.skip("only root can make a file of another user")
    home = open_folder / "home"
    with connect(f"sqlite:{home}") as log:
        log.ensure_topics(topics.SPECS)
    home.chmod(0o755)
    before = (home / "log.db").read_bytes()
    done = without_rights(home, tmp_path / "warm", *command)
    assert done.returncode == 3
    check_lines(done.stderr, about=str(home))
    assert (home / "log.db").read_bytes() == before


# --- bugs, and readers that leave ------------------------------------------------------------------------------


@pytest.mark.parametrize("as_json", [False, True], ids=["plain", "json"])
def test_a_bug_ends_with_70_and_one_safe_line(
    home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    as_json: bool,
) -> None:
    """BI-59: an exception nobody expected is one line without markup or ESC, and no traceback."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("[/oops] \x1b[31m ..")

    monkeypatch.setattr("stocktrade.roles.order_entry.send", broken)
    flags = ["--json"] if as_json else []
    assert cli.run(["buy", "SBI", "1", "885", *flags]) == 70
    _, _, said = capsys.readouterr().err.partition("\n")  # behind the line that names the log
    if as_json:
        assert json.loads(said)["exit_code"] == 70
        assert CONTROLS.findall(said) == []
    else:
        check_lines(said, about="a bug in stocktrade: ZeroDivisionError: [/oops] \\x1b[31m ..")


def test_with_debug_a_bug_shows_where_it_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With STOCKTRADE_DEBUG the exception comes through."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("stocktrade.roles.order_entry.send", broken)
    monkeypatch.setenv(cli.DEBUG, "1")
    with pytest.raises(ZeroDivisionError):
        cli.run(["buy", "SBI", "1", "885"])


def test_a_reader_that_leaves_is_no_error(home: Path) -> None:
    """`stocktrade nse --once | head -1`: the closed pipe ends it with 0 and without a word."""
    assert cli.run(["buy", "SBI", "1", "885", "--quiet"]) == 0
    ends = os.pipe()
    os.close(ends[0])
    with os.fdopen(ends[1], "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "stocktrade", "nse", "--once"],
            env=os.environ | {settings.HOME: str(home)},
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, f"log: sqlite:{home}\n")


def test_an_argument_that_is_no_text_is_refused(home: Path) -> None:
    """BI-58: bytes that are not UTF-8, as a shell may pass them, are shown as escapes, in a real process."""
    done = subprocess.run(
        [os.fsencode(sys.executable), b"-m", b"stocktrade", b"buy", b"\xff\xfe", b"1", b"885"],
        env=os.environ | {settings.HOME: str(home), "LC_ALL": "C"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    check_lines(done.stderr.decode(), about="invalid symbol")
    assert not home.exists()
