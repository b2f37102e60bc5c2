"""The help of every command as a terminal of 80 columns shows it: whole, and about every word that can be given."""

import re
from typing import Any, Final

import pytest
import typer.main

from stocktrade import cli

WIDTH: Final = 80


def _every_command() -> dict[str, Any]:
    """The commands, each by its words; the program itself by none."""
    found = {}

    def look(path: str, command: Any) -> None:
        found[path] = command
        for name, below in getattr(command, "commands", {}).items():
            look(f"{path} {name}".strip(), below)

    look("", typer.main.get_command(cli.app))
    return found


COMMANDS: Final = _every_command()


def _words(text: str) -> set[str]:
    return set(re.sub(r"[│╭╮╰╯─]", " ", text).split())


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: path or "stocktrade")
def test_the_help_of_a_command_is_whole(
    path: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each argument and option is explained; no word of it is cut, swallowed as markup, or beyond the edge."""
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    for name in ("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    assert cli.run([*path.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    command = COMMANDS[path]
    said = [command.help]
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} is not explained"
        default = parameter.show_default if isinstance(parameter.show_default, str) else ""
        said += [parameter.help, f"({default})" if default else ""]
        said += [*parameter.opts] if parameter.param_type_name == "option" else [parameter.metavar]
    for below in getattr(command, "commands", {}).values():
        said.append(below.help.partition("\n\n")[0])
    there = _words(shown)
    missing = [word for text in said for word in text.split() if not {word, f"{word}]"} & there]
    assert missing == []
    assert [line for line in shown.splitlines() if len(line) > WIDTH] == []
