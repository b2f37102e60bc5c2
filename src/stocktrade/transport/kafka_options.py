"""Kafka's own options of a connection: which are known, and what each becomes in the client library's words.

Invariant: an option that is accepted is obeyed. Any other is refused by its name and by the place where it was given,
and no message shows the value of an option that can be a secret.
"""

import re
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from stocktrade.domain.values import visible
from stocktrade.errors import UsageError

SECRETS: Final = frozenset(
    {
        "sasl.jaas.config",
        "sasl.password",
        "ssl.key.password",
        "ssl.keystore.key",
        "ssl.keystore.password",
        "ssl.truststore.password",
    }
)
"""What must not be seen by others: not in a message, and not in a list of processes."""


class Timeouts(NamedTuple):
    """The times that must stand in one order: request < delivery < transaction."""

    request_ms: int = 10_000
    delivery_ms: int = 12_000
    transaction_ms: int = 15_000
    session_ms: int = 6_000  # the least that brokers allow unless they are told otherwise
    max_poll_interval_ms: int = 60_000


class Settings(NamedTuple):
    """What a user may set about the connection."""

    client: dict[str, Any]
    """In kafka-python's words."""

    timeouts: Timeouts

    native: dict[str, str]
    """In librdkafka's words, without the times; what that has no words for stands here under Kafka's name."""


_PROTOCOLS: Final = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS: Final = {
    "PLAIN": "PlainLoginModule",
    "SCRAM-SHA-256": "ScramLoginModule",
    "SCRAM-SHA-512": "ScramLoginModule",
}
_SASL: Final = ("sasl.mechanism", "sasl.username", "sasl.password", "sasl.jaas.config")
_TLS: Final = (
    "ssl.truststore.location",
    "ssl.keystore.location",
    "ssl.key.password",
    "ssl.endpoint.identification.algorithm",
    "ssl.protocol",
    "ssl.enabled.protocols",
)
_TLS_VERSIONS: Final = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}
_TIMES: Final = {
    "request.timeout.ms": "request_ms",
    "delivery.timeout.ms": "delivery_ms",
    "transaction.timeout.ms": "transaction_ms",
    "session.timeout.ms": "session_ms",
    "max.poll.interval.ms": "max_poll_interval_ms",
}
_GIVEN: Final = {
    "acks": ("all", "-1"),
    "client.dns.lookup": ("use_all_dns_ips",),
    "enable.idempotence": ("true",),
    "isolation.level": ("read_committed",),
    "ssl.keystore.type": ("PEM",),
    "ssl.truststore.type": ("PEM",),
}
"""What is always so. Files made for other programs say it too, and may."""

KNOWN: Final = sorted(["security.protocol", "client.id", *_SASL, *_TLS, *_TIMES, *_GIVEN])

_MAX_MS: Final = 900_000
_JAAS: Final = re.compile(r"\s*([\w.$]+)\s+(?:required|requisite|sufficient|optional)((?:\s+.*)?);\s*", re.DOTALL)
_JAAS_OPTION: Final = re.compile(
    r"""\s+(\w+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s"';=]+))(?=\s|$)""", re.DOTALL
)


class _Options:
    """The options given. Whoever complains about one says where it stands."""

    def __init__(self, values: Mapping[str, str], origins: Mapping[str, str]) -> None:
        self._values = values
        self._origins = origins

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def named(self, name: str) -> str:
        """The option's name, and where it was given."""
        origin = self._origins.get(name)
        shown = visible(name, 80)
        return f"{shown} ({origin})" if origin else shown

    def text(self, name: str, otherwise: str = "") -> str:
        """A value; but for secrets, spaces around it do not count."""
        value = self._values.get(name, otherwise)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{self.named(name)} is no text", hint="it is not valid UTF-8") from None
        return value if name in SECRETS else value.strip()

    def one_of(self, name: str, choices: tuple[str, ...], otherwise: str = "") -> str:
        """A value that is not free, in the spelling of `choices`."""
        value = self.text(name, otherwise)
        for choice in choices:
            if value.upper() == choice.upper():
                return choice
        raise UsageError(
            f"{self.named(name)} cannot be {visible(value, 40)!r}",
            hint=f"it can be {' or '.join(choice or 'empty' for choice in choices)}",
        )

    def milliseconds(self, name: str) -> int:
        value = self.text(name)
        if not value.isascii() or not value.isdigit() or len(value) > 9 or not 0 < int(value) <= _MAX_MS:
            raise UsageError(f"{self.named(name)} is not a number of milliseconds from 1 to {_MAX_MS}")
        return int(value)


def read_settings(values: Mapping[str, str], origins: Mapping[str, str] | None = None) -> Settings:
    """Kafka's options (`security.protocol` …) in the words of the client library.

    Args:
        values: the options, by Kafka's names.
        origins: where an option was given (`FILE, line 3`), for messages.

    Raises:
        UsageError: an option is not known, its value is none, or it does not go together with the others.
    """
    options = _Options(values, origins or {})
    for name in values:
        if name not in KNOWN:
            pem = "certificates and keys are read from PEM files; " if name.startswith("ssl.") else ""
            raise UsageError(
                f"unknown option of Kafka: {options.named(name)}",
                hint=f"{pem}these are known: {', '.join(KNOWN)}",
            )
    for name, always in _GIVEN.items():
        if name in options:
            options.one_of(name, always)
    protocol = options.one_of("security.protocol", _PROTOCOLS, "PLAINTEXT")
    for names, words, meant in ((_SASL, "SASL", "SASL_"), (_TLS, "TLS", "SSL")):
        given = [name for name in names if name in options]
        # It would have no effect, and whoever gave it believes that it has.
        if given and meant not in protocol:
            raise UsageError(
                f"{options.named(given[0])} is given, but security.protocol is {protocol}",
                cause=f"{protocol} does without {words}",
                hint=f"set security.protocol to one of {', '.join(_PROTOCOLS[1:])}, or take the option out",
            )
    client: dict[str, Any] = {"security_protocol": protocol}
    if "client.id" in options:
        client["client_id"] = options.text("client.id")
    if protocol.startswith("SASL_"):
        client |= _credentials(options)
    if protocol.endswith("SSL"):
        client["ssl_context"] = _ssl_context(options)
    return Settings(client, _timeouts(options), _native(options, client))


def _native(options: _Options, client: Mapping[str, Any]) -> dict[str, str]:
    native = {"security.protocol": str(client["security_protocol"])}
    words = {
        "client_id": "client.id",
        "sasl_mechanism": "sasl.mechanism",
        "sasl_plain_username": "sasl.username",
        "sasl_plain_password": "sasl.password",
    }
    native |= {words[name]: str(value) for name, value in client.items() if name in words}
    places = {
        "ssl.truststore.location": ("ssl.ca.location",),
        "ssl.keystore.location": ("ssl.certificate.location", "ssl.key.location"),
        "ssl.key.password": ("ssl.key.password",),
        "ssl.protocol": ("ssl.protocol",),
        "ssl.enabled.protocols": ("ssl.enabled.protocols",),
    }
    for name, own in places.items():
        if name in options:
            native |= dict.fromkeys(own, options.text(name))
    if "ssl_context" in client:
        native["ssl.endpoint.identification.algorithm"] = "https" if client["ssl_context"].check_hostname else "none"
    return native


def _timeouts(options: _Options) -> Timeouts:
    given = {field: options.milliseconds(name) for name, field in _TIMES.items() if name in options}
    usual = Timeouts()
    # Who sets one of them should not have to know the others.
    request_ms = given.get("request_ms", usual.request_ms)
    given.setdefault("delivery_ms", max(usual.delivery_ms, request_ms + 2_000))
    given.setdefault("transaction_ms", min(_MAX_MS, max(usual.transaction_ms, given["delivery_ms"] + 3_000)))
    timeouts = Timeouts(**given)
    if not timeouts.request_ms < timeouts.delivery_ms < timeouts.transaction_ms:
        raise UsageError(
            "the timeouts must rise: request.timeout.ms < delivery.timeout.ms < transaction.timeout.ms",
            cause=f"they are {timeouts.request_ms}, {timeouts.delivery_ms}, {timeouts.transaction_ms}",
        )
    return timeouts


# --- who we are ------------------------------------------------------------------------------------------------


def _credentials(options: _Options) -> dict[str, str]:
    if "sasl.mechanism" not in options:
        raise UsageError(
            "sasl.mechanism is missing",
            cause="security.protocol asks for SASL",
            hint=f"set sasl.mechanism to one of {', '.join(_MECHANISMS)}",
        )
    mechanism = options.one_of("sasl.mechanism", tuple(_MECHANISMS))
    if "sasl.jaas.config" in options:
        if "sasl.username" in options or "sasl.password" in options:
            raise UsageError(
                f"{options.named('sasl.jaas.config')} and sasl.username or sasl.password are given",
                hint="use one of the two ways",
            )
        user, password = _from_jaas(options, mechanism)
    else:
        user, password = options.text("sasl.username"), options.text("sasl.password")
    if not user or not password:
        raise UsageError(
            "the user's name or the password is missing",
            cause=f"SASL {mechanism} needs both",
            hint="give sasl.jaas.config, or sasl.username and sasl.password, in a file for --command-config",
        )
    return {"sasl_mechanism": mechanism, "sasl_plain_username": user, "sasl_plain_password": password}


def _from_jaas(options: _Options, mechanism: str) -> tuple[str, str]:
    """Name and password out of JAAS's `MODULE required username="…" password="…";`."""
    module = _MECHANISMS[mechanism]
    entry = _JAAS.fullmatch(options.text("sasl.jaas.config"))
    found: dict[str, str] = {}
    rest = entry[2].rstrip() if entry else "?"
    while rest and (option := _JAAS_OPTION.match(rest)):
        quoted = option[2] if option[2] is not None else option[3]
        found[option[1]] = option[4] if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
        rest = rest[option.end() :]
    if entry is None or rest or found.keys() - {"username", "password"}:
        raise UsageError(
            f"{options.named('sasl.jaas.config')} cannot be read",
            hint=f'it looks like: org.apache.kafka.common.security.….{module} required username="…" password="…";',
        )
    if entry[1].rpartition(".")[2] != module:
        raise UsageError(
            f"{options.named('sasl.jaas.config')} does not fit sasl.mechanism {mechanism}",
            cause=f"the module of {mechanism} is {module}",
        )
    return found.get("username", ""), found.get("password", "")


# --- whom we trust ---------------------------------------------------------------------------------------------


def _ssl_context(options: _Options) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if "ssl.truststore.location" in options:
        # Only these, and none of the system's.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load(options, "ssl.truststore.location", lambda file: context.load_verify_locations(cafile=file))
    if "ssl.keystore.location" in options:
        # Without a password OpenSSL would ask for one on the terminal.
        password = options.text("ssl.key.password")
        _load(options, "ssl.keystore.location", lambda file: context.load_cert_chain(file, password=password))
    elif "ssl.key.password" in options:
        raise UsageError(f"{options.named('ssl.key.password')} is given, but no ssl.keystore.location")
    versions = _tls_versions(options)
    context.minimum_version, context.maximum_version = min(versions), max(versions)
    context.check_hostname = options.one_of("ssl.endpoint.identification.algorithm", ("https", ""), "https") != ""
    return context


def _tls_versions(options: _Options) -> list[ssl.TLSVersion]:
    names = [name.strip() for name in options.text("ssl.enabled.protocols", ",".join(_TLS_VERSIONS)).split(",")]
    if not set(names) <= _TLS_VERSIONS.keys():
        raise UsageError(
            f"{options.named('ssl.enabled.protocols')} names another than {', '.join(_TLS_VERSIONS)}",
            hint="older ones are not safe",
        )
    # As in Kafka: TLSv1.2 here rules out TLSv1.3, anything else rules out nothing.
    if options.one_of("ssl.protocol", ("TLS", *_TLS_VERSIONS), "TLS") == "TLSv1.2":
        names = [name for name in names if name == "TLSv1.2"]
    if not names:
        raise UsageError(f"{options.named('ssl.protocol')} leaves nothing of ssl.enabled.protocols")
    return [_TLS_VERSIONS[name] for name in names]


def _load(options: _Options, name: str, load: Callable[[str], None]) -> None:
    path = options.text(name)
    try:
        # Anything else may never end, a pipe for one.
        if Path(path).exists() and not Path(path).is_file():
            raise IsADirectoryError(None, "it is no file")
        load(path)
    except (OSError, ValueError) as error:  # also what OpenSSL says
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"{options.named(name)} cannot be loaded",
            cause=visible(f"{path}: {reason}", 300),
            hint="it names a file in PEM format" + ("; ssl.key.password opens it" if "keystore" in name else ""),
        ) from error
