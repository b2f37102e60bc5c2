"""`schema`: every message on the topics, and every document that a command prints, is what the printed schema says."""

import json
import shutil
import subprocess
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator, Draft202012Validator

from stocktrade.documents import DOCUMENTS
from stocktrade.roles.schema import CHANNELS, MESSAGES
from stocktrade.shard.history import to_the_end
from stocktrade.transport import connect, topics
from stocktrade.transport.base import NewRecord
from test_auditor import trade_it

Run = Callable[..., str]


def strict(schema: dict[str, Any]) -> Draft202012Validator:
    """A validator that also refuses fields which the schema does not know: one that was renamed, say."""
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator({**schema, "additionalProperties": False})


def test_every_message_on_the_topics_is_what_its_schema_says(home: Path, run: Run) -> None:
    """After 300 messages of every kind, the journal and the snapshots included; each message was seen."""
    trade_it(home)
    printed = json.loads(run("schema"))
    validators = {name: strict(printed["messages"][name]) for name in MESSAGES}
    seen = dict.fromkeys(MESSAGES, 0)
    with connect(f"sqlite:{home}") as log, closing(log.reader({(topic, 0): 0 for topic in CHANNELS})) as reader:
        for record in to_the_end(reader):
            try:
                message = json.loads(record.value or b"")
            except ValueError:
                assert record.topic in topics.INPUTS
                continue
            if record.topic == topics.SNAPSHOTS and not (record.key or b"").endswith(b"manifest"):
                continue
            fitting = [name for name in CHANNELS[record.topic].messages if validators[name].is_valid(message)]
            assert len(fitting) == 1, message
            seen[fitting[0]] += 1
    assert [name for name, count in seen.items() if not count] == []


def test_a_renamed_field_would_be_noticed(home: Path, run: Run) -> None:
    """The check above is one that can fail."""
    printed = json.loads(run("schema", "trades"))
    trade = {
        "trade_id": "T0-2-1", "stock_symbol": "SBIN", "quantity": 100, "price_per_unit": 885.05, "amount": 88505.0,
        "buyer": "HDFC", "buy_order_id": "B", "seller": "SELLER", "sell_order_id": "S", "maker": "BUY", "shard": 0,
        "seq": 2,
    }  # fmt: skip
    validator = strict(printed)
    assert validator.is_valid(trade)
    for name in trade:
        assert not validator.is_valid({("x" if key == name else key): value for key, value in trade.items()})


def test_every_document_of_every_command_is_what_its_schema_says(home: Path, run: Run, tmp_path: Path) -> None:
    """Each kind of document was printed by some command, and each that was printed has a schema."""
    printed: list[str] = []

    def took(*arguments: str, code: int = 0, err: bool = False) -> None:
        printed.extend(run(*arguments, "--json", code=code, err=err).splitlines())

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
    took("replay", "--log", "--compare")
    took("topics", "tail", "dead-letters", "--no-follow")
    took("dlq", "list")
    took("dlq", "show", "0:0")
    took("dlq", "redrive", "0:0", "--force", "--dry-run")
    took("dlq", "redrive", "0:0", "--force", "--yes")
    took("doctor")
    schemas = json.loads(run("schema"))["documents"]
    validators = {name: strict(schema) for name, schema in schemas.items()}
    seen = set()
    for line in printed:
        document = json.loads(line)
        seen.add(document["schema"])
        errors = [error.message for error in validators[document["schema"]].iter_errors(document)]
        assert errors == [], line
    assert seen == DOCUMENTS.keys()


@pytest.mark.parametrize("name", ["trades", "buy-orders", "trade", "stocktrade.trade/1"])
def test_one_schema_by_itself(home: Path, run: Run, name: str) -> None:
    """It is a schema, and printing it makes no log."""
    Draft202012Validator.check_schema(json.loads(run("schema", name)))
    assert not home.exists()


def test_asyncapi_names_every_topic_and_the_servers(home: Path, run: Run) -> None:
    """The embedded log has no server; nothing is connected to."""
    document = json.loads(run("schema", "--asyncapi"))
    assert document["channels"].keys() == CHANNELS.keys()
    assert "servers" not in document
    document = json.loads(run("schema", "--asyncapi", "-b", "one:9092,two:9093"))
    assert [server["host"] for server in document["servers"].values()] == ["one:9092", "two:9093"]
    assert not home.exists()


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
    for options in ((), ("-b", "one:9092,two:9093")):
        document = json.loads(run("schema", "--asyncapi", *options))
        assert [error.message for error in validator.iter_errors(document)] == []
    document["channels"]["trades"]["adress"] = document["channels"]["trades"].pop("address")
    assert not validator.is_valid(document)
