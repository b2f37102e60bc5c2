"""The documents are true: their commands run, their examples are real, and what they name exists.

How a document is run, from its top to its end, in a fresh STOCKTRADE_HOME and a terminal of 100 columns:

* In a ```console block each line `$ stocktrade ...` is executed, and what it prints must be the lines that follow.
  Times, durations, rates, ids, digests, process ids, paths and the lengths of lines and gaps may differ. A line that
  is only `…` stands for any lines.
* `<!-- runs on -->` above a block: the command is left running while the rest of the document runs. At the end its
  lines must have been printed in this order, whatever else was, and Ctrl-C must end it with exit code 0.
* `<!-- exit N -->` above a block: the last command ends with N. All others end with 0.
* A ```python block is a program of its own. `<!-- file NAME -->` above it: it is only put into a file of that name.
* A ```json block is a message of the topic in the heading above it, as the exchange writes it.

The page about Kafka is run on a real broker, whose address stands in for localhost:9092. Its commands are a shell's,
so that kcat can be shown as it is used, and run in a folder of their own.
"""

import ast
import fcntl
import json
import os
import pty
import re
import runpy
import select
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from kafka_container import KafkaContainer
from kcat import need_kcat
from stocktrade.domain.facts import Reason
from stocktrade.domain.messages import (
    BuyOrder,
    CashMovement,
    DematTransfer,
    JournalRecord,
    OrderEvent,
    SellOffer,
    SnapshotManifest,
    Trade,
    WireModel,
)
from stocktrade.errors import ExitCode
from stocktrade.roles.order_entry import place
from stocktrade.shard.node import Node
from stocktrade.transport import connect, topics
from stocktrade.transport.codec import decode_message

ROOT: Final = Path(__file__).parent.parent
SOURCE: Final = ROOT / "src" / "stocktrade"
DOCUMENTS: Final = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")])
NAMES: Final = [str(document.relative_to(ROOT)) for document in DOCUMENTS]

SEED_SCRIPTS: Final = {
    "hdfc_producer.py",
    "seller_producer.py",
    "nse_service.py",
    "hdfc_consumer.py",
    "models.py",
    "kafka_config.py",
}
"""Named in the README, and not ours."""

COLUMNS, ROWS = 100, 40
PATIENCE_S: Final = 20.0


class Block(NamedTuple):
    """A fenced block: its language, its text, the comment right above it, and the topic of the heading above."""

    language: str
    text: str
    comment: str
    topic: str


_BLOCK = re.compile(
    r"^(?:<!-- (?P<comment>[^\n]+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE
)
_HEADING = re.compile(r"^#{2,3} `([a-z-]+)`$", re.MULTILINE)


def blocks(document: Path) -> list[Block]:
    text = document.read_text()
    found = []
    for match in _BLOCK.finditer(text):
        headings = _HEADING.findall(text, 0, match.start())
        found.append(Block(match["language"], match["text"], match["comment"] or "", (headings or [""])[-1]))
    return found


def prose(document: Path) -> str:
    return _BLOCK.sub("", document.read_text())


def inline_code(document: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(document))


# --- a terminal ------------------------------------------------------------------------------------------------

_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_])")
_SAME: Final = (
    (re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"\b[0-9a-f]{64}\b|, and is [0-9a-f]{16}…"), "DIGEST"),
    (re.compile(r"sqlite:\S+"), "sqlite:LOG"),
    (re.compile(r"kafka:\S+"), "kafka:LOG"),
    (re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+(?:Z|[+-]\d\d:\d\d)"), "TIME"),
    (re.compile(r"\b\d\d:\d\d:\d\d(?:\.\d{3})?\b"), "TIME"),
    (re.compile(r"\b\d+(?:\.\d+)?/s"), "RATE"),
    (re.compile(r"\b\d+(?:\.\d+)? m?s\b"), "DURATION"),
    (re.compile(r"\bpid \d+"), "pid N"),
    (re.compile(r"[ ─━]+"), " "),
)


def lines_of(text: str) -> list[str]:
    """What a reader sees, line by line, without what may differ from run to run."""
    seen = []
    for line in re.split(r"[\r\n]+", _ESCAPES.sub("", text)):
        for pattern, name in _SAME:
            line = pattern.sub(name, line)  # noqa: PLW2901 - one line through all the patterns
        if line.strip():
            seen.append(line.strip())
    return seen


def in_order(shown: list[str], printed: list[str]) -> str | None:
    """The first shown line that was not printed after the ones before it."""
    rest = iter(printed)
    return next((line for line in shown if line not in rest), None)


class Terminal:
    """A command in a terminal of its own: one of ours, or, with a folder to run in, any line of a shell."""

    def __init__(self, command: str, environment: dict[str, str], folder: Path | None = None) -> None:
        self.command = command
        self._output = b""
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        words = shlex.split(command)
        assert folder or words[0] == "stocktrade", f"only stocktrade is run, not {command!r}"
        ours = [sys.executable, "-m", "stocktrade", *words[1:]]
        self._process = subprocess.Popen(
            ours if words[0] == "stocktrade" else ["/bin/sh", "-c", command],
            cwd=folder,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)

    def printed(self) -> str:
        return self._output.decode(errors="ignore")  # a character may be half here

    def _read(self, seconds: float) -> bool:
        """Take in what comes within `seconds`; False at the end."""
        if select.select([self._master], [], [], seconds)[0]:
            try:
                some = os.read(self._master, 65_536)
            except OSError:  # Linux's way to say that nobody writes any more
                return False
            self._output += some
            return bool(some)
        return True

    def wait(self, others: Sequence["Terminal"] = ()) -> int:
        """Wait for its end; meanwhile take in what the others print, or a full terminal would hold them up."""
        deadline = time.monotonic() + PATIENCE_S
        while self._read(0.05):
            for other in others:
                other.drain()
            assert time.monotonic() < deadline, f"{self.command} does not end:\n{self.printed()}"
        return self._process.wait(PATIENCE_S)

    def drain(self) -> None:
        """Take in what is there."""
        while select.select([self._master], [], [], 0)[0] and self._read(0):
            pass

    def wait_until_ready(self) -> None:
        """What runs on begins with a box; until then it has not looked at the log."""
        deadline = time.monotonic() + PATIENCE_S
        while "╰" not in self.printed():
            assert self._read(0.1), f"{self.command} ended:\n{self.printed()}"
            assert time.monotonic() < deadline, f"{self.command} does not begin:\n{self.printed()}"

    def wait_for(self, shown: list[str]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while (missing := in_order(shown, lines_of(self.printed()))) is not None:
            going_on = self._read(0.1) and time.monotonic() < deadline
            assert going_on, f"{self.command} does not print {missing!r}:\n{self.printed()}"

    def interrupt(self) -> int:
        self._process.send_signal(signal.SIGINT)
        return self.wait()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)


def commands(block: Block) -> Iterator[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines shown below it."""
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, shown = part.partition("\n")
        yield command, lines_of(shown)


def check_output(terminal: Terminal, shown: list[str]) -> None:
    printed = lines_of(terminal.printed())
    if "…" in shown:
        missing = in_order([line for line in shown if line != "…"], printed)
        assert missing is None, f"{terminal.command} does not print {missing!r}:\n{terminal.printed()}"
    else:
        assert printed == shown, terminal.command


@pytest.fixture
def home() -> Iterator[Path]:
    # Short, so that a path does not break a line where the documents' does not.
    folder = Path(tempfile.mkdtemp(prefix="st-"))
    yield folder
    shutil.rmtree(folder)


KAFKA_PAGE: Final = "docs/kafka.md"


def runnable() -> list[str]:
    kinds = {"console", "python"}
    return [name for name in NAMES if kinds & {b.language for b in blocks(ROOT / name)} and name != KAFKA_PAGE]


def environment_of(home: Path) -> dict[str, str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("STOCKTRADE_", "COLUMNS", "LINES"))}
    return environment | {"STOCKTRADE_HOME": str(home / "log"), "TERM": "xterm-256color", "PYTHONUTF8": "1"}


@pytest.mark.slow
@pytest.mark.parametrize("name", runnable())
def test_a_document_runs_as_it_says(name: str, home: Path) -> None:
    run(blocks(ROOT / name), environment_of(home))


@pytest.mark.slow
@pytest.mark.kafka
def test_the_kafka_page_runs_as_it_says(new_broker: Callable[[], KafkaContainer], home: Path) -> None:
    """On a real broker: the four commands, an order that kcat sends, and a consumer of the seed's fields alone."""
    need_kcat()
    server = new_broker().bootstrap_servers
    environment = environment_of(home) | {"STOCKTRADE_BOOTSTRAP_SERVERS": server}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    shown = [b._replace(text=b.text.replace("localhost:9092", server)) for b in blocks(ROOT / KAFKA_PAGE)]
    run(shown, environment, home)


def run(shown_blocks: list[Block], environment: dict[str, str], folder: Path | None = None) -> None:
    """Run a document's blocks from its top to its end; in a folder its commands are a shell's."""
    running: list[tuple[Terminal, list[str]]] = []
    opened: list[Terminal] = []
    try:
        for block in shown_blocks:
            if block.language == "python" and block.comment.startswith("file "):
                assert folder is not None, "a file needs a folder"
                (folder / block.comment.removeprefix("file ")).write_text(block.text)
            elif block.language == "python":
                subprocess.run([sys.executable, "-c", block.text], env=environment, check=True, timeout=PATIENCE_S)
            if block.language != "console":
                continue
            steps = list(commands(block))
            assert steps, f"a console block without a command:\n{block.text}"
            for number, (command, shown) in enumerate(steps, 1):
                terminal = Terminal(command, environment, folder)
                opened.append(terminal)
                if block.comment == "runs on":
                    terminal.wait_until_ready()
                    running.append((terminal, [line for line in shown if line != "…"]))
                    continue
                expected = re.fullmatch(r"exit (\d+)", block.comment)
                code = int(expected[1]) if expected and number == len(steps) else 0
                assert terminal.wait([other for other, _ in running]) == code, f"{command}:\n{terminal.printed()}"
                check_output(terminal, shown)
        for terminal, shown in reversed(running):
            terminal.wait_for(shown)
            assert terminal.interrupt() == 0, f"{terminal.command}:\n{terminal.printed()}"
    finally:
        for terminal in opened:
            terminal.close()


def test_the_kafka_page_says_how_each_topic_is_set() -> None:
    from stocktrade.transport.kafka_topics import _settings

    rows = re.findall(r"^\| `([a-z-]+)` \| (\w+) \| (\w+) \| (.*?) ?\|$", (ROOT / KAFKA_PAGE).read_text(), re.MULTILINE)
    settings = {spec.name: _settings(spec) for spec in topics.SPECS}
    assert [tuple(row) for row in rows] == [
        (name, each["message.timestamp.type"], each["cleanup.policy"], each.get("retention.ms", ""))
        for name, each in settings.items()
    ]
    assert all(each.get("retention.ms") == each.get("retention.bytes") for each in settings.values())


def test_the_way_documents_are_compared_finds_a_difference() -> None:
    shown = lines_of("04:45:59  T0-2-1   100 SBI\n✓ settled 3 ms\n")
    assert shown == lines_of("\x1b[2K09:15:00  T0-2-1  100 SBI\r\n\r\n✓ settled 27 ms")
    assert in_order(shown, lines_of("09:15:00 T0-2-1 100 SBI\nmore\n✓ settled 1 ms")) is None
    assert in_order(shown, lines_of("✓ settled 1 ms\n09:15:00 T0-2-1 100 SBI")) == "✓ settled DURATION"
    assert shown != lines_of("09:15:00  T0-2-1  101 SBI\n✓ settled 27 ms")


def test_the_reference_is_that_of_the_commands() -> None:
    """`make docs` would change nothing."""
    made = runpy.run_path(str(ROOT / "docs" / "reference.py"))
    page = (ROOT / "docs" / "commands.md").read_text()
    assert page == made["page"]()
    for path, more in made["MORE"].items():
        examples = [example for example in more.examples if example.split()[: path.count(" ") + 1] == path.split()]
        assert examples or more.page or path == "dlq", f"{path} has no example"
        assert f"### `stocktrade {path}" in page
    variables = {name for path in SOURCE.rglob("*.py") for name in re.findall(r'"(STOCKTRADE_\w+)"', path.read_text())}
    assert variables == {name for name in made["ENVIRONMENT"] if name.startswith("STOCKTRADE_")}


# --- examples of messages --------------------------------------------------------------------------------------

MODELS: Final[dict[str, type[WireModel]]] = {
    topics.BUY_ORDERS: BuyOrder,
    topics.SELL_OFFERS: SellOffer,
    topics.ORDER_EVENTS: OrderEvent,
    topics.TRADES: Trade,
    topics.DEMAT_TRANSFERS: DematTransfer,
    topics.CASH_MOVEMENTS: CashMovement,
    topics.JOURNAL: JournalRecord,
    topics.SNAPSHOTS: SnapshotManifest,
}
CHANGING: Final = {"time_ms", "prev", "digest", "checksum"}
"""Fields that follow from the time and the process of a run."""


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lasting(field) for name, field in value.items() if name not in CHANGING}
    return [_lasting(item) for item in value] if isinstance(value, list) else value


@pytest.fixture(scope="module")
def first_trade(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """What stands on each topic after the first trade and a clean stop."""
    written: dict[str, list[Any]] = {}
    with connect(f"sqlite:{tmp_path_factory.mktemp('log')}") as log:
        log.ensure_topics(topics.SPECS)
        price = Decimal(885)
        bid = BuyOrder(order_id="ORD-1", buyer="HDFC", stock_symbol="SBI", quantity=100, price_per_unit=price)
        for order in (bid, SellOffer(offer_id="OFR-1", seller="SELLER", stock_symbol="SBI", quantity=100)):
            place(log, order).close()
        node = Node(log, name="test", now_ms=lambda: 0)
        ends = node.backlog_ends()
        while not node.has_taken(ends):
            node.step(0.1)
        node.close()
        with closing(log.reader({(topic, 0): 0 for topic in MODELS})) as reader:
            for record in reader.poll(1.0):
                written.setdefault(record.topic, []).append(_lasting(json.loads(record.value or b"null")))
    return written


def _examples() -> list[tuple[str, Block]]:
    return [(name, b) for name in NAMES for b in blocks(ROOT / name) if b.language == "json"]


@pytest.mark.parametrize(("name", "block"), _examples(), ids=[f"{n}-{b.topic}" for n, b in _examples()])
def test_an_example_is_what_the_exchange_writes(name: str, block: Block, first_trade: dict[str, list[Any]]) -> None:
    assert block.topic in MODELS, f"{name}: an example belongs below the heading of its topic"
    decode_message(MODELS[block.topic], block.text.encode())
    assert _lasting(json.loads(block.text)) in first_trade[block.topic]


def test_every_topic_has_its_example_and_every_reason_is_listed() -> None:
    messages = (ROOT / "docs" / "messages.md").read_text()
    assert {block.topic for _, block in _examples()} == MODELS.keys()
    assert set(_HEADING.findall(messages)) == {spec.name for spec in topics.SPECS}
    assert ", ".join(f"`{reason}`" for reason in Reason) in messages


# --- what is named exists --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    document = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(document)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (document.parent / path).resolve() if path else document
        assert linked.is_relative_to(ROOT), f"{name}: {target} is outside of the project"
        assert linked.exists(), f"{name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings}, target


def _defines(path: Path, name: str) -> bool:
    body: list[ast.stmt] = ast.parse(path.read_text()).body
    for part in name.split("."):
        kinds = (ast.FunctionDef, ast.ClassDef)
        found = [node for node in body if isinstance(node, kinds) and node.name == part]
        if not found:
            return False
        body = found[0].body
    return True


_PATH = re.compile(r"(?P<path>[\w.-]+(?:/[\w.-]+)*(?:\.(?:py|md|toml)|/))(?:::(?P<name>[\w.]+))?")


@pytest.mark.parametrize("name", NAMES)
def test_every_file_and_function_named_exists(name: str) -> None:
    for code in inline_code(ROOT / name):
        match = _PATH.fullmatch(code)
        if match is None or code in SEED_SCRIPTS:
            continue
        bases = (ROOT, SOURCE, (ROOT / name).parent)
        path = next((base / match["path"] for base in bases if (base / match["path"]).exists()), None)
        assert path is not None, f"{name}: {code}"
        if match["name"]:
            assert _defines(path, match["name"]), f"{name}: {code}"


@pytest.mark.parametrize("name", NAMES)
def test_every_command_target_and_variable_named_exists(name: str) -> None:
    text = (ROOT / name).read_text()
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"(?:`|^)make ([a-z][\w-]*)", text, re.MULTILINE):
        assert target in targets, f"{name}: make {target}"
    functions = {
        node.name for node in ast.parse((SOURCE / "cli.py").read_text()).body if isinstance(node, ast.FunctionDef)
    }
    for command in re.findall(r"`stocktrade ([a-z]+)", prose(ROOT / name)):
        assert command in functions, f"{name}: stocktrade {command}"
    source = "".join(path.read_text() for path in SOURCE.rglob("*.py"))
    for variable in re.findall(r"STOCKTRADE_\w+", text):
        assert f'"{variable}"' in source, f"{name}: {variable}"


def test_the_readme_lists_the_exit_codes() -> None:
    rows = re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert [int(row) for row in rows] == sorted(ExitCode)


def test_the_picture_of_the_house_is_the_house() -> None:
    (tree,) = (b.text for b in blocks(ROOT / "docs" / "architecture.md") if b.text.startswith("src/stocktrade/"))
    named = set()
    folder = ""
    for line in tree.splitlines()[1:]:
        if found := re.fullmatch(r"  (\w+)/", line):
            folder = f"{found[1]}/"
            continue
        files = re.match(r"(?P<indent> +)(?P<names>\w+\.py(?:, \w+\.py)*)  +\S", line)
        assert files is not None, line
        if len(files["indent"]) == 2:
            folder = ""
        named |= {folder + file for file in files["names"].split(", ")}
    built = {str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if path.name != "__init__.py"}
    assert named == built


def test_the_layers_in_the_architecture_are_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = (contract["layers"] for contract in contracts if contract["type"] == "layers")
    drawn = [b.text.splitlines() for b in blocks(ROOT / "docs" / "architecture.md") if b.language == "text"]
    assert layers in drawn


def test_the_decisions_are_short_and_all_in_the_index() -> None:
    folder = ROOT / "docs" / "decisions"
    decisions = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    index = (folder / "README.md").read_text()
    for number, path in enumerate(decisions, 1):
        assert path.name.startswith(f"{number:04}-")
        assert f"[{number}]({path.name})" in index
        lines = path.read_text().splitlines()
        assert lines[0].startswith(f"# {number}. ")
        assert len(lines) < 60
        assert [line for line in lines if line.startswith("## ")] == [
            "## Question",
            "## Options",
            "## Choice",
            "## Cost",
        ]
