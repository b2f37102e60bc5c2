"""The place of an embedded log, as far as it can be told before the log is opened.

Invariant: nothing is opened for writing, made or changed.
"""

import errno
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from stocktrade.transport import database
from stocktrade.transport.database import check_file_system, explained


class Premises(NamedTuple):
    """A folder for an embedded log.

    `made`: it is there. `nearest` is the folder itself, or the one in which it would be made. `writable`: this user
    may make files in that one. `free_bytes` is the space that this user has left there.
    """

    folder: Path
    made: bool
    nearest: Path
    writable: bool
    free_bytes: int


def folder_of(url: str) -> Path | None:
    """The folder of an embedded log; None for a log of another kind."""
    kind, _, folder = url.partition(":")
    return Path(os.path.abspath(folder)) if kind == "sqlite" else None  # noqa: PTH100 - resolve would follow links


def look_at(folder: Path) -> Premises:
    """The folder as it is.

    Raises:
        Unavailable: no log can be there: the path leads through a file, or to a network file system.
    """
    with explained(folder):
        nearest = folder
        while not _is_there(nearest):
            nearest = nearest.parent
        if not nearest.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(nearest))
        check_file_system(nearest)
        return Premises(
            folder=folder,
            made=nearest == folder,
            nearest=nearest,
            writable=os.access(nearest, os.W_OK | os.X_OK),
            free_bytes=shutil.disk_usage(nearest).free,
        )


def holds_log(folder: Path) -> bool:
    """Whether there is a log in the folder, judged by the header of its file.

    Raises:
        LogDamaged: in its place is something else, or only its end.
        Unavailable: it cannot be looked at.
    """
    return database.is_made(folder / database.FILE_NAME)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
