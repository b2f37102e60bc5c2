"""Writes commands.md, the reference of the commands, from the commands themselves: `python docs/reference.py`."""

import re
from pathlib import Path
from typing import Any, Final

import typer.main

from stocktrade.cli import app

PAGE: Final = Path(__file__).with_name("commands.md")

HEAD: Final = """# Commands

Made from the commands themselves by `make docs`; `stocktrade COMMAND --help` says the same.

Every command that touches a log takes the options of the connection, which say where the log is; the README has
[what they mean](../README.md#environment) and [the exit codes](../README.md#exit-codes):

| option | |
|---|---|
"""

_CONNECTION: Final = ("bootstrap_server", "command_config", "command_property")


def page() -> str:
    """The whole page."""
    root: Any = typer.main.get_command(app)
    connection = {each.name: each for each in root.commands["audit"].params}
    lines = [HEAD + "\n".join(_row(connection[name]) for name in _CONNECTION), ""]
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
    for name, below in getattr(command, "commands", {}).items():
        lines += _command(f"{path} {name}", below)
    return lines


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _shown(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _row(parameter: Any) -> str:
    if _is_argument(parameter):
        said = parameter.help or ""
        return f"| `{_shown(parameter)}` | {_cell(said)} |"
    flags = ", ".join([*parameter.opts, *parameter.secondary_opts])
    value = "" if parameter.is_flag else f" {_shown(parameter)}"
    return f"| `{_cell(flags + value)}` | {_cell(parameter.help or '')} |"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def _wrapped(text: str) -> list[str]:
    return [" ".join(part.split()) for part in text.split("\n\n") for part in (part, "")][:-1]


if __name__ == "__main__":
    PAGE.write_text(page())
