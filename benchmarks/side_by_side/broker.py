"""A broker to measure on: the one that is given, or one in a container, on a machine that may have nothing for it.

Invariant: what is started here is stopped here, and nothing else.
"""

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_IMAGE: Final = "STOCKTRADE_TEST_KAFKA_IMAGE"
_PULL_S: Final = 300


def _quiet(*command: str, timeout_s: float = 30.0) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=timeout_s, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


@contextmanager
def _engine() -> Iterator[None]:
    if _quiet("docker", "version"):
        yield
        return
    # It installs what is missing, and says what to do where it may not.
    command = str(_ROOT / ".ci" / "docker")
    subprocess.run((command, "start"), check=True, stdout=sys.stderr)
    try:
        yield
    finally:
        subprocess.run((command, "stop"), check=True, stdout=sys.stderr)


def _image(official: str) -> str:
    """An image that can be started: the one that is named, the official one, or one that is built here."""
    if named := os.environ.get(_IMAGE):
        return named
    if _quiet("docker", "image", "inspect", official) or _quiet("docker", "pull", "-q", official, timeout_s=_PULL_S):
        return official
    builder = importlib.import_module("kafka_image")
    subprocess.run((sys.executable, str(_ROOT / "tests" / "kafka_image.py")), check=True, stdout=sys.stderr)
    return str(builder.DEFAULT_TAG)


@contextmanager
def broker(servers: str | None) -> Iterator[str]:
    """HOST:PORT of a broker.

    Raises:
        subprocess.CalledProcessError: there is no container engine, or no image; what was said tells why.
    """
    if servers is not None:
        yield servers
        return
    # Its clean-up container is an image of its own; what is started here is stopped here.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    sys.path.append(str(_ROOT / "tests"))
    containers = importlib.import_module("kafka_container")
    with _engine(), containers.KafkaContainer(_image(containers.DEFAULT_IMAGE), on_host=True) as container:
        yield container.bootstrap_servers
