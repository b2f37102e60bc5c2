"""The order book: who trades with whom, at which price, in which order."""

import pytest

from stocktrade.core.book import DEAD_KEPT, Level, Order, OrderBook
from stocktrade.domain.values import Paise, Side


class Desk:
    """Sends orders to one book and keeps the count of sequences."""

    def __init__(self) -> None:
        self.book = OrderBook("SBIN")
        self.seq = 0

    def send(self, side: Side, quantity: int, price: int | None = None) -> list[tuple[int, int, int]]:
        """Returns (sequence of the maker, quantity, price) of each fill; the leaves rest."""
        self.seq += 1
        limit = None if price is None else Paise(price)
        if side == "BUY":
            assert limit is not None
            fills, leaves = self.book.buy(quantity, limit)
        else:
            fills, leaves = self.book.sell(quantity, limit)
        if leaves:
            order_id = f"o{self.seq}"
            self.book.rest(Order(self.seq, side, order_id, "HDFC", "SBI", quantity, limit, leaves, 0, self.seq))
        self.book.check()
        return [(maker.seq, shares, at) for maker, shares, at in fills]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_the_bid_sets_the_price_when_an_unpriced_offer_comes_second(desk: Desk) -> None:
    """A bid at rest is the maker: an offer at any price trades at the bid."""
    assert desk.send("BUY", 100, 88500) == []
    assert desk.send("SELL", 100) == [(1, 100, 88500)]
    assert desk.book.depth(5) == ([], [])


def test_the_bid_sets_the_price_when_the_unpriced_offer_came_first(desk: Desk) -> None:
    """An unpriced offer at rest has no price of its own, so the bid's limit holds: never 0."""
    assert desk.send("SELL", 100) == []
    assert desk.send("BUY", 100, 88500) == [(1, 100, 88500)]


def test_an_unpriced_offer_costs_no_more_than_the_priced_one_it_stands_before(desk: Desk) -> None:
    """The buyer at 885 pays 880 for the unpriced offer while an offer at 880 rests behind it."""
    desk.send("SELL", 100, 88000)
    desk.send("SELL", 100)
    assert desk.send("BUY", 150, 88500) == [(2, 100, 88000), (1, 50, 88000)]
    assert desk.book.depth(5) == ([], [[88000, 50, 1]])


def test_a_priced_offer_above_the_limit_does_not_raise_the_price_of_an_unpriced_one(desk: Desk) -> None:
    """The lower of limit and best priced offer counts, so an offer beyond the limit changes nothing."""
    desk.send("SELL", 100, 89000)
    desk.send("SELL", 100)
    assert desk.send("BUY", 150, 88500) == [(2, 100, 88500)]
    assert desk.book.depth(5) == ([[88500, 50, 1]], [[89000, 100, 1]])


def test_unpriced_offers_are_served_first_come_first_served(desk: Desk) -> None:
    """Among offers at any price only time counts, and a partly filled one keeps its place."""
    desk.send("SELL", 10)
    desk.send("SELL", 10)
    assert desk.send("BUY", 5, 100) == [(1, 5, 100)]
    assert desk.send("BUY", 10, 90) == [(1, 5, 90), (2, 5, 90)]
    assert desk.book.depth(5) == ([], [[None, 5, 1]])


def test_an_unpriced_offer_takes_bids_best_first_and_rests_unpriced(desk: Desk) -> None:
    """It sweeps every bid at the bid's own price; what is left waits at any price, ahead of the asks."""
    desk.send("BUY", 10, 99)
    desk.send("BUY", 10, 101)
    desk.send("SELL", 10, 105)
    assert desk.send("SELL", 25) == [(2, 10, 101), (1, 10, 99)]
    assert desk.book.depth(5) == ([], [[None, 5, 1], [105, 10, 1]])


def test_trades_are_at_the_makers_price_on_both_sides(desk: Desk) -> None:
    """Who comes second gets the better price if there is one."""
    desk.send("SELL", 10, 100)
    assert desk.send("BUY", 10, 105) == [(1, 10, 100)]
    desk.send("BUY", 10, 105)
    assert desk.send("SELL", 10, 100) == [(3, 10, 105)]


def test_price_goes_before_time_and_time_decides_at_one_price(desk: Desk) -> None:
    """A sweep takes the best price first and, at one price, the oldest order first."""
    for price in (101, 100, 100, 102):
        desk.send("SELL", 10, price)
    assert desk.send("BUY", 35, 101) == [(2, 10, 100), (3, 10, 100), (1, 10, 101)]
    assert desk.book.depth(5) == ([[101, 5, 1]], [[102, 10, 1]])


def test_a_partly_filled_order_keeps_its_place(desk: Desk) -> None:
    """Being met does not send an order to the back of its queue."""
    desk.send("BUY", 10, 100)
    desk.send("BUY", 10, 100)
    assert desk.send("SELL", 4, 100) == [(1, 4, 100)]
    assert desk.send("SELL", 10, 100) == [(1, 6, 100), (2, 4, 100)]


def test_orders_that_do_not_cross_rest(desk: Desk) -> None:
    """A bid below the best offer waits, and depth lists both sides best first, cut at the asked number."""
    for side, quantity, price in (
        ("BUY", 1, 98),
        ("BUY", 2, 99),
        ("SELL", 3, 101),
        ("BUY", 4, 99),
        ("SELL", 5, 100),
    ):
        assert desk.send("BUY" if side == "BUY" else "SELL", quantity, price) == []
    assert desk.book.depth(5) == ([[99, 6, 2], [98, 1, 1]], [[100, 5, 1], [101, 3, 1]])
    assert desk.book.depth(1) == ([[99, 6, 2]], [[100, 5, 1]])


def test_a_book_made_of_its_own_orders_is_the_same_book(desk: Desk) -> None:
    """`of` rebuilds levels, priorities and totals from the orders in their priority."""
    for price in (None, 105, 103, 105, None, 104):
        desk.send("SELL", 10, price)
    twin = OrderBook.of("SBIN", desk.book.resting()[0])
    twin.check()
    assert [order.seq for order in twin.resting()[0]] == [1, 5, 3, 6, 2, 4]
    assert twin.depth(9) == desk.book.depth(9)
    assert twin.asks.ranks == desk.book.asks.ranks


def test_a_withdrawn_order_leaves_at_once_and_costs_no_search(desk: Desk) -> None:
    """Whoever is withdrawn no longer counts or trades, and the dead never outnumber the living by much."""
    for _ in range(1000):
        desk.send("BUY", 10, 100)
    orders = desk.book.resting()[0]
    for order in orders[1:999]:
        desk.book.withdraw(order)
    desk.book.check()
    assert desk.book.depth(5) == ([[100, 20, 2]], [])
    assert [order.seq for order in desk.book.resting()[0]] == [1, 1000]
    assert len(desk.book.bids.levels[100].orders) <= 2 * DEAD_KEPT
    assert desk.send("SELL", 20, 100) == [(1, 10, 100), (1000, 10, 100)]
    assert desk.book.depth(5) == ([], [])


def test_the_last_order_that_is_withdrawn_takes_its_price_along(desk: Desk) -> None:
    """A level without orders is gone, at the top, in the middle and among the unpriced offers."""
    for price in (101, 103, 102, None):
        desk.send("SELL", 5, price)
    for price in (102, None, 101):
        (order,) = (order for order in desk.book.resting()[0] if order.price == price)
        desk.book.withdraw(order)
        desk.book.check()
    assert desk.book.depth(5) == ([], [[103, 5, 1]])
    assert desk.send("BUY", 5, 110) == [(2, 5, 103)]
    assert desk.book.has_orders is False


def _cross(book: OrderBook) -> None:
    book.rest(Order(9, "BUY", "o9", "HDFC", "SBI", 1, Paise(101), 1, 0, 9))


def _bid_beside_unpriced(book: OrderBook) -> None:
    book.rest(Order(9, "SELL", "o9", "HDFC", "SBI", 1, None, 1, 0, 9))


def _no_leaves(book: OrderBook) -> None:
    level = book.bids.levels[99]
    level.total -= level.orders[0].leaves
    level.orders[0].leaves = 0


def _wrong_total(book: OrderBook) -> None:
    book.asks.levels[-101].total += 1


def _queue_jumper(book: OrderBook) -> None:
    book.bids.levels[99].orders.reverse()


def _lost_rank(book: OrderBook) -> None:
    book.bids.ranks.pop()


def _unsorted_ranks(book: OrderBook) -> None:
    book.asks.ranks.reverse()


def _too_many_leaves(book: OrderBook) -> None:
    book.bids.levels[99].orders[0].leaves = 6


def _empty_level(book: OrderBook) -> None:
    book.bids.levels[1] = Level()
    book.bids.ranks.insert(0, 1)


def _misplaced(book: OrderBook) -> None:
    book.bids.levels[99].orders[0].price = Paise(98)


@pytest.mark.parametrize(
    ("sabotage", "what"),
    [
        (_cross, "crossed"),
        (_bid_beside_unpriced, "a bid and an unpriced offer both rest"),
        (_no_leaves, "1 orders of BUY at 99 have no leaves, not 0"),
        (_too_many_leaves, "order 1 has leaves 6 of 5"),
        (_wrong_total, "total of SELL at 101 is not the sum of its orders"),
        (_queue_jumper, "order 1 is behind 2"),
        (_lost_rank, "ranks and levels of BUY differ"),
        (_unsorted_ranks, "ranks and levels of SELL differ"),
        (_empty_level, "empty level at 1"),
        (_misplaced, "order 1 is not on its level"),
    ],
)
def test_check_finds_every_kind_of_damage(desk: Desk, sabotage: object, what: str) -> None:
    """Each invariant of the book, broken on purpose, is named."""
    for side, price in (("BUY", 99), ("BUY", 99), ("SELL", 101), ("SELL", 102)):
        desk.send("BUY" if side == "BUY" else "SELL", 5, price)
    assert callable(sabotage)
    sabotage(desk.book)
    with pytest.raises(AssertionError) as broken:
        desk.book.check()
    assert str(broken.value) == f"book of SBIN: {what}"
