"""Clearing: what a trade obliges whom to deliver, and what each participant is told.

Owns novation: the clearing house becomes buyer to the seller and seller to the buyer. Invariant: what it takes
from one it gives to the other in the same trade, shares against money, so it is flat after each.
"""

from stocktrade.core.ledger import CASH, Posting
from stocktrade.domain.facts import Leg, Match
from stocktrade.domain.values import CLEARING_HOUSE


def obligations(match: Match) -> tuple[Posting, Posting, Posting, Posting]:
    """The four postings of a trade, gross: shares from the seller and to the buyer, money the other way."""
    _, _, symbol, quantity, price, _, _, buyer, _, _, seller, _ = match
    value = quantity * price
    return (
        Posting(seller, CLEARING_HOUSE, symbol, quantity),
        Posting(CLEARING_HOUSE, buyer, symbol, quantity),
        Posting(buyer, CLEARING_HOUSE, CASH, value),
        Posting(CLEARING_HOUSE, seller, CASH, value),
    )


def advices(match: Match) -> tuple[Leg, Leg, Leg, Leg]:
    """The four legs of a trade: for each obligation, the side of it that a participant sees.

    The buyer's two come first, shares before money; the seller's two mirror them.
    """
    seq, number, _, quantity, price, _, buy_id, buyer, buy_symbol, sell_id, seller, sell_symbol = match
    return (
        Leg(seq, number, "SECURITIES", "CREDIT", buyer, buy_id, buy_symbol, quantity, price),
        Leg(seq, number, "FUNDS", "DEBIT", buyer, buy_id, buy_symbol, quantity, price),
        Leg(seq, number, "SECURITIES", "DEBIT", seller, sell_id, sell_symbol, quantity, price),
        Leg(seq, number, "FUNDS", "CREDIT", seller, sell_id, sell_symbol, quantity, price),
    )
