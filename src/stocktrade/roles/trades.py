"""`trades`: who traded what, the last ones or those of a range.

Invariant: it only reads; each trade is there once.
"""

from collections.abc import Sequence
from typing import Final

from stocktrade.errors import ExitCode
from stocktrade.listing import Column, Listing, number, rupees, time_of
from stocktrade.ranges import rfc3339
from stocktrade.roles.question import Question
from stocktrade.transport import topics
from stocktrade.transport.base import Log, Position
from stocktrade.views.history import History, Within
from stocktrade.views.messages import Traded

TRADES: Final = Listing[Traded](
    schema="stocktrade.trade/1",
    columns=(
        time_of("time", "time", lambda trade: trade.time_ms, rank=3),
        Column("trade_id", "trade", lambda trade: trade.trade_id),
        Column("stock_symbol", "symbol", lambda trade: trade.symbol),
        number("quantity", "qty", lambda trade: trade.quantity),
        rupees("price_per_unit", "price", lambda trade: trade.price),
        rupees("amount", "amount", lambda trade: trade.amount, rank=2),
        Column("buyer", "buyer", lambda trade: trade.buyer, folds=True),
        Column("seller", "seller", lambda trade: trade.seller, folds=True),
        Column("buy_order_id", "buy order", lambda trade: trade.buy_order, rank=5),
        Column("sell_order_id", "sell order", lambda trade: trade.sell_order, rank=5),
        Column("position", "record", lambda trade: str(_position(trade)), rank=4),
    ),
    document=lambda trade: {
        "trade_id": trade.trade_id,
        "time": rfc3339(trade.time_ms),
        "stock_symbol": trade.symbol,
        "quantity": trade.quantity,
        "price_paise": trade.price,
        "amount_paise": trade.amount,
        "buyer": trade.buyer,
        "buy_order_id": trade.buy_order,
        "seller": trade.seller,
        "sell_order_id": trade.sell_order,
        "maker": trade.maker,
        "shard": trade.shard,
        "seq": trade.seq,
        "position": str(_position(trade)),
    },
    empty="no trade",
)


def _position(trade: Traded) -> Position:
    return Position(topics.TRADES, trade.shard, trade.offset)


def run(
    log: Log,
    symbols: Sequence[str],
    *,
    participant: str | None,
    within: Within,
    question: Question,
) -> ExitCode:
    """List trades, oldest first.

    Args:
        log: the log.
        symbols: canonical; none: all.
        participant: only those in which this one bought or sold.
        within: which of them.
        question: as of when, and where the answer goes.

    Raises:
        UsageError: a sequence as the moment on a log of several shards.
    """
    with question.view(History, log) as view:
        found = view.trades(symbols=symbols, participant=participant, within=within)
    question.answer(TRADES, found)
    return ExitCode.OK
