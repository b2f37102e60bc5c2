"""The comparison in benchmarks/: its judge finds what is wrong, its page says what was measured, its programs run."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree as ET

import pytest

from side_by_side import page
from side_by_side.judge import Verdict, judge
from side_by_side.programs import PROGRAMS, Program
from side_by_side.runs import Python, killed, once
from side_by_side.work import ENDLESS, Answer, Desk, bytes_of_outputs, fill, open_log, pair
from stocktrade.transport import topics
from stocktrade.transport.base import Log, NewRecord

ROOT: Final = Path(__file__).parent.parent
ORDERS: Final = 40
RESULTS: Final = Path(__file__).parent / "performance.json"


def by_hand(log: Log, orders: int, *, change: Callable[[list[NewRecord]], list[NewRecord]]) -> Verdict:
    """What the judge says of the plain matching's outputs after a change to them."""
    fill(log, orders)
    desk, said = Desk(), []
    for number in range(orders // 2):
        for place, order in enumerate(pair(number)):
            for answer in desk.take(json.loads(order.value or b""), order.topic, 0, number):
                assert place or answer.topic == topics.ORDER_EVENTS
                said.append(written(answer))
    log.append(change(said))
    return judge(log, orders)


def written(answer: Answer) -> NewRecord:
    text = json.dumps(answer.fields, ensure_ascii=False, separators=(",", ":"))
    return NewRecord(answer.topic, answer.key.encode(), text.encode(), 0)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with open_log(f"sqlite:{tmp_path}", "one") as opened:
        yield opened


def test_the_plain_matching_writes_what_the_exchange_writes(log: Log) -> None:
    """As many records, and as many bytes but for running numbers."""
    verdict = by_hand(log, ORDERS, change=lambda said: said)
    assert verdict.exact
    assert str(verdict) == "exact"
    assert (verdict.orders, verdict.records) == (ORDERS, ORDERS // 2 * 7)
    assert verdict.expected_bytes == bytes_of_outputs(ORDERS, 1)
    assert abs(verdict.bytes - verdict.expected_bytes) < verdict.expected_bytes / 200


@pytest.mark.parametrize("topic", topics.OUTPUTS)
def test_the_judge_finds_one_record_that_is_missing(log: Log, topic: str) -> None:
    def drop(said: list[NewRecord]) -> list[NewRecord]:
        said.remove(next(record for record in said if record.topic == topic))
        return said

    verdict = by_hand(log, ORDERS, change=drop)
    # A trade belongs to the orders of both sides.
    assert (verdict.lost, verdict.doubled, verdict.exact) == (2 if topic == topics.TRADES else 1, 0, False)
    assert "lost" in str(verdict)


@pytest.mark.parametrize("topic", topics.OUTPUTS)
def test_the_judge_finds_one_record_that_is_there_twice(log: Log, topic: str) -> None:
    verdict = by_hand(
        log, ORDERS, change=lambda said: [*said, next(record for record in said if record.topic == topic)]
    )
    assert (verdict.lost, verdict.doubled, verdict.exact) == (0, 2 if topic == topics.TRADES else 1, False)
    assert "settled twice" in str(verdict)


def test_the_judge_finds_what_belongs_to_no_order_and_what_is_too_long(log: Log, tmp_path: Path) -> None:
    stranger = written(Answer(topics.ORDER_EVENTS, "X", {"order_id": "b999", "side": "BUY"}))
    verdict = by_hand(log, ORDERS, change=lambda said: [*said, stranger])
    assert (verdict.foreign, str(verdict)) == (1, "1 foreign records")

    def lengthen(said: list[NewRecord]) -> list[NewRecord]:
        return [record._replace(value=(record.value or b"")[:-1] + b',"more":"' + b"x" * 20 + b'"}') for record in said]

    with open_log(f"sqlite:{tmp_path}", "two") as other:
        verdict = by_hand(other, ORDERS, change=lengthen)
    assert (verdict.lost, verdict.doubled, verdict.foreign, verdict.exact) == (0, 0, 0, False)
    assert "bytes where" in str(verdict)


# --- the programs --------------------------------------------------------------------------------------------------


def test_every_program_is_there_and_every_peer_is_named_in_the_group() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    peers = " ".join(groups["peers"])
    for name, program in PROGRAMS.items():
        assert name == program.name
        module, _, function = program.run.partition(":")
        source = (ROOT / "benchmarks" / "side_by_side" / f"{module}.py").read_text()
        assert f"\ndef {function}(" in source, name
        assert program.orders % 2 == 0
        assert not program.peer or any(library in peers for library in program.libraries)
    assert {program.peer for program in PROGRAMS.values()} == {True, False}
    assert all(each in PROGRAMS for pair_ in page._RATIOS for each in pair_)


def test_the_exchange_on_the_embedded_log_is_exact(tmp_path: Path) -> None:
    """A run as the comparison makes it: a process of its own, timed, and its outputs looked at."""
    done = once(PROGRAMS["nse-embedded"], f"sqlite:{tmp_path}", 200, Python())
    assert done["orders_per_s"] > 0
    assert Verdict(**done["verdict"]).exact
    assert done["versions"].keys() == {"stocktrade"}


def test_a_program_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    broken = PROGRAMS["nse-embedded"]._replace(name="nse-missing")
    with pytest.raises(RuntimeError, match=r"(?s)nse-missing ended with 1:.*KeyError"):
        once(broken, f"sqlite:{tmp_path}", 2, Python())


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize("program", [each for each in PROGRAMS.values() if not (each.peer or each.embedded)], ids=str)
def test_a_program_does_the_work_on_kafka(kafka_servers: str, program: Program) -> None:
    """All that need no package of a peer."""
    assert Verdict(**once(program, kafka_servers, 200, Python())["verdict"]).exact


@pytest.mark.kafka
@pytest.mark.slow
def test_an_exchange_that_is_killed_in_the_middle_is_exact(kafka_servers: str) -> None:
    found = killed(PROGRAMS["nse-kafka-python"], kafka_servers, 2_000, Python())
    assert Verdict(**found["verdict"]).exact
    assert found["written_at_kill"] > 0


# --- the page ------------------------------------------------------------------------------------------------------


@pytest.fixture
def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RESULTS.read_text())
    return found


def test_the_section_and_the_picture_are_those_of_the_results(results: dict[str, Any]) -> None:
    """From stored results: nothing is measured."""
    text = f"# Performance\n\nbefore\n\n{page.BEGIN}\nold\n{page.END}\n\nafter\n"
    made = page.written_into(text, results)
    assert made == page.written_into(made, results)
    assert made.startswith("# Performance\n\nbefore\n")
    assert made.endswith("\nafter\n")
    assert "old" not in made
    rows = [line for line in made.splitlines() if line.startswith("|")]
    assert "| stocktrade `nse`, librdkafka | exactly once | 30,000 | 28,000 to 31,000 | 2.00 | exact |" in rows
    assert "| Quix Streams, exactly once | exactly once | 15,000 | 14,000 to 16,000 | 1.00 | exact |" in rows
    assert "| stocktrade `nse`, librdkafka | Quix Streams, exactly once | 2.00 | 1.88 to 2.07 |" in rows
    assert "| FastStream | at least once | 20,000 | 26% | 14,849 | 575 |" in rows
    assert "* the first example's loop, kafka-python did not run: no broker" in made.splitlines()

    drawn = ET.fromstring(page.picture(results))
    words = ["".join(each.itertext()) for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    bars = [word for word in words if word in {program.title.replace("`", "") for program in PROGRAMS.values()}]
    assert bars == ["stocktrade nse, librdkafka", "Quix Streams, exactly once", "stocktrade nse, kafka-python"]
    assert page.picture(results) == page.picture(deepcopy(results))


def test_the_page_is_rewritten_from_a_file_without_measuring(results: dict[str, Any]) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "performance.py"), "--from", str(RESULTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == page.printed(results)
    # One program failed in these results.
    assert (done.returncode, done.stderr.splitlines()) == (1, ["failed: programs seed: no broker"])


def test_a_page_without_its_markers_is_refused(results: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no section between"):
        page.written_into("# Performance\n", results)


def test_the_page_has_its_markers_and_endless_is_more_than_any_run() -> None:
    text = (ROOT / "docs" / "performance.md").read_text()
    assert text.count(page.BEGIN) == text.count(page.END) == 1
    assert max(program.orders for program in PROGRAMS.values()) < ENDLESS
