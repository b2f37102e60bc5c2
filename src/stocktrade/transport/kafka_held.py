"""Who waits for an open transaction: the partitions whose committed records end before the written ones.

A reader of committed records stands still where somebody's transaction is open, and nothing tells it so. Here it is
found out by looking at what each fetch says about the end of the partition, which costs no request.

Invariant: a partition is called held back only when a broker has just said so, never because none answers.
"""

import time
from collections.abc import Callable, Mapping
from typing import Final

from kafka import TopicPartition

from stocktrade.errors import StocktradeError
from stocktrade.transport.client import Fetcher

HELD_AFTER_S: Final = 1.0
"""A commit hides its records for some milliseconds, too: only what lasts longer is worth a word."""

_LOOK_EVERY_S: Final = 0.5
_LOOK_WITHIN_S: Final = 0.5


class HeldBack:
    """Watches the partitions of one fetcher.

    Args:
        fetcher: what brings their records.
    """

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher = fetcher
        self._stands: dict[TopicPartition, tuple[int, float]] = {}  # where it stands still, and since when
        self._held: dict[TopicPartition, float] = {}
        self._look_at = 0.0

    def look(self, positions: Callable[[], Mapping[TopicPartition, int]]) -> dict[TopicPartition, float]:
        """For how many seconds each of the partitions that are held back has been. Cheap: call it with each poll.

        Args:
            positions: where the fetcher stands on the partitions from which everything fetched was taken. Asked only
                when it is time to look: a client's answer costs as much as a small poll, for each partition.
        """
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            self._note(positions(), now)
            self._held = self._confirmed(now)
        return {place: now - since for place, since in self._held.items()}

    def _note(self, positions: Mapping[TopicPartition, int], now: float) -> None:
        stands = {}
        for place, position in positions.items():
            written = self._fetcher.written_end(place)
            if written is not None and written > position:
                before = self._stands.get(place)
                stands[place] = before if before is not None and before[0] == position else (position, now)
        self._stands = stands

    def _confirmed(self, now: float) -> dict[TopicPartition, float]:
        stands = {place: at for place, at in self._stands.items() if now - at[1] >= HELD_AFTER_S}
        if not stands:
            return {}
        try:
            stable = self._fetcher.stable_ends(stands, within_s=_LOOK_WITHIN_S)
        except StocktradeError:
            return {}
        return {place: since for place, (position, since) in stands.items() if stable[place] <= position}
