"""The exchange on a simulated log with Kafka's ugly parts: no seed has a finding, and each guard matters."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future

import pytest
from kafka_model import SimulatedWriter

from simulation import simulate
from stocktrade.errors import Unavailable
from stocktrade.shard import owner as protocol
from stocktrade.shard import repair
from stocktrade.shard.owner import Owner, Taken
from stocktrade.transport import topics
from stocktrade.transport.base import NewRecord, Position, Record

RUNS = 300


@pytest.mark.slow
def test_no_seed_has_a_finding() -> None:
    """Crashes, zombies, lost and doubled requests, a group that errs: the audit finds nothing, all inputs are taken."""
    runs = [simulate(seed) for seed in range(RUNS)]
    assert [(run.seed, run.findings) for run in runs if run.findings] == []
    assert sum(run.trades for run in runs) > 10 * RUNS
    trace = "\n".join(line for run in runs for line in run.trace)
    for happened in ("is killed", "goes on", "a late request to commit arrives", ": unknown", "lost [0]"):
        assert trace.count(happened) > 20, happened


@pytest.mark.slow
def test_what_a_late_request_tears_is_repaired() -> None:
    """With the older transactions, that a late request can tear: chain, ids and repair leave nothing to find."""
    assert [run.findings for seed in range(100) if (run := simulate(seed, is_v2=False)).findings] == []


def test_a_seed_gives_the_same_run_again() -> None:
    """Step by step."""
    first, second = simulate(7), simulate(7)
    assert first.trace == second.trace
    assert len(first.trace) > 50


# --- without a guard ----------------------------------------------------------------------------------------------

Patch = pytest.MonkeyPatch


def believe_every_offset(patch: Patch) -> None:
    """Offsets are not compared with the journal's: what comes is taken."""

    def offer(self: Owner, records: Sequence[Record]) -> bool:
        for record in records:
            self._expected[record.topic] = record.offset + 1
            self._waiting.append((record.arrival, record.topic, record.offset, record))
        self._waiting.sort()
        return True

    patch.setattr(Owner, "offer", offer)


def go_on_after_a_failed_commit(patch: Patch) -> None:
    """A commit that fails is taken for one that did not."""
    settled = Owner._settled

    def careless(self: Owner) -> list[Taken]:
        for number, each in enumerate(self._under_way):
            if each.commit.done() and isinstance(each.commit.exception(), Unavailable):
                done: Future[list[Position]] = Future()
                done.set_result([Position(topics.JOURNAL, self.shard, self._head_offset + 1)])
                self._under_way[number] = each._replace(commit=done)
                self._writer._is_dead = False  # type: ignore[attr-defined]
        return settled(self)

    patch.setattr(Owner, "_settled", careless)


def do_not_repair(patch: Patch) -> None:
    """A new owner does not look whether its predecessor's last commits are whole."""
    patch.setattr(repair, "missing", lambda *_: [])


def two_transactions(patch: Patch) -> None:
    """The journal's entry is committed before what it caused; and nobody repairs."""
    do_not_repair(patch)
    commit = SimulatedWriter.commit

    def split(self: SimulatedWriter, records: Sequence[NewRecord], *, anchor: bytes | None = None) -> list[Position]:
        journal = [record for record in records if record.topic == topics.JOURNAL]
        others = [record for record in records if record.topic != topics.JOURNAL]
        positions = commit(self, journal, anchor=anchor)
        return positions + (commit(self, others) if others else [])

    patch.setattr(SimulatedWriter, "commit", split)


def stop_before_the_end(patch: Patch) -> None:
    """The next owner begins from the state before the journal's end."""
    patch.setattr(protocol, "to_the_end", lambda reader: list(reader.poll())[:-1])


def nothing(patch: Patch) -> None:
    """The simulated brokers alone are without something."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sabotage", "brokers"),
    [
        pytest.param(believe_every_offset, {}, id="offsets are not compared"),
        pytest.param(go_on_after_a_failed_commit, {}, id="a failed commit is ignored"),
        pytest.param(two_transactions, {}, id="journal and outputs in two transactions"),
        pytest.param(do_not_repair, {"is_v2": False}, id="torn by a late request, and not repaired"),
        pytest.param(stop_before_the_end, {}, id="recovery stops before the end"),
        pytest.param(nothing, {"fences": False}, id="nobody is fenced"),
        pytest.param(nothing, {"isolates": False}, id="uncommitted records are read"),
    ],
)
def test_without_a_guard_a_seed_has_a_finding(
    sabotage: Callable[[Patch], None], brokers: dict[str, bool], monkeypatch: Patch
) -> None:
    """Each guard matters: with it switched off one of the same seeds is found to be wrong."""
    sabotage(monkeypatch)
    assert any(simulate(seed, **brokers).findings for seed in range(RUNS))
