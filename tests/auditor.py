"""An auditor of a log that shares no arithmetic with the exchange: it believes the bytes on the topics, nothing else.

It parses the JSON itself, adds up in Decimal, makes the ids of legs with `uuid`, and never imports the matching,
the clearing or the ledger, but for one rule: that the journal replays to its digests can only be asked of the
exchange's own code (`_replay`).

Invariant: a finding names the rule that is broken and where; a sound log has none. Journal entries that do not
continue the chain do not count, as for every reader.

No second writer can get at the embedded log, so such an entry is a finding there. A remote log may let a fenced
owner's commit in: then the entry is counted, and its outputs must be redeliveries, the same id with the same content.
"""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from contextlib import closing
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple
from uuid import UUID, uuid5

from stocktrade.transport.base import Log, NewRecord, Position, Record

INPUTS: Final = ("buy-orders", "sell-offers")
OUTPUTS: Final = ("order-events", "trades", "demat-transfers", "cash-movements")
DEAD_LETTERS: Final = "dead-letters"
JOURNAL: Final = "exchange-journal"

_GENESIS: Final = "0" * 64
_LEGS: Final = UUID("6f0c1e5a-3b0d-5d52-9c56-5d1d2a6a8850")
_ALIASES: Final = {"SBI": "SBIN"}

_ID_FIELDS: Final = {"trades": "trade_id", "demat-transfers": "transfer_id", "cash-movements": "movement_id"}
_FORWARDED: Final = "stocktrade.forwarded-from"

PATIENCE_S: Final = 15.0
"""How long a remote log may keep a reader from the end that it has named."""


class Finding(NamedTuple):
    """One broken rule, where it is broken, and how."""

    rule: str
    where: str
    what: str


Answer = Literal["acknowledged", "unknown", "failed"]


class Told(NamedTuple):
    """What a client was told about one message that it sent; `where` it stands, if that was acknowledged.

    `unknown` may be on the log once; `failed` is not. `order_id` is empty of what is no order.
    """

    topic: str
    participant: str
    order_id: str
    value: bytes
    answer: Answer
    where: Position | None = None


class Report(NamedTuple):
    """What an audit came to. `ignored` are entries that do not continue the chain, `redelivered` the outputs that
    are there once more with the same content.
    """

    findings: list[Finding]
    inputs: int
    trades: int
    ignored: int
    redelivered: int


class Books(NamedTuple):
    """A log's records by topic and shard, in the order of their offsets."""

    shards: int
    records: dict[tuple[str, int], list[Record]]

    def of(self, *topics: str) -> list[Record]:
        """Every record of the topics, all shards."""
        return [r for topic in topics for shard in range(self.shards) for r in self.records[topic, shard]]


class Line(NamedTuple):
    """One input as the journal has it. `seq` is 0 of what is no order."""

    shard: int
    seq: int
    topic: str
    offset: int
    kind: str
    fields: dict[str, Any]

    @property
    def source(self) -> str:
        """The position of the input."""
        return f"{self.topic}@{self.shard}:{self.offset}"


class Taken(NamedTuple):
    """An accepted order, as its own message and its event have it. Money in rupees."""

    seq: int
    side: str
    order_id: str
    participant: str
    symbol: str
    sent: str
    quantity: int
    price: Decimal | None


def audit(log: Log) -> list[Finding]:
    """Every broken rule of the log."""
    return examine(log).findings


def examine(log: Log, told: Iterable[Told] | None = None, *, chain_decides: bool | None = None) -> Report:
    """Look at all that is on the log.

    Args:
        log: the log; nobody writes to it meanwhile.
        told: what every client that wrote to the inputs was told about everything that it sent.
        chain_decides: whether an entry that does not continue the chain is counted (True) or a finding. By default
            as the log is a remote one or not.
    """
    tolerant = log.remote if chain_decides is None else chain_decides
    findings: list[Finding] = []
    books = read(log, findings)
    lines: list[Line] = []
    ignored = redelivered = 0
    doubled: set[int] = set()
    for shard in range(books.shards):
        chain, strangers = _chain(books.records[JOURNAL, shard], shard, findings)
        ignored += len(strangers)
        if not tolerant:
            findings += [Finding("chain", str(each.position), "does not continue the chain") for each in strangers]
        elif strangers:
            doubled.add(shard)
            redelivered += _apply_once(books, shard, findings)
        lines += _lines(chain, shard, findings)
        findings += _replay(books, chain, shard)
    findings += _inputs(books, lines)
    findings += _dead_and_forwarded(books, lines, doubled)
    taken = _events(books, lines, findings)
    findings += _trades(books, taken)
    findings += _legs(books, lines, taken)
    findings += _sums(books)
    if told is not None:
        findings += _told(books, list(told))
    return Report(findings, len(books.of(*INPUTS)), len(books.of("trades")), ignored, redelivered)


def read(log: Log, findings: list[Finding]) -> Books:
    """All that is on the log now."""
    shards = log.partitions()
    places = [(topic, shard) for topic in (*INPUTS, *OUTPUTS, DEAD_LETTERS, JOURNAL) for shard in range(shards)]
    records: dict[tuple[str, int], list[Record]] = {place: [] for place in places}
    with closing(log.reader(dict.fromkeys(places, 0))) as reader:
        ends = reader.ends()
        patience_s = PATIENCE_S if log.remote else 0.0
        deadline = time.monotonic() + patience_s
        while not reader.caught_up(ends):
            if some := reader.poll(1.0):
                for record in some:
                    records[record.topic, record.partition].append(record)
                deadline = time.monotonic() + patience_s
            elif time.monotonic() >= deadline:
                break
        findings += [
            Finding("whole", f"{topic}@{shard}", f"ends before {ends[topic, shard]}")
            for topic, shard in places
            if reader.position(topic, shard) < ends[topic, shard]
        ]
    return Books(shards, records)


def _fields(record: Record) -> dict[str, Any]:
    fields = json.loads(record.value or b"null", parse_float=Decimal)
    assert isinstance(fields, dict), record.position
    return fields


def _canonical(symbol: str) -> str:
    name = symbol.upper().removeprefix("NSE:")
    return _ALIASES.get(name, name)


# --- the journal -----------------------------------------------------------------------------------------------


def _chain(
    journal: Iterable[Record], shard: int, findings: list[Finding]
) -> tuple[list[tuple[Record, dict[str, Any]]], list[Record]]:
    """The entries that count, each with the next number and its predecessor's digest; and those that do not."""
    chain: list[tuple[Record, dict[str, Any]]] = []
    strangers: list[Record] = []
    digest, owners = _GENESIS, 0
    for record in journal:
        entry = _fields(record)
        where = str(record.position)
        if entry["entry"] > len(chain):
            findings.append(Finding("chain", where, f"entry {entry['entry']} after {len(chain) - 1}"))
        if (entry["entry"], entry["prev"]) != (len(chain), digest):
            strangers.append(record)
            continue
        owners += entry["kind"] == "owner"
        if (entry["v"], entry["shard"], entry["epoch"]) != (1, shard, owners):
            findings.append(Finding("chain", where, "version, shard or epoch"))
        chain.append((record, entry))
        digest = entry["digest"]
    return chain, strangers


def _apply_once(books: Books, shard: int, findings: list[Finding]) -> int:
    """Leave out what came again, as a consumer of ids does; how many that were.

    The id of an event and of a dead letter is the input that it answers. What comes again with other content stays,
    and is a finding.
    """
    redelivered = 0
    for topic in (*OUTPUTS, DEAD_LETTERS):
        first: dict[str, Record] = {}
        kept: list[Record] = []
        for record in books.records[topic, shard]:
            before = first.setdefault(_id_of(record), record)
            if before is not record and _content(before) == _content(record):
                redelivered += 1
                continue
            if before is not record:
                what = f"{_id_of(record)} was something else at {before.position}"
                findings.append(Finding("redelivery", str(record.position), what))
            kept.append(record)
        books.records[topic, shard] = kept
    return redelivered


def _content(record: Record) -> tuple[Any, ...]:
    return (record.time_ms, record.key, record.value, record.headers)


def _id_of(record: Record) -> str:
    if record.topic == DEAD_LETTERS:
        return _of_input(record)
    return str(_fields(record)[_ID_FIELDS.get(record.topic, "source")])


def _of_input(letter: Record) -> str:
    headers = {name: text.decode() for name, text in letter.headers}
    topic, partition, offset = (headers[f"__dlq.errors.{part}"] for part in ("topic", "partition", "offset"))
    return f"{topic}@{partition}:{offset}"


def _lines(chain: Iterable[tuple[Record, dict[str, Any]]], shard: int, findings: list[Finding]) -> list[Line]:
    lines: list[Line] = []
    seq = 0
    positions = dict.fromkeys(INPUTS, 0)
    for record, entry in chain:
        if entry["first_seq"] != seq + 1:
            findings.append(Finding("seq", str(record.position), f"first_seq {entry['first_seq']} after {seq}"))
            seq = entry["first_seq"] - 1
        for line in entry.get("inputs", ()):
            seq += line["kind"] == "order"
            mine = seq if line["kind"] == "order" else 0
            lines.append(Line(shard, mine, line["topic"], line["offset"], line["kind"], line))
            if line["offset"] < positions[line["topic"]]:
                findings.append(Finding("inputs once", lines[-1].source, "taken again"))
            positions[line["topic"]] = line["offset"] + 1
        if entry["next_offsets"] != positions:
            findings.append(Finding("seq", str(record.position), f"next_offsets are not {positions}"))
    return lines


def _replay(books: Books, chain: Iterable[tuple[Record, dict[str, Any]]], shard: int) -> list[Finding]:
    """The one rule that is asked of the exchange's own code: its journal gives its digests and its outputs again."""
    from stocktrade.core.exchange import Exchange
    from stocktrade.shard.journal import body_of, digest_of
    from stocktrade.transport.codec import Dead, decode_input, encode_facts

    exchange = Exchange()
    replayed: dict[str, list[NewRecord]] = defaultdict(list)
    for record, entry in chain:
        outputs: list[NewRecord] = []
        for line in entry.get("inputs", ()):
            if line["kind"] == "order":
                decoded = decode_input(line["topic"], line["text"].encode())
                if isinstance(decoded, Dead):
                    return [Finding("replay", str(record.position), f"no order: {decoded.detail}")]
                source = f"{line['topic']}@{shard}:{line['offset']}"
                outputs += encode_facts(exchange.apply(decoded), shard, source, line["time_ms"])
        if digest_of(entry["prev"], body_of(record.value or b""), outputs) != entry["digest"]:
            return [Finding("replay", str(record.position), "another digest")]
        for output in outputs:
            replayed[output.topic].append(output)
    try:
        exchange.check()
    except AssertionError as error:
        return [Finding("replay", f"{JOURNAL}@{shard}", str(error))]
    findings = []
    for topic in OUTPUTS:
        expected = [(o.key, o.value, o.time_ms) for o in replayed[topic]]
        actual = [(r.key, r.value, r.time_ms) for r in books.records[topic, shard]]
        if expected != actual:
            place = next(
                (i for i, (e, a) in enumerate(zip(expected, actual, strict=False)) if e != a),
                min(len(expected), len(actual)),
            )
            what = f"{len(actual)} records, the replay gives {len(expected)}; first difference at {place}"
            findings.append(Finding("outputs", f"{topic}@{shard}", what))
    return findings


# --- inputs ----------------------------------------------------------------------------------------------------


def _inputs(books: Books, lines: Iterable[Line]) -> list[Finding]:
    """Every input record stands in the journal exactly once, as it is on the topic."""
    findings = []
    counts = Counter((line.topic, line.shard, line.offset) for line in lines)
    records = {(r.topic, r.partition, r.offset): r for r in books.of(*INPUTS)}
    for (topic, shard, offset), record in records.items():
        count = counts[topic, shard, offset]
        if count != 1:
            findings.append(Finding("inputs once", str(record.position), f"{count} times in the journal"))
    for line in lines:
        found = records.get((line.topic, line.shard, line.offset))
        if found is None:
            findings.append(Finding("inputs once", line.source, "in the journal, but not on the topic"))
            continue
        value = found.value or b""
        if line.kind == "order":
            same = line.fields["text"].encode() == value
        else:
            same = line.fields["sha256"] == sha256(value).hexdigest()
        if not same or line.fields["time_ms"] != found.time_ms:
            findings.append(Finding("inputs once", line.source, "the journal has it otherwise"))
    return findings


def _dead_and_forwarded(books: Books, lines: Iterable[Line], doubled: AbstractSet[int]) -> list[Finding]:
    """What is no order went to the dead letters, and what is another shard's went there, once each.

    What a shard in `doubled` forwarded may be there again, as another input with the same content.
    """
    moved: Counter[tuple[str, str]] = Counter()
    for letter in books.of(DEAD_LETTERS):
        moved["dead", _of_input(letter)] += 1
    forwards: dict[str, set[tuple[bytes | None, bytes | None]]] = defaultdict(set)
    for record in books.of(*INPUTS):
        for name, text in record.headers:
            if name == _FORWARDED:
                origin, content = text.decode(), (record.key, record.value)
                shard = int(origin.rpartition(":")[0].rpartition("@")[2])
                moved["forwarded", origin] += not (shard in doubled and content in forwards[origin])
                forwards[origin].add(content)
    due = Counter((line.kind, line.source) for line in lines if line.kind != "order")
    return [
        Finding("dead and forwarded", source, f"{kind}: {moved[kind, source]} times, not {due[kind, source]}")
        for kind, source in moved.keys() | due.keys()
        if moved[kind, source] != due[kind, source]
    ]


# --- answers ---------------------------------------------------------------------------------------------------


def _events(books: Books, lines: Iterable[Line], findings: list[Finding]) -> dict[tuple[int, int], Taken]:
    """Each order has exactly one event, and no id was accepted twice; the accepted orders by (shard, seq)."""
    orders = {(line.shard, line.seq): line for line in lines if line.kind == "order"}
    by_source: Counter[str] = Counter()
    ids: set[tuple[int, str, str]] = set()
    taken: dict[tuple[int, int], Taken] = {}
    for record in books.of("order-events"):
        event, where = _fields(record), str(record.position)
        by_source[event["source"]] += 1
        line = orders.get((record.partition, event["seq"]))
        if line is None or (line.source, line.shard) != (event["source"], event["shard"]):
            findings.append(Finding("one event", where, f"no input {event['source']} at {event['seq']}"))
            continue
        order = json.loads(line.fields["text"], parse_float=Decimal)
        buys = line.topic == "buy-orders"
        said = (order["order_id" if buys else "offer_id"], order["buyer" if buys else "seller"])
        if said != (event["order_id"], event["participant"]) or event["side"] != ("BUY" if buys else "SELL"):
            findings.append(Finding("one event", where, f"not the order of {event['source']}"))
        if event["status"] != "ACCEPTED":
            continue
        key = (record.partition, event["participant"], event["order_id"])
        if key in ids:
            findings.append(Finding("one acceptance", where, f"{key[1:]} was accepted before"))
        ids.add(key)
        price = order.get("price_per_unit")
        taken[record.partition, event["seq"]] = Taken(
            event["seq"],
            event["side"],
            event["order_id"],
            event["participant"],
            _canonical(order["stock_symbol"]),
            order["stock_symbol"],
            order["quantity"],
            None if price is None else Decimal(price),
        )
        if event["filled_quantity"] + event["leaves_quantity"] != order["quantity"]:
            findings.append(Finding("one event", where, "filled and leaves do not make the quantity"))
    findings.extend(
        Finding("one event", line.source, f"{by_source[line.source]} events")
        for line in orders.values()
        if by_source[line.source] != 1
    )
    return taken


def _trades(books: Books, taken: Mapping[tuple[int, int], Taken]) -> list[Finding]:
    """Trades are numbered without gap or repeat, join two accepted orders, and over-fill none."""
    findings = []
    by_id = {(shard, order.participant, order.order_id): order for (shard, _), order in taken.items()}
    numbers: dict[tuple[int, int], list[int]] = defaultdict(list)
    filled: Counter[tuple[int, str, str]] = Counter()
    now: Counter[tuple[int, int]] = Counter()
    for record in books.of("trades"):
        trade, where, shard = _fields(record), str(record.position), record.partition
        quantity, price = trade["quantity"], Decimal(trade["price_per_unit"])
        head, _, number = trade["trade_id"].rpartition("-")
        if head != f"T{shard}-{trade['seq']}" or trade["shard"] != shard:
            findings.append(Finding("trade ids", where, f"{trade['trade_id']} at sequence {trade['seq']}"))
        numbers[shard, trade["seq"]].append(int(number))
        now[shard, trade["seq"]] += quantity
        sides = (
            by_id.get((shard, trade["buyer"], trade["buy_order_id"])),
            by_id.get((shard, trade["seller"], trade["sell_order_id"])),
        )
        buy, sell = sides
        if buy is None or sell is None:
            findings.append(Finding("trades", where, "an order of it was never accepted"))
            continue
        for order in (buy, sell):
            filled[shard, order.participant, order.order_id] += quantity
        maker, taker = sides if trade["maker"] == "BUY" else sides[::-1]
        if maker is None or taker is None or not (maker.seq < taker.seq == trade["seq"]):
            findings.append(Finding("trades", where, "its maker does not come before its taker"))
        if {buy.symbol, sell.symbol} != {trade["stock_symbol"]} or (buy.side, sell.side) != ("BUY", "SELL"):
            findings.append(Finding("trades", where, "its orders are not two sides of its symbol"))
        if quantity < 1 or Decimal(trade["amount"]) != quantity * price:
            findings.append(Finding("trades", where, "amount is not quantity times price"))
        beyond = (buy.price is not None and price > buy.price) or (sell.price is not None and price < sell.price)
        at_makers = maker is None or maker.price is None or price == maker.price
        if price <= 0 or beyond or not at_makers:
            findings.append(Finding("trades", where, f"traded at {price}, which its orders do not allow"))
    findings.extend(
        Finding("trade ids", f"T{shard}-{seq}", f"numbers {found}")
        for (shard, seq), found in numbers.items()
        if found != list(range(1, len(found) + 1))
    )
    findings.extend(
        Finding("fills", f"{key[1]} {key[2]}", f"{count} of {by_id[key].quantity} filled")
        for key, count in filled.items()
        if count > by_id[key].quantity
    )
    for record in books.of("order-events"):
        event = _fields(record)
        at_once = now[record.partition, event["seq"]]
        if event["status"] == "ACCEPTED" and event["filled_quantity"] != at_once:
            findings.append(Finding("fills", str(record.position), f"{at_once} traded at its sequence"))
    return findings + _uncrossed(taken, filled)


def _uncrossed(taken: Mapping[tuple[int, int], Taken], filled: Counter[tuple[int, str, str]]) -> list[Finding]:
    """Nobody is left waiting for what somebody else is offering."""
    bids: dict[tuple[int, str], Decimal] = {}
    asks: dict[tuple[int, str], Decimal] = {}
    for (shard, _), order in taken.items():
        if filled[shard, order.participant, order.order_id] >= order.quantity:
            continue
        at = (shard, order.symbol)
        if order.side == "SELL":
            asks[at] = min(asks.get(at, Decimal("Infinity")), order.price or Decimal(0))
        else:
            assert order.price is not None
            bids[at] = max(bids.get(at, Decimal(0)), order.price)
    return [
        Finding("uncrossed", f"{at[1]} on shard {at[0]}", f"bid {bids[at]}, offer {asks[at]}")
        for at in bids.keys() & asks.keys()
        if bids[at] >= asks[at]
    ]


# --- settlement ------------------------------------------------------------------------------------------------


def _in_text(rupees: Decimal) -> str:
    return f"₹{rupees:.2f}".removesuffix(".00")


def _legs(books: Books, lines: Iterable[Line], taken: Mapping[tuple[int, int], Taken]) -> list[Finding]:
    """Each trade has its four legs, under its sequence, and nothing else was moved."""
    times = {(line.shard, line.seq): line.fields["time_ms"] for line in lines if line.seq}
    sent = {(shard, order.participant, order.order_id): order.sent for (shard, _), order in taken.items()}
    due: dict[tuple[int, str], dict[str, Any]] = {}
    for record in books.of("trades"):
        trade, shard = _fields(record), record.partition
        price = Decimal(trade["price_per_unit"])
        for side, participant, order_id in (
            ("buy", trade["buyer"], trade["buy_order_id"]),
            ("sell", trade["seller"], trade["sell_order_id"]),
        ):
            symbol = sent.get((shard, participant, order_id), "?")
            demat, cash = ("CREDIT", "DEBIT") if side == "buy" else ("DEBIT", "CREDIT")
            what = "Payment for" if side == "buy" else "Proceeds of"
            same = {
                "from_entity": "NSE",
                "to_entity": participant,
                "order_id": order_id,
                "trade_id": trade["trade_id"],
                "seq": trade["seq"],
            }
            shares_id = str(uuid5(_LEGS, f"{trade['trade_id']}:SECURITIES:{demat}"))
            funds_id = str(uuid5(_LEGS, f"{trade['trade_id']}:FUNDS:{cash}"))
            due[shard, shares_id] = {
                **same,
                "transfer_id": shares_id,
                "stock_symbol": symbol,
                "quantity": trade["quantity"],
                "direction": demat,
            }
            due[shard, funds_id] = {
                **same,
                "movement_id": funds_id,
                "amount": trade["quantity"] * price,
                "description": f"{what} {trade['quantity']} {symbol} stocks @ {_in_text(price)}",
                "direction": cash,
            }
    findings = []
    seen: set[tuple[int, str]] = set()
    for record in books.of("demat-transfers", "cash-movements"):
        leg, where = _fields(record), str(record.position)
        leg_id = leg["transfer_id" if record.topic == "demat-transfers" else "movement_id"]
        key = (record.partition, leg_id)
        if key in seen:
            findings.append(Finding("legs", where, f"{leg_id} is there twice"))
        seen.add(key)
        if key not in due:
            findings.append(Finding("legs", where, f"{leg_id} belongs to no trade"))
        elif leg != due[key]:
            findings.append(Finding("legs", where, f"is {leg}, not {due[key]}"))
        if record.key != leg["to_entity"].encode() or record.time_ms != times.get((record.partition, leg["seq"])):
            findings.append(Finding("legs", where, "its key or its time"))
    findings.extend(
        Finding("legs", due[key]["trade_id"], f"has no leg {key[1]} ({due[key]['direction']})")
        for key in due.keys() - seen
    )
    return findings


def _sums(books: Books) -> list[Finding]:
    """Shares of each symbol, and rupees, come from somewhere and go somewhere: all accounts sum to zero."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for record in books.of("demat-transfers", "cash-movements"):
        leg = _fields(record)
        sign = {"CREDIT": 1, "DEBIT": -1}[leg["direction"]]
        if record.topic == "demat-transfers":
            sums[_canonical(leg["stock_symbol"])] += sign * leg["quantity"]
        else:
            sums["rupees"] += sign * Decimal(leg["amount"])
    return [Finding("sums", asset, f"{total} too many") for asset, total in sums.items() if total]


# --- what clients were told ------------------------------------------------------------------------------------


def _told(books: Books, told: list[Told]) -> list[Finding]:
    """What was acknowledged is where the client was told, what failed is nowhere, and nobody else has written.

    That each input is in the journal exactly once, and no id was accepted twice, is asked of every log.
    """
    findings = []
    records = {record.position: record for record in books.of(*INPUTS)}
    sent = Counter((record.topic, record.value or b"") for record in records.values() if not _is_forwarded(record))
    answers = Counter((each.topic, each.value, each.answer) for each in told)
    places = Counter(each.where for each in told if each.where is not None)
    findings += [Finding("told", str(at), "stands for several messages") for at, count in places.items() if count > 1]
    for each in told:
        if each.answer != "acknowledged":
            continue
        found = None if each.where is None else records.get(each.where)
        if found is None or (found.topic, found.value) != (each.topic, each.value):
            findings.append(Finding("told", str(each.where), f"{each.order_id!r} was acknowledged and is not there"))
    messages = {(each.topic, each.value) for each in told}
    for topic, value in messages:
        least = answers[topic, value, "acknowledged"]
        most = least + answers[topic, value, "unknown"]
        count = sent[topic, value]
        if not least <= count <= most:
            findings.append(Finding("told", f"{topic}: {value!r}", f"{count} times, not {least} to {most} times"))
    findings.extend(
        Finding("told", f"{topic}: {value!r}", "nobody sent it")
        for topic, value in sent
        if (topic, value) not in messages
    )
    return findings + _first_answers(books, told)


def _is_forwarded(record: Record) -> bool:
    return any(name == _FORWARDED for name, _ in record.headers)


def _first_answers(books: Books, told: list[Told]) -> list[Finding]:
    """Of every order that was acknowledged one copy had an outcome of its own; any other is its duplicate."""
    outcomes: Counter[tuple[str, str]] = Counter()
    for record in books.of("order-events"):
        event = _fields(record)
        outcomes[event["participant"], event["order_id"]] += event["status"] != "DUPLICATE"
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for each in told:
        if each.order_id:
            answers[each.participant, each.order_id].add(each.answer)
    findings = []
    for order, said in answers.items():
        least = 1 if "acknowledged" in said else 0
        most = 0 if said == {"failed"} else 1
        if not least <= outcomes[order] <= most:
            findings.append(Finding("told", " ".join(order), f"{outcomes[order]} outcomes after {sorted(said)}"))
    return findings
