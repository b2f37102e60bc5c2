"""The audit: every rule of the exchange, checked from what stands on the log and nothing else.

Owns what "correct" means, written apart from the code that trades: nothing in here imports the matching, the
clearing or the ledger. The one exception is `replay`, which asks the exchange's own code whether its journal gives
its digests and its outputs again.

Invariant: a log is read once, forward, in bounded memory (what rests, a window of ids, and the records of one
input); nothing is written.
"""
