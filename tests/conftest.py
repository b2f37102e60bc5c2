"""What tests share: a broker, or the one line that says why it is skipped; a log of one's own, and commands on it."""

import gc
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from stocktrade import cli, settings
from stocktrade.errors import StocktradeError

# testcontainers reads this when it is imported. The image of its reaper cannot be pulled everywhere, and the
# fixtures below stop what they start.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")

from kafka_container import DEFAULT_IMAGE, IMAGE_VARIABLE, QUICK_START, KafkaContainer

SERVERS_VARIABLE = "STOCKTRADE_TEST_BOOTSTRAP_SERVERS"
REQUIRE_VARIABLE = "STOCKTRADE_REQUIRE_KAFKA"
HOW_TO_ENABLE = (
    f"no Kafka: set {SERVERS_VARIABLE} to a broker, or start Docker and set {IMAGE_VARIABLE} "
    "(`python tests/kafka_image.py` builds an image where none can be pulled)"
)


def pytest_configure(config: pytest.Config) -> None:
    # kafka-python reads its message schemas by a function that Python 3.11 and 3.12 call deprecated.
    config.addinivalue_line("filterwarnings", "ignore:read_text is deprecated:DeprecationWarning")
    config.addinivalue_line("filterwarnings", "ignore:open_text is deprecated:DeprecationWarning")
    # It leaves a socket whose connection broke to the garbage collector now and then, in whatever test that runs.
    config.addinivalue_line(
        "filterwarnings", "ignore:Exception ignored in. <socket.socket:pytest.PytestUnraisableExceptionWarning"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where tests run side by side, the files with most slow ones are first, or the last of them would run alone."""
    if hasattr(config, "workerinput"):
        slow = Counter(item.path for item in items for mark in ("kafka", "slow") if item.get_closest_marker(mark))
        items.sort(key=lambda item: -slow[item.path])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Count the tests that miss Kafka in one line of the summary, not in one for each place; tell an error's cause."""
    del item
    report = yield
    error = None if call.excinfo is None else call.excinfo.value
    if isinstance(error, StocktradeError):
        report.sections.append(("The error's cause and hint", f"{error.cause}\n{error.hint}"))
    if report.skipped and isinstance(report.longrepr, tuple) and HOW_TO_ENABLE in report.longrepr[2]:
        report.longrepr = (__file__, 1, report.longrepr[2])
    return report


def _do_without(reason: str) -> None:
    if os.environ.get(REQUIRE_VARIABLE) == "1":
        pytest.fail(f"{REQUIRE_VARIABLE}=1, but {reason}", pytrace=False)
    pytest.skip(reason)


def _image_is_usable() -> bool:
    """Whether an image is named, or the official one is here. It is never pulled unasked."""
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env()
    except DockerException:
        return False
    try:
        client.ping()
        if not os.environ.get(IMAGE_VARIABLE):
            client.images.get(DEFAULT_IMAGE)
    except DockerException:
        return False
    finally:
        client.close()
    return True


@pytest.fixture(scope="session")
def kafka_servers() -> Iterator[str]:
    """HOST:PORT of a broker that stays up; tests keep apart by the names of their topics."""
    if servers := os.environ.get(SERVERS_VARIABLE):
        yield servers
        return
    if not _image_is_usable():
        _do_without(HOW_TO_ENABLE)
    with KafkaContainer(env=QUICK_START) as broker:
        yield broker.bootstrap_servers


@pytest.fixture(scope="session")
def need_docker() -> None:
    """Fails or skips, by the settings, where no container of a broker can be started."""
    if not _image_is_usable():
        _do_without(HOW_TO_ENABLE)


@pytest.fixture
def new_broker() -> Iterator[Callable[..., KafkaContainer]]:
    """Starts brokers of a test's own, to be stopped, killed or frozen."""
    yield from _brokers()


@pytest.fixture(scope="module")
def new_module_broker() -> Iterator[Callable[..., KafkaContainer]]:
    """Starts brokers that the tests of a module share, and nobody else."""
    yield from _brokers()


def _brokers() -> Iterator[Callable[..., KafkaContainer]]:
    if not _image_is_usable():
        _do_without(HOW_TO_ENABLE)
    started: list[KafkaContainer] = []

    def start(**env: str) -> KafkaContainer:
        started.append(KafkaContainer(env={**QUICK_START, **env}).start())
        return started[-1]

    yield start
    for broker in started:
        broker.stop()
    # What the library leaked while its broker was away must not come to light in somebody else's test.
    gc.collect()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the embedded log; it is not there yet."""
    monkeypatch.setenv(settings.HOME, str(tmp_path / "home"))
    for name in (settings.BOOTSTRAP_SERVERS, settings.COMMAND_CONFIG):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "home"


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command, which must end as is said, and gives its stdout, or, if that is asked for, its stderr."""

    def run(*arguments: str, code: int = 0, err: bool = False) -> str:
        capsys.readouterr()
        assert cli.run([*arguments]) == code, capsys.readouterr().err
        said = capsys.readouterr()
        return said.err if err else said.out

    return run
