"""What the log says of orders, trades and accounts, kept ready for questions in a file beside the user's settings.

Invariant: a view is a fold over the log and nothing else. It remembers how far it has read and what stood there; a log
that does not continue what was read is read anew, and a lost or damaged file costs time, never an answer.
"""
