"""An auditor of a log that shares no arithmetic with the exchange: it believes the bytes on the topics, nothing else.

It parses the JSON itself, adds up in Decimal, makes the ids of legs with `uuid`, and never imports the matching,
the clearing or the ledger, but for one rule: that the journal replays to its digests can only be asked of the
exchange's own code (`_replay`).

Invariant: a finding names the rule that is broken and where; a sound log has none. Journal entries that do not
continue the chain do not count, as for every reader.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from contextlib import closing
from decimal import Decimal
from hashlib import sha256
from typing import Any, Final, NamedTuple
from uuid import UUID, uuid5

from stocktrade.transport.base import Log, NewRecord, Record

INPUTS: Final = ("buy-orders", "sell-offers")
OUTPUTS: Final = ("order-events", "trades", "demat-transfers", "cash-movements")
DEAD_LETTERS: Final = "dead-letters"
JOURNAL: Final = "exchange-journal"

_GENESIS: Final = "0" * 64
_LEGS: Final = UUID("6f0c1e5a-3b0d-5d52-9c56-5d1d2a6a8850")
_ALIASES: Final = {"SBI": "SBIN"}

Place = tuple[str, int, int]
"""Topic, partition, offset."""


class Finding(NamedTuple):
    """One broken rule, where it is broken, and how."""

    rule: str
    where: str
    what: str


class Books(NamedTuple):
    """A log's records by topic and shard, in the order of their offsets."""

    shards: int
    records: Mapping[tuple[str, int], list[Record]]

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
    findings: list[Finding] = []
    books = read(log, findings)
    lines: list[Line] = []
    for shard in range(books.shards):
        chain = _chain(books.records[JOURNAL, shard], shard, findings)
        lines += _lines(chain, shard, findings)
        findings += _replay(books, chain, shard)
    findings += _inputs(books, lines)
    findings += _dead_and_forwarded(books, lines)
    taken = _events(books, lines, findings)
    findings += _trades(books, taken)
    findings += _legs(books, lines, taken)
    findings += _sums(books)
    return findings


def read(log: Log, findings: list[Finding]) -> Books:
    """All that is on the log now."""
    shards = log.partitions()
    records: dict[tuple[str, int], list[Record]] = {}
    for topic in (*INPUTS, *OUTPUTS, DEAD_LETTERS, JOURNAL):
        for shard in range(shards):
            found = records[topic, shard] = []
            with closing(log.reader({(topic, shard): 0})) as reader:
                ends = reader.ends()
                while not reader.caught_up(ends):
                    some = reader.poll(1.0)
                    if not some:
                        findings.append(Finding("whole", f"{topic}@{shard}", f"ends before {ends[topic, shard]}"))
                        break
                    found.extend(some)
    return Books(shards, records)


def _fields(record: Record) -> dict[str, Any]:
    fields = json.loads(record.value or b"null", parse_float=Decimal)
    assert isinstance(fields, dict), record.position
    return fields


def _canonical(symbol: str) -> str:
    name = symbol.upper().removeprefix("NSE:")
    return _ALIASES.get(name, name)


# --- the journal -----------------------------------------------------------------------------------------------


def _chain(journal: Iterable[Record], shard: int, findings: list[Finding]) -> list[tuple[Record, dict[str, Any]]]:
    """The entries that count: each has the next number and its predecessor's digest."""
    chain: list[tuple[Record, dict[str, Any]]] = []
    digest, owners = _GENESIS, 0
    for record in journal:
        entry = _fields(record)
        where = str(record.position)
        if entry["entry"] > len(chain):
            findings.append(Finding("chain", where, f"entry {entry['entry']} after {len(chain) - 1}"))
        if (entry["entry"], entry["prev"]) != (len(chain), digest):
            continue
        owners += entry["kind"] == "owner"
        if (entry["v"], entry["shard"], entry["epoch"]) != (1, shard, owners):
            findings.append(Finding("chain", where, "version, shard or epoch"))
        chain.append((record, entry))
        digest = entry["digest"]
    counted = {record.offset for record, _ in chain}
    # The embedded log lets no second owner write, so a record that does not count is a finding there.
    findings.extend(
        Finding("chain", str(record.position), "does not continue the chain")
        for record in journal
        if record.offset not in counted
    )
    return chain


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


def _dead_and_forwarded(books: Books, lines: Iterable[Line]) -> list[Finding]:
    """What is no order went to the dead letters, and what is another shard's went there, once each."""
    moved: Counter[tuple[str, str]] = Counter()
    for letter in books.of(DEAD_LETTERS):
        headers = {name: text.decode() for name, text in letter.headers}
        topic, partition, offset = (headers[f"__dlq.errors.{part}"] for part in ("topic", "partition", "offset"))
        moved["dead", f"{topic}@{partition}:{offset}"] += 1
    for record in books.of(*INPUTS):
        for name, text in record.headers:
            if name == "stocktrade.forwarded-from":
                moved["forwarded", text.decode()] += 1
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
