"""Which log a command talks to, from its flags and the environment.

Invariant: a wrong setting is refused by name before any connection is tried, and no secret is ever a flag or part
of a message.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stocktrade.domain.values import visible
from stocktrade.errors import UsageError

HOME: Final = "STOCKTRADE_HOME"
BOOTSTRAP_SERVERS: Final = "STOCKTRADE_BOOTSTRAP_SERVERS"

_SERVER = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):(\d{1,5})", re.ASCII)
_MAX_SERVERS: Final = 100


def log_url(bootstrap_server: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The log that the flag or the environment names; without either the embedded one.

    Raises:
        UsageError: the setting is no list of HOST:PORT, or the folder is no folder's name.
    """
    key = "--bootstrap-server" if bootstrap_server is not None else BOOTSTRAP_SERVERS
    servers = bootstrap_server if bootstrap_server is not None else environ.get(BOOTSTRAP_SERVERS)
    if servers is not None:
        return f"kafka:{_checked_servers(key, servers)}"
    home = environ.get(HOME) or str(Path("~/.stocktrade").expanduser())
    if "\0" in home:
        raise UsageError(f"{HOME} is no folder", cause=visible(home))
    return f"sqlite:{home}"


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
