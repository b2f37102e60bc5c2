"""From flags, a file and the environment to a log and how to connect to it."""

import ssl
from pathlib import Path
from typing import Any, Final

import pytest

from stocktrade.errors import UsageError
from stocktrade.settings import BOOTSTRAP_SERVERS, CLIENT, COMMAND_CONFIG, HOME, Target, log_target
from stocktrade.transport.kafka_options import KNOWN, Timeouts, read_settings


def config(folder: Path, text: str) -> str:
    """A file that only its owner can read."""
    file = folder / "client.properties"
    file.write_bytes(text.encode())
    file.chmod(0o600)
    return str(file)


@pytest.mark.parametrize(
    ("given", "url", "origin"),
    [
        ({"flag", "property", "environment", "file"}, "kafka:flag:1", "--bootstrap-server"),
        ({"property", "environment", "file"}, "kafka:property:1,property:2", "--command-property bootstrap.servers"),
        ({"environment", "file"}, "kafka:environment:1", BOOTSTRAP_SERVERS),
        ({"file"}, "kafka:file:1,file:2", "bootstrap.servers in FILE"),
        ({"home"}, "sqlite:/home", HOME),
        (set(), f"sqlite:{Path('~/.stocktrade').expanduser()}", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_servers_are_those_of_the_first_that_names_some(tmp_path: Path, given: set[str], url: str, origin: str) -> None:
    """The flag, then the property, then the environment, then the file; without any the embedded log. It is told."""
    environ = ({HOME: "/home"} if "home" in given else {}) | (
        {BOOTSTRAP_SERVERS: "environment:1"} if "environment" in given else {}
    )
    target = log_target(
        "flag:1" if "flag" in given else None,
        config(tmp_path, "bootstrap.servers = file:1, file:2") if "file" in given else None,
        ["bootstrap.servers=property:1, property:2"] if "property" in given else [],
        environ,
    )
    assert target == Target(url, {}, origin.replace("FILE", str(tmp_path / "client.properties")))


def test_a_property_goes_before_the_file_and_a_later_one_before_an_earlier(tmp_path: Path) -> None:
    file = config(tmp_path, "bootstrap.servers=h:1\nacks=all\nclient.id=file\nrequest.timeout.ms=1")
    target = log_target(None, file, ["client.id=first", "client.id=a=b", "request.timeout.ms=2"], {})
    assert target.options == {"acks": "all", "client.id": "a=b", "request.timeout.ms": "2"}


def test_the_file_of_the_flag_takes_the_place_of_that_of_the_environment(tmp_path: Path) -> None:
    file = config(tmp_path, "client.id=mine")
    assert log_target("h:1", file, [], {COMMAND_CONFIG: "/no/such/file"}).options == {"client.id": "mine"}
    assert log_target("h:1", None, [], {COMMAND_CONFIG: file}).options == {"client.id": "mine"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("client.id=x", "x"),
        ("client.id:x", "x"),
        ("client.id x", "x"),
        ("client.id = x", "x"),
        ("client.id\t:\tx", "x"),
        (" \t client.id=x", "x"),
        ("client.id==x", "=x"),
        ("client.id= : x", ": x"),
        ("client.id=x y = z # no comment", "x y = z # no comment"),
        ("client\\.id=x", "x"),
        ("#client.id=y\n  ! client.id=z\n\n \t\nclient.id=x", "x"),
        ("# a comment does not go on \\\nclient.id=x", "x"),
        ("client.id=a\\\n   b\\\r\n\tc", "abc"),
        ("client.id=a\\\n#b", "a#b"),
        ("client.id=a\\\\\nacks=all", "a\\"),
        ("client.id=a\\", "a"),
        ("client.id=a\\tb\\nc\\:\\=\\q", "a\tb\nc:=q"),
        ("client.id=\\u20b9\\uD83D\\uDE00", "₹😀"),
        ("client.id=₹", "₹"),
        ("\ufeffclient.id=x", "x"),
        ("acks=all\rclient.id=x\r", "x"),
        ("client.id=", ""),
        ("client.id", ""),
    ],
    ids=ascii,
)
def test_a_file_is_read_as_java_reads_it(tmp_path: Path, text: str, value: str) -> None:
    """Separators, comments, lines that go on, and escapes of `java.util.Properties`, in UTF-8."""
    target = log_target("h:1", config(tmp_path, text), [], {})
    assert target.options["client.id"] == value


def test_a_key_is_known_by_its_escapes(tmp_path: Path) -> None:
    assert log_target("h:1", config(tmp_path, "client\\u002eid=x"), [], {}).options == {"client.id": "x"}


# --- what the options mean -------------------------------------------------------------------------------------

PLAIN: Final = "org.apache.kafka.common.security.plain.PlainLoginModule"
SCRAM: Final = "org.apache.kafka.common.security.scram.ScramLoginModule"
SASL: Final = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}


@pytest.mark.parametrize(
    "options",
    [
        {"sasl.jaas.config": f'{PLAIN} required username="me" password="it\\"s; = x";'},
        {"sasl.jaas.config": f"{PLAIN} required username='me' password='it\"s; = x';"},
        {"sasl.jaas.config": f' {PLAIN}\n required\n password="it\\"s; = x"\n username=me ;\n'},
        {
            "sasl.mechanism": "scram-sha-512",
            "sasl.jaas.config": f'{SCRAM} required username=me password="it\\"s; = x";',
        },
        {"sasl.username": "me", "sasl.password": 'it"s; = x'},
    ],
)
def test_a_name_and_a_password_are_found(options: dict[str, str]) -> None:
    """In JAAS's way with any of its quotes, and as two options."""
    client = read_settings(SASL | options).client
    assert (client["sasl_plain_username"], client["sasl_plain_password"]) == ("me", 'it"s; = x')
    assert client["sasl_mechanism"] == options.get("sasl.mechanism", "PLAIN").upper()


@pytest.mark.parametrize(
    ("options", "timeouts"),
    [
        ({}, (10_000, 12_000, 15_000)),
        ({"request.timeout.ms": "2000"}, (2_000, 12_000, 15_000)),
        ({"request.timeout.ms": "30000"}, (30_000, 32_000, 35_000)),
        ({"delivery.timeout.ms": " 60000 "}, (10_000, 60_000, 63_000)),
        ({"request.timeout.ms": "1", "delivery.timeout.ms": "2", "transaction.timeout.ms": "3"}, (1, 2, 3)),
    ],
)
def test_timeouts_that_are_not_given_follow_from_those_that_are(
    options: dict[str, str], timeouts: tuple[int, int, int]
) -> None:
    found = read_settings(options).timeouts
    assert found == Timeouts(*timeouts)
    assert found.request_ms < found.delivery_ms < found.transaction_ms


@pytest.mark.parametrize(
    ("options", "versions"),
    [
        ({}, ("TLSv1_2", "TLSv1_3")),
        ({"ssl.enabled.protocols": "TLSv1.3"}, ("TLSv1_3", "TLSv1_3")),
        ({"ssl.enabled.protocols": "TLSv1.2, TLSv1.3", "ssl.protocol": "TLSv1.3"}, ("TLSv1_2", "TLSv1_3")),
        ({"ssl.protocol": "TLSv1.2"}, ("TLSv1_2", "TLSv1_2")),
    ],
)
def test_versions_of_tls_are_those_asked_for(options: dict[str, str], versions: tuple[str, str]) -> None:
    context = read_settings({"security.protocol": "SSL"} | options).client["ssl_context"]
    assert (context.minimum_version.name, context.maximum_version.name) == versions
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_the_name_in_the_certificate_is_unchecked_only_if_that_is_asked_for() -> None:
    options = {"security.protocol": "SSL", "ssl.endpoint.identification.algorithm": ""}
    context = read_settings(options).client["ssl_context"]
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, False)


SECRET: Final = "s3cret"
TLS: Final = {"security.protocol": "SSL"}
WRONG: Final[list[tuple[dict[str, str], str]]] = [
    ({"no.such.option": SECRET}, "unknown option of Kafka: no.such.option (HERE)"),
    ({"ssl.truststore.password": SECRET} | TLS, "unknown option of Kafka: ssl.truststore.password (HERE)"),
    ({"security.protocol": "TLS"}, "security.protocol (HERE) cannot be 'TLS'"),
    ({"acks": "1"}, "acks (HERE) cannot be '1'"),
    ({"isolation.level": "read_uncommitted"}, "isolation.level (HERE) cannot be"),
    ({"ssl.truststore.type": "JKS"}, "ssl.truststore.type (HERE) cannot be 'JKS'"),
    ({"client.id": "\udcff"}, "client.id (HERE) is no text"),
    *(
        ({"request.timeout.ms": wrong}, "request.timeout.ms (HERE) is not a number")
        for wrong in ("", "x", "-1", "0", "1.5", "1e3", "900001", "١٢", "9" * 5_000)
    ),
    ({"request.timeout.ms": "5000", "delivery.timeout.ms": "5000"}, "the timeouts must rise"),
    ({"request.timeout.ms": "900000"}, "the timeouts must rise"),
    # What would have no effect is not taken.
    ({"sasl.password": SECRET}, "sasl.password (HERE) is given, but security.protocol is PLAINTEXT"),
    ({"sasl.mechanism": "PLAIN"} | TLS, "sasl.mechanism (HERE) is given, but security.protocol is SSL"),
    ({"ssl.protocol": "TLSv1.3"} | SASL, "ssl.protocol (HERE) is given, but security.protocol is SASL_PLAINTEXT"),
    ({"ssl.key.password": SECRET} | TLS, "ssl.key.password (HERE) is given, but no ssl.keystore.location"),
    # Who we are.
    ({"security.protocol": "SASL_SSL"}, "sasl.mechanism is missing"),
    (SASL | {"sasl.mechanism": "GSSAPI"}, "sasl.mechanism (HERE) cannot be 'GSSAPI'"),
    (SASL, "the user's name or the password is missing"),
    (SASL | {"sasl.username": "me"}, "the user's name or the password is missing"),
    (SASL | {"sasl.password": SECRET}, "the user's name or the password is missing"),
    (SASL | {"sasl.jaas.config": f"{PLAIN} required;"}, "the user's name or the password is missing"),
    *(
        (SASL | {"sasl.jaas.config": wrong}, "sasl.jaas.config (HERE) cannot be read")
        for wrong in (
            SECRET,
            f'{PLAIN} required username="me" password="{SECRET}"',
            f'{PLAIN} username="me" password="{SECRET}";',
            f'{PLAIN} required username="me" password="{SECRET};',
            f'{PLAIN} required username="me"password="{SECRET}";',
            f'{PLAIN} required username="me" password="{SECRET}" more;',
            f'{PLAIN} required username="me" password="{SECRET}" tokenauth="true";',
        )
    ),
    (
        SASL | {"sasl.jaas.config": f'{SCRAM} required username="me" password="{SECRET}";'},
        "sasl.jaas.config (HERE) does not fit sasl.mechanism PLAIN",
    ),
    (
        SASL | {"sasl.jaas.config": f'{PLAIN} required username="me" password="{SECRET}";', "sasl.password": SECRET},
        "sasl.jaas.config (HERE) and sasl.username or sasl.password are given",
    ),
    # Whom we trust.
    (TLS | {"ssl.enabled.protocols": "TLSv1.1,TLSv1.2"}, "ssl.enabled.protocols (HERE) names another"),
    (TLS | {"ssl.enabled.protocols": ""}, "ssl.enabled.protocols (HERE) names another"),
    (TLS | {"ssl.enabled.protocols": "TLSv1.3", "ssl.protocol": "TLSv1.2"}, "ssl.protocol (HERE) leaves nothing"),
    (TLS | {"ssl.endpoint.identification.algorithm": "none"}, "ssl.endpoint.identification.algorithm (HERE) cannot be"),
    *(
        (TLS | {name: path}, f"{name} (HERE) cannot be loaded")
        for name in ("ssl.truststore.location", "ssl.keystore.location")
        for path in ("", "/no/such/file.pem", "/", "/dev/zero", __file__, "a\0b", "\x1b[2J")
    ),
]


@pytest.mark.parametrize(("options", "error"), WRONG, ids=range(len(WRONG)))
def test_an_option_that_cannot_be_obeyed_is_refused_by_name_and_place(options: dict[str, str], error: str) -> None:
    """And no value is shown that may be a secret."""
    with pytest.raises(UsageError) as raised:
        read_settings(options, dict.fromkeys(options, "HERE"))
    assert raised.value.what.startswith(error)
    said = f"{raised.value.what} {raised.value.cause} {raised.value.hint}"
    assert SECRET not in said
    assert said.isprintable()


def test_every_option_that_is_called_known_is(tmp_path: Path) -> None:
    """None of them is refused as unknown."""
    values: dict[str, Any] = dict.fromkeys(KNOWN, "?")
    with pytest.raises(UsageError) as raised:
        read_settings(values)
    assert "unknown" not in raised.value.what


@pytest.mark.parametrize(
    ("flag", "environ", "client"),
    [
        (None, {}, "kafka-python"),
        (None, {CLIENT: ""}, "kafka-python"),
        (None, {CLIENT: "librdkafka"}, "librdkafka"),
        ("kafka-python", {CLIENT: "librdkafka"}, "kafka-python"),
    ],
)
def test_the_client_is_that_of_the_flag_then_of_the_environment(
    flag: str | None, environ: dict[str, str], client: str
) -> None:
    assert log_target("h:1", None, [], environ, client=flag).client == client


@pytest.mark.parametrize(
    ("flag", "environ", "server", "what"),
    [
        ("confluent", {}, "h:1", "--client cannot be 'confluent'"),
        (None, {CLIENT: "LIBRDKAFKA"}, "h:1", "STOCKTRADE_CLIENT cannot be 'LIBRDKAFKA'"),
        ("librdkafka", {}, None, "--client is given, but no Kafka server"),
    ],
)
def test_a_client_that_is_none_or_of_no_use_is_refused(
    flag: str | None, environ: dict[str, str], server: str | None, what: str
) -> None:
    with pytest.raises(UsageError) as raised:
        log_target(server, None, [], environ, client=flag)
    assert raised.value.what == what
