"""`holdings` and `funds`: what each participant holds and owes, now or as of a moment.

Invariant: they only read; what they show is what the trades say, each counted once.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from rich.console import Console
from rich.text import Text

from stocktrade import tables
from stocktrade.core.ledger import CASH
from stocktrade.domain.values import visible
from stocktrade.errors import ExitCode, StocktradeError
from stocktrade.listing import Column, Listing, number, rupees, time_of
from stocktrade.ranges import rfc3339
from stocktrade.roles.question import Question
from stocktrade.transport.base import Log
from stocktrade.views.accounts import Accounts, Balance
from stocktrade.views.history import History, Within
from stocktrade.views.messages import Traded


class NoSuchParticipant(StocktradeError):
    """Nobody of that name has ever traded."""

    exit_code = ExitCode.NO


HOLDINGS: Final = Listing[Balance](
    schema="stocktrade.holding/1",
    columns=(
        Column("participant", "participant", lambda each: each.owner, folds=True),
        Column("stock_symbol", "symbol", lambda each: each.asset),
        number("quantity", "qty", lambda each: each.amount),
    ),
    document=lambda each: {"participant": each.owner, "stock_symbol": each.asset, "quantity": each.amount},
    empty="nobody holds shares: there was no trade",
)
"""Who holds how many shares; below zero, owes them."""

FUNDS: Final = Listing[Balance](
    schema="stocktrade.funds/1",
    columns=(
        Column("participant", "participant", lambda each: each.owner, folds=True),
        rupees("balance", "balance", lambda each: each.amount),
    ),
    document=lambda each: {"participant": each.owner, "balance_paise": each.amount},
    empty="nobody has funds: there was no trade",
)
"""Who has how many rupees; below zero, owes them."""


class Line(NamedTuple):
    """A line of a statement: a trade, what it moved on the participant's account in paise, and the balance after."""

    participant: str
    trade: Traded
    side: str
    amount: int
    balance: int


STATEMENT: Final = Listing[Line](
    schema="stocktrade.statement-line/1",
    columns=(
        time_of("time", "time", lambda line: line.trade.time_ms, rank=2),
        Column("trade_id", "trade", lambda line: line.trade.trade_id),
        Column("side", "side", lambda line: line.side, lambda line: tables.side(line.side), rank=1),
        Column("stock_symbol", "symbol", lambda line: line.trade.symbol),
        number("quantity", "qty", lambda line: line.trade.quantity),
        rupees("price_per_unit", "price", lambda line: line.trade.price, rank=3),
        rupees("amount", "amount", lambda line: line.amount),
        rupees("balance", "balance", lambda line: line.balance),
    ),
    document=lambda line: {
        "participant": line.participant,
        "time": rfc3339(line.trade.time_ms),
        "trade_id": line.trade.trade_id,
        "side": line.side,
        "stock_symbol": line.trade.symbol,
        "quantity": line.trade.quantity,
        "price_paise": line.trade.price,
        "amount_paise": line.amount,
        "balance_paise": line.balance,
    },
    empty="no trade",
)
"""Every rupee that moved on one account."""


def run(
    log: Log,
    which: Listing[Balance],
    participant: str | None,
    *,
    question: Question,
) -> ExitCode:
    """Show HOLDINGS or FUNDS.

    Args:
        log: the log.
        which: HOLDINGS or FUNDS.
        participant: whose; None: everybody's.
        question: as of when, and where the answer goes.

    Raises:
        NoSuchParticipant: nobody of that name has traded by then.
        UsageError: a sequence as the moment, on a log of several shards.
    """
    with question.view(Accounts, log, "trades") as view:
        balances = view.balances(participant)
        strange = view.store.passed_over(view.name)
    if participant is not None and not balances:
        raise _nobody(participant, log)
    rows = [each for each in balances if (each.asset == CASH) == (which is FUNDS)]
    if which is HOLDINGS and participant is None:
        rows = [each for each in rows if each.amount]
    question.answer(which, rows)
    _tell_strange(strange, question.progress)
    return ExitCode.OK


def statement(
    log: Log,
    participant: str,
    *,
    within: Within,
    question: Question,
) -> ExitCode:
    """Show every rupee that moved on a participant's account; `within` chooses the lines. The rest is as of `run`.

    Raises:
        NoSuchParticipant: nobody of that name has traded by then.
    """
    with question.view(History, log) as view:
        chosen = {trade.trade_id for trade in view.trades(participant=participant, within=within)}
        every = view.trades(participant=participant)
        strange = view.store.passed_over(view.name)
    if not every:
        raise _nobody(participant, log)
    lines = [line for line in lines_of(participant, every) if line.trade.trade_id in chosen]
    question.answer(STATEMENT, lines)
    _tell_strange(strange, question.progress)
    return ExitCode.OK


def lines_of(participant: str, trades: Iterable[Traded]) -> Iterator[Line]:
    """The statement of a participant from all of his trades, oldest first."""
    balance = 0
    for trade in trades:
        for side, who, amount in (("BUY", trade.buyer, -trade.amount), ("SELL", trade.seller, trade.amount)):
            if who == participant:
                balance += amount
                yield Line(participant, trade, side, amount, balance)


def _nobody(participant: str, log: Log) -> NoSuchParticipant:
    return NoSuchParticipant(
        f"{visible(participant, 64)} has no account",
        cause=f"no trade of a participant with this name on {log.url}; capital letters count",
        hint="without a name you see everybody's",
    )


def _tell_strange(strange: int, console: Console) -> None:
    if strange:
        console.print(
            Text(f"{tables.many(strange, 'record')} on `trades` passed over: not ours; `stocktrade audit` names them"),
            soft_wrap=True,
        )
