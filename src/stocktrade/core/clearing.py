"""Clearing: what a trade obliges whom to deliver, and what each participant is told.

Owns novation: the clearing house becomes buyer to the seller and seller to the buyer. Invariant: what it takes
from one it gives to the other in the same trade, shares against money, so it is flat after each.
"""

from stocktrade.core.ledger import CASH, Posting
from stocktrade.domain.facts import Leg, Match, fact
from stocktrade.domain.values import CLEARING_HOUSE

Obligations = tuple[Posting, Posting, Posting, Posting]
Advices = tuple[Leg, Leg, Leg, Leg]


def novate(match: Match) -> tuple[Obligations, Advices]:
    """What follows from a trade once the clearing house stands between buyer and seller.

    Returns:
        The four postings, gross: shares from the seller and on to the buyer, then money from the buyer and on to
        the seller. And the four legs, each the side of a posting that a participant sees, under its own order id
        and symbol: the buyer's shares and money, then the seller's shares and money.
    """
    # fmt: off
    seq, number, symbol, shares, price, _, buy_id, buyer, buy_symbol, sell_id, seller, sell_symbol = match
    value = shares * price
    return (
        (
            (seller, CLEARING_HOUSE, symbol, shares),
            (CLEARING_HOUSE, buyer, symbol, shares),
            (buyer, CLEARING_HOUSE, CASH, value),
            (CLEARING_HOUSE, seller, CASH, value),
        ),
        (
            fact(Leg, (seq, number, "SECURITIES", "CREDIT", buyer, buy_id, buy_symbol, shares, price)),
            fact(Leg, (seq, number, "FUNDS", "DEBIT", buyer, buy_id, buy_symbol, shares, price)),
            fact(Leg, (seq, number, "SECURITIES", "DEBIT", seller, sell_id, sell_symbol, shares, price)),
            fact(Leg, (seq, number, "FUNDS", "CREDIT", seller, sell_id, sell_symbol, shares, price)),
        ),
    )
    # fmt: on
