"""Fail points do what the environment says, and without it nothing."""

import os
import select
import signal
import subprocess
import sys

import pytest

from stocktrade import failpoints
from stocktrade.errors import UsageError

SCRIPT = """
from stocktrade.failpoints import hit
for n in range(3):
    hit("other")
    hit("here")
    print(n, flush=True)
"""


def run(setting: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, failpoints.VARIABLE: setting}
    return subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.parametrize(
    ("setting", "passed"), [("here=kill", 0), ("here=kill@3", 2), ("x=stop, here=kill@2,", 1), ("other=kill@2", 1)]
)
def test_a_process_dies_at_the_nth_hit(setting: str, passed: int) -> None:
    result = run(setting)
    assert result.returncode == -signal.SIGKILL
    assert result.stdout.split() == [str(n) for n in range(passed)]


@pytest.mark.parametrize("setting", ["", "here=kill@4", "nowhere=kill"])
def test_nothing_happens_elsewhere(setting: str) -> None:
    result = run(setting)
    assert (result.returncode, result.stdout.split()) == (0, ["0", "1", "2"])


def test_a_process_freezes_and_goes_on() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, failpoints.VARIABLE: "here=stop@2"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        output, _ = process.communicate(timeout=20)
        assert (process.returncode, output.split()) == (0, ["0", "1", "2"])
    finally:
        process.kill()
        process.communicate()


THREADED = """
import os, threading
from stocktrade.failpoints import hit

def pass_by():
    for n in range(50):
        hit(str(n))
        os.write(1, b".")

thread = threading.Thread(target=pass_by)
thread.start()
thread.join()
"""


def test_a_thread_of_its_own_freezes_where_it_is() -> None:
    """Not a little later, when another thread has got the signal: by then it would have written what comes next."""
    process = subprocess.Popen(
        [sys.executable, "-c", THREADED],
        env={**os.environ, failpoints.VARIABLE: ",".join(f"{n}=stop" for n in range(50))},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    out = process.stdout.fileno()
    try:
        for _ in range(50):
            _, status = os.waitpid(process.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status)
            assert select.select([out], [], [], 0)[0] == []
            process.send_signal(signal.SIGCONT)
            assert os.read(out, 9) == b"."
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("setting", ["here", "here=", "here=explode", "here=kill@0", "here=kill@x", "a b=kill"])
def test_a_mistake_is_told(setting: str) -> None:
    with pytest.raises(UsageError, match=failpoints.VARIABLE):
        failpoints.parse(setting)
