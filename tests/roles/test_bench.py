"""`bench`: its figures by naive oracles, what it compares and refuses, and that it leaves nothing behind."""

import io
import json
import os
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from stocktrade import cli
from stocktrade.bench import measure
from stocktrade.bench import scratch as places
from stocktrade.bench.load import PATTERN, RESTING, Load, trading_at_once
from stocktrade.bench.measure import Settings, _Watch, rss_bytes
from stocktrade.bench.percentiles import percentiles
from stocktrade.core.exchange import Exchange
from stocktrade.documents import BenchDocument
from stocktrade.domain.facts import Match, Outcome, Reason, Status
from stocktrade.errors import UsageError
from stocktrade.roles import bench_report
from stocktrade.roles.bench import settings_from
from stocktrade.roles.bench_baseline import FIGURES, tolerance_from
from stocktrade.shard.node import DEFAULT_GROUP, Node
from stocktrade.transport import CLIENTS, KAFKA_PYTHON, LIBRDKAFKA, connect, topics
from stocktrade.transport.base import NewRecord
from stocktrade.transport.codec import Dead, decode_input
from stocktrade.transport.gate import FileLock
from stocktrade.transport.premises import look_at
from test_cli_errors import check_lines

Run = Callable[..., str]

SMALL: Final = ("--orders", "200", "--symbols", "5")
ALL: Final = (*SMALL, "--rate", "100", "--seconds", "1", "--audit")


@pytest.fixture(autouse=True)
def one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the core: each collects all garbage of this process, which has the tests' too."""
    monkeypatch.setattr(measure, "CORE_ROUNDS", 1)


# --- percentiles -----------------------------------------------------------------------------------------------


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=400))
def test_percentiles_are_those_of_a_naive_count(samples: list[float]) -> None:
    """The smallest sample that the share of all samples does not exceed, counted one by one."""

    def naive(share: Fraction) -> float:
        return min(each for each in samples if Fraction(sum(s <= each for s in samples), len(samples)) >= share)

    found = percentiles(samples)
    shares = [Fraction(share) for share in ("0.5", "0.9", "0.99", "0.999")]
    assert found == (len(samples), *map(naive, shares), max(samples))


def test_percentiles_of_round_numbers_and_of_nothing() -> None:
    assert percentiles(range(1000, 0, -1)) == (1000, 500, 900, 990, 999, 1000)
    assert percentiles([]) == (0, None, None, None, None, None)


# --- the load --------------------------------------------------------------------------------------------------


def answers(records: list[NewRecord]) -> dict[str, list[Any]]:
    """What the exchange says to the orders, by their ids; the matches under the id of the order that came."""
    exchange, said = Exchange(), {}
    for record in records:
        decoded = decode_input(record.topic, record.value)
        assert not isinstance(decoded, Dead)
        said[decoded.order_id] = exchange.apply(decoded)
    exchange.check()
    return said


@pytest.mark.parametrize("at_once", [1, 2, 7, 100], ids=lambda n: f"{n}-at-once")
def test_the_orders_of_a_mixed_load_meet_their_own_counterpart(at_once: int) -> None:
    """Also when those that are sent together are taken topic by topic, as happens within a millisecond."""
    records = list(islice(Load(885, 12).mixed(), 4_000))
    order: list[NewRecord] = []
    for first in range(0, len(records), at_once):
        order += sorted(records[first : first + at_once], key=lambda record: record.topic)
    said = answers(order)
    matches = {
        tuple(sorted((fact.buy_order_id, fact.sell_order_id), key=lambda name: int(name[1:])))
        for facts in said.values()
        for fact in facts
        if isinstance(fact, Match)
    }
    pairs = {(f"m{n - 1}", f"t{n}") for n in range(len(records)) if PATTERN[n % len(PATTERN)] == "t"}
    assert matches == pairs
    assert len(pairs) == trading_at_once(len(records))


def test_the_mixed_load_is_what_it_says_and_does_not_grow() -> None:
    """Six pairs of twenty, three that rest, three that cancel, two that are refused; no more rest than is said."""
    count = 4_000
    said = answers(list(islice(Load(1, 40).mixed(), count)))
    outcomes = {name: next(fact for fact in facts if isinstance(fact, Outcome)) for name, facts in said.items()}
    kinds = Counter(name[0] for name in said)
    assert (kinds["m"], kinds["t"], kinds["x"]) == (6 * count // 20, 6 * count // 20, 2 * count // 20)
    assert kinds["r"] - kinds["c"] == RESTING
    assert {fact.reason for name, fact in outcomes.items() if fact.status is Status.REJECTED} == {Reason.PRICE_OFF_TICK}
    assert {name[0] for name, fact in outcomes.items() if fact.status is Status.REJECTED} == {"x"}
    assert all(fact.cancelled for name, fact in outcomes.items() if name[0] == "c")


def test_a_burst_is_pairs_half_of_them_buys() -> None:
    records = list(Load(3, 10).burst(1_000))
    assert Counter(record.topic for record in records) == {topics.BUY_ORDERS: 500, topics.SELL_OFFERS: 500}
    matches = [fact for facts in answers(records).values() for fact in facts if isinstance(fact, Match)]
    assert len(matches) == 500


def test_the_same_seed_gives_the_same_orders() -> None:
    assert list(islice(Load(7, 9).mixed(), 100)) == list(islice(Load(7, 9).mixed(), 100))
    assert list(islice(Load(7, 9).mixed(), 100)) != list(islice(Load(8, 9).mixed(), 100))


def test_an_odd_number_of_orders_gets_one_more() -> None:
    """They are pairs; one that is left over would meet the wrong one later."""
    settings = settings_from(rate=None, seconds=None, orders=7, symbols=1, seed=1, core=False)
    assert settings.orders == 8


# --- a run -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_tells_everything_and_leaves_nothing(home: Path, run: Run) -> None:
    """Burst, recovery, latency, audit: a document of its schema, figures that fit together, no folder at the end."""
    document = json.loads(run("bench", "--json", *ALL))
    assert document.pop("schema") == "stocktrade.bench/1"
    BenchDocument.model_validate(document)
    assert not home.exists()
    assert (document["kind"], document["shards"], document["client"]) == ("embedded", 1, None)
    burst, recovery, latency = document["burst"], document["recovery"], document["latency"]
    assert burst["orders_per_s"] == pytest.approx(200 / burst["seconds"], rel=0.01)
    assert (recovery["inputs"], recovery["inputs_replayed"], recovery["from_snapshot"]) == (200, 200, False)
    assert 0 < recovery["owns_s"] <= recovery["first_commit_s"]
    assert latency["samples"] + latency["warm_up"]["samples"] == trading_at_once(300)
    assert (latency["unsettled"], latency["sender"]["orders"]) == (0, 300)
    assert 0 < latency["p50_ms"] <= latency["p90_ms"] <= latency["p99_ms"] <= latency["p99_9_ms"] <= latency["max_ms"]
    assert sum(each["samples"] for each in latency["slices"]) == latency["samples"]
    assert all((each["exchange_rss_mib"] or 99) > 10 for each in latency["slices"])
    # The burst, the pair after the kill, the load.
    assert (document["audit"]["clean"], document["audit"]["inputs"]) == (True, 200 + 2 + 300)


def test_parts_can_be_left_out_and_rows_go_into_a_pipe(home: Path, run: Run) -> None:
    rows = [line.split("\t") for line in run("bench", *SMALL, "--seconds", "0").splitlines()]
    assert [row[0] for row in rows] == [
        *("machine", "system", "stocktrade", "log", "load"),
        *("burst.orders_per_s", "recovery.owns_s", "recovery.first_commit_s"),
    ]
    assert all(len(row) == 3 for row in rows)
    assert not home.exists()


def test_the_core_needs_no_log(home: Path, run: Run) -> None:
    document = json.loads(run("bench", "--core", "--orders", "500", "--json"))
    assert (document["kind"], document["log"], document["latency"]) == ("core", None, None)
    assert min(document["core"]["inputs_per_s"], document["core"]["with_json_inputs_per_s"]) > 0
    assert not home.exists()


def test_the_memory_of_a_process_is_what_the_system_says() -> None:
    mine = rss_bytes(os.getpid())
    assert mine is None or mine > 2**20
    assert rss_bytes(2**22 + 1) is None


def leg(topic: str, order_id: str) -> NewRecord:
    return NewRecord(topic, b"HDFC", f'{{"from_entity":"NSE","to_entity":"HDFC","order_id":"{order_id}"}}'.encode(), 0)


def test_orders_that_are_never_settled_count_with_what_they_waited(home: Path) -> None:
    """An overloaded exchange looks no better for it. One leg is not enough, nor is one leg twice."""
    settings = Settings(rate=10.0, seconds=130.0, orders=0, symbols=1, seed=1)
    assert (settings.total, settings.warm_up) == (1_320, 20)
    both = (topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS)
    begin = time.monotonic() - 200  # the last order was due 68 s ago
    measured = [number for number in range(settings.total) if PATTERN[number % len(PATTERN)] == "t"]
    never, one_leg, twice_the_same = measured[-3:]
    with connect(f"sqlite:{home}") as log:
        log.ensure_topics(topics.SPECS)
        log.append([leg(topic, f"t{number}") for number in measured[:-3] for topic in both])
        log.append([leg(topic, "m0") for topic in both])
        log.append([leg(both[0], f"t{one_leg}"), *[leg(both[1], f"t{twice_the_same}")] * 2])
        with closing(log.reader({(topic, 0): 0 for topic in both})) as reader:
            watch = _Watch(settings, begin)
            watch.read(reader)
            watch.look_at(os.getpid())
    assert watch.settled == len(measured) - 3
    found = watch.latency({"sent": settings.total})
    assert (found.unsettled, found.warm_up.samples, found.all.samples) == (3, 6, len(measured) - 6)
    assert found.slice_s == 3.0
    assert [each.from_s for each in found.slices] == [3.0 * n for n in range(44)]
    assert sum(each.latency.samples for each in found.slices) == found.all.samples
    assert {each.exchange_rss_bytes is None for each in found.slices} == {rss_bytes(os.getpid()) is None}
    last_ms = (200 - never / 10) * 1000
    assert min(each.latency.max or 0 for each in found.slices) >= last_ms - 1_000
    assert found.all.max == pytest.approx((200 - measured[6] / 10) * 1000, abs=5_000)


# --- whose log it is -------------------------------------------------------------------------------------------


def log_of(home: Path, *, orders: bool) -> None:
    with connect(f"sqlite:{home}") as log:
        log.ensure_topics(topics.SPECS)
        if orders:
            log.append(list(Load(1, 1).burst(2)))


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_a_log_that_holds_orders_is_refused(home: Path, run: Run) -> None:
    """Whoever trades there would be disturbed. With a folder of its own it goes, and touches nothing."""
    log_of(home, orders=True)
    before = everything_in(home)
    said = run("bench", *SMALL, code=2, err=True)
    check_lines(said, about="is in use")
    assert "it holds orders" in said
    assert "--folder DIR" in said
    assert everything_in(home) == before
    own = home.parent / "own" / "deep"
    run("bench", *SMALL, "--seconds", "0", "--folder", str(own))
    assert not own.parent.exists()
    assert everything_in(home) == before


def test_a_log_with_an_exchange_and_no_orders_is_refused(home: Path, run: Run) -> None:
    """Its exchange would share the machine with the load."""
    log_of(home, orders=False)
    with connect(f"sqlite:{home}") as log:
        node = Node(log, name="test", now_ms=lambda: 0)
        node.step(0.0)
        assert f"pid {os.getpid()} is its exchange" in run("bench", *SMALL, code=2, err=True)
        node.close()


@pytest.mark.slow
def test_a_log_without_orders_is_left_as_it_was(home: Path, run: Run) -> None:
    log_of(home, orders=False)
    run("bench", *SMALL, "--seconds", "0")
    assert not (home / places.FOLDER).exists()
    with connect(f"sqlite:{home}") as log, closing(log.reader({(topics.JOURNAL, 0): 0})) as reader:
        assert reader.ends() == {(topics.JOURNAL, 0): 0}


@pytest.mark.slow
def test_an_empty_folder_stays_and_a_full_one_is_refused(home: Path, run: Run, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    run("bench", *SMALL, "--seconds", "0", "--folder", str(own))
    assert everything_in(own) == set()
    (own / "mine").touch()
    check_lines(run("bench", *SMALL, "--folder", str(own), code=2, err=True), about="is not empty")
    assert everything_in(own) == {"mine"}


def test_more_orders_than_the_disk_holds_are_refused(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "BYTES_PER_ORDER", 2**60)
    check_lines(run("bench", *SMALL, code=2, err=True), about="not enough space")
    assert not home.exists()


@pytest.mark.slow
def test_what_a_killed_bench_left_is_removed_by_the_next(home: Path, run: Run) -> None:
    """But not what another one is using, or has only just begun, or what is something else."""
    left, used, young, other = (home / places.FOLDER / name for name in ("0a1b2c3d", "1a1b2c3d", "2a1b2c3d", "other"))
    for folder in (left, used, young, other):
        folder.mkdir(parents=True)
        (folder / "log.db").touch()
    with closing(FileLock(used / "bench.lock")) as lock:
        assert lock.acquire()
        (left / "bench.lock").touch()
        for folder in (left, used, other):
            os.utime(folder, (0, 0))
        run("bench", *SMALL, "--seconds", "0")
    assert {path.name for path in (home / places.FOLDER).iterdir()} == {used.name, young.name, other.name}


def test_what_was_measured_is_told_even_if_something_cannot_be_removed(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And then what is left, with exit 3."""

    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(places, "_empty", refuse)
    assert cli.run(["bench", *SMALL, "--seconds", "0"]) == 3
    said = capsys.readouterr()
    assert "burst.orders_per_s\t" in said.out
    check_lines(said.err.partition("\n")[2], about="could not be removed")


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_home_that_can_be_none_is_told(
    home: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("STOCKTRADE_HOME", str(tmp_path / place))
    check_lines(run("bench", *SMALL, code=3, err=True), about=str(tmp_path / "file"))


def test_a_folder_without_rights_is_told(home: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    found = look_at(home)
    monkeypatch.setattr(places, "look_at", lambda _: found._replace(writable=False))
    check_lines(run("bench", *SMALL, code=3, err=True), about="cannot be written to")


# --- the baseline ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A result of the core, which takes no time."""
    with pytest.MonkeyPatch.context() as patch:
        out = io.StringIO()
        patch.setattr(sys, "stdout", out)
        assert cli.run(["bench", "--core", "--orders", "100", "--json"]) == 0
        yield json.loads(out.getvalue())


CORE: Final = ("bench", "--core", "--orders", "100")


def with_figures(result: dict[str, Any], factor: float | None) -> dict[str, Any]:
    """The result as if it had been measured so many times faster; None: without the figures."""
    core = {
        name: (None if factor is None else value * factor) if name.endswith("_per_s") else value
        for name, value in result["core"].items()
    }
    return {**result, "core": core}


@pytest.mark.parametrize(
    ("factor", "code", "said"),
    [(0.001, 0, ""), (1000.0, 1, r"✗ core\.inputs_per_s is worse: -(99\.\d|100\.0) %"), (None, 0, "")],
    ids=["better", "worse", "missing"],
)
def test_a_result_is_compared_with_a_former_one(
    home: Path, run: Run, tmp_path: Path, result: dict[str, Any], factor: float | None, code: int, said: str
) -> None:
    """The exit code, the line on stderr, the rows and the document say the same."""
    former = tmp_path / "former.json"
    former.write_text(json.dumps(with_figures(result, factor)))
    assert re.search(said, run(*CORE, "--baseline", str(former), code=code, err=True))
    document = json.loads(run(*CORE, "--baseline", str(former), "--json", code=code))
    BenchDocument.model_validate({name: value for name, value in document.items() if name != "schema"})
    assert document["comparison"]["worse"] == bool(code)
    assert [each["worse"] for each in document["comparison"]["figures"]] == [bool(code)] * 2
    assert [each["judged"] for each in document["comparison"]["figures"]] == [factor is not None] * 2
    rows = [line.split("\t") for line in run(*CORE, "--baseline", str(former), code=code).splitlines()]
    assert [row[5] for row in rows if row[0].startswith("core.")] == [
        "not judged" if factor is None else "worse" * code
    ] * 2


def compared(figure: str, before: float, now: float, *, tolerance: float = 20, samples: int = 10_000) -> dict[str, Any]:
    """One figure of a baseline and of a result."""
    from stocktrade.roles.bench_baseline import Baseline

    def document(value: float) -> dict[str, Any]:
        part, _, name = figure.partition(".")
        return {part: {"samples": samples, name: value}}

    baseline = Baseline.__new__(Baseline)
    baseline._document = document(before)
    (change,) = baseline.comparison(document(now), tolerance)["figures"]
    return dict(change)


@pytest.mark.parametrize(
    ("figure", "before", "now", "worse"),
    [
        ("burst.orders_per_s", 100, 100, False),
        ("burst.orders_per_s", 100, 80, False),
        ("burst.orders_per_s", 100, 79, True),
        ("burst.orders_per_s", 100, 500, False),
        ("recovery.owns_s", 1.0, 1.2, False),
        ("recovery.owns_s", 1.0, 1.21, True),
        ("recovery.owns_s", 1.0, 0.1, False),
        ("latency.p50_ms", 5.0, 6.1, True),
        ("latency.p99_ms", 5.0, 5.9, False),
        ("latency.p99_9_ms", 5.0, 6.1, True),
        ("latency.max_ms", 5.0, 500.0, False),
        ("latency.p50_ms", 0.0, 6.1, False),
    ],
)
def test_worse_is_what_is_worse_by_more_than_the_tolerance(figure: str, before: float, now: float, worse: bool) -> None:
    """Of what is better when higher, and of what is better when lower; a maximum is shown and not judged."""
    assert compared(figure, before, now)["worse"] == worse


@pytest.mark.parametrize(
    ("figure", "enough"), [("latency.p50_ms", 10), ("latency.p90_ms", 50), ("latency.p99_ms", 500)]
)
def test_a_percentile_of_few_orders_is_not_judged(figure: str, enough: int) -> None:
    assert [compared(figure, 1.0, 9.0, samples=samples)["judged"] for samples in (enough - 1, enough)] == [False, True]


def test_every_figure_of_the_documents_is_compared() -> None:
    """Every rate, time and percentile of burst, recovery, latency and core, and nothing that is not there."""
    there = set()
    for part in ("burst", "recovery", "latency", "core"):
        annotation: Any = BenchDocument.model_fields[part].annotation
        model = next(each for each in annotation.__args__ if each is not type(None))
        names = {name for name in model.model_fields if name.endswith(("_per_s", "_s", "_ms"))}
        there |= {f"{part}.{name}" for name in names - {"slice_s"}}
    assert {figure.path for figure in FIGURES} == there


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"schema": "stocktrade.order/1"}, "its schema is stocktrade.order/1, not stocktrade.bench/1"),
        ({"schema": "stocktrade.bench/2"}, "its schema is stocktrade.bench/2, not stocktrade.bench/1"),
        ({"schema": 5}, "it has no schema"),
        ({"schema": "\x1b[2J"}, "its schema is \\x1b[2J, not stocktrade.bench/1"),
        ({"settings": 5}, "kind or settings are missing"),
        ({"kind": None}, "kind or settings are missing"),
        ({"core": {"inputs_per_s": "fast"}}, "core.inputs_per_s is no number"),
        ({"core": {"inputs_per_s": float("nan")}}, "core.inputs_per_s is no number"),
        ({"core": {"inputs_per_s": -1}}, "core.inputs_per_s is no number"),
        ({"core": {"inputs_per_s": True}}, "core.inputs_per_s is no number"),
        ({"core": {"inputs_per_s": 10**400}}, "core.inputs_per_s is no number"),
        (None, "it is no JSON object"),
        ("[" * 100_000, "it is not JSON"),
        ("", "it is not JSON"),
        ("\xff", "it is not JSON"),
    ],
)
def test_a_file_that_is_no_result_is_refused(
    home: Path, run: Run, tmp_path: Path, result: dict[str, Any], change: Any, cause: str
) -> None:
    former = tmp_path / "former.json"
    if isinstance(change, str):
        former.write_bytes(change.encode("latin-1"))
    else:
        former.write_text(json.dumps([] if change is None else result | change))
    said = run(*CORE, "--baseline", str(former), code=2, err=True)
    check_lines(said, about="is no result of bench")
    assert f"cause: {cause}\n" in said


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (("bench", "--orders", "100"), "log core there, embedded here; rate 0 there, 200 here; "),
        (("bench", "-b", "127.0.0.1:1"), "log core there, kafka here"),
        (("bench", "--core", "--orders", "200"), "orders 100 there, 200 here"),
        (("bench", "--core", "--orders", "100", "--symbols", "9"), "symbols 40 there, 9 here"),
        (("bench", "--core", "--orders", "100", "--seed", "9"), "seed 885 there, 9 here"),
    ],
)
def test_what_was_measured_otherwise_is_not_compared(
    home: Path, run: Run, tmp_path: Path, result: dict[str, Any], arguments: tuple[str, ...], cause: str
) -> None:
    """Neither another log nor another load; the difference is named, and nothing is measured."""
    former = tmp_path / "former.json"
    former.write_text(json.dumps(result))
    said = run(*arguments, "--baseline", str(former), code=2, err=True)
    check_lines(said, about="measured something else")
    assert cause in said
    assert not home.exists()


@pytest.mark.parametrize("text", ["", "x", "-1%", "20%%", "nan", "inf", "1e9", "20 percent", "99999%", "\x1b[2J"])
def test_a_tolerance_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--tolerance"):
        tolerance_from(text)


def test_a_tolerance_is_a_share_in_percent() -> None:
    assert [tolerance_from(text) for text in ("20%", "20", "7.5%", "0%", "20 %")] == [20.0, 20.0, 7.5, 0.0, 20.0]


# --- for people ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [80, 120])
def test_a_person_sees_the_figures_whole(result: dict[str, Any], width: int) -> None:
    """No line is cut or too wide; every figure is there, a long run slice by slice, and what is worse."""
    chance = random.Random(1)
    latency = {name: chance.uniform(1, 2_000) for name in ("p50_ms", "p90_ms", "p99_ms", "p99_9_ms", "max_ms")}
    part = {"samples": 1_080_000, **latency}
    document = {
        **result,
        "log": "kafka:127.0.0.1:9092",
        "shards": 4,
        "settings": {**result["settings"], "rate": 1_000.0, "seconds": 3_600.0, "warm_up_s": 2.0},
        "burst": {"orders": 1_000_000, "seconds": 20.0, "orders_per_s": 51_234.5},
        "recovery": {
            "inputs": 1_000_000,
            "inputs_replayed": 50_000,
            "from_snapshot": True,
            "owns_s": 12.5,
            "first_commit_s": 12.75,
        },
        "latency": {
            **part,
            "unsettled": 3,
            "warm_up": part,
            "sender": {"rate_reached": 999.9, "behind_p99_ms": 12.0, "behind_max_ms": 1_234.0},
            "slice_s": 60.0,
            "slices": [{"from_s": 60.0 * n, **part, "exchange_rss_mib": 123.4} for n in range(60)],
        },
        "audit": {"clean": True, "inputs": 12, "trades": 5, "broken": []},
    }
    changes = [
        {"figure": f.path, "before": 1.0, "now": 2.0, "change_percent": 100.0, "judged": True, "worse": True}
        for f in FIGURES
    ]
    document["comparison"] = {
        "tolerance_percent": 20.0,
        "worse": True,
        "differs": ["client: kafka-python 3.0.12, now librdkafka 2.16.0 (confluent-kafka 2.16.1)"],
        "figures": changes,
    }
    out = io.StringIO()
    bench_report.draw(document, Console(file=out, width=width, color_system=None, highlight=False))
    lines = out.getvalue().splitlines()
    assert [line for line in lines if len(line) > width and not line.startswith(("system", "load"))] == []
    assert all(any(line.startswith(figure.label) for line in lines) for figure in FIGURES)
    assert "51,234" in out.getvalue()
    assert sum(line.split()[:1] == [f"{60 * n}"] for line in lines for n in range(60)) == 60
    assert "✓ the audit of 12 inputs, 5 trades is clean" in lines


# --- Kafka -----------------------------------------------------------------------------------------------------


def ours_on(servers: str, beginning: str) -> set[str]:
    """The topics and groups on a broker that begin like this."""
    import kafka

    client = kafka.KafkaAdminClient(bootstrap_servers=servers)
    try:
        groups = {group["group_id"] for group in client.list_groups()}
        return {name for name in {*client.list_topics()} | groups if name.startswith(beginning)}
    finally:
        client.close()


@pytest.mark.kafka
@pytest.mark.parametrize("client", CLIENTS)
def test_on_kafka_it_measures_with_either_client_and_deletes_what_it_made(
    home: Path, run: Run, kafka_servers: str, client: str
) -> None:
    """Nine topics and a group, and afterwards none of them; the client stands in the document."""
    prefix = f"bench-{client}-{os.getpid()}-"
    document = json.loads(
        run("bench", "-b", kafka_servers, "--client", client, "--topic-prefix", prefix, "--json", *ALL)
    )
    assert document.pop("schema") == "stocktrade.bench/1"
    BenchDocument.model_validate(document)
    assert document["client"].startswith(client)
    assert (document["kind"], document["shards"], document["audit"]["clean"]) == ("kafka", 4, True)
    assert document["audit"]["inputs"] == 200 + 2 + 300
    assert document["recovery"]["inputs_replayed"] == 200
    assert document["latency"]["unsettled"] == 0
    assert ours_on(kafka_servers, prefix) == set()
    assert not home.exists()


@pytest.mark.kafka
def test_topics_that_are_there_are_refused_and_stay(home: Path, run: Run, kafka_servers: str) -> None:
    """Those of somebody with the same prefix: they would be deleted at the end."""
    prefix = f"mine-{os.getpid()}-"
    with connect(f"kafka:{kafka_servers}", partitions=1, prefix=prefix) as log:
        log.ensure_topics(topics.SPECS)
    there = ours_on(kafka_servers, prefix)
    assert len(there) == 9
    said = run("bench", "-b", kafka_servers, "--topic-prefix", prefix, *SMALL, code=2, err=True)
    check_lines(said, about=f"there are topics already that begin with {prefix}")
    assert ours_on(kafka_servers, prefix) == there
    from stocktrade.transport import remove

    remove(f"kafka:{kafka_servers}", prefix=prefix, groups=[DEFAULT_GROUP])
    assert ours_on(kafka_servers, prefix) == set()


@pytest.mark.kafka
def test_a_cluster_with_orders_is_refused(home: Path, run: Run, new_broker: Callable[..., Any]) -> None:
    """With topics alone it makes some with a prefix of its own; with orders it needs one that is given."""
    servers = new_broker().bootstrap_servers
    small = ("bench", "-b", servers, *SMALL, "--seconds", "0")
    internal = {"__consumer_offsets", "__transaction_state"}
    with connect(f"kafka:{servers}") as log:
        log.ensure_topics(topics.SPECS)
        run(*small)
        assert ours_on(servers, "") - internal == {spec.name for spec in topics.SPECS}
        log.append(list(Load(1, 1).burst(2)))
    said = run(*small, code=2, err=True)
    check_lines(said, about="is in use")
    assert "--topic-prefix PREFIX" in said
    run(*small, "--topic-prefix", "own-")
    assert ours_on(servers, "") - internal == {spec.name for spec in topics.SPECS}


def test_without_a_prefix_nothing_is_ever_deleted() -> None:
    from stocktrade.transport.kafka import KafkaLog

    log = KafkaLog.__new__(KafkaLog)
    log._prefix = ""
    with pytest.raises(ValueError, match="only an exchange with a prefix"):
        log.remove([DEFAULT_GROUP])


def test_no_broker_ends_with_3(home: Path, run: Run) -> None:
    check_lines(run("bench", "-b", "127.0.0.1:1", *SMALL, code=3, err=True), about="no broker listens")


def test_librdkafka_that_is_not_installed_is_told_with_the_command(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    monkeypatch.delitem(sys.modules, "stocktrade.transport.librdkafka", raising=False)
    said = run("bench", "-b", "127.0.0.1:1", "--client", LIBRDKAFKA, *SMALL, code=2, err=True)
    check_lines(said, about="librdkafka is not installed")
    assert "pip install 'stocktrade[fast]'" in said
    assert KAFKA_PYTHON in CLIENTS
