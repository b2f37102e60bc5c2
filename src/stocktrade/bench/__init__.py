"""What `bench` measures with: the load, the processes that carry it, a log of their own, and the figures.

Invariant: a log that somebody trades on is never written to, and what was made is gone at the end, the processes first.
"""
