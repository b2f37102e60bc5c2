"""`buy`: what a person typed becomes a `BuyOrder`, or an error before anything is sent."""

from decimal import Decimal

from stocktrade.domain.messages import BuyOrder
from stocktrade.roles.typed import (
    checked_id,
    checked_participant,
    checked_prevention,
    checked_price,
    checked_quantity,
    checked_symbol,
    checked_time_in_force,
)


def order_from(
    symbol: str,
    quantity: str,
    price: str | None,
    *,
    participant: str,
    order_id: str,
    time_in_force: str | None = None,
    prevention: str | None = None,
) -> BuyOrder:
    """The order that was typed; without a price it buys at the market.

    Raises:
        UsageError: naming what is wrong with which word.
    """
    return BuyOrder(
        order_id=checked_id(order_id),
        buyer=checked_participant(participant),
        stock_symbol=checked_symbol(symbol),
        quantity=checked_quantity(quantity),
        price_per_unit=None if price is None else Decimal(checked_price(price)) / 100,
        time_in_force=checked_time_in_force(time_in_force),
        self_trade_prevention=checked_prevention(prevention),
    )
