"""`schema`: every message on the topics, and every document that a command prints, is what the printed schema says."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest
import typer.main
from jsonschema import Draft7Validator, Draft202012Validator

from stocktrade import cli
from stocktrade.core.instruments import parse_instruments
from stocktrade.core.rules import RULES, Rules
from stocktrade.documents import DOCUMENTS, UNLABELLED
from stocktrade.domain.facts import Instruction
from stocktrade.domain.values import decimal_rupees
from stocktrade.roles.message_examples import EXAMPLES
from stocktrade.roles.schema import CHANNELS, MESSAGES
from stocktrade.shard.history import to_the_end
from stocktrade.shard.node import Node
from stocktrade.transport import connect, topics
from stocktrade.transport.base import NewRecord
from stocktrade.transport.codec import Dead, decode_input
from test_auditor import trade_it
from test_bad_input_topics import CASES, Case, cancel, order, replace

Run = Callable[..., str]

TESTS: Final = Path(__file__).parent.parent
VECTORS: Final[list[dict[str, Any]]] = json.loads((TESTS / "core" / "matching_vectors.json").read_text())["vectors"]


def strict(schema: dict[str, Any]) -> Draft202012Validator:
    """A validator that also refuses fields which the schema does not know, at any depth: one that was renamed, say."""
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(_closed(schema))


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {name: _closed(each) for name, each in schema.items()}
    return closed | ({"additionalProperties": False} if "title" in schema and "properties" in schema else {})


def vectors_as_records() -> Iterator[NewRecord]:
    """The matching vectors one after the other, each on a symbol of its own and with ids of its own."""
    for number, vector in enumerate(VECTORS):
        for step in vector["steps"]:
            buys = step["side"] == "BUY"
            fields = {name: step.get(name) for name in ("action", "quantity", "time_in_force", "self_trade_prevention")}
            fields["order_id" if buys else "offer_id"] = f"V{number}-{step['id']}"
            fields["buyer" if buys else "seller"] = step["participant"]
            fields["stock_symbol"] = f"V{number}"
            fields["target_order_id"] = f"V{number}-{step['target']}" if step.get("target") else None
            if step.get("price") is not None:
                fields["price_per_unit"] = float(decimal_rupees(step["price"]))
            sent = {name: value for name, value in fields.items() if value is not None}
            yield NewRecord(topics.BUY_ORDERS if buys else topics.SELL_OFFERS, None, json.dumps(sent).encode(), 0)


def take(folder: Path, records: list[NewRecord], rules: Rules = RULES) -> None:
    """An exchange takes the records and stops cleanly."""
    with connect(f"sqlite:{folder}") as log:
        node = Node(log, name="test", now_ms=lambda: 0, rules=rules)
        log.append(records)
        while not node.has_taken(node.backlog_ends()):
            node.step(0.0)
        node.close()


def is_taken(topic: str, value: bytes | None) -> bool:
    """Whether the exchange finds nothing wrong with a message by itself."""
    taken = decode_input(topic, value)
    return isinstance(taken, Instruction) and taken.refusal is None


def check_topics(folder: Path, printed: dict[str, Any]) -> set[str]:
    """Each record of each topic fits one message and its topic, but for inputs that are refused; which were met."""
    by_topic = {topic: strict(printed["topics"][topic]) for topic in CHANNELS}
    by_message = {name: strict(printed["messages"][name]) for name in MESSAGES}
    seen = set()
    with connect(f"sqlite:{folder}") as log, closing(log.reader({(topic, 0): 0 for topic in CHANNELS})) as reader:
        for record in to_the_end(reader):
            try:
                message = json.loads(record.value or b"")
            except ValueError:
                assert record.topic in (*topics.INPUTS, topics.DEAD_LETTERS)
                seen.add("dead-letter")
                continue
            fitting = {name for name in CHANNELS[record.topic].messages if by_message[name].is_valid(message)}
            wanted = 0 if record.topic in topics.INPUTS and not is_taken(record.topic, record.value) else 1
            assert len(fitting) == wanted, f"{record.position}: {message}"
            assert by_topic[record.topic].is_valid(message) == bool(wanted), f"{record.position}: {message}"
            seen |= fitting
    return seen


def test_every_message_on_the_topics_is_what_its_schema_says(home: Path, run: Run) -> None:
    """After 300 messages of every kind, the journal and the snapshots included; each message was seen."""
    trade_it(home)
    assert check_topics(home, json.loads(run("schema"))) == MESSAGES.keys()


def test_the_matching_vectors_are_what_the_schemas_say(home: Path, run: Run) -> None:
    """All of them through a real log: what went in, what came out, the journal, the snapshot."""
    rules = parse_instruments(b'version = "vectors"\ndefaults.tick = 0.01\n', source="vectors.toml")
    records = list(vectors_as_records())
    take(home, records, rules)
    seen = check_topics(home, json.loads(run("schema")))
    assert len(records) == sum(len(vector["steps"]) for vector in VECTORS)
    assert seen == MESSAGES.keys() - {"dead-letter"}


def test_a_renamed_field_would_be_noticed(run: Run) -> None:
    """The checks above can fail: each example is refused once any of its fields, at any depth, has another name."""
    printed = json.loads(run("schema"))["messages"]
    for name, examples in EXAMPLES.items():
        validator = strict(printed[name])
        for example in examples:
            assert [error.message for error in validator.iter_errors(example)] == []
            renamed = list(_renamed(example))
            assert len(renamed) >= len(example)
            assert [each for each in renamed if validator.is_valid(each)] == []


def _renamed(value: Any) -> Iterator[Any]:
    """A value with one of its fields renamed, for each of them; but for the names of topics, which are no fields."""
    if isinstance(value, dict):
        for name, field in value.items():
            if name not in topics.INPUTS:
                yield {("x" if key == name else key): each for key, each in value.items()}
                yield from ({**value, name: each} for each in _renamed(field))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from ([*value[:place], each, *value[place + 1 :]] for each in _renamed(item))


UNREADABLE: Final = {"EMPTY", "TOO_LARGE", "TOO_DEEP", "NOT_UTF8", "DUPLICATE_KEY", "NOT_JSON"}
"""Of these a schema is not asked: there is no JSON that it could be asked of."""


def _int(digits: str) -> int:
    return int(digits[:40])  # Python itself reads no more than 4,300 digits


def _is_beyond_a_schema(value: bytes) -> bool:
    """Whether the exchange refuses it for what no schema says: a price has two decimals, and 100.0 is not whole."""
    fields = json.loads(value, parse_float=Decimal, parse_int=_int)
    price, quantity = (
        fields.get(name) if isinstance(fields, dict) else None for name in ("price_per_unit", "quantity")
    )
    return (isinstance(price, Decimal) and price * 100 % 1 != 0) or (
        isinstance(quantity, Decimal) and quantity % 1 == 0
    )


def sent() -> list[Case]:
    """The catalogue of bad inputs, and what does not go together in an instruction."""
    target = {"target_order_id": "T"}
    beside = [
        order(time_in_force="DAY", self_trade_prevention="off", action="new"),
        order(**target),
        order(action="cancel"),
        order(action="amend", **target),
        cancel(quantity=5),
        cancel(time_in_force="DAY", self_trade_prevention="off"),
        cancel(time_in_force="IOC"),
        cancel(self_trade_prevention="cancel-active"),
        cancel(target_order_id="CON"),
        cancel(buyer="nse"),
        replace(),
        replace(quantity=5),
        replace(quantity=0),
        replace(price_per_unit=885),
        replace(quantity=5, price_per_unit=885, time_in_force="FOK"),
        replace(quantity=5, self_trade_prevention="cancel-passive"),
        replace(quantity=5, target_order_id=7),
    ]
    every = [*CASES, *(Case(f"beside {number}", value, "") for number, value in enumerate(beside))]
    return [
        case
        for case in every
        if not (isinstance(taken := decode_input(case.topic, case.value), Dead) and taken.reason in UNREADABLE)
    ]


def test_a_schema_takes_what_the_exchange_takes(run: Run) -> None:
    """Both say yes or both say no, to each bad input of the catalogue that is JSON and to what is beside it."""
    printed = json.loads(run("schema"))["topics"]
    validators = {topic: Draft202012Validator(printed[topic]) for topic in topics.INPUTS}
    different = []
    said = {True: 0, False: 0}
    for case in sent():
        value = case.value or b""
        wanted = is_taken(case.topic, value)
        said[wanted] += 1
        # What is no number in JSON can only be met as text.
        message = json.loads(value, parse_int=_int, parse_constant=str)
        if validators[case.topic].is_valid(message) != wanted and not _is_beyond_a_schema(value):
            different.append((case.name, value[:200], wanted))
    assert different == []
    assert min(said.values()) > 15


def test_every_document_of_every_command_is_what_its_schema_says(home: Path, run: Run, tmp_path: Path) -> None:
    """Each kind of document was printed by some command, and each that was printed has a schema."""
    printed: list[str] = []
    ran: set[tuple[str, ...]] = set()
    commands = commands_with("--json")

    def took(*arguments: str, code: int = 0, err: bool = False) -> None:
        printed.extend(run(*arguments, "--json", code=code, err=err).splitlines())
        ran.add(max(path for path in commands if arguments[: len(path)] == path))

    took("topics", "create")
    took("buy", "SBI", "100", "885.05", "--id", "B-1")
    took("sell", "SBI", "60", "--id", "S-1", "--as", "LIC")
    took("sell", "INFY", "5", "1500", "--id", "S-2")
    took("buy", "SBI", "100", "885.01", "--id", "B-2", "--as", "ICICI")
    took("orders", "show", "B-1")
    with connect(f"sqlite:{home}") as log:
        log.append([NewRecord(topics.BUY_ORDERS, b"k", b"\xffjunk", 0, headers=(("name", b"\xff"),))])
    took("topics")
    took("nse", "--once")
    took("replace", "B-1", "--quantity", "30", "--id", "R-1")
    took("cancel", "B-1", "--id", "C-1")
    took("cancel", "B-1", "--id", "C-2", "--wait=1ms", code=4)
    took("nse", "--once")
    took("sell", "SBI", "0", code=2, err=True)
    took("watch", "--from", "start", "--no-follow")
    took("book", "INFY")
    took("book", "INFY", "--orders")
    for command in (("orders",), ("trades",), ("holdings",), ("funds",), ("funds", "HDFC", "--statement")):
        took(*command)
    took("orders", "show", "B-1")
    took("audit")
    took("bench", "--core", "--orders", "20")
    took("replay", "--log", "--compare")
    took("replay", "--log", "--book")
    orders = tmp_path / "orders.jsonl"
    orders.write_text('{"topic":"buy-orders","value":"no order"}\nno line\n')
    took("replay", str(orders))
    took("topics", "list")
    took("topics", "tail", "dead-letters", "--no-follow")
    took("dlq", "list")
    took("dlq", "show", "0:0")
    took("dlq", "redrive", "0:0", "--force", "--dry-run")
    took("dlq", "redrive", "0:0", "--force", "--yes")
    took("doctor")
    assert ran == commands
    schemas = json.loads(run("schema"))["documents"]
    validators = {name: strict(schema) for name, schema in schemas.items()}
    seen = set()
    for line in printed:
        document = json.loads(line)
        names = [document["schema"]] if "schema" in document else UNLABELLED
        fitting = [name for name in names if validators[name].is_valid(document)]
        assert len(fitting) == 1, [
            line,
            *(error.message for each in names for error in validators[each].iter_errors(document)),
        ]
        seen.add(fitting[0])
    assert seen == DOCUMENTS.keys()


def commands_with(option: str) -> set[tuple[str, ...]]:
    """The commands that have an option, each as its words."""
    found = set()

    def look(path: tuple[str, ...], command: Any) -> None:
        if path and any(option in parameter.opts for parameter in command.params):
            found.add(path)
        for name, below in getattr(command, "commands", {}).items():
            look((*path, name), below)

    look((), typer.main.get_command(cli.app))
    return found


def test_what_a_dry_run_prints_is_the_message(run: Run) -> None:
    """The one document of a command that is a message: what would be sent."""
    validator = strict(json.loads(run("schema", "buy-orders")))
    assert validator.is_valid(json.loads(run("buy", "SBI", "100", "885.05", "--tif", "IOC", "--dry-run")))


@pytest.mark.parametrize("name", ["trades", "buy-orders", "trade", "stocktrade.trade/1"])
def test_one_schema_by_itself(home: Path, run: Run, name: str) -> None:
    """It is a schema, and printing it makes no log."""
    Draft202012Validator.check_schema(json.loads(run("schema", name)))
    assert not home.exists()


def test_the_examples_are_those_of_the_document(run: Run) -> None:
    """Each in docs/messages.md is an example of a schema, and fits it; each topic that holds JSON has one."""
    shown = re.findall(
        r"^```(?:json|text)\n(\{.*?\})\n```$",
        (TESTS.parent / "docs" / "messages.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
    printed = json.loads(run("schema"))["messages"]
    examples = [example for schema in printed.values() for example in schema.get("examples", [])]
    assert [text for text in shown if json.loads(text) not in examples] == []
    assert printed.keys() - {name for name in printed if "examples" in printed[name]} == {
        "dead-letter",
        "snapshot-part",
    }


def test_what_has_no_schema_is_refused_with_what_is_meant(run: Run) -> None:
    """Exit code 2 and the closest names."""
    assert "hint: did you mean trade or trades" in run("schema", "tradse", code=2, err=True)
    assert "\\x1b[2J" in run("schema", "\x1b[2J", code=2, err=True)


def secured_options(folder: Path) -> str:
    """A file with the options of a connection that needs a password."""
    file = folder / "client.properties"
    file.write_text(
        "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nsasl.username=me\nsasl.password=s3cret\n"
    )
    file.chmod(0o600)
    return str(file)


def test_asyncapi_names_every_topic_and_the_servers(home: Path, run: Run, tmp_path: Path) -> None:
    """The embedded log has no server; of Kafka's, how one connects is said, and no secret; nothing is connected to."""
    document = json.loads(run("schema", "--asyncapi"))
    assert (
        document["channels"].keys()
        == {spec.name for spec in topics.SPECS}
        == {operation["channel"]["$ref"].rpartition("/")[2] for operation in document["operations"].values()}
    )
    assert "servers" not in document
    document = json.loads(run("schema", "--asyncapi", "-b", "one:9092,two:9093"))
    assert [server["host"] for server in document["servers"].values()] == ["one:9092", "two:9093"]
    file = tmp_path / "client.properties"
    file.write_text(
        "security.protocol=SASL_SSL\nsasl.mechanism=SCRAM-SHA-512\nsasl.username=me\nsasl.password=s3cret\n"
    )
    file.chmod(0o600)
    said = run("schema", "--asyncapi", "-b", "one:9092", "--command-config", str(file))
    secured = json.loads(said)
    assert secured["servers"]["kafka-0"]["protocol"] == "kafka-secure"
    assert secured["components"]["securitySchemes"] == {"sasl": {"type": "scramSha512"}}
    assert "s3cret" not in said
    assert not home.exists()


def test_the_payloads_of_asyncapi_can_be_used_by_themselves(run: Run) -> None:
    """Each is a schema of the dialect that it names, refers to nothing outside, and takes the examples beside it."""
    document = json.loads(run("schema", "--asyncapi"))
    for message in document["components"]["messages"].values():
        schema = message["payload"]["schema"]
        Draft7Validator.check_schema(schema)
        assert "$ref" not in json.dumps(schema)
        for example in message.get("examples", []):
            assert Draft7Validator(schema).is_valid(example["payload"])


@pytest.mark.slow
def test_asyncapi_is_valid_by_the_official_schema(home: Path, run: Run, tmp_path: Path) -> None:
    """The schema that the AsyncAPI initiative publishes for 3.0.0, with and without servers."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm, with which the official schema comes")
    pack = [npm, "pack", "@asyncapi/specs@6", "--silent", "--cache", str(tmp_path / "cache")]
    fetched = subprocess.run(pack, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    if fetched.returncode:
        pytest.skip(f"the official schema cannot be fetched: {fetched.stderr[-300:]}")
    (archive,) = tmp_path.glob("*.tgz")
    shutil.unpack_archive(archive, tmp_path / "specs")
    official = json.loads((tmp_path / "specs" / "package" / "schemas" / "3.0.0.json").read_text())
    validator = Draft7Validator(official)
    sasl = ("-b", "one:9092", "--command-config", secured_options(tmp_path))
    for options in ((), ("-b", "one:9092,two:9093"), sasl):
        document = json.loads(run("schema", "--asyncapi", *options))
        assert [error.message for error in validator.iter_errors(document)] == []
    document["channels"]["trades"]["adress"] = document["channels"]["trades"].pop("address")
    assert not validator.is_valid(document)
