"""The live screens as they are drawn at four widths, text for text: the files in `goldens/`.

`make goldens`, which sets STOCKTRADE_RENEW_GOLDENS, draws them anew; what has changed is then seen in git.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from rich.console import RenderableType

from stocktrade.domain.facts import Action as What
from stocktrade.domain.facts import Match, Outcome, Reason, Status, Terms
from stocktrade.domain.values import MAX_PRICE, Paise
from stocktrade.flow import Flow
from stocktrade.records import row_of
from stocktrade.roles.book import Depth, DepthTable
from stocktrade.tables import FlowView
from stocktrade.transport import topics
from stocktrade.transport.base import NewRecord, Record
from stocktrade.transport.codec import encode_facts
from test_tables import T0, drawn, lines_of, the_seeds_flow

FOLDER: Final = Path(__file__).with_name("goldens")
RENEW: Final = "STOCKTRADE_RENEW_GOLDENS"
WIDTHS: Final = (60, 80, 120, 200)

LONG_SYMBOL: Final = "ABCDEFGHIJ-KLMNOP&12"
NAMES: Final = (
    "HDFC",
    "[red]LIC[/red]",
    "EVIL\x1b[2J\x1b[31m",
    "\u202eABC\u202d",
    "H" * 200,
    "株式会社東京",
    "MUTUAL-FUND-OF-INDIA",
)


def seed() -> FlowView:
    """The seed's trade, with nobody left to trade with."""
    return FlowView(
        the_seeds_flow(), T0 + 18, "stocktrade watch  sqlite:/log", ["no exchange is running: orders wait on the log"]
    )


def empty() -> FlowView:
    """A log on which nothing has happened."""
    return FlowView(Flow(), T0, "stocktrade watch  sqlite:/log")


def fed(known: Flow, *records: NewRecord, time_ms: int = T0, live: bool = True) -> None:
    for record in records:
        offset = known.topics[record.topic].count
        # The exchange lets no such name in, so its codec need not escape it; a stranger's program would.
        value = json.dumps(json.loads(record.value or b"", strict=False)).encode()
        known.feed(
            Record(record.topic, 0, offset, 0, time_ms, record.key, value, record.headers),
            now_ms=time_ms + 18,
            live=live,
        )


def busy_flow() -> Flow:
    """Thirty symbols, one of them long, the dearest trade there can be, names that mean harm, and every answer."""
    known = Flow()
    for number in range(30):
        symbol = f"SYMBOL{number:02}" if number else LONG_SYMBOL
        for step, price in enumerate((100_00 + number * 100, 101_50 + number * 100, 99_05 + number * 100)):
            name = NAMES[number % len(NAMES)]
            at = number * 3 + step
            match = Match(at, 1, symbol, 100, Paise(price), "BUY", f"B-{at}", name, symbol, "S", "SELLER", symbol)
            fed(known, *encode_facts([match], 0, "buy-orders@0:0", T0), time_ms=T0 + at * 1000)
    dear = Match(
        99, 1, "MRF", 12_345, Paise(MAX_PRICE), "SELL", "B", "MUTUAL-FUND-OF-INDIA", "MRF", "S", "[red]LIC[/red]", "MRF"
    )
    fed(known, *encode_facts([dear], 0, "buy-orders@0:0", T0)[:-1], time_ms=T0 + 99_000)
    order = b'{"order_id":"O","buyer":"HDFC","stock_symbol":"SBI","quantity":1,"price_per_unit":885.0}'
    fed(known, *[NewRecord(topics.BUY_ORDERS, b"SBIN", order)] * 1_234, time_ms=T0 + 99_000)
    said = Outcome(100, "BUY", "O-1", "HDFC", "SBI", Status.ACCEPTED, None, "", 60, Paise(88_500), 0, 0)
    answers = [
        said._replace(status=Status.REJECTED, reason=Reason.PRICE_OFF_TICK, detail="tick is ₹0.05"),
        said._replace(terms=Terms(What.REPLACE, target="B-1")),
        said._replace(participant=NAMES[2], cancelled=1_00_000, terms=Terms(What.CANCEL, target="B-2")),
    ]
    fed(known, *encode_facts(answers, 0, "buy-orders@0:5", T0), time_ms=T0 + 100_000)
    return known


def busy() -> FlowView:
    """A full screen that stands still."""
    notices = ["cannot reach Kafka at localhost:9092; trying again each second"]
    title = "stocktrade watch  kafka:localhost:9092  as HDFC"
    return FlowView(busy_flow(), T0 + 100_020, title, notices, height=36, paused=12_345)


def records() -> FlowView:
    """Records instead of trades."""
    match = Match(2, 1, "SBIN", 100, Paise(88_500), "BUY", "O-1", NAMES[3], "SBI", "F-1", "[red]LIC[/red]", "SBI")
    made = encode_facts([match], 0, "sell-offers@0:0", T0)
    rows = [row_of(Record(new.topic, 0, at, at, T0, new.key, new.value, ())) for at, new in enumerate(made)]
    return FlowView(the_seeds_flow(), T0 + 18, "stocktrade watch  sqlite:/log  funds", (), rows, height=30)


def book() -> RenderableType:
    """The prices of a book that is deeper on one side, with an offer at any price."""
    bids: list[list[int | None]] = [[90_000_00 - step, 1_000 * (step + 1), step + 1] for step in range(5)]
    asks: list[list[int | None]] = [[None, 5, 1], [MAX_PRICE, 99_99_999, 12_345]]
    return DepthTable(Depth(LONG_SYMBOL, 0, 208, None, bids, asks))


SCENES: Final[dict[str, Callable[[], RenderableType]]] = {
    "watch-seed": seed,
    "watch-empty": empty,
    "watch-busy": busy,
    "watch-records": records,
    "book": book,
}


CASES: Final = [(scene, width) for scene in SCENES for width in WIDTHS]


@pytest.mark.parametrize(("scene", "width"), CASES)
def test_the_screen_is_as_it_was(scene: str, width: int) -> None:
    """Nothing moves on a screen that nobody meant to move, and no line is longer than the screen."""
    text = "\n".join(lines_of(drawn(SCENES[scene](), width, height=36))) + "\n"
    golden = FOLDER / f"{scene}-{width}.txt"
    if os.environ.get(RENEW):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text


def test_every_golden_has_its_scene() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {f"{scene}-{width}" for scene, width in CASES}
