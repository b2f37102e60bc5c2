"""Lists of rows in the four forms that every listing command has: a table, TSV, CSV and JSON Lines.

Owns which form it is and what a row looks like in each. Invariants: a program gets every row whole, on one line, as
it comes; a person gets a table in which numbers and ids are never cut; nothing off a topic steers a screen.
"""

import csv
import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, TextIO, TypeVar

from rich.console import Console
from rich.text import Text

from stocktrade import tables
from stocktrade.domain.values import decimal_rupees, group_indian, rupees_in_table
from stocktrade.errors import UsageError
from stocktrade.ranges import rfc3339

RowT = TypeVar("RowT")


class Form(Enum):
    """How rows are written."""

    TABLE = "table"
    TSV = "tsv"
    CSV = "csv"
    JSON = "json"


class Column(NamedTuple, Generic[RowT]):
    """A column of a list.

    `name` heads it in CSV (`price_per_unit`), `head` in a table (`price`). `plain` gives the cell for programs: a
    number without grouping, rupees as a decimal number, a time as RFC 3339. `shown` gives it for people, if that
    differs: text off a topic through `tables.shown`. `right` is for numbers. `folds` is for free text and names, which
    may go on in the next line. `rank`: where a screen is too narrow, columns go by rank, highest first; those of
    rank 0 stay.
    """

    name: str
    head: str
    plain: Callable[[RowT], str]
    shown: Callable[[RowT], str | Text] | None = None
    right: bool = False
    folds: bool = False
    rank: int = 0


def number(name: str, head: str, of: Callable[[RowT], int], *, rank: int = 0) -> Column[RowT]:
    """A column of whole numbers; those below zero are red."""
    return Column(
        name, head, lambda row: str(of(row)), lambda row: _signed(of(row), group_indian), right=True, rank=rank
    )


def rupees(
    name: str, head: str, of: Callable[[RowT], int | None], *, none: Callable[[RowT], str] | None = None, rank: int = 0
) -> Column[RowT]:
    """A column of money, `of` in paise; where there is none, a person sees what `none` says."""

    def plain(row: RowT) -> str:
        paise = of(row)
        return "" if paise is None else decimal_rupees(paise)

    def shown(row: RowT) -> Text:
        paise = of(row)
        return Text(none(row) if none else "") if paise is None else _signed(paise, rupees_in_table)

    return Column(name, head, plain, shown, right=True, rank=rank)


def time_of(name: str, head: str, of: Callable[[RowT], int | None], *, rank: int = 0) -> Column[RowT]:
    """A column of times, `of` in milliseconds since 1970; an empty cell where there is none."""

    def plain(row: RowT) -> str:
        time_ms = of(row)
        return "" if time_ms is None else rfc3339(time_ms) or ""

    def shown(row: RowT) -> str:
        time_ms = of(row)
        return "" if time_ms is None else tables.clock(time_ms, newest_ms=time.time_ns() // 1_000_000)

    return Column(name, head, plain, shown, rank=rank)


def _signed(amount: int, text: Callable[[int], str]) -> Text:
    return Text(text(amount), tables.SELL if amount < 0 else "")


class Listing(NamedTuple, Generic[RowT]):
    """A kind of list: its columns, and a row as a JSON document.

    `schema` is that of each document (`stocktrade.trade/1`), whose other fields `document` gives: money as integer
    `*_paise`, times as RFC 3339, ids in full. `empty` is told to a person where there are no rows, on stderr.
    """

    schema: str
    columns: Sequence[Column[RowT]]
    document: Callable[[RowT], Mapping[str, Any]]
    empty: str


def form_of(console: Console, *, as_json: bool, as_csv: bool = False) -> Form:
    """The form that flags ask for; without one, a table on a terminal and TSV elsewhere.

    Raises:
        UsageError: both flags.
    """
    if as_json and as_csv:
        raise UsageError("--json and --csv are two forms", hint="give one of them")
    if as_json:
        return Form.JSON
    if as_csv:
        return Form.CSV
    return Form.TABLE if console.is_terminal else Form.TSV


def write(listing: Listing[RowT], rows: Iterable[RowT], form: Form, *, console: Console, out: TextIO) -> int:
    """Write rows: for programs as they come, for people all at once.

    Returns:
        How many there were.
    """
    if form is Form.TABLE:
        every = list(rows)
        if every:
            console.print(tables.columns_table(_table_columns(listing, every), console.width))
        else:
            sys.stderr.write(listing.empty + "\n")
        return len(every)
    lines = LineWriter(listing, form, out)
    for row in rows:
        lines.write(row)
    return lines.count


class LineWriter(Generic[RowT]):
    """Rows as lines for a program, each flushed when it is whole: what is followed comes when it happens."""

    def __init__(self, listing: Listing[RowT], form: Form, out: TextIO) -> None:
        self.count = 0
        self._listing = listing
        self._form = form
        self._out = out
        if form is Form.CSV:
            out.write(_csv_line([column.name for column in listing.columns]))

    def write(self, row: RowT) -> None:
        """One more row."""
        if self._form is Form.JSON:
            line = json_line(self._listing.schema, self._listing.document(row))
        else:
            cells = [column.plain(row) for column in self._listing.columns]
            line = _csv_line(cells) if self._form is Form.CSV else tables.tsv(cells) + "\n"
        self._out.write(line)
        self._out.flush()
        self.count += 1


def json_line(schema: str, fields: Mapping[str, Any]) -> str:
    """A document as one line, with nothing in it that a terminal would obey."""
    return tables.printable_json(json.dumps({"schema": schema, **fields}, ensure_ascii=False)) + "\n"


_FORMULA: Final = ("=", "+", "@", "\t", "\r")


def _csv_line(cells: Sequence[str]) -> str:
    """A line of CSV by RFC 4180; text that a spreadsheet would take for a formula is quoted as text."""
    line = io.StringIO()
    safe = ["'" + cell if cell.startswith(_FORMULA) else cell for cell in map(tables.one_line, cells)]
    csv.writer(line, lineterminator="\n").writerow(safe)
    return line.getvalue()


def _table_columns(listing: Listing[RowT], rows: Sequence[RowT]) -> list[tables.TableColumn]:
    return [
        tables.TableColumn(
            column.head,
            [_cell((column.shown or column.plain)(row)) for row in rows],
            right=column.right,
            folds=column.folds,
            rank=column.rank,
        )
        for column in listing.columns
    ]


def _cell(content: str | Text) -> Text:
    return content if isinstance(content, Text) else Text(content)
