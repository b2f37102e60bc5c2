"""Keys go to the partitions to which Kafka's own producer sends them."""

import pytest

from stocktrade.transport.partitioner import murmur2, partition_for


@pytest.mark.parametrize(
    ("key", "expected"),
    [  # the vectors of Kafka's own UtilsTest
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(key: bytes, expected: int) -> None:
    assert murmur2(key) == expected & 0xFFFFFFFF


@pytest.mark.parametrize("partitions", [1, 2, 4, 7])
def test_the_sign_bit_is_dropped_before_the_remainder(partitions: int) -> None:
    for key in (b"21", b"foobar", b"abc", b"", b"SBIN"):
        assert partition_for(key, partitions) == (murmur2(key) & 0x7FFFFFFF) % partitions
        assert 0 <= partition_for(key, partitions) < partitions
