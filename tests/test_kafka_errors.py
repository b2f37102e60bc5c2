"""Connecting to Kafka from the command line: each way works, and what goes wrong is told in three lines, soon.

The errors are those of a real broker: it is away, it is another program, it wants TLS or a password, it refuses what it
is given, or it goes away in between.
"""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import kafka
import pytest
from confluent_kafka import KafkaException
from kafka import admin as rights

from conftest import HOW_TO_ENABLE, _do_without, _image_is_usable
from kafka_container import HOST, KafkaContainer, free_port
from kafka_listeners import USERS, ManyListeners
from stocktrade import cli, settings
from stocktrade.errors import Unavailable, Unknown, UsageError
from stocktrade.roles import order_entry
from stocktrade.transport import CLIENTS, KAFKA_PYTHON, LIBRDKAFKA, kafka_txn, librdkafka, topics
from stocktrade.transport import kafka_python as adapter
from stocktrade.transport.base import NewRecord
from stocktrade.transport.client import Placed
from stocktrade.transport.kafka import KafkaLog
from test_cli_errors import check_lines

pytestmark = pytest.mark.kafka

NAMES: Final = [spec.name for spec in topics.SPECS]
BUY: Final = ("buy", "SBI", "1", "885")
COMMANDS: Final = (BUY, ("sell", "SBI", "1"), ("nse",), ("watch",), ("topics", "create"))
SOON_S: Final = 6.0


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that the embedded log would have; it is never made here."""
    monkeypatch.setenv(settings.HOME, str(tmp_path / "home"))
    for name in (settings.BOOTSTRAP_SERVERS, settings.COMMAND_CONFIG, settings.CLIENT, cli.DEBUG):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path / "home"
    assert not (tmp_path / "home").exists()


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What carries the records of every command."""
    monkeypatch.setenv(settings.CLIENT, request.param)
    return str(request.param)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def broker(certificates: Path) -> Iterator[ManyListeners]:
    """One broker with a listener of each kind."""
    if not _image_is_usable():
        _do_without(HOW_TO_ENABLE)
    with ManyListeners(certificates) as broker:
        yield broker


@pytest.fixture(scope="module")
def admin(broker: ManyListeners) -> Iterator[Any]:
    """Somebody who may do everything."""
    with closing(kafka.KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)) as client:
        yield client


def within(seconds: float, condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


@pytest.fixture
def no_topics(admin: Any) -> None:
    """The cluster has none of the exchange's topics."""

    def there() -> list[str]:
        return [name for name in admin.list_topics() if name in NAMES]

    if found := there():
        admin.delete_topics(found)
        within(10, lambda: not there(), "the topics do not go away")


@pytest.fixture
def silent() -> Iterator[str]:
    """Somebody who listens and says nothing."""
    with socket.create_server((HOST, 0), backlog=50) as server:
        yield f"{HOST}:{server.getsockname()[1]}"


@pytest.fixture
def web() -> Iterator[str]:
    """A web server."""
    with socket.create_server((HOST, 0), backlog=50) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:  # the test is over
                    return
                with connection:
                    connection.recv(65_536)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"{HOST}:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def failed(capsys: pytest.CaptureFixture[str], code: int, about: str, *command: str, logs: bool = False) -> str:
    """Run a command that must fail soon, in three lines about what it should; what it said of cause and hint."""
    begin = time.monotonic()
    assert cli.run(list(command)) == code
    took = time.monotonic() - begin
    said = capsys.readouterr()
    error = said.err
    if logs:
        _, _, error = error.partition("\n")
    error, *mending = error.split("\n    ")
    check_lines(error, about=about)
    assert said.out == ""
    assert took < SOON_S
    assert not [password for password in (*USERS.values(), WRONG_PASSWORD) if password in said.err]
    return "\n".join([*error.splitlines()[1:], *mending])


# --- nobody, or somebody else ----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_broker_that_is_down_is_named_at_once(
    capsys: pytest.CaptureFixture[str], home: Path, command: tuple[str, ...]
) -> None:
    """BI-64: every command that opens the log ends with 3 and says where it looked."""
    server = f"{HOST}:{free_port()}"
    said = failed(capsys, 3, f"no broker listens at {server}", *command, "-b", server)
    assert "Connection refused" in said
    assert settings.BOOTSTRAP_SERVERS in said


@pytest.mark.parametrize(("command", "protocol"), [(("nse",), "PLAINTEXT"), (BUY, "SSL")], ids=["nse", "buy by TLS"])
def test_somebody_who_says_nothing_is_not_waited_for(
    capsys: pytest.CaptureFixture[str], silent: str, command: tuple[str, ...], protocol: str
) -> None:
    """Nor is the answer to a TLS handshake, for which the client library would wait for ever."""
    options = ("-b", silent, f"--command-property=security.protocol={protocol}")
    assert "nothing came within" in failed(capsys, 3, f"{silent} does not answer", *command, *options)


@pytest.mark.parametrize("command", [("watch",), ("topics", "create")], ids=lambda command: command[0])
def test_a_web_server_is_no_broker(capsys: pytest.CaptureFixture[str], web: str, command: tuple[str, ...]) -> None:
    assert "b'HTTP'" in failed(capsys, 3, f"{web} is no Kafka broker", *command, "-b", web)


def test_a_library_of_another_version_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before any connection: what makes transactions atomic is written for one version."""
    monkeypatch.setattr(kafka, "__version__", "3.0.99")
    said = failed(capsys, 2, "this kafka-python is version 3.0.99", "nse", "-b", f"{HOST}:1")
    assert "hint: pip install 'kafka-python" in said


# --- listeners -------------------------------------------------------------------------------------------------

WRONG_PASSWORD: Final = "wr0ng-secret"
PLAIN: Final = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM: Final = "org.apache.kafka.common.security.scram.ScramLoginModule"


def sasl(user: str, password: str | None = None, mechanism: str = "PLAIN") -> str:
    module = PLAIN if mechanism == "PLAIN" else SCRAM
    secret = USERS[user] if password is None else password
    return f'sasl.mechanism={mechanism}\nsasl.jaas.config={module} required username="{user}" password="{secret}";\n'


def config(certificates: Path, server: str, protocol: str, *options: str) -> str:
    """A file of options, as users have it; CERTIFICATES stands for their folder."""
    text = "\n".join([f"bootstrap.servers={server}", f"security.protocol={protocol}", *options])
    file = certificates / "client.properties"
    file.write_text(text.replace("CERTIFICATES", str(certificates)))
    file.chmod(0o600)
    return str(file)


class Way(NamedTuple):
    """A way to connect: a listener and options of the client, and how it ends."""

    listener: str
    protocol: str
    options: tuple[str, ...]
    error: str
    cause: str
    host: str = HOST


CA: Final = "ssl.truststore.location=CERTIFICATES/ca.pem"
WRONG_WAYS: Final = [
    Way(
        "PASSWORD",
        "SASL_PLAINTEXT",
        (sasl("trader", WRONG_PASSWORD),),
        "AT refuses the credentials",
        "Invalid username",
    ),
    Way(
        "PASSWORD", "SASL_PLAINTEXT", (sasl("guest", mechanism="SCRAM-SHA-512"),), "AT refuses the credentials", "SCRAM"
    ),
    Way("BOTH", "SASL_SSL", (CA, sasl("trader", WRONG_PASSWORD)), "AT refuses the credentials", "Invalid username"),
    Way("PASSWORD", "SASL_PLAINTEXT", (sasl("trader", mechanism="SCRAM-SHA-256"),), "AT does not take SASL", "enabled"),
    Way("PLAINTEXT", "SASL_PLAINTEXT", (sasl("trader"),), "AT takes no password", "set it to PLAINTEXT"),
    Way("TLS", "SASL_SSL", (CA, sasl("trader")), "AT takes no password", "set it to SSL"),
    Way("PASSWORD", "PLAINTEXT", (), "AT hangs up", "SASL_PLAINTEXT"),
    Way("BOTH", "SSL", (CA,), "AT hangs up", "SASL_SSL"),
    Way("TLS", "PLAINTEXT", (), "AT speaks TLS", "set it to SSL"),
    Way("PLAINTEXT", "SSL", (CA,), "AT does not speak TLS", "security.protocol is SSL"),
    Way("TLS", "SSL", (), "the certificate of AT is not accepted", "ssl.truststore.location"),
    Way("TLS", "SSL", ("ssl.truststore.location=CERTIFICATES/other-ca.pem",), "the certificate of AT", "issuer"),
    Way("TLS", "SSL", (CA,), "the certificate of AT is not accepted", "not valid for 'localhost'", "localhost"),
    Way("EXPIRED", "SSL", (CA,), "the certificate of AT is not accepted", "certificate has expired"),
    Way("MUTUAL", "SSL", (CA,), "AT does not accept our certificate", "ssl.keystore.location"),
    Way("LOST", "PLAINTEXT", (), "the broker at AT answers, but not at the address", "LOST"),
]


def server_of(broker: ManyListeners, listener: str) -> str:
    return broker.bootstrap_servers if listener == "PLAINTEXT" else broker.server(listener)


TRIED: Final = [
    (client, number, way)
    for client in CLIENTS
    for number, way in enumerate(WRONG_WAYS)
    # Who is asked first is the same whatever carries the records; the long waits need not be waited for twice.
    if client == KAFKA_PYTHON or way.options
]


@pytest.mark.parametrize(
    ("client", "number", "way"),
    TRIED,
    indirect=["client"],
    ids=[f"{client}-{way.listener}-{way.error[:30]}" for client, _, way in TRIED],
)
def test_a_wrong_way_to_connect_says_what_is_wrong_with_it(
    capsys: pytest.CaptureFixture[str],
    broker: ManyListeners,
    certificates: Path,
    client: str,
    number: int,
    way: Way,
) -> None:
    """BI-64: exit code 3 within six seconds, with the true cause, which the client library often keeps to itself."""
    server = server_of(broker, way.listener).replace(HOST, way.host)
    file = config(certificates, server, way.protocol, *way.options)
    command = COMMANDS[number % len(COMMANDS)]
    said = failed(capsys, 3, way.error.replace("AT", server), *command, f"--command-config={file}")
    assert (broker.lost_address if way.cause == "LOST" else way.cause) in said


def test_a_refused_password_is_not_tried_again_and_again(
    capsys: pytest.CaptureFixture[str], broker: ManyListeners, certificates: Path
) -> None:
    """It is told long before the search for a broker would end: some lock an account after a few attempts."""
    file = config(certificates, broker.server("PASSWORD"), "SASL_PLAINTEXT", sasl("trader", WRONG_PASSWORD))
    begin = time.monotonic()
    failed(capsys, 3, "refuses the credentials", *BUY, f"--command-config={file}")
    assert time.monotonic() - begin < 3


def allow_scram(admin: Any) -> None:
    """Give the trader its password for SCRAM, too: the broker's own list is of those for PLAIN."""
    stronger = rights.UserScramCredentialUpsertion("trader", "SCRAM-SHA-512", USERS["trader"])
    assert admin.alter_user_scram_credentials([stronger]) == {"trader": None}


def test_every_way_to_connect_trades(
    capsys: pytest.CaptureFixture[str],
    broker: ManyListeners,
    certificates: Path,
    admin: Any,
    no_topics: None,
    client: str,
) -> None:
    """Buyer by password, seller by TLS, exchange by SCRAM over TLS, watcher by a certificate of its own: one trade."""
    allow_scram(admin)

    def ran(listener: str, protocol: str, *options: str, command: tuple[str, ...]) -> str:
        file = config(certificates, broker.server(listener), protocol, *options)
        code = cli.run([*command, f"--command-config={file}"])
        said = capsys.readouterr()
        assert code == 0, said.err
        assert USERS["trader"] not in said.out + said.err
        return said.out

    ran("BOTH", "SASL_SSL", CA, sasl("trader"), command=("topics", "create", "--partitions=1"))
    ran("PASSWORD", "SASL_PLAINTEXT", sasl("trader"), command=("buy", "SBI", "100", "885", "--id=b1"))
    ran("TLS", "SSL", CA, command=("sell", "SBI", "100", "--id=s1"))
    scram = sasl("trader", mechanism="SCRAM-SHA-512")
    ran("BOTH", "SASL_SSL", CA, scram, command=("nse", "--once"))
    mine = "ssl.keystore.location=CERTIFICATES/client.pem"
    seen = ran("MUTUAL", "SSL", CA, mine, command=("watch", "--no-follow", "--only=trades", "--json"))
    (trade,) = [json.loads(line)["value"] for line in seen.splitlines()]
    assert (trade["buy_order_id"], trade["sell_order_id"], trade["quantity"]) == ("b1", "s1", 100)


@pytest.mark.parametrize("what", ["append", "claim", "read", "take"])
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"sasl.password": WRONG_PASSWORD}, "Invalid username or password"),
        ({"ssl.ca.location": "CERTIFICATES/other-ca.pem"}, "certificate verify failed"),
        ({"ssl.ca.location": "CERTIFICATES/nowhere.pem"}, "ssl.ca.location failed"),
    ],
    ids=["password", "authority", "file"],
)
def test_what_only_librdkafka_is_refused_is_told_soon(
    broker: ManyListeners, certificates: Path, admin: Any, no_topics: None, bad: dict[str, str], said: str, what: str
) -> None:
    """A password that was changed meanwhile, say: the library goes on trying, and raises nothing by itself."""
    options = {
        "security.protocol": "SASL_SSL",
        "ssl.truststore.location": f"{certificates}/ca.pem",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "trader",
        "sasl.password": USERS["trader"],
    }
    with KafkaLog(broker.server("BOTH"), settings=options, client=LIBRDKAFKA, partitions=1) as log:
        log.ensure_topics(topics.SPECS)
        native = {name: value.replace("CERTIFICATES", str(certificates)) for name, value in bad.items()}
        connection = log._connection
        connection.settings = connection.settings._replace(native=connection.settings.native | native)

        def read() -> None:
            reader = log.reader({(topics.BUY_ORDERS, 0): 0})
            while True:
                reader.poll(0.1)

        def take() -> None:
            member = log.member("group", topics.INPUTS)
            while True:
                for shard in member.poll(0.1).assigned:
                    member.start(shard, {})

        doing = {
            "append": lambda: log.append([NewRecord(topics.BUY_ORDERS, None, b"", 0)]),
            "claim": lambda: log.claim(0),
            "read": read,
            "take": take,
        }[what]
        begin = time.monotonic()
        with pytest.raises((Unavailable, UsageError)) as raised:
            doing()
        assert time.monotonic() - begin < SOON_S
        assert not isinstance(raised.value, Unknown)
        assert said in raised.value.cause
        assert WRONG_PASSWORD not in repr(raised.value) + raised.value.cause


# --- rights and topics -----------------------------------------------------------------------------------------


def granted(admin: Any, *grants: tuple[str, str]) -> None:
    """Give `guest` these rights and no other: each an operation on all of a kind."""
    anything = rights.ResourcePatternFilter(rights.ResourceType.ANY, None, rights.ACLResourcePatternType.ANY)
    all_of_guest = rights.ACLFilter("User:guest", None, rights.ACLOperation.ANY, rights.ACLPermissionType.ANY, anything)

    def there() -> set[Any]:
        return set(admin.describe_acls(all_of_guest)[0])

    admin.delete_acls([all_of_guest])
    within(10, lambda: not there(), "the rights do not go away")
    new = [
        rights.ACL(
            "User:guest",
            "*",
            rights.ACLOperation[operation],
            rights.ACLPermissionType.ALLOW,
            rights.ResourcePattern(rights.ResourceType[kind], "*"),
        )
        for kind, operation in grants
    ]
    if new:
        admin.create_acls(new)
    within(10, lambda: len(there()) == len(new), "the rights are not there")


LOOK: Final = (("TOPIC", "DESCRIBE"), ("TOPIC", "DESCRIBE_CONFIGS"))


@pytest.mark.parametrize(
    ("grants", "command", "made", "error"),
    [
        ((), BUY, True, "cannot be described: this user has not the right"),
        ((), ("watch", "--no-follow"), True, "cannot be described: this user has not the right"),
        (LOOK, BUY, True, "the records were not sent: this user has not the right"),
        (LOOK, BUY, False, "cannot be made: this user has not the right"),
        (LOOK, ("topics", "create"), False, "cannot be made: this user has not the right"),
        ((*LOOK, ("TOPIC", "READ")), ("nse", "--once"), True, "the inputs cannot be read: this user has not the right"),
        (
            (*LOOK, ("TOPIC", "READ"), ("GROUP", "READ")),
            ("nse", "--once"),
            True,
            "cannot be taken over: this user has not the right",
        ),
    ],
    ids=[
        "buy and look",
        "watch",
        "buy",
        "buy without topics",
        "topics",
        "nse without a group",
        "nse without transactions",
    ],
)
def test_a_user_without_rights_is_told_what_may_not_be_done(
    capsys: pytest.CaptureFixture[str],
    broker: ManyListeners,
    certificates: Path,
    admin: Any,
    no_topics: None,
    client: str,
    grants: tuple[tuple[str, str], ...],
    command: tuple[str, ...],
    made: bool,
    error: str,
) -> None:
    """Exit code 2: nobody may look, send, make topics, or join the exchange's group without the right to."""
    if made:
        assert cli.run(["topics", "create", "-b", broker.bootstrap_servers]) == 0
        capsys.readouterr()
    granted(admin, *grants)
    file = config(certificates, broker.server("PASSWORD"), "SASL_PLAINTEXT", sasl("guest"))
    writes = command[0] != "watch"
    said = failed(capsys, 2, error, *command, f"--command-config={file}", logs=writes)
    assert "AuthorizationFailed" in said
    assert "ask for the rights" in said


def test_a_producer_that_was_refused_before_it_was_given_anything_says_why(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    broker: ManyListeners,
    certificates: Path,
    admin: Any,
    no_topics: None,
) -> None:
    """After a fatal error librdkafka calls all that follows one: what it was is told once, and must not be missed."""
    monkeypatch.setenv(settings.CLIENT, LIBRDKAFKA)
    send = librdkafka._Batch.send

    def takes_no_more(producer: Any) -> bool:
        try:
            producer.produce(topics.BUY_ORDERS, b"")
        except KafkaException:
            return True
        return False

    def late(batch: librdkafka._Batch, producer: Any, placed: Sequence[Placed], deadline: float) -> None:
        within(10, lambda: takes_no_more(producer), "the producer is not refused")
        send(batch, producer, placed, deadline)

    monkeypatch.setattr(librdkafka._Batch, "send", late)
    assert cli.run(["topics", "create", "-b", broker.bootstrap_servers]) == 0
    capsys.readouterr()
    granted(admin, *LOOK)
    file = config(certificates, broker.server("PASSWORD"), "SASL_PLAINTEXT", sasl("guest"))
    about = "the records were not sent: this user has not the right"
    assert "AuthorizationFailed" in failed(capsys, 2, about, *BUY, f"--command-config={file}", logs=True)


@pytest.mark.parametrize("command", [("nse",), BUY, ("topics", "create")], ids=lambda command: command[0])
def test_a_topic_that_a_broker_made_by_itself_is_refused_with_what_mends_it(
    capsys: pytest.CaptureFixture[str], broker: ManyListeners, admin: Any, no_topics: None, command: tuple[str, ...]
) -> None:
    """BI-67: one partition, the producer's time, a week of retention; the commands stand on lines of their own."""
    admin.create_topics({topics.BUY_ORDERS: {"num_partitions": 1}}, wait_for_metadata=True)
    server = broker.bootstrap_servers
    said = failed(capsys, 2, "topics that the exchange cannot use as they are", *command, "-b", server, logs=True)
    assert "buy-orders has 1 partitions, not 4" in said
    commands = said.splitlines()[-2:]
    assert commands[0] == f"kafka-topics.sh --bootstrap-server {server} --topic buy-orders --alter --partitions 4"
    assert commands[1].startswith(f"kafka-configs.sh --bootstrap-server {server} --entity-type topics")


def test_more_copies_than_brokers_are_refused(
    capsys: pytest.CaptureFixture[str], broker: ManyListeners, no_topics: None
) -> None:
    command = ("topics", "create", "--replication=3", "-b", broker.bootstrap_servers)
    assert "--replication" in failed(capsys, 2, "the cluster cannot keep 3 copies of a topic", *command, logs=True)


def test_a_cluster_that_cannot_raise_the_epoch_is_refused(
    capsys: pytest.CaptureFixture[str], broker: ManyListeners, admin: Any
) -> None:
    """BI-67: transaction.version 1 is refused with the command that mends it; with 2 it is taken again."""
    down, up = (rights.UpdateFeatureType.SAFE_DOWNGRADE, rights.UpdateFeatureType.UPGRADE)
    server = broker.bootstrap_servers

    def level() -> int:
        return int(admin.describe_features()["transaction.version"]["finalized"][1])

    admin.update_features({"transaction.version": (down, 1)})
    try:
        within(10, lambda: level() == 1, "the broker does not go down")
        said = failed(capsys, 2, f"the cluster at {server} has transaction.version 1", "nse", "-b", server)
        assert said.splitlines()[-1] == (
            f"kafka-features.sh --bootstrap-server {server} upgrade --feature transaction.version=2"
        )
    finally:
        admin.update_features({"transaction.version": (up, 2)})
        within(10, lambda: level() == 2, "the broker does not come up")
    assert cli.run(["topics", "create", "-b", server]) == 0


# --- warnings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("newest", "release", "warned"),
    [(25, "4.0", False), (29, "4.2.2", False), (30, "4.3.1", True), (33, "4.4.0", True), (34, "later", False)],
)
def test_brokers_with_a_known_defect_are_warned_of(
    broker: ManyListeners, monkeypatch: pytest.MonkeyPatch, newest: int, release: str, warned: bool
) -> None:
    """The release shows in the highest metadata.version: the numbers were read off brokers of these releases."""
    from stocktrade.transport.kafka_client import Connection
    from stocktrade.transport.kafka_options import read_settings

    with closing(Connection(broker.bootstrap_servers, read_settings({}))) as connection:
        assert kafka_txn.check_cluster(connection) == []
        features = connection.admin.describe_features()
        assert features["metadata.version"]["supported"][1] == 29
        features["metadata.version"]["supported"] = (7, newest)
        monkeypatch.setattr(connection.admin, "describe_features", lambda: features)
        assert ["4.3.0 to 4.4.0" in warning for warning in kafka_txn.check_cluster(connection)] == [True] * warned


UNCHECKED: Final = "ssl.endpoint.identification.algorithm="


@pytest.mark.parametrize(
    ("host", "listener", "protocol", "options", "warning"),
    [
        ("127.1", "PLAINTEXT", "PLAINTEXT", (), "is not encrypted (PLAINTEXT): others on its way can read and"),
        ("127.1", "PASSWORD", "SASL_PLAINTEXT", (sasl("trader"),), "others on its way can read the password"),
        ("127.1", "BOTH", "SASL_SSL", (CA, sasl("trader"), UNCHECKED), "is not checked"),
        ("localhost", "TLS", "SSL", (CA, UNCHECKED), ""),
        (HOST, "PLAINTEXT", "PLAINTEXT", (), ""),
    ],
)
def test_a_connection_that_others_can_read_is_warned_of(
    capsys: pytest.CaptureFixture[str],
    broker: ManyListeners,
    certificates: Path,
    host: str,
    listener: str,
    protocol: str,
    options: tuple[str, ...],
    warning: str,
) -> None:
    """BI-66: unless the broker is on this machine. (127.1 is, and does not look so.)"""
    file = config(certificates, server_of(broker, listener).replace(HOST, host), protocol, *options)
    for command in (("topics", "create"), ("nse", "--once")):
        assert cli.run([*command, f"--command-config={file}"]) == 0
        warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
        assert len(warnings) == bool(warning)
        assert warning in "".join(warnings)


# --- a broker that goes away in between ------------------------------------------------------------------------

QUICK: Final = tuple(
    f"--command-property={name}.timeout.ms={ms}"
    for name, ms in {"request": 1_000, "delivery": 1_500, "transaction": 4_000}.items()
)


@pytest.fixture
def awake(broker: ManyListeners) -> Iterator[KafkaContainer]:
    """The broker, which a test may freeze."""
    yield broker
    container = broker.get_wrapped_container()
    container.reload()
    if container.status == "paused":
        broker.unpause_broker()


def test_an_order_of_which_nothing_is_heard_any_more_is_unknown_and_can_be_repeated(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    broker: ManyListeners,
    awake: KafkaContainer,
    no_topics: None,
    client: str,
) -> None:
    """The broker freezes when the order is on its way: exit code 3, and the id with which it is taken once."""
    server = broker.bootstrap_servers
    assert cli.run(["topics", "create", "--partitions=1", "-b", server]) == 0
    capsys.readouterr()
    send: Callable[..., Any] = vars(adapter)["send"]
    produce = librdkafka._Appender.append
    sent: list[Any] = []

    def freezing(do: Callable[..., Any]) -> Callable[..., Any]:
        def freeze_and_do(*arguments: Any) -> Any:
            if not sent:
                awake.pause_broker()
            sent.append(arguments)
            return do(*arguments)

        return freeze_and_do

    monkeypatch.setattr(adapter, "send", freezing(send))
    monkeypatch.setattr(librdkafka._Appender, "append", freezing(produce))
    order = (*BUY, "--id=again-1", "-b", server, *QUICK)
    said = failed(capsys, 3, f"{server} did not confirm what was sent", *order, logs=True)
    assert "hint: repeat it with --id again-1: it will not be taken twice" in said
    awake.unpause_broker()

    within(20, lambda: cli.run([*order]) == 0, "the order cannot be repeated")
    assert cli.run(["nse", "--once", "-b", server]) == 0
    capsys.readouterr()
    assert cli.run(["watch", "--no-follow", "--only=events", "--json", "-b", server]) == 0
    events = [json.loads(line)["value"] for line in capsys.readouterr().out.splitlines()]
    assert [event["status"] for event in events if event["status"] != "DUPLICATE"] == ["ACCEPTED"]
    assert {event["order_id"] for event in events} == {"again-1"}


def test_an_order_that_was_not_sent_is_not_unknown(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    broker: ManyListeners,
    awake: KafkaContainer,
    client: str,
) -> None:
    """The broker freezes before the order is on its way: exit code 3, and nothing to be repeated with care."""
    server = broker.bootstrap_servers
    assert cli.run(["topics", "create", "-b", server]) == 0
    capsys.readouterr()
    place = order_entry.place

    def freeze_and_place(*arguments: Any) -> Any:
        awake.pause_broker()
        return place(*arguments)

    monkeypatch.setattr(order_entry, "place", freeze_and_place)
    said = failed(capsys, 3, server, *BUY, "-b", server, *QUICK, logs=True)
    assert "--id" not in said
