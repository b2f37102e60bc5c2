"""Clearing: what a trade obliges whom to deliver.

Owns novation: the clearing house becomes buyer to the seller and seller to the buyer. Invariant: what it takes
from one it gives to the other in the same input, shares against money, so it is flat after each.
"""

from collections.abc import Iterable

from stocktrade.core.book import Met
from stocktrade.core.ledger import CASH, Ledger, Posting
from stocktrade.domain.facts import Match
from stocktrade.domain.values import CLEARING_HOUSE, Side

Obligations = tuple[Posting, Posting, Posting, Posting]


def novate(match: Match) -> Obligations:
    """What follows from a trade once the clearing house stands between buyer and seller.

    Returns:
        The four postings, gross: shares from the seller and on to the buyer, then money from the buyer and on to
        the seller. `settle` enters those of many trades at once; this says one by one what it must come to.
    """
    value = match.quantity * match.price
    return (
        (match.seller, CLEARING_HOUSE, match.symbol, match.quantity),
        (CLEARING_HOUSE, match.buyer, match.symbol, match.quantity),
        (match.buyer, CLEARING_HOUSE, CASH, value),
        (CLEARING_HOUSE, match.seller, CASH, value),
    )


def settle(ledger: Ledger, symbol: str, side: Side, taker: str, met: Iterable[Met]) -> None:
    """Post the trades of one taker on `side`: the postings of `novate` for each of them, taken together.

    The makers deliver to the clearing house and are paid by it, one by one; then it settles with the taker for all
    of them at once.
    """
    shares_of, money_of = ledger.accounts(symbol), ledger.accounts(CASH)
    traded = worth = 0
    if side == "BUY":
        for maker, shares, price in met:
            if price is not None:
                seller, value = maker.participant, shares * price
                shares_of[seller] -= shares
                money_of[seller] += value
                traded += shares
                worth += value
    else:
        for maker, shares, price in met:
            if price is not None:
                buyer, value = maker.participant, shares * price
                shares_of[buyer] += shares
                money_of[buyer] -= value
                traded -= shares
                worth -= value
    shares_of[CLEARING_HOUSE] += traded
    money_of[CLEARING_HOUSE] -= worth
    shares_of[CLEARING_HOUSE] -= traded
    shares_of[taker] += traded
    money_of[CLEARING_HOUSE] += worth
    money_of[taker] -= worth
