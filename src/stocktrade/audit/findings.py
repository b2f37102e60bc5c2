"""What an audit came to: a count for each rule, and the first records that break it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

KEPT_FINDINGS: Final = 100
"""How many findings of one rule are kept; all are counted."""


class Rule(StrEnum):
    """What is checked. The text is the name that a user sees."""

    JOURNAL = "journal"
    INPUTS = "inputs"
    ANSWERS = "answers"
    IDS = "ids"
    REPLAY = "replay"
    OUTPUTS = "outputs"
    TRADES = "trades"
    FILLS = "fills"
    PRIORITY = "priority"
    LEGS = "legs"
    SUMS = "sums"
    SNAPSHOTS = "snapshots"
    HEAD = "head"


MEANING: Final[Mapping[Rule, str]] = {
    Rule.JOURNAL: "each entry continues the chain, and the sequence has no gap",
    Rule.INPUTS: "each input stands in the journal once, as it is on its topic",
    Rule.ANSWERS: "each input has one outcome: an event, a dead letter, or its way to its shard",
    Rule.IDS: "no order id was accepted twice",
    Rule.REPLAY: "the journal replays to its digests",
    Rule.OUTPUTS: "the output topics hold what the journal says, and nothing else",
    Rule.TRADES: "each trade has its own number, and joins two orders that were there",
    Rule.FILLS: "no order is filled beyond its quantity, after its end, or through its limit",
    Rule.PRIORITY: "the best price was served first, then the oldest order, at the maker's price",
    Rule.LEGS: "each trade has its four legs",
    Rule.SUMS: "shares and rupees sum to zero, and the clearing house is flat",
    Rule.SNAPSHOTS: "each snapshot is whole, and is the state that the journal gives",
    Rule.HEAD: "the journal holds what was known to be in it",
}
"""One sentence for each rule."""


class Finding(NamedTuple):
    """One broken rule: where it is broken (topic@partition:offset wherever there is one), and how."""

    rule: Rule
    where: str
    what: str


@dataclass
class Tally:
    """How many facts one rule was asked of, how many broke it, and how many could not be checked."""

    checked: int = 0
    broken: int = 0
    unchecked: int = 0
    why_unchecked: str = ""
    findings: list[Finding] = field(default_factory=list)


class Head(NamedTuple):
    """Where the journal of a shard ends: its last entry, that entry's digest, and the last exchange sequence."""

    entry: int
    digest: str
    seq: int


class Report:
    """Everything that an audit found.

    Attributes:
        tallies: by rule.
        heads: by shard.
        waiting: inputs that no exchange has taken yet. That breaks nothing.
        ignored: records in the journals that do not continue the chain; every reader leaves them out.
        redelivered: outputs that are on the log once more with the same content.
    """

    def __init__(self) -> None:
        self.tallies = {rule: Tally() for rule in Rule}
        self.heads: dict[int, Head] = {}
        self.inputs = 0
        self.trades = 0
        self.waiting = 0
        self.ignored = 0
        self.redelivered = 0

    def checked(self, rule: Rule, count: int = 1) -> None:
        """Note that a rule was asked of `count` more facts."""
        self.tallies[rule].checked += count

    def broken(self, rule: Rule, where: object, what: str) -> None:
        """Note that a fact breaks a rule. It was counted as checked before, or is now."""
        tally = self.tallies[rule]
        tally.broken += 1
        tally.checked = max(tally.checked, tally.broken)
        if len(tally.findings) < KEPT_FINDINGS:
            tally.findings.append(Finding(rule, str(where), what))

    def unchecked(self, rule: Rule, why: str, count: int = 1) -> None:
        """Note that `count` facts could not be checked."""
        tally = self.tallies[rule]
        tally.unchecked += count
        tally.why_unchecked = tally.why_unchecked or why

    @property
    def findings(self) -> list[Finding]:
        """The findings that were kept, by rule."""
        return [finding for tally in self.tallies.values() for finding in tally.findings]

    @property
    def clean(self) -> bool:
        """Whether no rule is broken."""
        return not any(tally.broken for tally in self.tallies.values())
