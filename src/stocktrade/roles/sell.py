"""`sell`: what a person typed becomes a `SellOffer`, or an error before anything is sent."""

from decimal import Decimal

from stocktrade.domain.messages import SellOffer
from stocktrade.roles.typed import (
    checked_id,
    checked_participant,
    checked_prevention,
    checked_price,
    checked_quantity,
    checked_symbol,
    checked_time_in_force,
)


def offer_from(
    symbol: str,
    quantity: str,
    price: str | None,
    *,
    participant: str,
    offer_id: str,
    time_in_force: str | None = None,
    prevention: str | None = None,
) -> SellOffer:
    """The offer that was typed; without a price the shares are available at any price.

    Raises:
        UsageError: naming what is wrong with which word.
    """
    return SellOffer(
        offer_id=checked_id(offer_id),
        seller=checked_participant(participant),
        stock_symbol=checked_symbol(symbol),
        quantity=checked_quantity(quantity),
        price_per_unit=None if price is None else Decimal(checked_price(price)) / 100,
        time_in_force=checked_time_in_force(time_in_force),
        self_trade_prevention=checked_prevention(prevention),
    )
