"""The wheel, as a user gets it: built, installed into an empty environment, and run without any test tool."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final
from zipfile import ZipFile

import pytest

ROOT: Final = Path(__file__).parents[1]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def done(*command: str | Path, cwd: Path, home: Path | None = None) -> str:
    """What a command says; it must end with 0."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "STOCKTRADE_"))}
    environment |= {} if home is None else {"HOME": str(home), "PYTHONWARNINGS": "error"}
    result = subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    done(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """The package with its type marker and its licence is in it; tests, docs and benchmarks are not."""
    names = ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {"stocktrade", wheel.name.split("-py3")[0] + ".dist-info"}
    assert {"stocktrade/py.typed", "stocktrade/cli.py", "stocktrade/__main__.py"} <= set(names)
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_a_clean_install_of_the_wheel_runs_the_demo(wheel: Path, tmp_path: Path) -> None:
    """`pip install` of the wheel alone, then `stocktrade demo`: it ends with 0 and sums that are zero."""
    done(sys.executable, "-m", "venv", "venv", cwd=tmp_path)
    here = tmp_path / "venv" / "bin"
    done(here / "python", "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    installed = done(here / "python", "-m", "pip", "list", "--format=freeze", cwd=tmp_path).splitlines()
    names = {line.partition("==")[0] for line in installed}
    assert names & {"pytest", "hypothesis", "testcontainers", "mypy", "ruff"} == set()

    home = tmp_path / "home"
    home.mkdir()
    said = done(here / "stocktrade", "demo", "--seconds", "1", cwd=tmp_path, home=home)
    assert "the sums are zero and the clearing house is flat" in said
    assert "Payment for 100 SBI stocks @ ₹885" in " ".join(said.split())
    assert list(home.iterdir()) == []
    assert done(here / "python", "-m", "stocktrade", "--version", cwd=tmp_path).startswith("stocktrade ")
