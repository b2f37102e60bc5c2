"""What the commands print with `--json`: the shape of every document, by the name in its field `schema`.

Invariant: money is whole paise, a time is RFC 3339 in UTC, an id is whole; a field that may be missing says so. A
document gets a new number when a field of it changes its meaning or goes away, not when one is added.
"""

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from stocktrade.domain.values import Side

DOCUMENTS: Final[dict[str, type[BaseModel]]] = {}
"""The model of each document by its name, as `stocktrade.order/1`."""

UNLABELLED: Final[set[str]] = set()
"""The documents without a field `schema`: the lines of `replay`, which have the form of its input."""


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    def __init_subclass__(cls, named: str | None = None, labelled: bool = True) -> None:
        super().__init_subclass__()
        if named is not None:
            name = f"stocktrade.{named}/1"
            DOCUMENTS[name] = cls
            if not labelled:
                UNLABELLED.add(name)


class ErrorDocument(_Document, named="error"):
    """What went wrong, on stderr."""

    error: str
    cause: str | None
    hint: str | None
    exit_code: int


class RecordDocument(_Document, named="record"):
    """`watch` and `topics tail`: a record as it stands; bytes that are no text, or no JSON object, as base64."""

    topic: str
    partition: int
    offset: int
    time: str | None
    key: str | dict[str, str] | None
    headers: list[dict[str, Any]]
    value: dict[str, Any] | None


class OrderTrade(_Document):
    """A trade of an order that was sent."""

    trade_id: str
    quantity: int
    price_paise: int


class OrderDocument(_Document, named="order"):
    """`buy` and `sell`: how far the order had come when the command ended."""

    order_id: str
    side: Side
    participant: str
    stock_symbol: str
    quantity: int
    price_paise: int | None
    position: str
    state: str
    seq: int | None
    reason: str | None
    detail: str | None
    first_status: str | None
    time_in_force: str
    filled_quantity: int
    cancelled_quantity: int
    amount_paise: int
    settled: bool
    exchange_running: bool
    trades: list[OrderTrade]


class AmendmentDocument(_Document, named="amendment"):
    """`cancel` and `replace`: what came of it."""

    order_id: str
    action: Literal["cancel", "replace"]
    target_order_id: str
    participant: str
    stock_symbol: str
    position: str
    state: str
    seq: int | None
    reason: str | None
    detail: str | None
    filled_quantity: int
    leaves_quantity: int
    cancelled_quantity: int
    exchange_running: bool


class NseDocument(_Document, named="nse"):
    """`nse`: something that the exchange did; which of the other fields there are depends on `event`."""

    event: Literal[
        "owns",
        "gave-up",
        "waits-for-the-log",
        "log-is-back",
        "held-back",
        "goes-on",
        "stands-by",
        "dead-letter",
        "trade",
        "rejected",
        "cancelled",
        "replaced",
        "stopped",
    ]
    log: str = ""
    pid: int = 0
    shard: int = 0
    epoch: int = 0
    from_snapshot: bool = False
    inputs_replayed: int = 0
    ignored_entries: int = 0
    seconds: float = 0
    rewritten: int = 0
    owner: str = ""
    error: str = ""
    topic: str = ""
    partition: int = 0
    reason: str | None = None
    source: str = ""
    order_id: str = ""
    trade_id: str = ""
    stock_symbol: str = ""
    quantity: int = 0
    price_paise: int | None = None
    buyer: str = ""
    seller: str = ""
    seq: int = 0


class BookLevel(_Document):
    """A price of the book; a price of null is any price."""

    price_paise: int | None
    quantity: int
    orders: int


class BookDocument(_Document, named="book"):
    """`book`: the market depth of a symbol after an exchange sequence; the price served first comes first."""

    stock_symbol: str
    shard: int
    seq: int
    last_price_paise: int | None = None
    bids: list[BookLevel]
    asks: list[BookLevel]


class RestingDocument(_Document, named="resting"):
    """`book --orders`: an order that waits; the one served first comes first."""

    stock_symbol: str
    side: Side
    price_paise: int | None
    quantity: int
    participant: str
    order_id: str
    seq: int


class OrderStateDocument(_Document, named="order-state"):
    """`orders`: an order with how far it has come."""

    order_id: str
    participant: str
    side: Side
    stock_symbol: str
    price_paise: int | None
    quantity: int
    filled_quantity: int
    leaves_quantity: int
    cancelled_quantity: int
    state: Literal["open", "partly filled", "filled", "cancelled", "rejected"]
    reason: str | None
    time: str | None
    shard: int
    seq: int
    source: str


class StepDocument(_Document, named="step"):
    """`orders show`: something that happened to the order, and the record that says so."""

    time: str | None
    after_ms: int | None
    what: str
    text: str
    position: str


class TradeDocument(_Document, named="trade"):
    """`trades`: a trade."""

    trade_id: str
    time: str | None
    stock_symbol: str
    quantity: int
    price_paise: int
    amount_paise: int
    buyer: str
    buy_order_id: str
    seller: str
    sell_order_id: str
    maker: Side
    shard: int
    seq: int
    position: str


class HoldingDocument(_Document, named="holding"):
    """`holdings`: shares that a participant has; below zero, owes."""

    participant: str
    stock_symbol: str
    quantity: int


class FundsDocument(_Document, named="funds"):
    """`funds`: rupees that a participant has; below zero, owes."""

    participant: str
    balance_paise: int


class StatementLineDocument(_Document, named="statement-line"):
    """`funds --statement`: what a trade moved on the account, and the balance after it."""

    participant: str
    time: str | None
    trade_id: str
    side: Side
    stock_symbol: str
    quantity: int
    price_paise: int
    amount_paise: int
    balance_paise: int


class AuditHead(_Document):
    """The last entry of a shard's journal."""

    shard: int
    entry: int
    digest: str
    seq: int


class AuditFinding(_Document):
    """A record that breaks a rule."""

    where: str
    what: str


class AuditRule(_Document):
    """A rule, and what came of it."""

    rule: str
    meaning: str
    state: Literal["ok", "broken", "unchecked"]
    checked: int
    broken: int
    unchecked: int
    why_unchecked: str = ""
    findings: list[AuditFinding]


class AuditDocument(_Document, named="audit"):
    """`audit`: every rule."""

    log: str
    clean: bool
    inputs: int
    trades: int
    waiting: int
    ignored_entries: int
    redelivered: int
    heads: list[AuditHead]
    rules: list[AuditRule]


class _Figures(_Document):
    """What was measured: a number, and no NaN, which JSON does not have."""

    model_config = ConfigDict(allow_inf_nan=False)


class BenchMachine(_Figures):
    """Where it was measured; `cores` are those that this process may use."""

    cpu: str
    cores: int
    memory_mib: int | None
    system: str
    architecture: str


class BenchVersions(_Figures):
    """With what; `log` is what keeps the log, in words."""

    stocktrade: str
    python: str
    log: str | None


class BenchSettings(_Figures):
    """What was asked for. Two results with other settings are not compared."""

    rate: float
    seconds: float
    warm_up_s: float
    orders: int
    symbols: int
    seed: int


class BenchBurst(_Figures):
    """Orders that waited on the log, taken and committed; from when all shards were owned."""

    orders: int
    seconds: float
    orders_per_s: float


class BenchRecovery(_Figures):
    """From the start of an exchange's process, after its predecessor was killed, on a log with so many inputs."""

    inputs: int
    inputs_replayed: int
    from_snapshot: bool
    owns_s: float
    first_commit_s: float


class BenchPercentiles(_Figures):
    """From when an order was meant to be sent until a reader saw both of its legs."""

    samples: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    p99_9_ms: float | None
    max_ms: float | None


class BenchSender(_Figures):
    """How far the sender was behind what was meant, and which rate it reached."""

    orders: int
    calls: int
    rate_reached: float
    behind_p50_ms: float | None
    behind_p99_ms: float | None
    behind_max_ms: float | None


class BenchSlice(_Figures):
    """A part of the time, from so many seconds after the warm-up on, and the exchange's memory at its end."""

    from_s: float
    samples: int
    p50_ms: float | None
    p99_ms: float | None
    max_ms: float | None
    exchange_rss_mib: float | None


class BenchLatency(BenchPercentiles):
    """The latency; what had not come at the end is `unsettled`, and counts with what it had waited by then."""

    unsettled: int
    warm_up: BenchPercentiles
    sender: BenchSender
    slice_s: float
    slices: list[BenchSlice]


class BenchCore(_Figures):
    """The core in memory: from instructions to facts, and from JSON to the JSON of every event."""

    inputs: int
    rounds: int
    inputs_per_s: float
    with_json_inputs_per_s: float


class BenchAudit(_Figures):
    """What the audit said of the log of the bench."""

    clean: bool
    inputs: int
    trades: int
    broken: list[str]


class BenchChange(_Figures):
    """A figure beside that of the baseline; `judged` is false where it says too little to fail on."""

    figure: str
    before: float | None
    now: float | None
    change_percent: float | None
    judged: bool
    worse: bool


class BenchComparison(_Figures):
    """`--baseline`: each figure, and what else was not the same."""

    tolerance_percent: float
    worse: bool
    differs: list[str]
    figures: list[BenchChange]


class BenchDocument(_Figures, named="bench"):
    """`bench`: what was measured, where, and with what; a part that was left out is null."""

    machine: BenchMachine
    versions: BenchVersions
    kind: Literal["embedded", "kafka", "core"]
    log: str | None
    shards: int | None
    client: str | None
    settings: BenchSettings
    burst: BenchBurst | None
    recovery: BenchRecovery | None
    latency: BenchLatency | None
    core: BenchCore | None
    audit: BenchAudit | None
    comparison: BenchComparison | None


class ComparisonDocument(_Document, named="comparison"):
    """`replay --log --compare`: whether the topics hold what the replay gives."""

    equal: bool
    compared: int
    first_difference: str = ""


class _Replayed(_Document):
    """Where an input stood: `line` of a file, or with `--log` its `source`, as topic@partition:offset."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["line"]}, {"required": ["source"]}]},
    )

    line: int = 0
    source: str = ""


class ReplayedRecord(_Replayed, named="replayed-record", labelled=False):
    """`replay`: a record that the exchange would write; the two order ids stand beside a trade."""

    topic: Literal["order-events", "trades", "demat-transfers", "cash-movements"]
    partition: int
    maker_order_id: str = ""
    taker_order_id: str = ""
    value: dict[str, Any]


class ReplayedDeadLetter(_Replayed, named="replayed-dead-letter", labelled=False):
    """`replay`: an input that is no message."""

    topic: Literal["dead-letters"]
    reason: str
    detail: str


class ReplayedBadLine(_Document, named="replayed-bad-line", labelled=False):
    """`replay`: a line of the file that is no input."""

    line: int
    error: str


class ReplayedOrder(_Document, named="replayed-order", labelled=False):
    """`replay --book`: an order that rests at the end; a price is in rupees, and null is any price."""

    book: str
    side: Side
    price_per_unit: float | None
    quantity: int
    participant: str
    order_id: str
    seq: int


class MadeTopic(_Document):
    """A topic that was made, or was there."""

    topic: str
    partitions: int
    state: Literal["made", "there"]


class TopicsDocument(_Document, named="topics"):
    """`topics create`."""

    log: str
    topics: list[MadeTopic]


class PartitionDocument(_Document, named="partition"):
    """`topics`: a partition; `lag` is null on topics that the exchange does not read.

    `offsets`: how many are kept, on Kafka also those of the ends of transactions.
    """

    topic: str
    partition: int
    offsets: int
    last: str | None
    lag: int | None
    waiting_ms: int | None
    owner: str | None


class DeadLetterDocument(_Document, named="dead-letter"):
    """`dlq list` and `dlq show`: a dead letter; `now` is what `show` says the exchange would make of it."""

    position: str
    time: str | None
    input: str | None
    reason: str
    detail: str
    redriven: int
    again: str | None
    record: dict[str, Any]
    now: str = ""


class RedrivenDocument(_Document, named="redriven"):
    """`dlq redrive`: what was sent again, or would be."""

    origin: str
    to: str | None
    topic: str
    times: int
    sent: bool


class DoctorCheck(_Document):
    """A check, and what to do about it."""

    check: str
    state: Literal["ok", "warning", "failed", "skipped"]
    found: str
    hint: str | None


class DoctorDocument(_Document, named="doctor"):
    """`doctor`: every check."""

    healthy: bool
    checks: list[DoctorCheck]


def json_schema_of(name: str) -> dict[str, Any]:
    """The JSON Schema of a document.

    Raises:
        KeyError: there is no document of that name.
    """
    kind, _, version = name.removeprefix("stocktrade.").partition("/")
    schema = {"$id": f"urn:stocktrade:document:{kind}:{version}", **DOCUMENTS[name].model_json_schema()}
    if name not in UNLABELLED:
        schema["properties"] = {"schema": {"const": name}, **schema["properties"]}
        schema["required"] = ["schema", *schema.get("required", [])]
    return schema
