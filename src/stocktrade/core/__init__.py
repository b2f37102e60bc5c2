"""The verbs: matching, clearing and the ledger. Pure: no I/O, no clock, no chance; imports only `domain`."""
