"""The judge of the tests: the exchange's own `audit`, and what clients were told compared with the log.

Invariant: a finding names the rule that is broken and where; a sound log, all of whose inputs were taken, has none.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from typing import Final, Literal, NamedTuple

from stocktrade.audit import auditor, findings
from stocktrade.audit.streams import fields_of
from stocktrade.shard.history import to_the_end
from stocktrade.transport.base import Log, Position, Record

INPUTS: Final = ("buy-orders", "sell-offers")


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


def audit(log: Log) -> list[Finding]:
    """Every broken rule of the log."""
    return examine(log).findings


def examine(log: Log, told: Iterable[Told] | None = None, *, chain_decides: bool | None = None) -> Report:
    """Look at all that is on the log.

    Args:
        log: the log; nobody writes to it meanwhile.
        told: what every client that wrote to the inputs was told about everything that it sent.
        chain_decides: as `stocktrade.audit.auditor.audit` has it.
    """
    report = auditor.audit(log, chain_decides=chain_decides)
    found = [Finding(str(rule), where, what) for rule, where, what in report.findings]
    if report.waiting:
        found.append(Finding("taken", log.url, f"{report.waiting} inputs were not taken"))
    found += [
        Finding("checked", rule, tally.why_unchecked)
        for rule, tally in report.tallies.items()
        if tally.unchecked and rule is not findings.Rule.SNAPSHOTS
    ]
    if told is not None:
        found += _told(records_of(log, *INPUTS), records_of(log, "order-events"), list(told))
    return Report(found, report.inputs, report.trades, report.ignored, report.redelivered)


def records_of(log: Log, *topics: str) -> list[Record]:
    """Every record of the topics, all shards, partition by partition."""
    records: list[Record] = []
    for topic in topics:
        for shard in range(log.partitions()):
            with closing(log.reader({(topic, shard): 0})) as reader:
                records += to_the_end(reader)
    return records


# --- what clients were told ------------------------------------------------------------------------------------


def _told(inputs: list[Record], events: list[Record], told: list[Told]) -> list[Finding]:
    """What was acknowledged is where the client was told, what failed is nowhere, and nobody else has written.

    That each input is in the journal exactly once, and no id was accepted twice, is asked of every log.
    """
    wrong: list[Finding] = []
    records = {record.position: record for record in inputs}
    sent = Counter((record.topic, record.value or b"") for record in records.values() if not _is_forwarded(record))
    answers = Counter((each.topic, each.value, each.answer) for each in told)
    places = Counter(each.where for each in told if each.where is not None)
    wrong += [Finding("told", str(at), "stands for several messages") for at, count in places.items() if count > 1]
    for each in told:
        if each.answer != "acknowledged":
            continue
        found = None if each.where is None else records.get(each.where)
        if found is None or (found.topic, found.value) != (each.topic, each.value):
            wrong.append(Finding("told", str(each.where), f"{each.order_id!r} was acknowledged and is not there"))
    messages = {(each.topic, each.value) for each in told}
    for topic, value in messages:
        least = answers[topic, value, "acknowledged"]
        most = least + answers[topic, value, "unknown"]
        count = sent[topic, value]
        if not least <= count <= most:
            wrong.append(Finding("told", f"{topic}: {value!r}", f"{count} times, not {least} to {most} times"))
    wrong.extend(
        Finding("told", f"{topic}: {value!r}", "nobody sent it")
        for topic, value in sent
        if (topic, value) not in messages
    )
    return wrong + _first_answers(events, told)


def _is_forwarded(record: Record) -> bool:
    return any(name == auditor.FORWARDED for name, _ in record.headers)


def _first_answers(events: list[Record], told: list[Told]) -> list[Finding]:
    """Of every order that was acknowledged one copy had an outcome of its own; any other is its duplicate."""
    outcomes: Counter[tuple[str, str]] = Counter()
    for record in events:
        event = fields_of(record) or {}
        if event["status"] != "CANCELLED":
            outcomes[event["participant"], event["order_id"]] += event["status"] != "DUPLICATE"
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for each in told:
        if each.order_id:
            answers[each.participant, each.order_id].add(each.answer)
    wrong: list[Finding] = []
    for order, said in answers.items():
        least = 1 if "acknowledged" in said else 0
        most = 0 if said == {"failed"} else 1
        if not least <= outcomes[order] <= most:
            wrong.append(Finding("told", " ".join(order), f"{outcomes[order]} outcomes after {sorted(said)}"))
    return wrong
