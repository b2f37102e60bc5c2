"""Which partition a key belongs to: Kafka's default partitioner (murmur2), on every transport.

Invariant: the answer for a key and a number of partitions never changes, or orders of one symbol would end up
in two books.
"""

from functools import lru_cache

_MASK = 0xFFFFFFFF
_M = 0x5BD1E995


def murmur2(data: bytes) -> int:
    """Kafka's variant of MurmurHash2 as an unsigned 32-bit integer (`org.apache.kafka.common.utils.Utils`)."""
    length = len(data)
    h = (0x9747B28C ^ length) & _MASK
    whole = length & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little")
        k = (k * _M) & _MASK
        k ^= k >> 24
        k = (k * _M) & _MASK
        h = ((h * _M) & _MASK) ^ k
    tail = data[whole:]
    if tail:
        h ^= int.from_bytes(tail, "little")
        h = (h * _M) & _MASK
    h ^= h >> 13
    h = (h * _M) & _MASK
    return h ^ (h >> 15)


@lru_cache(maxsize=65_536)
def partition_for(key: bytes, partitions: int) -> int:
    """The partition of `key` among `partitions`; cached, for a market has few symbols and many orders."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
