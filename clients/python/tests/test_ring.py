"""The ring, against a queue."""

import random
from collections import deque

import pytest

from oona_client.ring import PAGE, Ring


@pytest.mark.parametrize("seed", range(20))
def test_it_is_a_queue_with_a_bound(seed):
    rng = random.Random(seed)
    writer = Ring.create(2 * PAGE)
    reader = Ring.open(writer.fd)
    expected: deque[tuple[int, bytes]] = deque()
    refused = 0
    for _ in range(2000):
        if rng.random() < 0.6:
            record = (rng.randrange(2), rng.randbytes(rng.choice([0, 1, 7, 8, 9, 100, 1000, 3000])))
            used = writer.push(*record)
            assert 0 <= used <= 2 * PAGE
            if used:
                expected.append(record)
            else:
                refused += 1
        else:
            records, position = reader.read()
            assert records == list(expected)
            reader.release(position)
            expected.clear()
            assert writer.used == 0
    assert refused > 0
    reader.fd = -1  # it is the writer's
    reader.close()
    writer.close()


@pytest.mark.parametrize("seed", range(20))
def test_records_for_which_there_is_room_can_all_be_pushed(seed):
    rng = random.Random(seed)
    ring = Ring.create(2 * PAGE)
    reader = Ring.open(ring.fd)
    answers = set()
    for _ in range(300):
        records = [rng.randbytes(rng.choice([0, 7, 8, 1000, 3000])) for _ in range(rng.randrange(2, 6))]
        answers.add(room := ring.has_room(map(len, records)))
        # Without room, at least one of them is refused.
        assert all([ring.push(0, record) for record in records]) == room
        if rng.random() < 0.5:
            ring.release(reader.read()[1])
    assert answers == {True, False}
    reader.fd = -1
    reader.close()
    ring.close()


def test_what_is_read_stays_until_it_is_released():
    ring = Ring.create(PAGE)
    assert ring.push(0, b"a" * 3000)
    assert ring.read()[0] == ring.read()[0] == [(0, b"a" * 3000)]
    assert not ring.push(0, b"b" * 2000)
    ring.release(ring.read()[1])
    assert ring.push(0, b"b" * 500)
    assert not ring.push(0, b"c" * PAGE)
    ring.close()


@pytest.mark.parametrize("before", range(0, PAGE, 8))
def test_an_empty_ring_takes_a_record_of_any_length_at_any_position(before):
    ring = Ring.create(PAGE)
    if before:
        assert ring.push(0, bytes(before - 8))
        ring.release(ring.read()[1])
    for n, length in enumerate((PAGE * 5 // 8, PAGE - 8, PAGE // 2, PAGE - 8)):
        record = bytes([n + 1]) * length
        assert ring.push(1, record)
        assert not ring.push(0, b"x" * (PAGE // 2))
        assert ring.read()[0] == ring.read()[0] == [(1, record)]
        ring.release(ring.read()[1])
        assert ring.used == 0
        assert ring.push(0, b"small")
        assert ring.read()[0] == [(0, b"small")]
        ring.release(ring.read()[1])
    ring.close()
