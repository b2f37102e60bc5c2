"""The pictures in docs/screenshots show what the commands show today; `make screenshots` makes them anew."""

import html
import re
import runpy
from collections import defaultdict
from pathlib import Path
from typing import Final

import pytest

from test_docs import ROOT, lines_of

FOLDER: Final = ROOT / "docs" / "screenshots"

_TEXT = re.compile(r'<text [^>]*?y="([\d.]+)"[^>]*>(.*?)</text>', re.DOTALL)


def words_of(picture: Path) -> list[str]:
    """What stands in a picture line by line, but for times and durations."""
    lines: dict[str, list[str]] = defaultdict(list)
    for height, text in _TEXT.findall(picture.read_text(encoding="utf-8")):
        lines[height].append(html.unescape(text).replace("\xa0", " "))
    return lines_of("\n".join(" ".join(parts) for parts in lines.values()))


@pytest.mark.slow
def test_the_pictures_are_those_of_the_commands(tmp_path: Path) -> None:
    """Each one has the words of a picture that is made now."""
    made = runpy.run_path(str(ROOT / "docs" / "screenshots.py"))
    made["main"](tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == sorted(path.name for path in FOLDER.iterdir())
    for name in names:
        words = words_of(tmp_path / name)
        assert len(words) > 3
        assert words_of(FOLDER / name) == words, f"{name} is stale: make screenshots"
