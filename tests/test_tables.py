"""What is drawn is legible, whole and harmless at every width."""

import io
import re
import time
from collections.abc import Iterator
from itertools import pairwise
from unicodedata import category

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from stocktrade import tables
from stocktrade.core.clearing import novate
from stocktrade.core.ledger import Ledger
from stocktrade.domain.facts import Match, Outcome, Reason, Status
from stocktrade.domain.values import MAX_PRICE, MAX_QUANTITY, Paise, group_indian, rupees_in_table
from stocktrade.flow import Answer, Flow, Quote, Row
from stocktrade.tables import FlowView, RecordRow, SettlementTable, ShardStart, SumsTable
from stocktrade.transport import topics
from stocktrade.transport.base import Record
from stocktrade.transport.codec import encode_facts

T0 = 1_795_405_500_000  # 2026-11-23 09:15:00 in India
WIDTHS = range(60, 201)

HOSTILE = [
    "HDFC[/]",
    "[/foo]",
    "[link=http://evil]HDFC[/link]",
    "\x1b[2J\x1b[31mHDFC",
    "\x1b]52;c;cm0gLXJm\x07",
    "\x1b]8;;http://evil\x1b\\HDFC\x1b]8;;\x1b\\",
    "\x9b2JHDFC",
    "HDFC\rNSE",
    "HDFC\nNSE\tSBI",
    "\u202eCFDH",
    "\u2066HDFC\u2069\u200b\ufeff",
    "H" * 200,
    "Z" + "\u0300\u0489\u0336" * 60,
    "\u0301\u0301\u0301HDFC",
    "\ud800HDFC",
    "\x00\x7f\x08",
    "株式会社" * 20,
    "",
]


def drawn(renderable: RenderableType, width: int, *, height: int = 24, colour: bool = False) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        height=height,
        force_terminal=colour,
        color_system="truecolor" if colour else None,
        highlight=False,
        legacy_windows=False,
    )
    console.print(renderable)
    return out.getvalue()


def lines_of(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip("\n").split("\n")]


def a_row(number: int = 1, **changes: object) -> Row:
    fields: dict[str, object] = {
        "number": number,
        "trade_id": f"T0-{number}-1",
        "time_ms": T0,
        "symbol": "SBIN",
        "shown": "SBI",
        "quantity": 100,
        "price": 88_500,
        "amount": 8_850_000,
        "buyer": "HDFC",
        "seller": "SELLER",
        "legs": 15,
        "settled_ms": 18,
    } | changes
    return Row(**fields)  # type: ignore[arg-type]


def the_seeds_flow() -> Flow:
    known = Flow()
    match = Match(2, 1, "SBIN", 100, Paise(88_500), "BUY", "O-1", "HDFC", "SBI", "F-1", "SELLER", "SBI")
    order = b'{"order_id":"O-1","buyer":"HDFC","stock_symbol":"SBI","quantity":100,"price_per_unit":885.0}'
    offer = b'{"offer_id":"F-1","seller":"SELLER","stock_symbol":"SBI","quantity":100}'
    known.feed(Record(topics.BUY_ORDERS, 0, 0, 0, T0, b"", order, ()), now_ms=T0, live=True)
    known.feed(Record(topics.SELL_OFFERS, 0, 0, 0, T0, b"", offer, ()), now_ms=T0, live=True)
    for new in encode_facts([match], 0, "sell-offers@0:0", T0):
        known.feed(Record(new.topic, 0, 0, 0, T0, new.key, new.value, ()), now_ms=T0 + 18, live=True)
    for seq, source in enumerate(("buy-orders@0:0", "sell-offers@0:0"), 1):
        said = Outcome(seq, "BUY", f"O-{seq}", "HDFC", "SBI", Status.ACCEPTED, None, "", 100, Paise(88_500), 0, 0)
        for new in encode_facts([said], 0, source, T0):
            known.feed(Record(new.topic, 0, seq, 0, T0, new.key, new.value, ()), now_ms=T0 + 18, live=True)
    return known


def test_what_waits_stands_beside_its_topic() -> None:
    """The lag of an input topic is in its line of the picture, and the other lines keep their columns."""
    known = the_seeds_flow()
    order = b'{"order_id":"O-3","buyer":"HDFC","stock_symbol":"SBI","quantity":100,"price_per_unit":885.0}'
    for offset in range(1, 13):
        known.feed(Record(topics.BUY_ORDERS, 0, offset, 0, T0, b"", order, ()), now_ms=T0, live=False)
    for width in (60, 80, 120, 200):
        lines = drawn(FlowView(known, T0 + 18), width).split("\n")
        (bids,) = [line for line in lines if "buy-orders" in line]
        assert " 13 " in bids
        assert " lag 12 " in bids
        assert {len(line) for line in lines if "│" in line} == {len(bids)}
        assert [line for line in lines if "lag" in line] == [bids]


def test_colours_of_the_sides() -> None:
    """Buyers are blue, sellers red, what is settled green."""
    text = drawn(SettlementTable([a_row()]), 120, colour=True)
    assert "\x1b[34mHDFC" in text
    assert "\x1b[31mSELLER" in text
    assert "\x1b[32m✓ settled 18 ms" in text


@pytest.mark.parametrize(
    ("legs", "ms", "status"),
    [
        (0, None, "… pending"),
        (1 | 4, None, "… pending"),
        (1 | 2, None, "… funds pending"),
        (1 | 2 | 8, None, "… funds pending"),
        (1 | 4 | 8, None, "… shares pending"),
        (15, None, "✓ settled"),
        (15, 0, "✓ settled 0 ms"),
        (15, 12_345, "✓ settled 12.3 s"),
        (15, 3_600_000, "✓ settled 60 min"),
        (15, 10**9, "✓ settled 277 h"),
    ],
)
def test_status(legs: int, ms: int | None, status: str) -> None:
    """What is missing is named; a settlement says how long it took when it was seen."""
    assert tables.status_of(a_row(legs=legs, settled_ms=ms)) == status


# --- nothing is cut -------------------------------------------------------------------------------------------


def test_money_is_never_cut_at_any_width() -> None:
    """₹1,23,45,67,890.00 stands whole from 60 to 200 columns, and no line is wider than the screen."""
    big = a_row(7, quantity=123_456_789, price=Paise(1_000), amount=Paise(123_456_789_000))
    long = a_row(8, shown="NSE:" + "A" * 20, buyer="B" * 64, seller="S" * 64, legs=1 | 2, settled_ms=None)
    for width in WIDTHS:
        text = drawn(SettlementTable([a_row(), big, long]), width)
        assert "₹1,23,45,67,890.00" in text
        assert "₹88,500.00" in text
        assert max(map(cell_len, text.split("\n"))) <= width


rows = st.builds(
    lambda number, symbol, quantity, price, buyer, seller, legs, ms: a_row(
        number,
        shown=symbol,
        quantity=quantity,
        price=Paise(price),
        amount=Paise(quantity * price),
        buyer=buyer,
        seller=seller,
        legs=legs,
        settled_ms=ms,
    ),
    st.integers(1, 10**12),
    st.text("ABCXYZ&-", min_size=1, max_size=20),
    st.integers(1, MAX_QUANTITY),
    st.integers(1, MAX_PRICE),
    st.text("ABC_.", min_size=1, max_size=64),
    st.text("ABC_.", min_size=1, max_size=64),
    st.integers(0, 15),
    st.none() | st.integers(0, 10**9),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(rows, min_size=1, max_size=6), st.sampled_from(WIDTHS))
def test_numbers_are_whole_or_their_column_is_gone(shown: list[Row], width: int) -> None:
    """A column is there with every number in it whole, or not at all; amounts always are."""
    text = drawn(SettlementTable(shown), width)
    head = text.split("\n")[0].split()
    assert max(map(cell_len, text.split("\n"))) <= width
    assert "amount" in head
    for row in shown:
        for column, cell in (
            ("amount", rupees_in_table(row.amount)),
            ("price", rupees_in_table(row.price)),
            ("qty", group_indian(row.quantity)),
            ("trade", row.trade_id),
            ("symbol", row.shown),
            ("status", tables.status_of(row)),
        ):
            assert column not in head or cell in text


def test_columns_go_in_the_stated_order() -> None:
    """What a narrower screen shows is what a wider one shows, less some columns, in one order of importance."""
    heads = [drawn(SettlementTable([a_row()]), width).split("\n")[0].split() for width in range(200, 9, -1)]
    assert heads[0] == list(tables.SETTLEMENT_HEAD)
    gone = [[head for head in wide if head not in narrow] for wide, narrow in pairwise(heads)]
    assert [group for group in gone if group] == [list(g) for g in tables._SETTLEMENT_SACRIFICES]


def test_a_number_too_wide_for_any_column_folds() -> None:
    """On a screen of 9 columns the digits go on in the next line; none is lost."""
    text = drawn(SettlementTable([a_row(amount=Paise(12_345_678_900))]), 9)
    assert "₹12,34,56,789.00" in "".join(line.strip() for line in text.split("\n"))


@given(st.integers(0, 10**9), st.integers(0, 10**6), st.sampled_from(WIDTHS))
@settings(max_examples=60, deadline=None)
def test_the_picture_fits_every_width(count: int, fast: int, width: int) -> None:
    """Every line of the picture fits, with the counts and rates of the four topics whole."""
    known = the_seeds_flow()
    for topic in known.topics:
        known.topics[topic].count = count
        known.topics[topic]._seconds.append([T0 // 1000, fast])
    known.unreadable = count
    lines = tables.picture_lines(known, now_ms=T0, width=width)
    assert max(line.cell_len for line in lines) <= width
    if "╭" in lines[0].plain:  # the boxes; where these would not fit, plain lines stand instead
        assert len({line.cell_len for line in lines}) == 1
    assert lines[0].cell_len <= width
    for topic in (topics.BUY_ORDERS, topics.SELL_OFFERS, topics.DEMAT_TRANSFERS, topics.CASH_MOVEMENTS):
        (line,) = [line.plain for line in lines if topic in line.plain]
        assert f" {group_indian(count)} " in line
        assert tables.rate(known.topics[topic].rate(T0)) in line


def test_twenty_character_symbols_and_thirty_of_them() -> None:
    """Prices that fit are shown whole, the rest is counted."""
    quotes = {f"SYMBOL{n:014}": Quote(0, Paise(88_500), Paise(88_000), Paise(89_000)) for n in range(30)}
    for width in WIDTHS:
        line = tables.market_line(quotes, width).plain
        assert len(line) <= width
        whole = re.findall(r"SYMBOL\d{14} ₹885\.00 \(₹880\.00 to ₹890\.00\)", line)
        assert line.endswith(f"+{30 - len(whole)} more")
    assert tables.market_line({}, 80).plain == ""


# --- the view -------------------------------------------------------------------------------------------------


def test_an_empty_log() -> None:
    """Before anything has happened the picture stands, and says so."""
    text = drawn(FlowView(Flow(), T0), 80)
    assert "no trade yet" in text
    assert "buy-orders" in text
    assert "0 trades" in text


@pytest.mark.parametrize("height", [4, 8, 12, 16, 17, 24, 29, 30, 50])
@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_newest_rows_fit_the_height(width: int, height: int) -> None:
    """However high the screen is, it is not exceeded, and the last row is the newest."""
    known = the_seeds_flow()
    for seq in range(10, 80):
        match = Match(seq, 1, "TCS", seq, Paise(100), "BUY", "O", "B" * (seq % 60 + 1), "TCS", "F", "SELLER", "TCS")
        for new in encode_facts([match], 0, "sell-offers@0:0", T0):
            known.feed(Record(new.topic, 0, 0, 0, T0, new.key, new.value, ()), now_ms=T0, live=True)
    known.answers.extend([Answer(T0, "REJECTED", "HDFC", "buy 100 SBI (O-1)", "x" * 200)] * 5)
    view = FlowView(known, T0, "stocktrade watch", ["no exchange is running"])
    lines = lines_of(drawn(view, width, height=height))
    assert len(lines) <= height
    assert any(re.search(r"\b79\b", line) for line in lines)
    if height >= 24:
        assert len(lines) > height - 4


def test_refusals_leave_the_screen_again() -> None:
    """A refusal is shown for five minutes; the counts stay."""
    known = the_seeds_flow()
    known.answers.append(Answer(T0, "REJECTED", "HDFC", "buy 100 SBI (O-1)", "PRICE_OFF_TICK: off the tick"))
    assert "PRICE_OFF_TICK" in drawn(FlowView(known, T0 + 299_000), 120)
    assert "PRICE_OFF_TICK" not in drawn(FlowView(known, T0 + 301_000), 120)


def test_a_cancellation_is_told_in_another_colour_than_a_refusal() -> None:
    """Red is for what was refused."""
    for status, style in (("REJECTED", "1;31"), ("CANCELLED", "33"), ("REPLACED", "33"), ("DUPLICATE", "33")):
        text = drawn(tables.answer_text(Answer(T0, status, "HDFC", "buy 5 SBI (O-1)", "")), 120, colour=True)
        assert f"\x1b[{style}m" in text
        assert f"{status}" in text


def test_a_day_is_named_when_it_is_not_the_newest() -> None:
    """Times are Indian; a trade of another day than the newest one says which."""
    text = drawn(SettlementTable([a_row(time_ms=T0 - 86_400_000), a_row(2)]), 120)
    assert "22 Nov 09:15:00" in text
    assert "\n23 Nov" not in text
    assert tables.clock(2**63 - 1) == "no date"


def test_records_are_listed_with_their_text() -> None:
    """Where records are watched instead of trades, positions are whole and texts fold."""
    listed = [RecordRow(T0, "dead-letters@0:17", "k", "NOT_JSON: not JSON: " + "x" * 1000)]
    for width in (60, 80, 120, 200):
        text = drawn(FlowView(Flow(), T0, records=listed), width, height=40)
        assert "dead-letters@0:17" in text
        assert "NOT_JSON" in text
        assert max(map(cell_len, text.split("\n"))) <= width


# --- nothing steers the screen --------------------------------------------------------------------------------


def assert_harmless(text: str) -> None:
    # Rich's own colours are the only escapes; each mark pile is short.
    bare = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert all(c == "\n" or c.isprintable() for c in bare)
    piled = "".join("m" if category(c) in {"Mn", "Me"} else "." for c in bare)
    assert "m" * (tables.MAX_STACKED + 1) not in piled


def everything_with(text: str) -> Iterator[RenderableType]:
    row = a_row(trade_id=text, shown=text, symbol=text, buyer=text, seller=text)
    known = Flow()
    known._pending[text] = row
    known.participants[text] = "BUY"
    known.quotes[text] = Quote(0, Paise(1), Paise(1), Paise(2))
    known.answers.append(Answer(T0, text, text, text, text))
    record = RecordRow(T0, text, text, text)
    match = Match(1, 1, text, 1, Paise(1), "BUY", text, text, text, text, text, text)
    yield SettlementTable([row])
    yield FlowView(known, T0, text, [text])
    yield FlowView(known, T0, text, [text], [record])
    yield SumsTable([(text, text, 1)])
    yield tables.start_panel(log=text, partitions=2, shards=[ShardStart(0, 1, False, 0, 1, 0.0)], waiting={1: text})
    yield tables.trade_line(match, shard=0, time_ms=T0)
    yield tables.order_accepted(side="SELL", participant=text, symbol=text, quantity=1, price=None, position=text)
    yield tables.order_refused(reason=text, detail=text)
    yield tables.order_repeated(first_status=text, first_seq=1, first_reason=text)
    yield tables.order_filled(side="BUY", symbol=text, quantity=2, price=Paise(1), trade=text, leaves=1)
    yield tables.order_settled(side="BUY", symbol=text, quantity=1, amount=1)
    yield tables.order_waiting(symbol=text, leaves=1, exchange_running=True)


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_text_is_shown_and_not_obeyed(text: str) -> None:
    """Markup stands there literally, control characters as escapes, marks do not pile up; nothing raises."""
    for renderable in everything_with(text):
        for width in (60, 120):
            for colour in (False, True):
                shown = drawn(renderable, width, height=60, colour=colour)
                assert_harmless(shown)
                assert max(map(cell_len, re.sub(r"\x1b\[[0-9;]*m", "", shown).split("\n"))) <= width
    lines = [
        tables.settlement_line(a_row(trade_id=text, shown=text, buyer=text, seller=text)),
        tables.record_line(RecordRow(T0, text, text, text)),
    ]
    for line in lines:
        assert_harmless(line.replace("\t", " "))
        assert "\n" not in line
    assert [line.count("\t") for line in lines] == [10, 3]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=80), st.integers(20, 200))
def test_no_text_steers_the_screen(text: str, width: int) -> None:
    """The same for whatever a generator finds."""
    for renderable in everything_with(text):
        assert_harmless(drawn(renderable, width))


def test_markup_is_literal() -> None:
    """`HDFC[/]` is a name like any other."""
    text = drawn(SettlementTable([a_row(buyer="HDFC[/]", seller="[/foo]")]), 120)
    assert "HDFC[/]" in text
    assert "[/foo]" in text


def test_an_id_of_ours_is_never_cut() -> None:
    """Names and ids as long as the exchange allows come out whole, in tables (folded) and in lines."""
    row = a_row(buyer="B" * 64, seller="S" * 64, shown="NSE:" + "A" * 20, trade_id="T1023-999999999999-99999")
    text = drawn(SettlementTable([row]), 200)
    assert text.count("B") == 64
    line = tables.settlement_line(row).split("\t")
    assert line[1:3] == [row.trade_id, row.shown]
    assert line[6:8] == [row.buyer, row.seller]


def test_a_redraw_with_huge_strings_is_quick() -> None:
    """Fifty records of 64 KiB strings cost less than ten times what fifty ordinary ones cost."""

    def seconds(**fields: str) -> float:
        known = Flow()
        for number in range(50):
            row = a_row(number, **fields)
            known._pending[row.trade_id] = row
        drawn(FlowView(known, T0), 120, height=50)  # Rich's own caches
        took = []
        for _ in range(3):
            began = time.thread_time()
            drawn(FlowView(known, T0), 120, height=50, colour=True)
            took.append(time.thread_time() - began)
        return min(took)

    huge = seconds(buyer="\x1b" * 65_536, seller="Z" + "\u0336" * 65_535, shown="S" * 65_536)
    assert huge < 10 * seconds()


# --- lines of the other commands ------------------------------------------------------------------------------


def test_settlement_line() -> None:
    """A line has all columns, its time in India to the millisecond, and no header that a pipe must skip."""
    assert tables.settlement_line(a_row()).split("\t") == [
        "2026-11-23T09:15:00.000+05:30",
        "T0-1-1",
        "SBI",
        "100",
        "₹885.00",
        "₹88,500.00",
        "HDFC",
        "SELLER",
        "✓",
        "✓",
        "✓ settled 18 ms",
    ]


def test_the_life_of_an_order_in_lines() -> None:
    """Accepted, filled, settled; or refused, repeated, waiting: each says what a person needs next."""
    order = {"participant": "HDFC", "symbol": "SBI", "quantity": 1_00_000}
    texts = [
        tables.order_accepted(side="BUY", price=Paise(88_500), position="buy-orders@0:7", **order),  # type: ignore[arg-type]
        tables.order_accepted(side="SELL", price=None, position="sell-offers@0:7", **order),  # type: ignore[arg-type]
        tables.order_filled(side="BUY", symbol="SBI", quantity=60, price=Paise(88_490), trade="T0-2-1", leaves=40),
        tables.order_filled(side="BUY", symbol="SBI", quantity=40, price=Paise(88_500), trade="T0-3-1", leaves=0),
        tables.order_settled(side="BUY", symbol="SBI", quantity=100, amount=8_850_000, ms=18),
        tables.order_settled(side="SELL", symbol="SBI", quantity=100, amount=8_850_000),
        tables.order_refused(reason=Reason.PRICE_OFF_TICK, detail="the tick is ₹0.05"),
        tables.order_repeated(first_status=Status.ACCEPTED, first_seq=3),
        tables.order_waiting(symbol="SBI", leaves=40, exchange_running=True),
        tables.order_waiting(symbol="SBI", leaves=40, exchange_running=False),
    ]
    assert [text.plain.rstrip() for text in texts] == [
        "✓ accepted  buy 1,00,000 SBI at ₹885.00 as HDFC  buy-orders@0:7",
        "✓ accepted  sell 1,00,000 SBI at any price as HDFC  sell-offers@0:7",
        "✓ filled    60 SBI at ₹884.90, 40 left  T0-2-1",
        "✓ filled    40 SBI at ₹885.00  T0-3-1",
        "✓ settled   +100 SBI  -₹88,500.00  18 ms",
        "✓ settled   -100 SBI  +₹88,500.00",
        "✗ rejected  PRICE_OFF_TICK: the tick is ₹0.05",
        "= repeated  no effect: answered before as ACCEPTED, sequence 3",
        "… open      40 SBI wait in the book",
        "… waiting   no exchange is running; the order is safe on the log",
    ]


def test_start_panel() -> None:
    """Where the exchange runs, and what each of its shards was recovered from, and how fast."""
    shards = [
        ShardStart(0, 3, True, 12_345, 0, 0.8),
        ShardStart(1, 1, False, 0, 0, 0.001),
        ShardStart(2, 2, False, 0, 2, 0.1),
    ]
    text = drawn(tables.start_panel(log="sqlite:/log", partitions=5, shards=shards, waiting={3: "pid 7", 4: None}), 100)
    for part in (
        "sqlite:/log",
        "3 of 5 owned here",
        "recovered from a snapshot and 12,345 inputs in 800 ms (15,431/s), owner 3",
        "new, owner 1",
        "nothing to recover, owner 2, 2 foreign journal entries ignored",
        "standing by for pid 7",
        "standing by",
    ):
        assert part in text


def test_sums() -> None:
    """Of a ledger after the seed's trade every sum is zero and the clearing house flat; a break is marked."""
    ledger = Ledger()
    ledger.post(novate(Match(2, 1, "SBIN", 100, Paise(88_500), "BUY", "1", "HDFC", "SBI", "2", "SELLER", "SBI")))
    cells = tables.sums_cells(ledger.balances())
    assert cells == [
        ("SBIN", "2", "100", "-100", "0", "0", "✓"),
        ("rupees", "2", "₹88,500.00", "-₹88,500.00", "₹0.00", "₹0.00", "✓"),
    ]
    for width in WIDTHS:
        text = drawn(SumsTable(list(ledger.balances())), width)
        assert text.count("✓") == 2
        assert "-₹88,500.00" in text
    assert tables.sums_cells([("SBIN", "HDFC", 100), ("SBIN", "SELLER", -99)])[0][-1] == "✗"
    assert tables.sums_cells([("SBIN", "NSE", 1), ("SBIN", "SELLER", -1)])[0][-1] == "✗"
    assert tables.sums_cells([]) == []
