"""`schema`: the JSON Schema of every message and document, and the topics as an AsyncAPI document.

Invariant: what is printed follows from the models that the exchange itself reads and writes with.
"""

import difflib
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TextIO

from pydantic import BaseModel, RootModel

from stocktrade import __version__
from stocktrade.documents import DOCUMENTS, json_schema_of
from stocktrade.domain import messages
from stocktrade.domain.values import visible
from stocktrade.errors import ExitCode, UsageError
from stocktrade.roles.message_examples import EXAMPLES
from stocktrade.settings import Target
from stocktrade.transport import topics

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


class SnapshotPart(RootModel[list[list[Any]]]):
    """A part of a snapshot: rows that are for the exchange alone."""


class DeadLetter(RootModel[Any]):
    """The bytes of an input that was no message, whatever they are; the headers say where it stands and why."""


class Channel(NamedTuple):
    """A topic: what it is for, whether the exchange reads it, what its key is, and its messages by name."""

    about: str
    is_input: bool
    key: str
    messages: Mapping[str, type[BaseModel]]


CHANNELS: Final[Mapping[str, Channel]] = {
    topics.BUY_ORDERS: Channel(
        "Buyers put their orders here.",
        True,
        "the canonical symbol, as SBIN; it decides the shard",
        {"buy-order": messages.BuyOrder, "cancel-order": messages.CancelOrder, "replace-order": messages.ReplaceOrder},
    ),
    topics.SELL_OFFERS: Channel(
        "Sellers put what they have here.",
        True,
        "the canonical symbol, as SBIN; it decides the shard",
        {
            "sell-offer": messages.SellOffer,
            "cancel-offer": messages.CancelOffer,
            "replace-offer": messages.ReplaceOffer,
        },
    ),
    topics.ORDER_EVENTS: Channel(
        "The one answer to each input, and what self-trade prevention cancelled.",
        False,
        "the participant",
        {"order-event": messages.OrderEvent},
    ),
    topics.TRADES: Channel("Every trade.", False, "the canonical symbol", {"trade": messages.Trade}),
    topics.DEMAT_TRANSFERS: Channel(
        "Shares that came to, or left, a demat account.",
        False,
        "the participant",
        {"demat-transfer": messages.DematTransfer},
    ),
    topics.CASH_MOVEMENTS: Channel(
        "Rupees that came to, or left, an account.", False, "the participant", {"cash-movement": messages.CashMovement}
    ),
    topics.DEAD_LETTERS: Channel(
        "Inputs that were no messages, byte for byte.", False, "that of the input", {"dead-letter": DeadLetter}
    ),
    topics.JOURNAL: Channel(
        "What a shard took, in order; each entry continues a chain of digests.",
        False,
        "the shard",
        {"journal-record": messages.JournalRecord},
    ),
    topics.SNAPSHOTS: Channel(
        "The state of a shard in parts; the manifest makes them whole.",
        False,
        "the journal entry and the part",
        {"snapshot-manifest": messages.SnapshotManifest, "snapshot-part": SnapshotPart},
    ),
}
"""Every topic."""

_BINDING: Final = "0.5.0"
"""The version of AsyncAPI's Kafka bindings."""

DEAD_LETTER_HEADERS: Final[Mapping[str, Any]] = {
    "type": "object",
    "properties": {
        "__dlq.errors.topic": {"type": "string", "description": "where the input stands"},
        "__dlq.errors.partition": {"type": "string", "pattern": "^[0-9]+$"},
        "__dlq.errors.offset": {"type": "string", "pattern": "^[0-9]+$"},
        "__dlq.errors.message": {"type": "string", "description": "a code and a sentence"},
        "stocktrade.sha256": {"type": "string", "description": "of an input that was too large: its digest"},
        "stocktrade.bytes": {"type": "string", "description": "of an input that was too large: its length"},
    },
    "required": ["__dlq.errors.topic", "__dlq.errors.partition", "__dlq.errors.offset", "__dlq.errors.message"],
}

MESSAGES: Final[Mapping[str, type[BaseModel]]] = {
    name: model for channel in CHANNELS.values() for name, model in channel.messages.items()
}


def message_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a message as it stands on the wire.

    Raises:
        KeyError: there is no message of that name.
    """
    schema = {"$id": f"urn:stocktrade:message:{name}:1", **MESSAGES[name].model_json_schema()}
    return schema | ({"examples": [*EXAMPLES[name]]} if name in EXAMPLES else {})


def topic_schema(topic: str) -> dict[str, Any]:
    """The JSON Schema of the values on a topic, complete in itself.

    Raises:
        KeyError: there is no topic of that name.
    """
    channel = CHANNELS[topic]
    return {
        "$id": f"urn:stocktrade:topic:{topic}:1",
        "title": topic,
        "description": f"{channel.about} The key is {channel.key}.",
        "oneOf": [message_schema(name) for name in channel.messages],
    }


def names() -> list[str]:
    """Everything that has a schema: topics, messages, documents."""
    return [*CHANNELS, *MESSAGES, *DOCUMENTS]


def run(name: str | None, *, out: TextIO) -> ExitCode:
    """Print the schema of a topic, a message or a document, or of all of them.

    Args:
        name: as `trades`, `trade` or `stocktrade.trade/1`; None: all.
        out: where it goes.

    Raises:
        UsageError: nothing has that name.
    """
    _write(_all() if name is None else _one(name), out)
    return ExitCode.OK


def _all() -> dict[str, Any]:
    return {
        "$schema": DIALECT,
        "title": f"stocktrade {__version__}",
        "description": "What stands on each topic, each message by itself, and what the commands print with --json.",
        "topics": {topic: topic_schema(topic) for topic in CHANNELS},
        "messages": {name: message_schema(name) for name in MESSAGES},
        "documents": {name: json_schema_of(name) for name in DOCUMENTS},
    }


def _one(name: str) -> dict[str, Any]:
    if name in CHANNELS:
        return {"$schema": DIALECT, **topic_schema(name)}
    if name in MESSAGES:
        return {"$schema": DIALECT, **message_schema(name)}
    if name in DOCUMENTS:
        return {"$schema": DIALECT, **json_schema_of(name)}
    every = names()
    near = difflib.get_close_matches(name, every, n=3, cutoff=0.4)
    raise UsageError(
        f"nothing has a schema called {visible(name, 64)!r}",
        cause=f"there are {', '.join(sorted({*every} - {*DOCUMENTS}))}, and the documents of the commands",
        hint=f"did you mean {' or '.join(near)}?" if near else "without a name all are printed",
    )


def asyncapi(target: Target, *, out: TextIO) -> ExitCode:
    """Print the exchange as an AsyncAPI 3.0.0 document.

    Args:
        target: the log; servers of Kafka are named in the document, and how one connects to them.
        out: where it goes.
    """
    _write(asyncapi_document(target), out)
    return ExitCode.OK


_SASL: Final = {"PLAIN": "plain", "SCRAM-SHA-256": "scramSha256", "SCRAM-SHA-512": "scramSha512"}
"""AsyncAPI's names of Kafka's mechanisms."""


def asyncapi_document(target: Target) -> dict[str, Any]:
    """The document: a channel for each topic, and what the exchange receives and sends."""
    kind, _, servers = target.url.partition(":")
    document: dict[str, Any] = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "stocktrade",
            "version": __version__,
            "description": "A stock exchange on a durable log: orders in; answers, trades and what they moved out.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
    }
    components: dict[str, Any] = {"messages": {name: _message(name) for name in MESSAGES}}
    components["messages"]["dead-letter"] |= {
        "contentType": "application/octet-stream",
        "headers": dict(DEAD_LETTER_HEADERS),
    }
    if kind == "kafka":
        protocol = target.options.get("security.protocol", "PLAINTEXT").upper()
        server: dict[str, Any] = {"protocol": "kafka-secure" if protocol.endswith("SSL") else "kafka"}
        if protocol.startswith("SASL"):
            components["securitySchemes"] = {"sasl": {"type": _SASL[target.options["sasl.mechanism"].upper()]}}
            server["security"] = [{"$ref": "#/components/securitySchemes/sasl"}]
        document["servers"] = {
            f"kafka-{number}": {"host": host, **server} for number, host in enumerate(servers.split(","))
        }
    document["channels"] = {topic: _channel(topic, channel) for topic, channel in CHANNELS.items()}
    document["operations"] = {
        f"{'receive' if channel.is_input else 'send'}-{topic}": {
            "action": "receive" if channel.is_input else "send",
            "channel": {"$ref": f"#/channels/{topic}"},
            "summary": channel.about,
            "messages": [{"$ref": f"#/channels/{topic}/messages/{name}"} for name in channel.messages],
        }
        for topic, channel in CHANNELS.items()
    }
    document["components"] = components
    return document


def _channel(topic: str, channel: Channel) -> dict[str, Any]:
    return {
        "address": topic,
        "description": f"{channel.about} The key is {channel.key}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in channel.messages},
        "bindings": {"kafka": {"topic": topic, "bindingVersion": _BINDING}},
    }


def _message(name: str) -> dict[str, Any]:
    schema = message_schema(name)
    (channel,) = (each for each in CHANNELS.values() if name in each.messages)
    key = {"type": "string", "description": channel.key}
    message = {
        "name": name,
        "title": schema["title"],
        "summary": schema["description"].splitlines()[0],
        "contentType": "application/json",
        "payload": {"schemaFormat": "application/schema+json;version=draft-07", "schema": _local(schema)},
        "bindings": {"kafka": {"key": key, "bindingVersion": _BINDING}},
    }
    return message | ({"examples": [{"payload": each} for each in EXAMPLES[name]]} if name in EXAMPLES else {})


def _local(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that can stand inside of another document: what it refers to is put in its place."""
    parts = schema.get("$defs", {})

    def resolved(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return resolved(parts[value["$ref"].rpartition("/")[2]])
            return {name: resolved(each) for name, each in value.items() if name != "$defs"}
        return [resolved(each) for each in value] if isinstance(value, list) else value

    inlined: dict[str, Any] = resolved(schema)
    return inlined


def _write(document: dict[str, Any], out: TextIO) -> None:
    out.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
