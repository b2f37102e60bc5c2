"""The instruments file that a command was given, read from the disk and turned into rules."""

from pathlib import Path

from stocktrade.core.instruments import MAX_FILE_BYTES, parse_instruments
from stocktrade.core.rules import RULES, Rules
from stocktrade.domain.values import visible
from stocktrade.errors import UsageError


def rules_from(path: str | None) -> Rules:
    """The rules under the instruments file at `path`; the built-in ones without a path.

    Raises:
        UsageError: it cannot be read, or is no instruments file.
    """
    if path is None:
        return RULES
    try:
        file = Path(path)
        if not file.is_file():
            what = "a folder" if file.is_dir() else "no such file" if not file.exists() else "not a file"
            raise UsageError(f"--instruments {visible(path)!r} cannot be read", cause=what)
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"--instruments {visible(path)!r} cannot be read", cause=reason) from error
    return parse_instruments(data, source=path)
