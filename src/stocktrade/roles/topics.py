"""`topics create`: the exchange's topics, made before anybody needs them, with as many partitions as somebody asks for.

Invariant: a topic that exists is never changed; one that differs from what is asked is refused by the log.
"""

import json
from contextlib import closing
from typing import TextIO

from rich.console import Console
from rich.text import Text

from stocktrade import tables
from stocktrade.errors import ExitCode, UsageError
from stocktrade.transport import topics
from stocktrade.transport.base import Log


def create(log: Log, *, partitions: int | None, as_json: bool, console: Console, out: TextIO) -> ExitCode:
    """Make the topics that are missing, and say which were made and which were there, as they should be.

    Args:
        log: the log, opened for that many partitions.
        partitions: how many partitions each topic shall have; None leaves that to the log.
        as_json: one JSON document instead of lines.
        console: where lines for people go, if it is a terminal.
        out: where anything else goes.

    Raises:
        UsageError: a topic is there with other settings, or the log has another number of partitions.
        Unavailable: the log cannot be reached.
    """
    if partitions is not None and partitions != log.partitions():
        raise UsageError(
            f"{log.url} has {tables.many(log.partitions(), 'partition')}, not {partitions}",
            cause="symbols belong to partitions, so their number stays what it was when the log was made",
            hint="leave --partitions out, or make a new log in another folder",
        )
    there = {spec.name for spec in topics.SPECS if _is_there(log, spec.name)}
    log.ensure_topics(topics.SPECS)
    states = {spec.name: "there" if spec.name in there else "made" for spec in topics.SPECS}
    count = log.partitions()
    if as_json:
        document = {
            "schema": "stocktrade.topics/1",
            "log": log.url,
            "topics": [{"topic": name, "partitions": count, "state": state} for name, state in states.items()],
        }
        out.write(json.dumps(document, ensure_ascii=False) + "\n")
    elif console.is_terminal:
        width = max(map(len, states))
        for name, state in states.items():
            mark = ("✓ made ", tables.GOOD) if state == "made" else ("✓ there", tables.FAINT)
            console.print(Text.assemble(mark, f"  {name:{width}}  {tables.many(count, 'partition')}"))
    else:
        for name, state in states.items():
            out.write(tables.tsv((name, str(count), state)) + "\n")
    return ExitCode.OK


def _is_there(log: Log, topic: str) -> bool:
    try:
        with closing(log.reader({(topic, 0): 0})):
            return True
    except UsageError:
        return False
