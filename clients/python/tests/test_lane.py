"""The queue of a sender for one endpoint."""

import time
from collections import Counter

import pytest

from oona_client import lane


def test_pauses_grow_up_to_a_limit_and_differ():
    pauses = [[lane.pause(attempts) for _ in range(50)] for attempts in range(12)]
    for attempts, some in enumerate(pauses):
        longest = min(lane.LONGEST_PAUSE, lane.FIRST_PAUSE * 2**attempts)
        assert longest / 2 <= min(some) < max(some) <= longest


def a_lane(log=lambda *_: None, **more):
    class Counters(Counter):
        def add(self, name, n=1):
            self[name] += n

    counters = Counters()
    return lane.Lane(0, "/v1/frames", counters, log, queue_bytes=100, queue_frames=10, oldest=True, split=lambda _: [], **more), counters


class Store:
    """A spool that takes nothing, and has given up three records."""

    empty = True
    given_up = 3

    def append(self, records):
        return []

    def lost(self):
        lost, self.given_up = self.given_up, 0
        return lost


@pytest.mark.parametrize("spool", [None, Store()])
def test_a_full_queue_does_not_ask_for_a_spool_that_is_there(spool):
    said = []
    one, counters = a_lane(lambda level, kind, message: said.append((kind, message)), spool=spool)
    for _ in range(12):
        one.put(b"x")
    one.store(0.0, now=True)
    kinds = [kind for kind, _ in said]
    if spool is None:
        assert (counters["dropped0"], kinds) == (2, ["dropped-frames"] * 2)
        assert "give a larger queue, or a spool" in said[0][1]
    else:
        assert (counters["dropped0"], kinds) == (5, ["dropped-frames"] * 2 + ["spool-dropped-frames"])
        assert not any("a spool" in message for _, message in said)


def test_each_failure_makes_the_next_pause_longer():
    one, _ = a_lane()
    one.put(b"x")
    assert one.take() is not None
    for attempt in range(1, 8):
        one.failed("it is away")
        assert one.flight.attempts == attempt and one.not_before > time.monotonic()
