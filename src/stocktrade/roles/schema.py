"""`schema`: the JSON Schema of every message and document, and the topics as an AsyncAPI document.

Invariant: what is printed follows from the models that the exchange itself reads and writes with.
"""

import difflib
import json
from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TextIO

from pydantic import BaseModel

from stocktrade import __version__
from stocktrade.documents import DOCUMENTS, json_schema_of
from stocktrade.domain import messages
from stocktrade.domain.values import visible
from stocktrade.errors import ExitCode, UsageError
from stocktrade.transport import topics

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


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
        {"snapshot-manifest": messages.SnapshotManifest},
    ),
}
"""The topics whose records have a schema; a dead letter holds the bytes of an input that was none."""

MESSAGES: Final[Mapping[str, type[BaseModel]]] = {
    name: model for channel in CHANNELS.values() for name, model in channel.messages.items()
}


def message_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a message as it stands on the wire.

    Raises:
        KeyError: there is no message of that name.
    """
    return {"$id": f"urn:stocktrade:message:{name}:1", **MESSAGES[name].model_json_schema()}


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
        "topics": {topic: [f"#/messages/{name}" for name in channel.messages] for topic, channel in CHANNELS.items()},
        "messages": {name: message_schema(name) for name in MESSAGES},
        "documents": {name: json_schema_of(name) for name in DOCUMENTS},
    }


def _one(name: str) -> dict[str, Any]:
    if name in CHANNELS:
        names = list(CHANNELS[name].messages)
        if len(names) > 1:
            return {"$schema": DIALECT, "title": name, "anyOf": [message_schema(each) for each in names]}
        return {"$schema": DIALECT, **message_schema(names[0])}
    if name in MESSAGES:
        return {"$schema": DIALECT, **message_schema(name)}
    if name in DOCUMENTS:
        return {"$schema": DIALECT, **json_schema_of(name)}
    every = [*CHANNELS, *MESSAGES, *DOCUMENTS]
    near = difflib.get_close_matches(name, every, n=3, cutoff=0.4)
    raise UsageError(
        f"nothing has a schema called {visible(name, 64)!r}",
        cause=f"there are {', '.join(sorted({*CHANNELS, *MESSAGES}))}, and the documents of the commands",
        hint=f"did you mean {' or '.join(near)}?" if near else "without a name all are printed",
    )


def asyncapi(url: str, *, out: TextIO) -> ExitCode:
    """Print the exchange as an AsyncAPI 3.0.0 document.

    Args:
        url: the log; servers of Kafka are named in the document.
        out: where it goes.
    """
    _write(asyncapi_document(url), out)
    return ExitCode.OK


def asyncapi_document(url: str) -> dict[str, Any]:
    """The document: a channel for each topic, and what the exchange receives and sends."""
    kind, _, servers = url.partition(":")
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
    if kind == "kafka":
        document["servers"] = {
            f"kafka-{number}": {"host": server, "protocol": "kafka"} for number, server in enumerate(servers.split(","))
        }
    document["channels"] = {topic: _channel(topic) for topic in CHANNELS}
    document["operations"] = {
        f"{'receive' if channel.is_input else 'send'}-{topic}": {
            "action": "receive" if channel.is_input else "send",
            "channel": {"$ref": f"#/channels/{topic}"},
            "summary": channel.about,
        }
        for topic, channel in CHANNELS.items()
    }
    components: dict[str, Any] = {}
    for name in MESSAGES:
        schema = message_schema(name)
        components[name] = {
            "name": name,
            "title": schema["title"],
            "summary": schema.get("description", name).splitlines()[0],
            "contentType": "application/json",
            "payload": {"schemaFormat": "application/schema+json;version=draft-07", "schema": _local(schema)},
        }
    document["components"] = {"messages": components}
    return document


def _channel(topic: str) -> dict[str, Any]:
    channel = CHANNELS[topic]
    return {
        "address": topic,
        "description": f"{channel.about} The key is {channel.key}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in channel.messages},
        "bindings": {"kafka": {"topic": topic, "bindingVersion": "0.5.0"}},
    }


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
