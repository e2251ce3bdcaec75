"""Ctrl-C, and a signal handler that closes the client, during frame() and event()."""

import linecache
import sys

import numpy as np
import pytest
from server import Server
from test_device import torch  # noqa: F401  a fixture

from oona_client import Client, State
from oona_client import handover as module
from oona_client.complaints import Complaints
from oona_client.device import Copier
from oona_client.encoder import Encoder
from oona_client.handover import Handover
from oona_client.link import Link
from oona_client.ring import Ring

IDS = np.arange(10)
RING_PUSH = Ring.push


def ctrl_c():
    raise KeyboardInterrupt


class Interrupt:
    """Calls a handler before the nth line of the functions, as a signal would."""

    def __init__(self, n, functions, handler=ctrl_c):
        self.handler = handler
        self.left = n
        self.codes = {function.__code__ for function in functions}
        self.at = None

    def __call__(self, frame, what, _):
        if frame.f_code not in self.codes:
            return None
        # Python handles no signal between the end of a with block and the exit of its context manager.
        if what == "line" and not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith("with "):
            self.left -= 1
            if self.left == 0:
                self.at = frame.f_code.co_name
                self.handler()
        return self

    def __enter__(self):
        self.before = sys.gettrace()
        sys.settrace(self)

    def __exit__(self, *_):
        sys.settrace(self.before)


def interrupted_everywhere(functions, call, check):
    """Make the call once for each line, interrupted before that line, and check the result. Each function must have been interrupted."""
    at, n = set(), 0
    while True:
        n += 1
        interrupt = Interrupt(n, functions)
        try:
            with interrupt:
                call(n)
        except KeyboardInterrupt:
            at.add(interrupt.at)
            check()
            continue
        assert interrupt.at is None
        check()
        assert at == {function.__name__ for function in functions}
        return


def add_up(oona, server, kind):
    """Check that everything is answered and is in exactly one counter."""
    assert oona.flush(5), "more frames are counted as handed than were handed over"
    counts = getattr(oona.stats(), kind)
    assert (counts.waiting, counts.invalid) == (0, 0)
    assert counts.handed == counts.accepted + counts.dropped
    assert counts.accepted == len(server.accepted)


@pytest.fixture
def server():
    with Server() as server:
        yield server


@pytest.fixture
def oona(server):
    with Client(server.url, "run", strict=True, linger=0.0, compress=False) as oona:
        yield oona


@pytest.fixture(params=["room", "poke", "full", "large"])
def way(request, oona, monkeypatch):
    """The paths through _push()."""
    if request.param in ("full", "large"):
        monkeypatch.setattr(Ring, "push", no_room)
    if request.param in ("poke", "large"):
        monkeypatch.setattr(module, "RING_BYTES", 0)
    return request.param


def no_room(ring, kind, record):
    """Replace push(), as if the ring were full."""
    used = 0
    return used


def push_of(way):
    return (Handover._push, no_room if way in ("full", "large") else RING_PUSH)


def test_a_frame_that_is_interrupted_is_in_one_counter_or_in_none(server, oona, way):
    interrupted_everywhere(
        (Handover.frame, *push_of(way), Encoder.again) if way == "room" else push_of(way),
        lambda step: oona.frame("enc.0", step, IDS, np.full(10, 2, np.uint8), {"loss": np.zeros(10, np.float32)}),
        lambda: add_up(oona, server, "frames"),
    )
    sequences = [frame["sequence"] for frame in server.accepted]
    assert len(set(sequences)) == len(sequences)
    assert (oona.stats().frames.dropped > 0) == (way in ("full", "large"))


def test_an_event_that_is_interrupted_leaves_no_gap(server, oona, way):
    dropped = []

    def check():
        add_up(oona, server, "events")
        dropped.append(oona.stats().events.dropped)
        # The next number follows those of all events that were handed over, and only of those.
        assert oona._handover.sequences.get(("enc.0", 3), 0) == oona.stats().events.handed

    interrupted_everywhere((Handover.event, *push_of(way)), lambda step: oona.event("enc.0", 3, State.DORMANT, State.GERMINATED, step=step), check)
    if way in ("room", "poke"):
        assert [event["sequence"] for event in server.accepted] == list(range(len(server.accepted)))
    assert (dropped[-1] > 0) == (way in ("full", "large"))


@pytest.mark.parametrize("room", [True, False])
def test_a_copy_that_is_interrupted_is_in_one_counter_or_in_none(server, oona, torch, monkeypatch, room):  # noqa: F811
    if not room:
        monkeypatch.setattr("oona_client.device.PINNED_BYTES", 0)

    def check():
        torch.run()
        add_up(oona, server, "frames")

    def frame(step):
        oona.frame("enc.0", step, IDS, State.TRAINING, {"loss": torch.on_device(IDS), "norm": np.zeros(10)})

    interrupted_everywhere((Handover._copy, Copier.begin, Copier._stacked, Copier._pinned, Copier.put), frame, check)
    assert [frame["metrics"][1]["values"] for frame in server.accepted] == [list(IDS)] * len(server.accepted)
    assert (oona.stats().frames.dropped > 0) == (not room)
    assert (oona.stats().frames.accepted > 0) == room


@pytest.mark.parametrize("full", [False, True])
def test_a_frame_in_which_a_signal_handler_closes_the_client_is_in_one_counter(server, monkeypatch, full):
    monkeypatch.setattr(module, "RING_BYTES", 4)  # so that each call wakes the sender
    if full:
        monkeypatch.setattr(Ring, "push", no_room)
    # Signals are handled where functions begin and end, so not between the first lines of _push().
    functions = (Complaints.note, Link.poke, no_room if full else RING_PUSH)
    found = set()
    for n in range(1, 100):
        oona = Client(server.url, "run", sender="thread", linger=0.0)
        interrupt = Interrupt(n, functions, oona.close)
        with interrupt:
            taken = oona.frame("enc.0", n, IDS, State.TRAINING, {"loss": np.zeros(10)})
        counts = oona.close().frames
        assert counts.handed + counts.invalid == 1
        assert counts.handed == counts.accepted + counts.dropped + counts.lost
        if interrupt.at is None:
            break
        assert taken or not counts.accepted
        found |= {name for name in ("accepted", "dropped", "lost", "invalid") if getattr(counts, name)}
    assert interrupt.at is None and found == {"lost", "dropped" if full else "accepted"}


def with_a_copy(server, torch, step):  # noqa: F811
    """Return a client with a copy in progress, and a signal handler that lets the copy end and closes the client."""
    oona = Client(server.url, "run", sender="thread", linger=0.0)
    assert oona.frame("enc.0", step, IDS, State.TRAINING, {"loss": torch.on_device(IDS)})

    def handler():
        torch.run()
        oona.close(timeout=60)

    return oona, handler


def test_a_frame_in_which_a_signal_handler_closes_the_client_waits_for_no_lock(server, torch):  # noqa: F811
    """Copies in progress are handed on, although the thread that is interrupted holds the client's lock."""
    functions = (Handover._copy, Copier.put)
    at, found = set(), set()
    for n in range(1, 200):
        oona, handler = with_a_copy(server, torch, n)
        interrupt = Interrupt(n, functions, handler)
        with interrupt:
            oona.frame("enc.0", 1000 + n, IDS, State.TRAINING, {"loss": torch.on_device(IDS), "norm": np.zeros(10)})
        torch.run()
        counts = oona.close().frames
        assert counts.handed + counts.invalid == 2
        assert counts.handed == counts.accepted + counts.lost
        assert n in [frame["step"] for frame in server.accepted]
        if interrupt.at is None:
            break
        at.add(interrupt.at)
        found |= {name for name in ("lost", "invalid") if getattr(counts, name)}
    assert at == {function.__name__ for function in functions}
    assert found == {"lost", "invalid"}


def test_an_event_in_which_a_signal_handler_closes_the_client_waits_for_no_lock(server, torch):  # noqa: F811
    for n in range(1, 200):
        oona, handler = with_a_copy(server, torch, n)
        interrupt = Interrupt(n, (RING_PUSH,), handler)
        with interrupt:
            oona.event("enc.0", 3, State.DORMANT, State.GERMINATED)
        torch.run()
        stats = oona.close()
        assert (stats.frames.handed, stats.frames.accepted) == (1, 1)
        assert stats.events.handed + stats.events.invalid == 1
        if interrupt.at is None:
            break
    assert interrupt.at is None and n > 10
