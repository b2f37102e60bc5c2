"""Novation, and the double-entry ledger that it posts to."""

from hypothesis import given
from hypothesis import strategies as st

from stocktrade.core.book import Met, Order
from stocktrade.core.clearing import novate, settle
from stocktrade.core.ledger import CASH, Ledger, Posting
from stocktrade.domain.facts import Match
from stocktrade.domain.values import Paise, Side

TRADE = Match(7, 1, "SBIN", 100, Paise(88500), "BUY", "b1", "HDFC", "SBI", "s1", "SELLER", "NSE:SBIN")


def test_a_trade_makes_four_postings_through_the_clearing_house() -> None:
    """Shares go seller, clearing house, buyer; money goes buyer, clearing house, seller; both gross."""
    assert novate(TRADE) == (
        ("SELLER", "NSE", "SBIN", 100),
        ("NSE", "HDFC", "SBIN", 100),
        ("HDFC", "NSE", CASH, 8_850_000),
        ("NSE", "SELLER", CASH, 8_850_000),
    )


sides = st.sampled_from(["BUY", "SELL"])
makers = st.lists(
    st.tuples(
        st.sampled_from(["HDFC", "ICICI", "SELLER"]), st.integers(1, 100), st.one_of(st.none(), st.integers(1, 9))
    )
)


@given(sides, st.sampled_from(["HDFC", "ICICI"]), makers)
def test_settling_a_sweep_posts_what_each_of_its_trades_obliges_to(
    side: Side, taker: str, met: list[tuple[str, int, int | None]]
) -> None:
    """All trades of a taker settled at once leave the balances that the postings of each one by one would."""
    at_once, one_by_one = Ledger(), Ledger()
    met_orders: list[Met] = []
    for number, (maker, shares, price) in enumerate(met, 1):
        at = None if price is None else Paise(price)
        other: Side = "SELL" if side == "BUY" else "BUY"
        met_orders.append((Order(number, other, f"m{number}", maker, "SBI", shares, at, 0, 0, number), shares, at))
        if at is not None:
            buyer, seller = (taker, maker) if side == "BUY" else (maker, taker)
            match = Match(9, number, "SBIN", shares, at, other, "b", buyer, "SBI", "s", seller, "SBI")
            one_by_one.post(novate(match))
    settle(at_once, "SBIN", side, taker, met_orders)
    balances = {(asset, owner): balance for asset, owner, balance in at_once.balances() if balance}
    assert balances == {(asset, owner): balance for asset, owner, balance in one_by_one.balances() if balance}
    assert at_once.clearing_house_is_flat()
    assert not any(at_once.sums().values())


def test_accounts_start_at_zero_and_may_go_below() -> None:
    """After one trade the buyer owes the money and the seller the shares, and nobody was asked to pay in."""
    ledger = Ledger()
    assert ledger.balance("HDFC", "SBIN") == 0
    ledger.post(novate(TRADE))
    assert list(ledger.balances()) == [
        ("SBIN", "SELLER", -100),
        ("SBIN", "NSE", 0),
        ("SBIN", "HDFC", 100),
        (CASH, "HDFC", -8_850_000),
        (CASH, "NSE", 0),
        (CASH, "SELLER", 8_850_000),
    ]
    assert ledger.balance("SELLER", "SBIN") == -100
    assert ledger.balance("HDFC", CASH) == -8_850_000
    assert ledger.balance("HDFC", "INFY") == 0


names = st.sampled_from(["HDFC", "ICICI", "SELLER", "NSE"])
postings = st.tuples(names, names, st.sampled_from(["SBIN", "INFY", CASH]), st.integers(1, 10**18))


@given(st.lists(postings, max_size=30))
def test_whatever_is_posted_every_asset_sums_to_zero(entries: list[Posting]) -> None:
    """A posting cannot make or lose a share or a paisa, whoever takes part in it."""
    ledger = Ledger()
    ledger.post(entries)
    assert ledger.sums() == {asset: 0 for _, _, asset, _ in entries}


def test_a_clearing_house_that_holds_something_is_not_flat() -> None:
    """Half of a trade leaves the shares at the clearing house, which shows, though the sums are still zero."""
    ledger = Ledger()
    assert ledger.clearing_house_is_flat() is True
    ledger.post(novate(TRADE)[:1])
    assert ledger.clearing_house_is_flat() is False
    assert ledger.sums() == {"SBIN": 0}
    ledger.post(novate(TRADE)[1:])
    assert ledger.clearing_house_is_flat() is True


def test_a_trade_with_oneself_moves_nothing() -> None:
    """Buyer and seller may be one participant: the balances stay."""
    ledger = Ledger()
    ledger.post(novate(TRADE._replace(seller="HDFC")))
    assert [balance for _, _, balance in ledger.balances()] == [0, 0, 0, 0]


def test_a_copy_does_not_change_with_the_original() -> None:
    """What was copied for a snapshot stays as it was while trading goes on, and restores to the same ledger."""
    ledger = Ledger()
    ledger.post(novate(TRADE))
    copy = ledger.copy()
    before = list(copy.balances())
    ledger.post(novate(TRADE))
    assert list(copy.balances()) == before
    restored = Ledger()
    for asset, owner, balance in before:
        restored.restore(asset, owner, balance)
    assert list(restored.balances()) == before
