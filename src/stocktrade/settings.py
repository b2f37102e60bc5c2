"""Which log a command talks to and how it connects, from its flags, a file and the environment.

Invariant: a wrong setting is refused by name, and by line if it is in a file, before any connection is tried. A
secret is never a flag or part of a message.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from stocktrade.domain.values import visible
from stocktrade.errors import UsageError
from stocktrade.transport import CLIENTS, KAFKA_PYTHON

HOME: Final = "STOCKTRADE_HOME"
BOOTSTRAP_SERVERS: Final = "STOCKTRADE_BOOTSTRAP_SERVERS"
COMMAND_CONFIG: Final = "STOCKTRADE_COMMAND_CONFIG"
CLIENT: Final = "STOCKTRADE_CLIENT"

MAX_FILE_BYTES: Final = 256 * 1024
_FLAG: Final = "--command-property"
_SERVERS: Final = "bootstrap.servers"
_SERVER: Final = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(\d{1,5})", re.ASCII)
_MAX_SERVERS: Final = 100


class Target(NamedTuple):
    """A log, Kafka's own options of the connection to it, and which setting named the log (empty: none did).

    `client` is the library that carries records to and from Kafka.
    """

    url: str
    options: dict[str, str]
    origin: str
    client: str = KAFKA_PYTHON


def log_target(
    bootstrap_server: str | None = None,
    command_config: str | None = None,
    command_property: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    *,
    client: str | None = None,
) -> Target:
    """The log that flags, environment and file name; the embedded one if none of them names a server.

    The servers are those of the first that names some: `bootstrap_server`, `command_property`, the environment, the
    file. Any other option is that of `command_property`, else that of the file.

    Args:
        bootstrap_server: HOST:PORT,HOST:PORT.
        command_config: a file of Kafka's options; without it the one that the environment names.
        command_property: Kafka's options, each as NAME=VALUE.
        environ: the environment.
        client: the library that carries records to and from Kafka; without it the one that the environment names.

    Raises:
        UsageError: a setting is wrong, or has no effect without a server.
    """
    file_key = "--command-config" if command_config is not None else COMMAND_CONFIG
    file = command_config if command_config is not None else environ.get(COMMAND_CONFIG)
    from_file = {} if file is None else _read_file(file_key, file)
    from_flags = _read_flags(command_property)

    named = [
        ("--bootstrap-server", bootstrap_server),
        (f"{_FLAG} {_SERVERS}", _listed(from_flags.pop(_SERVERS, None))),
        (BOOTSTRAP_SERVERS, environ.get(BOOTSTRAP_SERVERS)),
        (f"{_SERVERS} in {visible(file or '')}", _listed(from_file.pop(_SERVERS, None))),
    ]
    for key, servers in named:
        if servers is not None:
            url = f"kafka:{_checked_servers(key, servers)}"
            return Target(url, _checked_options(from_file | from_flags), key, _client(client, environ))

    given = file_key if file is not None else _FLAG if command_property else "--client" if client is not None else None
    if given is not None:
        raise UsageError(
            f"{given} is given, but no Kafka server",
            cause="the embedded log has no such options",
            hint=f"give --bootstrap-server HOST:PORT, {BOOTSTRAP_SERVERS}, or {_SERVERS} in the file",
        )
    return Target(f"sqlite:{home_folder(environ)}", {}, HOME if environ.get(HOME) else "")


def home_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """The folder of the embedded log, and of whatever else stocktrade keeps for its user.

    Raises:
        UsageError: it can be none.
    """
    home = environ.get(HOME)
    if home is not None and "\0" in home:
        raise UsageError(f"{HOME} is no folder", cause=visible(home))
    return Path(home) if home else Path("~/.stocktrade").expanduser()


def _client(flag: str | None, environ: Mapping[str, str]) -> str:
    key, name = ("--client", flag) if flag is not None else (CLIENT, environ.get(CLIENT) or KAFKA_PYTHON)
    if name not in CLIENTS:
        raise UsageError(f"{key} cannot be {visible(name, 40)!r}", hint=f"it can be {' or '.join(CLIENTS)}")
    return name


def _checked_servers(key: str, servers: str) -> str:
    hint = "give HOST:PORT, or several with commas between them; unset it to use the embedded log"
    parts = servers.split(",")
    if len(parts) > _MAX_SERVERS:
        raise UsageError(f"{key} names {len(parts)} servers", cause=f"the limit is {_MAX_SERVERS}", hint=hint)
    for part in parts:
        match = _SERVER.fullmatch(part)
        if match is None or not 0 < int(match[1]) < 65_536:
            raise UsageError(
                f"{key} is not a list of servers", cause=f"{visible(part, 80)!r} is no HOST:PORT", hint=hint
            )
    return servers


class _Option(NamedTuple):
    value: str
    origin: str


def _listed(servers: _Option | None) -> str | None:
    """Servers as Kafka's own programs take them, with spaces around the commas."""
    return None if servers is None else re.sub(r"\s*,\s*", ",", servers.value.strip())


def _checked_options(options: Mapping[str, _Option]) -> dict[str, str]:
    # Only a command that uses Kafka needs to know its options.
    from stocktrade.transport.kafka_options import read_settings  # noqa: PLC0415

    values = {name: option.value for name, option in options.items()}
    read_settings(values, {name: option.origin for name, option in options.items()})
    return values


def _is_secret(name: str) -> bool:
    from stocktrade.transport.kafka_options import SECRETS  # noqa: PLC0415

    return name in SECRETS


def _read_flags(properties: Sequence[str]) -> dict[str, _Option]:
    found = {}
    for text in properties:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals or not name:
            # What it is instead is not shown: it may be a password.
            raise UsageError(f"{_FLAG} is not NAME=VALUE", hint="for example security.protocol=SSL")
        if _is_secret(name):
            raise UsageError(
                f"{_FLAG} cannot set {name}",
                cause="it is a secret, and everybody on this machine can see the arguments of a command",
                hint="put it into a file that only you can read, and give that with --command-config",
            )
        found[name] = _Option(value, _FLAG)
    return found


# --- the file --------------------------------------------------------------------------------------------------

_SPACE: Final = " \t\f"
_PAIR: Final = re.compile(rf"((?:[^\\=:{_SPACE}]|\\.)*)[{_SPACE}]*(?:[=:][{_SPACE}]*)?(.*)", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|(.))", re.DOTALL)
_ESCAPED: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def _read_file(key: str, path: str) -> dict[str, _Option]:
    """The options of a file as `java.util.Properties` reads them, in UTF-8."""
    shown = visible(path)
    data, mode = read_bytes(key, path)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{shown}, line {at} is no text", cause="it is not valid UTF-8") from None
    found: dict[str, _Option] = {}
    for number, line in _logical_lines(text):
        origin = f"{shown}, line {number}"
        pair = _PAIR.fullmatch(line)
        name, value = ("", "") if pair is None else (_unescaped(part, origin) for part in pair.groups())
        if not name:
            raise UsageError(f"{origin} is not NAME=VALUE")
        if name in found:
            raise UsageError(
                f"{origin} sets {visible(name, 80)} again",
                cause=f"it stands in{found[name].origin.removeprefix(shown + ',')} already",
            )
        if mode & stat.S_IROTH and _is_secret(name):
            raise UsageError(
                f"{origin} holds a secret, {name}",
                cause="everybody on this machine can read the file",
                hint=f"chmod o-r {shown}",
            )
        found[name] = _Option(value, origin)
    return found


def read_bytes(key: str, path: str) -> tuple[bytes, int]:
    """A file's content, of at most MAX_FILE_BYTES, and its rights; `key` is what named it.

    Raises:
        UsageError: it cannot be read, is no file, or is too large.
    """
    try:
        # A pipe that nobody writes to must not hold us up.
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(number).st_mode
            data = os.read(number, MAX_FILE_BYTES + 1) if stat.S_ISREG(mode) else None
        finally:
            os.close(number)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{key} {visible(path)!r} cannot be read", cause=reason) from error
    if data is None:
        raise UsageError(f"{key} {visible(path)!r} is no file", hint="name a file")
    if len(data) > MAX_FILE_BYTES:
        raise UsageError(f"{key} {visible(path)!r} is too large", cause=f"the limit is {MAX_FILE_BYTES} bytes")
    return data, mode


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with what continues them, and the number of their first one; no comments, no empty lines."""
    begun: list[str] = []
    first = 0
    for number, natural in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = natural.lstrip(_SPACE)
        if not begun:
            if not line or line[0] in "#!":
                continue
            first = number
        if (len(line) - len(line.rstrip("\\"))) % 2:
            begun.append(line[:-1])
            continue
        yield first, "".join([*begun, line])
        begun = []
    if begun:
        yield first, "".join(begun)


def _unescaped(text: str, origin: str) -> str:
    def character(escape: re.Match[str]) -> str:
        if escape[1] is not None:
            return chr(int(escape[1], 16))
        if escape[2] == "u":
            raise UsageError(f"{origin}: \\u is followed by four hexadecimal digits")
        return _ESCAPED.get(escape[2], escape[2])

    plain = _ESCAPE.sub(character, text)
    try:
        # What Java writes as two halves is one character here.
        return plain.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise UsageError(f"{origin}: \\u stands for half a character") from None
