"""Words typed on the command line, checked. Invariant: what is refused here was not sent."""

from collections.abc import Sequence

from stocktrade.domain.facts import SelfTradePrevention, TimeInForce
from stocktrade.domain.values import (
    Paise,
    canonical_symbol,
    is_identifier,
    is_participant,
    paise_from_text,
    quantity_from_text,
    visible,
)
from stocktrade.errors import UsageError


def checked_symbol(text: str) -> str:
    """A symbol as it was typed."""
    if canonical_symbol(text) is None:
        raise UsageError(
            f"invalid symbol {visible(text, 60)!r}",
            cause="a symbol is 1 to 20 letters, digits, & or -",
            hint="for example SBI, M&M or NSE:SBIN",
        )
    return text


def checked_quantity(text: str) -> int:
    """A number of shares."""
    try:
        return quantity_from_text(text)
    except ValueError as error:
        raise UsageError(
            f"invalid quantity {visible(text, 60)!r}", cause=str(error), hint="for example 100 or 1,00,000"
        ) from error


def checked_price(text: str) -> Paise:
    """A price per share, in paise."""
    try:
        return paise_from_text(text)
    except ValueError as error:
        raise UsageError(
            f"invalid price {visible(text, 60)!r}", cause=str(error), hint="for example 885, 884.95 or 1,00,885.05"
        ) from error


def checked_participant(text: str) -> str:
    """The name of a participant."""
    if not is_participant(text):
        raise UsageError(
            f"invalid participant {visible(text, 60)!r}",
            cause="a participant is 1 to 64 letters, digits or _.:@#+=&-, and not NSE, the clearing house",
            hint="for example --as HDFC",
        )
    return text


def checked_owner(participant: str | None) -> str | None:
    """Whose it is, if that was said.

    Raises:
        UsageError: it is no participant.
    """
    return None if participant is None else checked_participant(participant)


def checked_time_in_force(text: str | None) -> TimeInForce | None:
    """A time in force; None for DAY, which is what a message without one means."""
    try:
        chosen = TimeInForce("DAY" if text is None else text.upper())
    except ValueError as error:
        raise UsageError(
            f"invalid time in force {visible(text or '', 60)!r}",
            cause="there is DAY, IOC and FOK",
            hint="DAY waits in the book, IOC takes what is there, FOK takes all or nothing",
        ) from error
    return None if chosen is TimeInForce.DAY else chosen


def checked_prevention(text: str | None) -> SelfTradePrevention | None:
    """A kind of self-trade prevention; None for off, which is what a message without one means."""
    try:
        chosen = SelfTradePrevention("off" if text is None else text.lower())
    except ValueError as error:
        raise UsageError(
            f"invalid self-trade prevention {visible(text or '', 60)!r}",
            cause="there is off, cancel-passive and cancel-active",
            hint="cancel-passive takes your own waiting order out, cancel-active the new one",
        ) from error
    return None if chosen is SelfTradePrevention.OFF else chosen


def checked_id(text: str) -> str:
    """An order id."""
    if not is_identifier(text):
        raise UsageError(
            f"invalid order id {visible(text, 60)!r}",
            cause="an id is 1 to 64 letters, digits or _.:@#+=&-",
            hint="leave --id out and one is made",
        )
    return text


def canonical_symbols(texts: Sequence[str]) -> list[str]:
    """Symbols as the exchange knows them.

    Raises:
        UsageError: one is none.
    """
    return [canonical_symbol(checked_symbol(text)) or "" for text in texts]
