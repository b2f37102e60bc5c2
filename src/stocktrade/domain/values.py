"""Money, quantities, symbols and identifiers: what they may be, and how they are read and written.

Invariant: inside the exchange money is integer paise and a symbol is canonical; rupees as decimals and the
symbol as its sender wrote it exist only at the edges.
"""

import re
from decimal import Decimal
from functools import lru_cache
from typing import Final, Literal, NewType

Paise = NewType("Paise", int)
"""An amount of money in paise (1/100 rupee)."""

Side = Literal["BUY", "SELL"]

MAX_QUANTITY: Final = 1_000_000_000
"""The largest quantity of one order, in shares."""

MAX_PRICE: Final = Paise(1_000_000_000)
"""The highest price of one share, in paise: ₹1,00,00,000. With MAX_QUANTITY every amount fits 64 bits."""

CLEARING_HOUSE: Final = "NSE"
"""The name in which the exchange clears; no participant may take it."""

ALIASES_VERSION: Final = 1
ALIASES: Final = {"SBI": "SBIN"}
"""Other names under which a symbol is known. A table, not a rule: a new line is a new version."""

_SYMBOL = re.compile(r"(?:NSE:)?([A-Z0-9][A-Z0-9&-]{0,19})", re.IGNORECASE | re.ASCII)
_MAX_SYMBOL_TEXT: Final = 24
# Device names are refused because ids end up as file names in people's scripts.
_IDENTIFIER = re.compile(
    r"(?!(?:CON|PRN|AUX|NUL|COM\d|LPT\d)\Z)[A-Z0-9_][A-Z0-9_.:@#+=&-]{0,63}", re.IGNORECASE | re.ASCII
)
# Grouping commas are accepted the Indian (1,00,885) and the western way (100,885).
_RUPEES = re.compile(r"₹?\s?(\d{1,15}|\d{1,3}(?:,\d{2,3})*,\d{3})(\.\d{1,2})?", re.ASCII)
_PAISA: Final = Decimal("0.01")
_MAX_RUPEES: Final = Decimal(MAX_PRICE) / 100


def canonical_symbol(text: str) -> str | None:
    """The symbol that the exchange trades under, or None when `text` is no symbol.

    `sbi`, `SBI`, `NSE:SBIN` and `SBIN` are all `SBIN`.
    """
    return _canonical(text) if len(text) <= _MAX_SYMBOL_TEXT else None


@lru_cache(maxsize=16_384)  # an exchange meets the same few over and over; longer texts are kept out of its memory
def _canonical(text: str) -> str | None:
    match = _SYMBOL.fullmatch(text)
    if match is None:
        return None
    symbol = match[1].upper()
    return ALIASES.get(symbol, symbol)


def is_identifier(text: str) -> bool:
    """Whether `text` can be an order id or a participant: 1 to 64 characters of an ASCII allow-list."""
    return _IDENTIFIER.fullmatch(text) is not None


def is_participant(text: str) -> bool:
    """Whether `text` can be a participant: an identifier that is not the clearing house."""
    return is_identifier(text) and text.upper() != CLEARING_HOUSE


def paise_from_rupees(rupees: Decimal | int) -> Paise:
    """Rupees as paise, exactly.

    Raises:
        ValueError: not finite, more than two decimals, not positive, or above MAX_PRICE.
    """
    value = rupees if isinstance(rupees, Decimal) else Decimal(rupees)
    # Compared before any arithmetic: 1E+999999999 must not become an integer.
    if not value.is_finite():
        raise ValueError("not a number")
    if value <= 0:
        raise ValueError("not above zero")
    if value > _MAX_RUPEES:
        raise ValueError("too large")
    # Rounding shows itself by a comparison, which is exact; arithmetic would round to 28 digits and hide it.
    rounded = value.quantize(_PAISA)
    if rounded != value:
        raise ValueError("more than two decimals")
    return Paise(int(rounded * 100))


def paise_from_text(text: str) -> Paise:
    """A price typed by a person, as paise: `885`, `884.95`, `1,00,885.05`, `₹885`.

    Raises:
        ValueError: anything else, and whatever `paise_from_rupees` refuses.
    """
    match = _RUPEES.fullmatch(text)
    if match is None:
        raise ValueError("not a price in rupees")
    return paise_from_rupees(Decimal(match[1].replace(",", "") + (match[2] or "")))


def quantity_from_text(text: str) -> int:
    """A number of shares typed by a person: `100`, `1,00,000`.

    Raises:
        ValueError: not a whole number, not positive, or above MAX_QUANTITY.
    """
    if not re.fullmatch(r"\d{1,12}|\d{1,3}(?:,\d{2,3})*,\d{3}", text, re.ASCII):
        raise ValueError("not a whole number of shares")
    quantity = int(text.replace(",", ""))
    if not 0 < quantity <= MAX_QUANTITY:
        raise ValueError(f"not between 1 and {group_indian(MAX_QUANTITY)}")
    return quantity


def decimal_rupees(paise: int) -> str:
    """Paise as the decimal number of rupees that stands on the wire: 8850000 -> `88500.0`."""
    sign, paise = ("-", -paise) if paise < 0 else ("", paise)
    whole, rest = divmod(paise, 100)
    if rest % 10:
        return f"{sign}{whole}.{rest:02}"
    return f"{sign}{whole}.{rest // 10}"


def rupees_in_text(paise: int) -> str:
    """Paise as a sentence shows them: `₹885`, `₹884.90` (no decimals when whole, else two)."""
    whole, rest = divmod(paise, 100)
    return f"₹{whole}.{rest:02}" if rest else f"₹{whole}"


def rupees_in_table(paise: int) -> str:
    """Paise as a table shows them: `₹1,23,45,678.00`, grouped the Indian way."""
    sign, paise = ("-", -paise) if paise < 0 else ("", paise)
    whole, rest = divmod(paise, 100)
    return f"{sign}₹{group_indian(whole)}.{rest:02}"


def group_indian(number: int) -> str:
    """A whole number with lakh and crore commas: 12345678 -> `1,23,45,678`."""
    digits = str(abs(number))
    head, tail = digits[:-3], digits[-3:]
    groups = []
    while head:
        groups.append(head[-2:])
        head = head[:-2]
    return ("-" if number < 0 else "") + ",".join([*reversed(groups), tail])


def visible(text: str, limit: int = 200) -> str:
    """`text` made safe for a terminal: control, format and surrogate characters become visible escapes.

    What comes off a topic may hold ESC sequences, C1 controls or right-to-left marks; none may reach a
    screen. Longer texts are cut at `limit` characters with an ellipsis.
    """
    shown = text if len(text) <= limit else text[: limit - 1] + "…"
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in shown)
