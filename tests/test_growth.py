"""benchmarks/growth.py: the page that it writes, and a small run of it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

import growth_page  # noqa: E402 - only found once the path is extended


def results() -> dict[str, Any]:
    """A small stored result."""
    embedded = [
        {"x": x, "orders_per_s": pace, "cpu_us_per_order": 40.0, "p50_ms": 1.0, "p99_ms": 2.5, "longest_step_ms": 30.0,
         "start_s": 0.5, "peak_mib": 80.0, "fill_bytes": x * 900}
        for x, pace in ((1_000, 20_000.0), (10_000, 16_000.0))
    ]  # fmt: skip
    core = [{"x": x, "orders_per_s": 400_000.0, "capture_ms": 5.25, "kept_bytes": x * 300} for x in (1_000, 10_000)]
    resting = {"lines": {"core": core, "embedded": embedded}, "seconds": 60.0}
    return {
        "schema": growth_page.SCHEMA,
        "machine": "a machine",
        "versions": "some versions",
        "dimensions": {"resting": resting},
    }


def test_the_page_is_rewritten_between_its_marks_and_nowhere_else(tmp_path: Path) -> None:
    page = tmp_path / "performance.md"
    before, after = "# Performance\n\n| not | ours |\n\n", "\n\n## After it\r\n"
    page.write_bytes(f"{before}{growth_page.BEGIN}\nold\n{growth_page.END}{after}".encode())
    growth_page.write(results(), page)
    growth_page.write(results(), page)
    expected = (
        "a machine; some versions; measured in 1 minutes.\n\n"
        "![What an order costs as one thing grows](growth.svg)\n\n"
        "| resting orders | core, orders/s | capture, ms | embedded, orders/s | its processor time, µs/order "
        "| order → legs p50, ms | p99, ms | longest step, ms | start, s | memory, MiB |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| 1,000 | 400,000 | 5.2 | 20,000 | 40 | 1.0 | 2.5 | 30 | 0.50 | 80 |\n"
        "| 10,000 | 400,000 | 5.2 | 16,000 | 40 | 1.0 | 2.5 | 30 | 0.50 | 80 |\n\n"
        "* memory of a resting order: 300 bytes\n"
        "* embedded log, an order that rests: 900 bytes"
    )
    assert page.read_bytes().decode() == f"{before}{growth_page.BEGIN}\n\n{expected}\n\n{growth_page.END}{after}"


@pytest.mark.parametrize("text", ["nothing", growth_page.END + growth_page.BEGIN, 2 * growth_page.BEGIN])
def test_a_page_without_the_marks_stays_as_it_is(tmp_path: Path, text: str) -> None:
    page = tmp_path / "performance.md"
    page.write_text(text)
    with pytest.raises(SystemExit, match="no place for the tables"):
        growth_page.write(results(), page)
    assert page.read_text() == text


def test_the_page_of_this_repository_has_the_marks() -> None:
    text = (BENCHMARKS.parent / "docs" / "performance.md").read_text()
    assert [text.count(growth_page.BEGIN), text.count(growth_page.END)] == [1, 1]


@pytest.mark.slow  # starts processes that trade
def test_a_quick_run_measures_and_draws(tmp_path: Path) -> None:
    (tmp_path / "performance.md").write_text(f"{growth_page.BEGIN}\n{growth_page.END}")
    kept = tmp_path / "kept.json"
    command = [sys.executable, str(BENCHMARKS / "growth.py"), "--quick", "--only", "resting", "--json", str(kept)]
    subprocess.run([*command, "--draw", "--docs", str(tmp_path)], check=True, timeout=100, cwd=tmp_path)
    lines = json.loads(kept.read_text())["dimensions"]["resting"]["lines"]
    assert {line: [point["x"] for point in points] for line, points in lines.items()} == {
        "core": [100, 1000],
        "embedded": [100, 1000],
    }
    assert all(point["orders_per_s"] > 0 for points in lines.values() for point in points)
    assert "| resting orders |" in (tmp_path / "performance.md").read_text()
    assert "resting orders" in (tmp_path / "growth.svg").read_text()
    drawn = (tmp_path / "growth.svg").read_bytes()
    again = [sys.executable, str(BENCHMARKS / "growth.py"), "--from", str(kept), "--draw", "--docs", str(tmp_path)]
    subprocess.run(again, check=True, timeout=100, cwd=tmp_path)
    assert (tmp_path / "growth.svg").read_bytes() == drawn
