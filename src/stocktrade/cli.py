"""The command line: parses, dispatches to a role, and turns errors into exit codes.

Invariant: stdout carries data and nothing else; an error is three plain lines on stderr (one JSON object with
`--json`), never a traceback. Roles and the log are imported by the command that needs them, so that `--help` and
completion stay fast and no embedded command imports a Kafka client.
"""

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.exceptions import TyperException

from stocktrade.errors import ExitCode, StocktradeError, Unavailable, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from stocktrade.completion import What
    from stocktrade.ranges import Moment
    from stocktrade.roles.order_entry import Options
    from stocktrade.roles.question import Question
    from stocktrade.transport.base import Log
    from stocktrade.views.history import Within

DEBUG: Final = "STOCKTRADE_DEBUG"

app = typer.Typer(
    name="stocktrade",
    help="A stock exchange on a durable log: buy, sell, match, clear and settle, exactly once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _words(*words: str) -> Callable[[str], list[str]]:
    return lambda incomplete: [word for word in words if word.lower().startswith(incomplete.lower())]


def _completion(what: "What") -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        from stocktrade.completion import offered  # noqa: PLC0415

        return offered(what, incomplete)

    return complete


def _schema_names(incomplete: str) -> list[str]:
    from stocktrade.roles.schema import names  # noqa: PLC0415

    return _words(*names())(incomplete)


def _clients(incomplete: str) -> list[str]:
    from stocktrade.transport import CLIENTS  # noqa: PLC0415

    return _words(*CLIENTS)(incomplete)


_symbols, _participants = _completion("symbols"), _completion("participants")
_order_ids, _topic_names = _completion("orders"), _completion("topics")

_CONNECTION: Final = "Connection"
"""Where the help of a command shows the options of the connection."""

Bootstrap = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-server",
        "-b",
        metavar="HOST:PORT",
        help="Kafka to trade on; without it the bootstrap.servers of --command-property, STOCKTRADE_BOOTSTRAP_SERVERS, "
        "the bootstrap.servers of the file; without any, the embedded log.",
        rich_help_panel=_CONNECTION,
    ),
]
CommandConfig = Annotated[
    str | None,
    typer.Option(
        "--command-config",
        metavar="FILE",
        help="Kafka's options in a file (security.protocol=SSL …), also as STOCKTRADE_COMMAND_CONFIG.",
        rich_help_panel=_CONNECTION,
    ),
]
CommandProperty = Annotated[
    list[str] | None,
    typer.Option(
        "--command-property",
        metavar="NAME=VALUE",
        help="One of Kafka's options, no secret; goes before the file. Repeatable.",
        rich_help_panel=_CONNECTION,
    ),
]
KafkaClient = Annotated[
    str | None,
    typer.Option(
        "--client",
        metavar="NAME",
        help="Kafka's client library: kafka-python or librdkafka, also as STOCKTRADE_CLIENT.",
        autocompletion=_clients,
        rich_help_panel=_CONNECTION,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.")]
Wait = Annotated[
    str | None,
    typer.Option("--wait", metavar="[=5s]", help="Wait until it is settled; exit 4 when it is not by then. Alone: 5s."),
]
OrderId = Annotated[
    str | None, typer.Option("--id", metavar="ID", help="The order's id; the same id twice is taken once.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the message and send nothing.")]
TimeInForceOption = Annotated[
    str | None,
    typer.Option(
        "--tif",
        metavar="DAY|IOC|FOK",
        help="Wait in the book, take what is there, or all or nothing.",
        show_default="DAY",
        autocompletion=_words("DAY", "IOC", "FOK"),
    ),
]
PreventionOption = Annotated[
    str | None,
    typer.Option(
        "--stp",
        metavar="KIND",
        help="Self-trade prevention: off, cancel-passive or cancel-active.",
        show_default="off",
        autocompletion=_words("off", "cancel-passive", "cancel-active"),
    ),
]
OneSymbol = Annotated[
    str, typer.Argument(metavar="SYMBOL", help="As SBI, NSE:SBIN, M&M; in any case.", autocompletion=_symbols)
]
Csv = Annotated[bool, typer.Option("--csv", help="CSV on stdout, with a line of names first.")]
AtMoment = Annotated[
    str | None, typer.Option("--at", metavar="SEQ|TIME", help="As of then: 5, @-10m, @2026-11-23T09:15.")
]
Last = Annotated[int | None, typer.Option("-n", metavar="N", min=1, help="No more than the last N.", show_default="20")]
From = Annotated[
    str | None, typer.Option("--from", metavar="WHEN", help="start, end, N, +N, -N, @-10m, @2026-11-23T09:15.")
]
Until = Annotated[str | None, typer.Option("--until", metavar="WHEN", help="As --from.")]
Whose = Annotated[
    str | None, typer.Argument(metavar="PARTICIPANT", help="Only this one's.", autocompletion=_participants)
]
Instruments = Annotated[
    str | None, typer.Option("--instruments", metavar="FILE", help="Ticks, lots, bands and caps, in TOML.")
]
OrderEnd = Annotated[
    str, typer.Argument(metavar="ORDER", help="Its id, or an end of it that no other has.", autocompletion=_order_ids)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the order id only.")]


# What is only counted or matched by a pattern may begin with a minus: `buy SBI -5 885` is a wrong quantity, not an
# unknown option.
_ORDER_CONTEXT: Final = {"ignore_unknown_options": True}


@app.command(rich_help_panel="Trade")
def nse(
    *,
    once: Annotated[bool, typer.Option("--once", help="Take what is on the log, settle it, and end.")] = False,
    group: Annotated[
        str, typer.Option("--group", metavar="G", help="The group of exchanges that share the shards.")
    ] = "stocktrade-nse",
    instruments: Instruments = None,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    client: KafkaClient = None,
    as_json: Json = False,
) -> ExitCode:
    """Be the exchange: match, clear and settle until Ctrl-C, or what is there with --once.

    On a terminal a panel and a line for each trade; elsewhere, or with --json, a JSON object a line.
    """
    from stocktrade.roles import nse as role  # noqa: PLC0415
    from stocktrade.roles.instruments import rules_from  # noqa: PLC0415
    from stocktrade.signals import stop_on_signals  # noqa: PLC0415

    rules = rules_from(instruments)
    with stop_on_signals() as stop, _open(bootstrap_server, command_config, command_property, client=client) as log:
        _name(log)
        _warn(log)
        console = _console(terminal=None if not as_json else False)
        return role.run(
            log, group=group, once=once, stop=stop, console=console, out=sys.stdout, now_ms=_now_ms, rules=rules
        )


@app.command(rich_help_panel="Trade", context_settings=_ORDER_CONTEXT)
def buy(
    symbol: OneSymbol,
    quantity: Annotated[str, typer.Argument(metavar="QTY", help="Shares: 100, 1,00,000.")],
    price: Annotated[
        str | None,
        typer.Argument(metavar="PRICE", help="Rupees per share: 885, 884.95, 1,00,885.05; without it, the market."),
    ] = None,
    *,
    participant: Annotated[
        str, typer.Option("--as", metavar="NAME", help="Who buys.", autocompletion=_participants)
    ] = "HDFC",
    tif: TimeInForceOption = None,
    stp: PreventionOption = None,
    order_id: OrderId = None,
    wait: Wait = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_json: Json = False,
) -> ExitCode:
    """Buy shares at no more than PRICE rupees each: `stocktrade buy SBI 100 885`.

    Without a price it takes what is offered now, and the rest is cancelled.
    """
    from stocktrade.roles import buy as role  # noqa: PLC0415
    from stocktrade.roles import order_entry  # noqa: PLC0415

    options = _options(wait, dry_run=dry_run, quiet=quiet, as_json=as_json)
    order = role.order_from(
        symbol,
        quantity,
        price,
        participant=participant,
        order_id=_id(order_id),
        time_in_force=tif,
        prevention=stp,
    )
    with _open(bootstrap_server, command_config, command_property) as log:
        _name(log, order_id_of=order_entry.order_id_of(order))
        return order_entry.send(log, order, options, console=_console(), out=sys.stdout)


@app.command(rich_help_panel="Trade", context_settings=_ORDER_CONTEXT)
def sell(
    symbol: OneSymbol,
    quantity: Annotated[str, typer.Argument(metavar="QTY", help="Shares: 100, 1,00,000.")],
    price: Annotated[
        str | None, typer.Argument(metavar="PRICE", help="No less than this; without it, any price.")
    ] = None,
    *,
    participant: Annotated[
        str, typer.Option("--as", metavar="NAME", help="Who sells.", autocompletion=_participants)
    ] = "SELLER",
    tif: TimeInForceOption = None,
    stp: PreventionOption = None,
    order_id: OrderId = None,
    wait: Wait = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_json: Json = False,
) -> ExitCode:
    """Offer shares, at any price or at no less than PRICE: `stocktrade sell SBI 100`."""
    from stocktrade.roles import order_entry  # noqa: PLC0415
    from stocktrade.roles import sell as role  # noqa: PLC0415

    options = _options(wait, dry_run=dry_run, quiet=quiet, as_json=as_json)
    offer = role.offer_from(
        symbol,
        quantity,
        price,
        participant=participant,
        offer_id=_id(order_id),
        time_in_force=tif,
        prevention=stp,
    )
    with _open(bootstrap_server, command_config, command_property) as log:
        _name(log, order_id_of=order_entry.order_id_of(offer))
        return order_entry.send(log, offer, options, console=_console(), out=sys.stdout)


AsWhom = Annotated[
    str | None,
    typer.Option(
        "--as",
        metavar="NAME",
        help="Whose order it is; needed only if several have the id.",
        autocompletion=_participants,
    ),
]


@app.command(rich_help_panel="Trade")
def cancel(
    order: OrderEnd,
    *,
    participant: AsWhom = None,
    order_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="The id of the cancel itself.")] = None,
    wait: Wait = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_json: Json = False,
) -> ExitCode:
    """Take an order out of the book, with what is left of it: `stocktrade cancel 7c2f`."""
    from stocktrade.roles import amend as role  # noqa: PLC0415
    from stocktrade.roles.order_lookup import find  # noqa: PLC0415
    from stocktrade.roles.typed import checked_id, checked_owner  # noqa: PLC0415

    options = _options(wait, dry_run=dry_run, quiet=quiet, as_json=as_json)
    own_id = checked_id(_id(order_id))
    whose = checked_owner(participant)
    checked_id(order)
    with _open(bootstrap_server, command_config, command_property) as log:
        found = find(log, order, participant=whose)
        _name(log, order_id_of=own_id)
        message = role.cancel_of(found, amendment_id=own_id)
        return role.send(log, message, options, console=_console(), out=sys.stdout)


@app.command(rich_help_panel="Trade", context_settings=_ORDER_CONTEXT)
def replace(
    order: OrderEnd,
    *,
    quantity: Annotated[
        str | None, typer.Option("--quantity", metavar="QTY", help="What shall be open from now on.")
    ] = None,
    price: Annotated[str | None, typer.Option("--price", metavar="PRICE", help="Rupees per share.")] = None,
    participant: AsWhom = None,
    order_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="The id of the replace itself.")] = None,
    wait: Wait = None,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_json: Json = False,
) -> ExitCode:
    """Give a waiting order another quantity or price: `stocktrade replace 7c2f --price 886`.

    If it only gets smaller it keeps its place in the queue.
    """
    from stocktrade.roles import amend as role  # noqa: PLC0415
    from stocktrade.roles.order_lookup import find  # noqa: PLC0415
    from stocktrade.roles.typed import checked_id, checked_owner  # noqa: PLC0415

    options = _options(wait, dry_run=dry_run, quiet=quiet, as_json=as_json)
    change = role.change_from(quantity, price)
    own_id = checked_id(_id(order_id))
    whose = checked_owner(participant)
    checked_id(order)
    with _open(bootstrap_server, command_config, command_property) as log:
        found = find(log, order, participant=whose)
        _name(log, order_id_of=own_id)
        message = role.replace_of(found, change, amendment_id=own_id)
        return role.send(log, message, options, console=_console(), out=sys.stdout)


@app.command(rich_help_panel="Watch")
def watch(
    symbols: Annotated[
        list[str] | None, typer.Argument(metavar="SYMBOL", help="Only these symbols.", autocompletion=_symbols)
    ] = None,
    *,
    participant: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Only this participant.", autocompletion=_participants)
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="KIND",
            help="orders, events, trades, shares, funds or dead; repeatable.",
            autocompletion=_words("orders", "events", "trades", "shares", "funds", "dead"),
        ),
    ] = None,
    start: From = None,
    until: Until = None,
    follow: Annotated[
        bool | None, typer.Option("--follow/--no-follow", help="Wait for what comes, or end with what is there.")
    ] = None,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_json: Json = False,
) -> ExitCode:
    """See shares and rupees move, live; in a pipe a line for each settled trade.

    Keys: p pauses and goes on, q ends. With --json every record of every topic is a JSON object on a line of its own.
    """
    from stocktrade.keys import single_keys  # noqa: PLC0415
    from stocktrade.roles import watch as role  # noqa: PLC0415
    from stocktrade.signals import stop_on_signals  # noqa: PLC0415

    options = (bootstrap_server, command_config, command_property)
    with stop_on_signals() as stop, _open(*options) as log, single_keys(sys.stdin) as keys:
        stop.at_once = keys.give_back
        return role.run(
            log,
            symbols=symbols or (),
            participant=participant,
            only=only or (),
            json_lines=as_json,
            start=start,
            until=until,
            follow=follow,
            console=_console(),
            out=sys.stdout,
            err=sys.stderr,
            stop=stop,
            keys=keys,
        )


@app.command(rich_help_panel="Watch")
def book(
    symbol: OneSymbol,
    *,
    levels: Annotated[int, typer.Option("--levels", metavar="N", min=1, max=100_000, help="Prices of each side.")] = 5,
    orders: Annotated[bool, typer.Option("--orders", help="Every waiting order by itself.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Again whenever it changes, until Ctrl-C.")] = False,
    at: AtMoment = None,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_json: Json = False,
) -> ExitCode:
    """See who waits at which price, now or at any earlier moment: `stocktrade book SBI --at 5`."""
    from stocktrade.listing import form_of  # noqa: PLC0415
    from stocktrade.roles import book as role  # noqa: PLC0415
    from stocktrade.roles.typed import checked_symbol  # noqa: PLC0415
    from stocktrade.signals import stop_on_signals  # noqa: PLC0415

    moment = _moment(at)
    checked_symbol(symbol)
    console = _console()
    shown: dict[str, Any] = {
        "levels": levels,
        "form": form_of(console, as_json=as_json),
        "console": console,
        "out": sys.stdout,
    }
    options = (bootstrap_server, command_config, command_property)
    if watch:
        if orders or moment.is_past:
            raise UsageError("--watch shows the levels as they are now", hint="leave --orders and --at out")
        from stocktrade.keys import single_keys  # noqa: PLC0415

        with stop_on_signals() as stop, _open(*options) as log, single_keys(sys.stdin) as keys:
            stop.at_once = keys.give_back
            return role.watch(log, symbol, stop=stop, keys=keys, err=sys.stderr, **shown)
    with _open(*options, reads=True) as log:
        return role.run(log, symbol, orders=orders, moment=moment, **shown)


@app.command(rich_help_panel="Watch")
def trades(
    symbols: Annotated[
        list[str] | None, typer.Argument(metavar="SYMBOL", help="Only these symbols.", autocompletion=_symbols)
    ] = None,
    *,
    participant: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Only this one's.", autocompletion=_participants)
    ] = None,
    last: Last = None,
    start: From = None,
    until: Until = None,
    at: AtMoment = None,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_csv: Csv = False,
    as_json: Json = False,
) -> ExitCode:
    """List the last trades: `stocktrade trades SBI -n 5`."""
    from stocktrade.roles import trades as role  # noqa: PLC0415
    from stocktrade.roles.typed import canonical_symbols, checked_owner  # noqa: PLC0415

    within, question = _within(last, start, until), _question(at, as_json=as_json, as_csv=as_csv)
    whose, wanted = checked_owner(participant), canonical_symbols(symbols or ())
    with _open(bootstrap_server, command_config, command_property, reads=True) as log:
        return role.run(log, wanted, participant=whose, within=within, question=question)


_orders = typer.Typer(invoke_without_command=True)
app.add_typer(_orders, name="orders", rich_help_panel="Watch")


@_orders.callback()
def orders(
    context: typer.Context,
    *,
    symbols: Annotated[
        list[str] | None,
        typer.Option("--symbol", metavar="SYMBOL", help="Only these; repeatable.", autocompletion=_symbols),
    ] = None,
    participant: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Only this one's.", autocompletion=_participants)
    ] = None,
    only_open: Annotated[bool, typer.Option("--open", help="Only those that wait in a book.")] = False,
    last: Last = None,
    start: From = None,
    until: Until = None,
    at: AtMoment = None,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_csv: Csv = False,
    as_json: Json = False,
) -> ExitCode | None:
    """List the last orders and how far each has come: `stocktrade orders --as HDFC --open`."""
    if context.invoked_subcommand is not None:
        _check_none_given(context)
        return None
    from stocktrade.roles import orders as role  # noqa: PLC0415
    from stocktrade.roles.typed import canonical_symbols, checked_owner  # noqa: PLC0415

    within, question = _within(last, start, until), _question(at, as_json=as_json, as_csv=as_csv)
    whose, wanted = checked_owner(participant), canonical_symbols(symbols or ())
    with _open(bootstrap_server, command_config, command_property, reads=True) as log:
        return role.run(log, wanted, participant=whose, only_open=only_open, within=within, question=question)


@_orders.command("show")
def show_order(
    order: OrderEnd,
    *,
    participant: AsWhom = None,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_csv: Csv = False,
    as_json: Json = False,
) -> ExitCode:
    """Trace one order, a line for each record that tells of it: `stocktrade orders show 7c2f`."""
    from stocktrade.roles import orders as role  # noqa: PLC0415
    from stocktrade.roles.typed import checked_id, checked_owner  # noqa: PLC0415

    checked_id(order)
    question = _question(as_json=as_json, as_csv=as_csv)
    whose = checked_owner(participant)
    with _open(bootstrap_server, command_config, command_property, reads=True) as log:
        return role.show(log, order, participant=whose, question=question)


@app.command(rich_help_panel="Watch")
def holdings(
    participant: Whose = None,
    *,
    at: AtMoment = None,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_csv: Csv = False,
    as_json: Json = False,
) -> ExitCode:
    """See who holds how many shares, and who owes them: `stocktrade holdings HDFC`."""
    from stocktrade.roles import accounts as role  # noqa: PLC0415
    from stocktrade.roles.typed import checked_owner  # noqa: PLC0415

    question, whose = _question(at, as_json=as_json, as_csv=as_csv), checked_owner(participant)
    with _open(bootstrap_server, command_config, command_property, reads=True) as log:
        return role.run(log, role.HOLDINGS, whose, question=question)


@app.command(rich_help_panel="Watch")
def funds(
    participant: Whose = None,
    *,
    statement: Annotated[bool, typer.Option("--statement", help="Every trade that moved them.")] = False,
    last: Last = None,
    start: From = None,
    until: Until = None,
    at: AtMoment = None,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_csv: Csv = False,
    as_json: Json = False,
) -> ExitCode:
    """See who has how many rupees, and who owes them: `stocktrade funds HDFC --statement`."""
    from stocktrade.roles import accounts as role  # noqa: PLC0415
    from stocktrade.roles.typed import checked_owner  # noqa: PLC0415

    within, question = _within(last, start, until), _question(at, as_json=as_json, as_csv=as_csv)
    whose = checked_owner(participant)
    if statement and whose is None:
        raise UsageError("--statement needs a participant", hint="for example `stocktrade funds HDFC --statement`")
    if not statement and (last, start, until) != (None, None, None):
        raise UsageError("-n, --from and --until choose lines of a --statement", hint="for a past state, use --at")
    with _open(bootstrap_server, command_config, command_property, reads=True) as log:
        if statement and whose is not None:
            return role.statement(log, whose, within=within, question=question)
        return role.run(log, role.FUNDS, whose, question=question)


@app.command(rich_help_panel="Prove")
def audit(
    *,
    expect_head: Annotated[
        list[str] | None,
        typer.Option(
            "--expect-head",
            metavar="[SHARD:]SEQ:DIGEST",
            help="What an earlier audit printed: the journal must still hold it. Repeatable.",
        ),
    ] = None,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_json: Json = False,
) -> ExitCode:
    """Check every rule of the exchange from the log alone; 0 clean, 1 broken, 3 cannot be read.

    It only reads, and an exchange may be trading meanwhile.
    """
    from stocktrade.roles import audit as role  # noqa: PLC0415

    heads = role.heads_from(expect_head or ())
    with _open(bootstrap_server, command_config, command_property, reads=True) as log:
        return role.run(
            log, expected=heads, as_json=as_json, console=_console(), progress=_console(stderr=True), out=sys.stdout
        )


@app.command(rich_help_panel="Prove")
def replay(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", help="Orders, a JSON object a line; - for standard input.")
    ] = None,
    *,
    from_log: Annotated[bool, typer.Option("--log", help="Replay the journal of the log instead of a file.")] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="With --log: do the topics hold what the replay gives?")
    ] = False,
    book: Annotated[bool, typer.Option("--book", help="At the end, the orders that rest.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first line that is no input; exit 1.")] = False,
    speed: Annotated[
        str,
        typer.Option(
            "--speed",
            metavar="1x|max",
            help="As fast as it happened, or as it goes.",
            autocompletion=_words("1x", "10x", "100x", "max"),
        ),
    ] = "max",
    instruments: Instruments = None,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_json: Json = False,
) -> ExitCode:
    """Put messages through a fresh exchange, and see what comes of them: `stocktrade replay orders.jsonl`.

    The log is never written to. With --json every event is an object on a line of its own.
    """
    from stocktrade.roles import replay as role  # noqa: PLC0415
    from stocktrade.roles.instruments import rules_from  # noqa: PLC0415

    options = role.Options(as_json, book, strict, role.speed_from(speed))
    if (file is None) != from_log:
        raise UsageError(
            "replay needs a file or --log, not both" if from_log else "replay needs a file, - or --log",
            hint="for example `stocktrade replay orders.jsonl --book`",
        )
    consoles = {"console": _console(), "progress": _console(stderr=True)}
    if file is not None:
        if compare:
            raise UsageError("--compare needs --log", cause="a file of orders has no outputs to compare with")
        return role.run_file(file, rules_from(instruments), options, **consoles, out=sys.stdout)
    if instruments is not None or strict:
        raise UsageError(
            f"{'--instruments' if instruments is not None else '--strict'} is for a file",
            cause="a journal has its own rules, and no line that is no input",
        )
    with _open(bootstrap_server, command_config, command_property, reads=True) as log:
        return role.run_log(log, options, compare=compare, **consoles, out=sys.stdout)


@app.command(rich_help_panel="Prove")
def bench(
    *,
    rate: Annotated[
        float | None,
        typer.Option(
            "--rate", metavar="R", min=1, max=100_000, help="Orders a second, for the latency.", show_default="200"
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            metavar="S",
            min=0,
            max=86_400,
            help="How long, after 2 s to warm up; 0: no latency.",
            show_default="10",
        ),
    ] = None,
    orders: Annotated[
        int | None,
        typer.Option(
            "--orders",
            metavar="N",
            min=0,
            max=10_000_000,
            help="Of the burst, and to recover from; 0: neither.",
            show_default="20000, with --core 100000",
        ),
    ] = None,
    symbols: Annotated[
        int, typer.Option("--symbols", metavar="N", min=1, max=10_000, help="How many are traded.")
    ] = 40,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="What the orders follow from.")] = 885,
    core: Annotated[bool, typer.Option("--core", help="The core alone, in memory, without a log.")] = False,
    audit: Annotated[bool, typer.Option("--audit", help="At the end, an audit; exit 1 if it is not clean.")] = False,
    baseline: Annotated[
        str | None,
        typer.Option("--baseline", metavar="FILE", help="What --json printed before; exit 1 if a figure is worse."),
    ] = None,
    tolerance: Annotated[
        str | None,
        typer.Option("--tolerance", metavar="SHARE", help="So much worse it may be.", show_default="20%"),
    ] = None,
    folder: Annotated[
        str | None,
        typer.Option("--folder", metavar="DIR", help="On the embedded log: measure in this new or empty folder."),
    ] = None,
    topic_prefix: Annotated[
        str | None,
        typer.Option("--topic-prefix", metavar="PREFIX", help="On Kafka: measure in new topics that begin with this."),
    ] = None,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    client: KafkaClient = None,
    as_json: Json = False,
) -> ExitCode:
    """Measure orders a second, recovery, and the time from an order to its settlement, on the chosen log.

    It has a folder or topics of its own, which are gone when it ends. A log that holds orders is refused.
    """
    from stocktrade.roles import bench as role  # noqa: PLC0415
    from stocktrade.settings import log_target  # noqa: PLC0415
    from stocktrade.signals import stop_on_signals  # noqa: PLC0415

    given = (bootstrap_server, command_config, command_property, client)
    if core and any(each is not None for each in given):
        raise UsageError("--core touches no log", hint="leave the options of the connection out")
    settings = role.settings_from(rate=rate, seconds=seconds, orders=orders, symbols=symbols, seed=seed, core=core)
    plan = role.plan_from(
        None if core else log_target(bootstrap_server, command_config, command_property or (), client=client),
        settings,
        folder=folder,
        topic_prefix=topic_prefix,
        audit=audit,
        baseline=baseline,
        tolerance=tolerance,
    )
    with stop_on_signals() as stop:
        return role.run(
            plan,
            as_json=as_json,
            console=_console(),
            progress=_console(stderr=True),
            out=sys.stdout,
            err=sys.stderr,
            stop=stop,
        )


_MAX_PARTITIONS: Final = 1_000
"""A shard costs memory and connections, and a market has a few thousand symbols."""

_topics = typer.Typer(invoke_without_command=True)
app.add_typer(_topics, name="topics", rich_help_panel="Log")


@_topics.callback()
def topics(
    context: typer.Context,
    *,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_csv: Csv = False,
    as_json: Json = False,
) -> ExitCode | None:
    """List the topics: offsets, the last record, how far the exchange is behind, and who owns which shard."""
    if context.invoked_subcommand is not None:
        _check_none_given(context)
        return None
    return _list_topics((bootstrap_server, command_config, command_property), as_csv=as_csv, as_json=as_json)


@_topics.command("list")
def list_topics(
    *,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_csv: Csv = False,
    as_json: Json = False,
) -> ExitCode:
    """The same as `stocktrade topics`."""
    return _list_topics((bootstrap_server, command_config, command_property), as_csv=as_csv, as_json=as_json)


def _list_topics(options: tuple[str | None, str | None, list[str] | None], *, as_csv: bool, as_json: bool) -> ExitCode:
    from stocktrade.listing import form_of  # noqa: PLC0415
    from stocktrade.roles import topics as role  # noqa: PLC0415

    console = _console()
    form = form_of(console, as_json=as_json, as_csv=as_csv)
    with _open(*options, reads=True) as log:
        return role.show(log, form=form, console=console, out=sys.stdout, now_ms=_now_ms())


@_topics.command()
def tail(
    topic: Annotated[str, typer.Argument(metavar="TOPIC", help="As trades.", autocompletion=_topic_names)],
    *,
    last: Annotated[
        int | None, typer.Option("-n", metavar="N", min=0, help="The last N of each partition.", show_default="10")
    ] = None,
    start: From = None,
    until: Until = None,
    follow: Annotated[
        bool | None, typer.Option("--follow/--no-follow", help="Wait for what comes, or end with what is there.")
    ] = None,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_json: Json = False,
) -> ExitCode:
    """Print the records of a topic as they are: `stocktrade topics tail trades -n 3 --no-follow`."""
    from stocktrade.ranges import parse_point  # noqa: PLC0415
    from stocktrade.roles import topics as role  # noqa: PLC0415
    from stocktrade.signals import stop_on_signals  # noqa: PLC0415

    role.checked_topic(topic)
    if last is not None and start is not None:
        raise UsageError("-n and --from both say where to begin", hint="give one of them")
    count = role.TAIL if last is None and start is None else last
    first, end = (None if point is None else parse_point(point, now_ms=_now_ms()) for point in (start, until))
    if follow and end is not None:
        raise UsageError("--follow has no end, --until is one", hint="give one of them")
    goes_on = end is None and (sys.stdout.isatty() if follow is None else follow)
    with stop_on_signals() as stop, _open(bootstrap_server, command_config, command_property, reads=True) as log:
        return role.tail(
            log,
            topic,
            start=first,
            until=end,
            last=count,
            follow=goes_on,
            as_json=as_json,
            out=sys.stdout,
            stop=stop,
        )


@_topics.command()
def create(
    *,
    partitions: Annotated[
        int | None,
        typer.Option(
            "--partitions",
            metavar="N",
            min=1,
            max=_MAX_PARTITIONS,
            help="Of each topic: into how many shards the market is divided.",
            show_default="4 on Kafka, 1 on the embedded log",
        ),
    ] = None,
    replication: Annotated[
        int | None,
        typer.Option(
            "--replication",
            metavar="N",
            min=1,
            max=1_000,
            help="On Kafka, copies of each topic.",
            show_default="one per broker, at most 3",
        ),
    ] = None,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_json: Json = False,
) -> ExitCode:
    """Make the topics that are missing; those that are there stay as they are.

    `nse`, `buy` and `sell` make them, too. This is for other numbers, and for users who may not make any.
    """
    from stocktrade.roles import topics as role  # noqa: PLC0415

    options = (bootstrap_server, command_config, command_property)
    with _open(*options, partitions=partitions, replication=replication) as log:
        _name(log)
        _warn(log)
        return role.create(log, partitions=partitions, as_json=as_json, console=_console(), out=sys.stdout)


@app.command(rich_help_panel="Log")
def schema(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="A topic, a message or a document: trades, stocktrade.trade/1.",
            autocompletion=_schema_names,
        ),
    ] = None,
    *,
    as_asyncapi: Annotated[bool, typer.Option("--asyncapi", help="The topics as an AsyncAPI 3 document.")] = False,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
) -> ExitCode:
    """Print the JSON Schema of every message on the topics and of every document that a command prints.

    It connects to nothing; the options of the connection name the servers of the AsyncAPI document.
    """
    from stocktrade.roles import schema as role  # noqa: PLC0415
    from stocktrade.settings import log_target  # noqa: PLC0415

    if not as_asyncapi:
        return role.run(name, out=sys.stdout)
    if name is not None:
        raise UsageError("--asyncapi is about all topics", hint="leave the name out")
    return role.asyncapi(log_target(bootstrap_server, command_config, command_property or ()), out=sys.stdout)


_dlq = typer.Typer(no_args_is_help=True)
app.add_typer(_dlq, name="dlq", rich_help_panel="Log")

LetterPlace = Annotated[
    str, typer.Argument(metavar="PLACE", help="0:3, dead-letters@0:3, or where the input stands: buy-orders@0:17.")
]


@_dlq.callback()
def dlq() -> None:
    """The inputs that were no orders: see them, mend them, send them again."""


@_dlq.command("list")
def list_letters(
    *,
    last: Last = None,
    start: From = None,
    until: Until = None,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_csv: Csv = False,
    as_json: Json = False,
) -> ExitCode:
    """List the dead letters, where each input stood, and why it was put aside."""
    from stocktrade.listing import form_of  # noqa: PLC0415
    from stocktrade.roles import dlq as role  # noqa: PLC0415

    first, end, most = _within(last, start, until)
    console = _console()
    form = form_of(console, as_json=as_json, as_csv=as_csv)
    with _open(bootstrap_server, command_config, command_property, reads=True) as log:
        return role.show_all(
            log,
            start=first,
            until=end,
            last=most,
            form=form,
            console=console,
            progress=_console(stderr=True),
            out=sys.stdout,
        )


@_dlq.command("show")
def show_letter(
    place: LetterPlace,
    *,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_json: Json = False,
) -> ExitCode:
    """Show one of them, whole, and what the exchange would say to it now."""
    from stocktrade.roles import dlq as role  # noqa: PLC0415

    wanted = role.place_from(place)
    with _open(bootstrap_server, command_config, command_property, reads=True) as log:
        consoles = {"console": _console(), "progress": _console(stderr=True)}
        return role.show(log, wanted, as_json=as_json, **consoles, out=sys.stdout)


@_dlq.command()
def redrive(
    places: Annotated[
        list[str] | None, typer.Argument(metavar="PLACE", help="0:3, dead-letters@0:3, or buy-orders@0:17.")
    ] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All that were not sent again yet.")] = False,
    reason: Annotated[str | None, typer.Option("--reason", metavar="R", help="With --all: only NOT_JSON, say.")] = None,
    value: Annotated[
        str | None,
        typer.Option("--value", metavar="FILE", help="Send what is in a file instead; -: standard input."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Also what would come back, or did so three times.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")] = False,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_json: Json = False,
) -> ExitCode:
    """Send them to their topic again, mended or as they were: `stocktrade dlq redrive 0:3 --value order.json`."""
    from stocktrade.roles import dlq as role  # noqa: PLC0415

    wanted = [role.place_from(text) for text in places or ()]
    if bool(wanted) == every:
        raise UsageError("redrive needs places, or --all", hint="see `stocktrade dlq list`")
    if reason is not None and not every:
        raise UsageError("--reason chooses among --all", hint="give --all, or leave --reason out")
    if value is not None and len(wanted) != 1:
        raise UsageError("--value is for one dead letter", hint="name its place")
    if not (yes or dry_run or sys.stdin.isatty()):
        raise UsageError("redrive asks, and nobody is there to answer", hint="give --yes, or --dry-run to see first")

    def confirm(question: str) -> bool:
        return yes or typer.confirm(question, err=True)

    mail = role.Mail(role.value_from(value), force, dry_run, confirm)
    with _open(bootstrap_server, command_config, command_property, reads=True) as log:
        _name(log)
        consoles = {"console": _console(), "progress": _console(stderr=True)}
        return role.redrive(log, wanted, mail, reason=reason, as_json=as_json, **consoles, out=sys.stdout)


@app.command(rich_help_panel="Set up")
def demo(
    *,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="What the traders do follows from this.")] = 885,
    rate: Annotated[float, typer.Option("--rate", metavar="R", min=0.1, max=1000, help="Orders a second.")] = 25,
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", min=0, max=3600, help="How long they trade.")] = 6,
    keep: Annotated[
        str | None, typer.Option("--keep", metavar="FOLDER", help="Keep the log in this new folder.")
    ] = None,
) -> ExitCode:
    """See it all in one terminal: the seed's trade, seeded traders, and the sums at the end.

    It has a log of its own, which is gone when it ends unless you --keep it.
    """
    from stocktrade.roles import demo as role  # noqa: PLC0415
    from stocktrade.signals import stop_on_signals  # noqa: PLC0415
    from stocktrade.transport import connect  # noqa: PLC0415

    plan = role.Plan(seed, rate, seconds)
    with _own_folder(keep) as folder, stop_on_signals() as stop, connect(f"sqlite:{folder}") as log:
        code = role.run(log, plan, console=_console(), now_ms=_now_ms, stop=stop)
    if keep is not None:
        sys.stderr.write(f"kept in {folder}: STOCKTRADE_HOME={folder} stocktrade watch\n")
    return code


@app.command(rich_help_panel="Set up")
def doctor(
    *,
    bootstrap_server: Bootstrap = None,
    command_config: CommandConfig = None,
    command_property: CommandProperty = None,
    as_json: Json = False,
) -> ExitCode:
    """See whether everything is there and well: settings, log, topics, exchange, lag, dead letters.

    It only looks; exit code 1 when a check failed. What is not well comes with the command that mends it.
    """
    from stocktrade.roles import doctor as role  # noqa: PLC0415

    flags = role.Flags(bootstrap_server, command_config, command_property or ())
    return role.run(flags, environ=os.environ, as_json=as_json, console=_console(), out=sys.stdout, now_ms=_now_ms)


@contextmanager
def _own_folder(keep: str | None) -> Iterator[str]:
    if keep is None:
        from tempfile import TemporaryDirectory  # noqa: PLC0415

        with TemporaryDirectory(prefix="stocktrade-demo-") as folder:
            yield folder
        return
    try:
        os.makedirs(keep)  # noqa: PTH103 - pathlib is not imported for one call
    except FileExistsError as error:
        raise UsageError("--keep needs a new folder", cause=f"{keep} exists", hint="name another one") from error
    except OSError as error:
        raise UsageError(f"--keep cannot make {keep}", cause=error.strerror or str(error)) from error
    yield keep


def _version(asked: bool) -> None:
    if asked:
        from stocktrade import __version__  # noqa: PLC0415

        sys.stdout.write(f"stocktrade {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    pass


# --- what the commands share -----------------------------------------------------------------------------------


def _open(
    bootstrap_server: str | None,
    command_config: str | None,
    command_property: list[str] | None,
    *,
    partitions: int | None = None,
    replication: int | None = None,
    client: str | None = None,
    reads: bool = False,
) -> "Log":
    """Open the log. Whoever only `reads` makes none: a mistyped folder is told, and left alone.

    Raises:
        StocktradeError: it cannot be opened, or there is none to read.
    """
    from stocktrade.settings import HOME, log_target  # noqa: PLC0415
    from stocktrade.transport import connect  # noqa: PLC0415

    target = log_target(bootstrap_server, command_config, command_property or (), client=client)
    if reads and target.url.startswith("sqlite:"):
        from stocktrade.transport.premises import folder_of, holds_log  # noqa: PLC0415

        folder = folder_of(target.url)
        if folder is not None and not holds_log(folder):
            raise Unavailable(
                f"there is no log in {folder} yet",
                hint=f"the first `stocktrade nse`, `buy` or `sell` makes it; {HOME} names another folder",
            )
    return connect(
        target.url,
        partitions=partitions,
        replication=replication,
        settings=target.options,
        client=target.client,
    )


def _name(log: "Log", order_id_of: str | None = None) -> None:
    """Say on stderr which log is written to, and the order's id before it is sent: it makes a retry safe."""
    order = f"  order: {order_id_of}" if order_id_of else ""
    sys.stderr.write(f"log: {log.url}{order}\n")


def _warn(log: "Log") -> None:
    """Say on stderr what is not forbidden, and may surprise."""
    for warning in log.warnings:
        sys.stderr.write(f"warning: {warning}\n")


def _question(at: str | None = None, *, as_json: bool, as_csv: bool) -> "Question":
    """What every command that asks a view is given."""
    from stocktrade.listing import form_of  # noqa: PLC0415
    from stocktrade.roles.question import Question  # noqa: PLC0415
    from stocktrade.settings import home_folder  # noqa: PLC0415

    console = _console()
    form = form_of(console, as_json=as_json, as_csv=as_csv)
    return Question(_moment(at), home_folder() / "views", form, console, _console(stderr=True), sys.stdout)


_LAST_ROWS: Final = 20
"""How many rows a list has where nothing else is said."""


def _within(last: int | None, start: str | None, until: str | None) -> "Within":
    """Which rows are asked for."""
    from stocktrade.ranges import parse_point  # noqa: PLC0415
    from stocktrade.views.history import Within  # noqa: PLC0415

    first, end = (None if point is None else parse_point(point, now_ms=_now_ms()) for point in (start, until))
    return Within(first, end, last if last is not None or first is not None else _LAST_ROWS)


def _moment(at: str | None) -> "Moment":
    from stocktrade.ranges import NOW, parse_moment  # noqa: PLC0415

    return NOW if at is None else parse_moment(at, now_ms=_now_ms())


def _check_none_given(context: typer.Context) -> None:
    """Refuse options before a subcommand: they are those of the list and would be lost, the log's name among them.

    Raises:
        UsageError: there is one.
    """
    if any(getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE" for name in context.params):
        whole = f"{context.command_path} {context.invoked_subcommand}"
        raise UsageError(
            f"an option stands before `{context.invoked_subcommand}`",
            cause=f"there it would be one of `{context.command_path}`",
            hint=f"put it at the end: `{whole} …`",
        )


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _console(*, terminal: bool | None = None, stderr: bool = False) -> "Console":
    from rich.console import Console  # noqa: PLC0415

    return Console(highlight=False, markup=False, emoji=False, force_terminal=terminal, stderr=stderr)


def _id(order_id: str | None) -> str:
    if order_id is not None:
        return order_id
    from uuid import uuid4  # noqa: PLC0415

    return str(uuid4())


def _options(wait: str | None, *, dry_run: bool, quiet: bool, as_json: bool) -> "Options":
    from stocktrade.roles.order_entry import Options  # noqa: PLC0415

    return Options(None if wait is None else _seconds(wait), dry_run=dry_run, quiet=quiet, as_json=as_json)


_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)(ms|s|m)?", re.ASCII)


def _seconds(text: str) -> float:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise UsageError(f"invalid duration {text!r}", cause="not a number of seconds", hint="for example 5s or 500ms")
    return float(match[1]) * {"ms": 0.001, "s": 1, None: 1, "m": 60}[match[2]]


def _with_default_wait(arguments: list[str]) -> list[str]:
    """`--wait` alone means `--wait=5s`; the parser below knows no option with an optional value."""
    given = []
    for place, argument in enumerate(arguments):
        following = arguments[place + 1] if place + 1 < len(arguments) else ""
        bare = argument == "--wait" and _DURATION.fullmatch(following) is None
        given.append("--wait=5s" if bare else argument)
    return given


def _report(error: StocktradeError, *, as_json: bool) -> None:
    from stocktrade.domain.values import visible  # noqa: PLC0415

    # A command that mends something stands on a line of its own, whole, so that it can be pasted.
    what, cause, *hints = (visible(text, 3_000) for text in (error.what, error.cause, *error.hint.splitlines()))
    if as_json:
        import json  # noqa: PLC0415

        document = {
            "schema": "stocktrade.error/1",
            "error": what,
            "cause": cause or None,
            "hint": "\n".join(hints) or None,
            "exit_code": int(error.exit_code),
        }
        sys.stderr.write(json.dumps(document, ensure_ascii=False) + "\n")
        return
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    word = "\x1b[31merror\x1b[0m" if colour else "error"
    lines = [f"{word}: {what}"]
    lines += [f"  cause: {cause}"] if cause else []
    lines += [f"  hint: {hints[0]}", *(f"    {command}" for command in hints[1:])] if hints else []
    sys.stderr.write("\n".join(lines) + "\n")


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    as_json = "--json" in arguments
    try:
        code = app(_with_default_wait(arguments), prog_name="stocktrade", standalone_mode=False)
        sys.stdout.flush()
        return int(code or ExitCode.OK)
    except StocktradeError as error:
        _report(error, as_json=as_json)
        return error.exit_code
    except TyperException as error:
        message = getattr(error, "format_message", error.__str__)()
        if not message:  # no arguments: the help has been shown instead
            return ExitCode.USAGE
        _report(UsageError(message, hint=f"see `{_path(error)} --help`"), as_json=as_json)
        return ExitCode.USAGE
    except (KeyboardInterrupt, typer.Abort):
        return ExitCode.INTERRUPTED
    except (BrokenPipeError, SystemExit) as error:
        # The parser makes an exit of its own out of a broken pipe; any other is shell completion's.
        if isinstance(error, SystemExit) and not isinstance(error.__context__, BrokenPipeError):
            raise
        # Whoever read stdout has enough; the interpreter must not complain while it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except Exception as error:
        if os.environ.get(DEBUG):
            raise
        bug = StocktradeError(
            f"a bug in stocktrade: {type(error).__name__}: {error}",
            hint=f"set {DEBUG}=1 to see where, and please report it",
        )
        _report(bug, as_json=as_json)
        return ExitCode.BUG


def _path(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "stocktrade"


def main() -> None:
    """The console script."""
    # Output is UTF-8 whatever the locale says: ₹ must not end a command under LANG=C.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(run(sys.argv[1:]))
