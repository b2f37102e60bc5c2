"""Every error a user can meet: what went wrong, why, and what to do next.

Invariant: each class has one exit code, and no message carries text from a topic that was not made visible
first (`domain.values.visible`). Whatever is raised from another class is a bug and ends with code 70.
"""

from enum import IntEnum
from traceback import clear_frames


class ExitCode(IntEnum):
    """What a command ends with; scripts depend on these numbers."""

    OK = 0
    NO = 1  # the answer is no: rejected, a failed check, a broken journal
    USAGE = 2  # arguments, configuration, wrong topic settings
    UNAVAILABLE = 3  # broker, log, another owner, a foreign file; a retry may help
    PENDING = 4  # accepted, but not final before the deadline of --wait
    BUG = 70
    INTERRUPTED = 130


class StocktradeError(Exception):
    """Base class: `what` happened, its `cause`, and a `hint` that says what to do next."""

    exit_code = ExitCode.BUG

    def __init__(self, what: str, *, cause: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.cause = cause
        self.hint = hint


class UsageError(StocktradeError):
    """The command, an environment variable or a file of settings is wrong. Nothing was sent."""

    exit_code = ExitCode.USAGE


class Unavailable(StocktradeError):
    """The log cannot be used now: nothing happened, and a retry may help."""

    exit_code = ExitCode.UNAVAILABLE


class Unknown(Unavailable):
    """The log did not answer whether it took the records: they may be on it or not.

    Sending the same order id again is safe: the exchange takes an id once.
    """


class Hanging(Unavailable):
    """A transaction stays open on what a shard writes, so that its readers stand still: no shard is traded on that."""


class Occupied(Unavailable):
    """Another live process owns the shard; `pid` is its process id where that is known."""

    def __init__(self, what: str, *, pid: int | None = None, cause: str = "", hint: str = "") -> None:
        super().__init__(what, cause=cause, hint=hint)
        self.pid = pid


class Fenced(StocktradeError):
    """A newer owner has taken the shard: whatever this process still wanted to write has no effect."""

    exit_code = ExitCode.UNAVAILABLE


class LogDamaged(StocktradeError):
    """The log cannot be what this exchange wrote: foreign, truncated, of a newer version, or rolled back."""

    exit_code = ExitCode.UNAVAILABLE


class JournalBroken(StocktradeError):
    """The journal has a gap, an undecodable record, or does not replay to its digest."""

    exit_code = ExitCode.NO


def forget_frames(error: BaseException | None) -> None:
    """Have an error that is kept keep nothing but its words, and so the ones that it came from.

    Its traceback would hold whatever the functions had that it passed through.
    """
    while error is not None:
        clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
