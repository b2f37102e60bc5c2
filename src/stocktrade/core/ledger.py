"""The double-entry ledger: how many shares and rupees stand on every account.

Owns the balances. Invariant: a posting takes from one account exactly what it gives to another, so the shares of
every symbol and the rupees each sum to zero over all accounts at all times. Accounts start at 0 and may go below:
a seller owes shares, and a buyer money, that were never paid in.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from stocktrade.domain.values import CLEARING_HOUSE

CASH: Final = "₹"
"""The asset of the funds accounts, counted in paise. No symbol can be spelled like it."""


Posting = tuple[str, str, str, int]
"""(debit, credit, asset, amount): `amount` of `asset` moves from the account `debit` to the account `credit`.

Shares of a symbol, or paise of CASH.
"""


class Ledger:
    """One account per (owner, asset); owners are the participants and the clearing house."""

    def __init__(self) -> None:
        self._assets: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))

    def post(self, postings: Iterable[Posting]) -> None:
        """Enter `postings`, each at once on both of its accounts."""
        assets = self._assets
        for debit, credit, asset, amount in postings:
            accounts = assets[asset]
            accounts[debit] -= amount
            accounts[credit] += amount

    def accounts(self, asset: str) -> defaultdict[str, int]:
        """The accounts of one asset by owner, for `clearing`, which posts many at once and leaves them balanced."""
        return self._assets[asset]

    def balance(self, owner: str, asset: str) -> int:
        """Shares of a symbol, or paise for CASH; 0 for an account that nothing was ever posted to."""
        return self._assets[asset].get(owner, 0) if asset in self._assets else 0

    def balances(self) -> Iterator[tuple[str, str, int]]:
        """(asset, owner, balance) of every account, in the order in which they were first used."""
        for asset, accounts in self._assets.items():
            for owner, balance in accounts.items():
                yield asset, owner, balance

    def copy(self) -> "Ledger":
        """A ledger with the same balances, which this one's postings do not change."""
        twin = Ledger()
        twin._assets.update((asset, accounts.copy()) for asset, accounts in self._assets.items())
        return twin

    def restore(self, asset: str, owner: str, balance: int) -> None:
        """Open an account with the balance that `balances` gave for it."""
        self._assets[asset][owner] = balance

    def sums(self) -> dict[str, int]:
        """The sum of all accounts by asset. Every one of them must be 0."""
        return {asset: sum(accounts.values()) for asset, accounts in self._assets.items()}

    def clearing_house_is_flat(self) -> bool:
        """Whether the clearing house holds and owes nothing, as it must between two trades."""
        return not any(accounts.get(CLEARING_HOUSE, 0) for accounts in self._assets.values())
