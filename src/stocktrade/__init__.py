"""stocktrade: a stock exchange on a durable log.

Import from the sub-packages; this module only names the version, so that importing it costs nothing.
"""

__version__ = "0.1.0"
