"""Writes commands.md, the reference of the commands, from the commands themselves: `python docs/reference.py`."""

import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import typer.main

from stocktrade.cli import app

PAGE: Final = Path(__file__).with_name("commands.md")

HEAD: Final = """# Commands

Made from the commands themselves by `make docs`; `stocktrade COMMAND --help` says the same.

Every command ends with 0 when it is done, 2 when it was used wrongly, 3 when the log is not available, 70 when it met
a bug of its own, and 130 on Ctrl-C, but for `nse` and what follows the log: they end with 0 then. What 1 and 4 mean
stands with the command. All of them: [the exit codes](../README.md#exit-codes).

Every command that touches a log takes the options of the connection, which say where the log is. The environment can
say it once for all, and the README [which of them counts](../README.md#environment):

"""

_CONNECTION: Final = ("bootstrap_server", "command_config", "command_property")

ENVIRONMENT: Final = {
    "STOCKTRADE_HOME": "The folder of the embedded log; without it, `~/.stocktrade`.",
    "STOCKTRADE_BOOTSTRAP_SERVERS": "As `--bootstrap-server`.",
    "STOCKTRADE_COMMAND_CONFIG": "As `--command-config`.",
    "STOCKTRADE_CLIENT": "Kafka's client library, for every command: `kafka-python` (the default) or `librdkafka`.",
    "STOCKTRADE_DEBUG": "Set to 1, a bug shows its traceback.",
    "STOCKTRADE_FAILPOINTS": "For tests only: makes the process die or freeze at a named place.",
    "NO_COLOR": "Set to anything, no colours. `FORCE_COLOR`, `TERM` and `COLUMNS` are honoured, too.",
}

_REJECTED: Final = "1 when it was rejected, 4 when it was not settled before the deadline of `--wait`"
_AMENDED: Final = (
    "1 when it was rejected or no order has that id, 4 when there was no answer before the deadline of `--wait`"
)
_UNKNOWN: Final = "1 when nobody of that name has ever traded"
_OF_DLQ: Final = "Recover from a bad record"


class More(NamedTuple):
    """What a command does not say of itself: its examples, and what its exit codes mean beyond those of all.

    The examples are run by the tests, in the order of the page, on one log; some have a `page` of their own instead.
    """

    examples: tuple[str, ...] = ()
    codes: str = ""
    page: str = ""


MORE: Final = {
    "nse": More(
        ("nse --once",),
        "1 when the journal is broken, 3 also when another exchange owns a shard and it was to be done `--once`",
    ),
    "buy": More(("buy SBI 100 885 --id ORD-1", "buy INFY 5 1500.50 --tif IOC --as LIC"), _REJECTED),
    "sell": More(("sell SBI 60 --id OFR-1", "sell INFY 5 1500.50 --id OFR-2", "nse --once"), _REJECTED),
    "cancel": More(("cancel OFR-2",), _AMENDED),
    "replace": More(("replace ORD-1 --quantity 20",), _AMENDED),
    "watch": More(("watch SBI --from start --no-follow",)),
    "book": More(
        ("book SBI", "book SBI --at 2 --orders"), "1 when the log does not go back so far, or the journal is broken"
    ),
    "trades": More(("trades SBI -n 5", "trades --from @-1d --csv")),
    "holdings": More(("holdings", "holdings HDFC --at 3"), _UNKNOWN),
    "funds": More(("funds HDFC --statement",), _UNKNOWN),
    "orders": More(("orders --as HDFC --open",)),
    "orders show": More(("orders show ORD-1",), "1 when no order has that id"),
    "audit": More(("audit",), "1 when a rule is broken"),
    "replay": More(
        ("replay docs/examples/orders.jsonl --book", "replay --log --compare"),
        "1 when there is a bad line (`--strict`) or a difference (`--compare`), or the journal is broken",
    ),
    "bench": More(
        ("bench --core --orders 2000",),
        "1 when a figure is worse than the baseline allows, orders were not settled, or the audit is not clean; "
        "2 also when the log is in use. More: [bench.md](bench.md)",
    ),
    "schema": More(("schema trades", "schema stocktrade.trade/1", "schema --asyncapi")),
    "topics": More(("topics",)),
    "topics list": More(("topics list --csv",)),
    "topics tail": More(("topics tail trades -n 3 --no-follow",)),
    "topics create": More(("topics create",)),
    "dlq": More(),
    "dlq list": More(("dlq list -n 5",)),
    "dlq show": More(codes="1 when no dead letter stands there", page=_OF_DLQ),
    "dlq redrive": More(codes="1 when one was not sent, for it would come back, or you said no", page=_OF_DLQ),
    "demo": More(("demo --seconds 1",), "1 when the sums or the audit are not what they must be"),
    "doctor": More(("doctor",), "1 when a check failed"),
}
PAGES: Final = {_OF_DLQ: "dlq.md"}


def page() -> str:
    """The whole page."""
    root: Any = typer.main.get_command(app)
    connection = {each.name: each for each in root.commands["audit"].params}
    lines = [HEAD + "| option | |", "|---|---|", *(_row(connection[name]) for name in _CONNECTION), ""]
    lines += ["| variable | |", "|---|---|", *(f"| `{name}` | {said} |" for name, said in ENVIRONMENT.items()), ""]
    panels: dict[str, list[str]] = {}
    for name, command in root.commands.items():
        panels.setdefault(command.rich_help_panel, []).append(name)
    for panel, names in panels.items():
        lines += [f"## {panel}", ""]
        for name in names:
            lines += _command(name, root.commands[name])
    return "\n".join(lines).rstrip("\n") + "\n"


def _command(path: str, command: Any) -> list[str]:
    words = " ".join([f"stocktrade {path}", *[_shown(each) for each in command.params if _is_argument(each)]])
    options = [each for each in command.params if each.name not in _CONNECTION and each.name != "help"]
    lines = [f"### `{words}`", "", *(_wrapped(command.help or "")), ""]
    if options:
        lines += ["| | |", "|---|---|", *map(_row, options), ""]
    more = MORE[path]
    if more.codes:
        lines += [f"Ends with {more.codes}.", ""]
    if more.examples:
        lines += ["```console", *(line for each in more.examples for line in (f"$ stocktrade {each}", "…")), "```", ""]
    if more.page:
        lines += [f"An example: [{more.page}]({PAGES[more.page]}).", ""]
    for name, below in getattr(command, "commands", {}).items():
        lines += _command(f"{path} {name}", below)
    return lines


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _shown(parameter: Any) -> str:
    shown = str(parameter.metavar or parameter.name.upper())
    if _is_argument(parameter):
        shown = shown if parameter.required else f"[{shown}]"
        shown += "..." if parameter.nargs == -1 else ""
    return shown


def _said(parameter: Any) -> str:
    """The help, and what holds without the option."""
    default = parameter.default if parameter.show_default is True else parameter.show_default
    known = not parameter.required and default not in (None, False, True, ())
    return f"{parameter.help} Default: {default}." if known else str(parameter.help or "")


def _row(parameter: Any) -> str:
    if _is_argument(parameter):
        return f"| `{_shown(parameter)}` | {_cell(_said(parameter))} |"
    flags = ", ".join([*parameter.opts, *parameter.secondary_opts])
    value = "" if parameter.is_flag else f" {_shown(parameter)}"
    return f"| `{_cell(flags + value)}` | {_cell(_said(parameter))} |"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _wrapped(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n") for part in (part, "")][:-1]


if __name__ == "__main__":
    PAGE.write_text(page())
