"""`buy`: what a person typed becomes a `BuyOrder`, or an error before anything is sent."""

from decimal import Decimal

from stocktrade.domain.messages import BuyOrder
from stocktrade.roles.typed import checked_id, checked_participant, checked_price, checked_quantity, checked_symbol


def order_from(symbol: str, quantity: str, price: str, *, participant: str, order_id: str) -> BuyOrder:
    """The order that was typed.

    Raises:
        UsageError: naming what is wrong with which word.
    """
    return BuyOrder(
        order_id=checked_id(order_id),
        buyer=checked_participant(participant),
        stock_symbol=checked_symbol(symbol),
        quantity=checked_quantity(quantity),
        price_per_unit=Decimal(checked_price(price)) / 100,
    )
