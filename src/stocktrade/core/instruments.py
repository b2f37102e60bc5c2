"""The instruments file: how symbols are traded, as a user wrote it in TOML, turned into `Rules`.

Owns the file's grammar; reading the file itself is for a role. Invariant: what is not understood in full is refused,
with the line where it is known and the key; nothing is guessed, rounded or ignored. Two files with the same content
give rules of the same name, and any other difference but layout and comments gives another name.

    version = "2026-11"             # yours, to tell your files apart

    [defaults]                      # every symbol that has no table of its own, and what such a table leaves out
    ticks = [{from = 0, tick = 0.01}, {from = 250, tick = 0.05}]    # in rupees; or `tick = 0.01` for all prices
    lot = 1
    max_quantity = 100_000
    price_band_percent = 10

    [symbols.SBIN]
    reference_price = 885
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from hashlib import sha256
from itertools import pairwise
from typing import Any, Final

from stocktrade.core.rules import NSE_INSTRUMENT, RULES, Instrument, Rules
from stocktrade.domain.values import MAX_QUANTITY, canonical_symbol, group_indian, paise_from_rupees, visible
from stocktrade.errors import UsageError

MAX_FILE_BYTES: Final = 256 * 1024
"""The largest instruments file: some five thousand symbols. A journal's first entry holds it."""

_HINT: Final = "the keys of an instruments file are in docs/matching.md"
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,31}")
_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)")

_Path = tuple[str, ...]


class _Wrong(Exception):
    """What is wrong with the value at `path`."""

    def __init__(self, path: _Path, what: str) -> None:
        super().__init__(what)
        self.path = path
        self.what = what


def parse_instruments(data: bytes, *, source: str, rules: Rules = RULES) -> Rules:
    """The rules under an instruments file.

    Args:
        data: The bytes of the file.
        source: What to call the file when it is refused.
        rules: What the file does not speak of; the name of these is the beginning of the new one.

    Raises:
        UsageError: The file is no instruments file; line and key are named where they are known.
    """

    def refused(cause: str) -> UsageError:
        return UsageError(f"cannot use the instruments file {visible(source)}", cause=cause, hint=_HINT)

    if len(data) > MAX_FILE_BYTES:
        raise refused(f"{len(data)} bytes, the limit is {MAX_FILE_BYTES}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refused(f"line {line}: not UTF-8") from error
    try:
        tables = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise refused(_syntax_error(text, str(error))) from error
    except (ValueError, ArithmeticError, RecursionError) as error:  # numbers beyond what Python reads, deep nesting
        raise refused("not TOML") from error
    try:
        return replace(_rules(tables, rules), file=text)
    except _Wrong as error:
        path = error.path
        line = next((number for number, at in _places(text) if at == path), 0)
        where = f"line {line}: " if line else ""
        raise refused(f"{where}{visible('.'.join(path))}: {error.what}") from error


def _syntax_error(text: str, message: str) -> str:
    found = _AT_LINE.search(message)
    if found is None:
        return visible(message)
    number = int(found[1])
    key = text.splitlines()[number - 1].partition("=")[0].strip() if number <= len(text.splitlines()) else ""
    return visible(f"line {number}: {key}: {_AT_LINE.sub('', message)}" if key else message)


def _places(text: str) -> Iterator[tuple[int, _Path]]:
    """The line of each table and of each key that begins a line."""
    table: _Path = ()
    for number, line in enumerate(text.splitlines(), 1):
        header = line.lstrip().startswith("[")
        try:
            path = _innermost(tomllib.loads(line if header else f"{line.partition('=')[0]}= 0"))
        except tomllib.TOMLDecodeError:
            continue  # within a value of several lines
        if header:
            table = path
            yield number, table
        elif path:
            yield number, (*table, *path)


def _innermost(tables: Any) -> _Path:
    path: list[str] = []
    while isinstance(tables, dict) and tables:
        ((key, tables),) = tables.items()
        path.append(key)
    return tuple(path)


# --- from tables to rules --------------------------------------------------------------------------------------


def _rules(tables: Mapping[str, Any], rules: Rules) -> Rules:
    _known(tables, {"version", "defaults", "symbols"}, ())
    version = tables.get("version")
    if not isinstance(version, str) or _VERSION.fullmatch(version) is None:
        raise _Wrong(("version",), "1 to 32 letters, digits or ._- that name this version, in quotes")
    defaults = tables.get("defaults")
    symbols = tables.get("symbols", {})
    if defaults is None and not symbols:
        raise _Wrong(("symbols",), "a file without [defaults] names the symbols that are traded")
    base = NSE_INSTRUMENT if defaults is None else _instrument(defaults, NSE_INSTRUMENT, ("defaults",))
    if not isinstance(symbols, dict):
        raise _Wrong(("symbols",), "tables such as [symbols.SBIN]")
    instruments: dict[str, Instrument] = {}
    for name, table in symbols.items():
        path = ("symbols", name)
        symbol = canonical_symbol(name)
        if symbol is None:
            raise _Wrong(path, "a symbol is 1 to 20 letters, digits, & or -")
        if symbol in instruments:
            raise _Wrong(path, f"{symbol} is there already, by another of its names")
        instruments[symbol] = _instrument(table, base, path)
    other = None if defaults is None else base
    return replace(
        rules, name=f"{rules.name}+{version}@{_digest(instruments, other)}", instruments=instruments, other=other
    )


def _digest(instruments: Mapping[str, Instrument], other: Instrument | None) -> str:
    """A short checksum of what the file says, whatever its layout."""
    content = [[symbol, *_numbers(instrument)] for symbol, instrument in sorted(instruments.items())]
    content.append([None, *(() if other is None else _numbers(other))])
    return sha256(json.dumps(content).encode()).hexdigest()[:12]


def _numbers(instrument: Instrument) -> tuple[Any, ...]:
    return (
        instrument.tick_bands,
        instrument.lot,
        instrument.max_quantity,
        instrument.reference_price,
        instrument.band_basis_points,
    )


def _instrument(table: Any, base: Instrument, path: _Path) -> Instrument:
    """An instrument as `base`, but for what its table says."""
    if not isinstance(table, dict):
        raise _Wrong(path, "a table")
    _known(table, _READERS.keys() if path[0] == "symbols" else _READERS.keys() - {"reference_price"}, path)
    if "tick" in table and "ticks" in table:
        raise _Wrong((*path, "ticks"), "there is a tick already")
    changes: dict[str, Any] = {}
    for key, value in table.items():
        attribute, read = _READERS[key]
        try:
            changes[attribute] = read(value)
        except ValueError as error:
            raise _Wrong((*path, key), str(error)) from error
    if path[0] == "symbols" and "price_band_percent" in table and "reference_price" not in table:
        raise _Wrong((*path, "price_band_percent"), "a price band is around a reference_price")
    try:
        return replace(base, **changes)
    except ValueError as error:  # numbers that are right by themselves and wrong together
        raise _Wrong(path, str(error)) from error


def _known(table: Mapping[str, Any], keys: Any, path: _Path) -> None:
    for key in table:
        if key not in keys:
            raise _Wrong((*path, key), f"no such key; there is {', '.join(sorted(keys))}")


def _rupees(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError("a number of rupees")  # noqa: TRY004 - the one error of all readers
    try:
        return paise_from_rupees(value)
    except ValueError as error:
        raise ValueError(f"a number of rupees above zero with at most two decimals; this is {error}") from error


def _tick(value: Any) -> tuple[tuple[int, int], ...]:
    return ((0, _rupees(value)),)


def _ticks(value: Any) -> tuple[tuple[int, int], ...]:
    if not isinstance(value, list) or not all(
        isinstance(band, dict) and band.keys() == {"from", "tick"} for band in value
    ):
        raise ValueError("a list of {from = ..., tick = ...}")
    starts = [band["from"] for band in value]
    if not value or isinstance(starts[0], bool) or starts[0] != 0:
        raise ValueError("the first band is from = 0")
    bands = ((0, _rupees(value[0]["tick"])), *((_rupees(band["from"]), _rupees(band["tick"])) for band in value[1:]))
    if any(above[0] <= below[0] for below, above in pairwise(bands)):
        raise ValueError("the bands ascend")
    return bands


def _shares(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_QUANTITY:
        raise ValueError(f"a whole number of shares from 1 to {group_indian(MAX_QUANTITY)}")
    return value


def _percent(value: Any) -> int:
    what = "a percentage from 0.01 to 1000 with at most two decimals"
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise ValueError(what)  # noqa: TRY004 - the one error of all readers
    try:
        basis_points = paise_from_rupees(value)
    except ValueError as error:
        raise ValueError(what) from error
    if basis_points > 1000_00:
        raise ValueError(what)
    return basis_points


_READERS: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "tick": ("tick_bands", _tick),
    "ticks": ("tick_bands", _ticks),
    "lot": ("lot", _shares),
    "max_quantity": ("max_quantity", _shares),
    "reference_price": ("reference_price", _rupees),
    "price_band_percent": ("band_basis_points", _percent),
}
"""Key: the attribute of `Instrument` that it sets, and how its value is read."""
