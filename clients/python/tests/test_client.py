"""The client with a server of the tests. The sender is a process or a thread."""

import logging
import threading
import time

import numpy as np
import pytest
from server import Server, ok, until
from training import IDS, client, send, steps_of

from oona_client import State
from oona_client.handover import Closed
from oona_client.sender import Sender
from oona_client.wire import told


def test_frames_and_events_arrive_in_order(sender):
    with Server() as server, client(server, sender) as oona:
        send(oona, range(200))
        oona.event("enc.0", 3, State.DORMANT, State.GERMINATED, step=1, reason="why", evidence={"loss": 0.5})
        oona.event("enc.0", 3, State.GERMINATED, State.TRAINING, step=2)
        oona.event("enc.0", 3, State.TRAINING, State.GERMINATED, step=1, mark="REWOUND")
        assert oona.flush(300)
        stats = oona.stats()
        frames = [r for r in server.accepted if "step" in r and "metrics" in r]
        assert [f["step"] for f in frames] == list(range(200))
        assert [f["sequence"] for f in frames] == sorted({f["sequence"] for f in frames})
        assert {(f["run_id"], f["producer_id"], f["producer_epoch"]) for f in frames} == {("run", oona.producer, oona.epoch)}
        events = [r for r in server.accepted if "evidence" in r]
        assert [(e["sequence"], e["to_state"], e["mark"]) for e in events] == [(0, 1, "NORMAL"), (1, 2, "NORMAL"), (2, 1, "REWOUND")]
    assert (stats.frames.handed, stats.frames.accepted, stats.frames.waiting) == (200, 200, 0)
    assert stats.events.accepted == 3


def test_close_sends_what_waits(sender):
    with Server() as server:
        oona = client(server, sender, linger=60.0)
        send(oona, range(5))
        assert oona.close().frames.accepted == 5
        assert steps_of(server) == list(range(5))
        assert oona.close().frames.lost == 0
        with pytest.raises(RuntimeError):
            send(oona, [5])


def test_what_comes_after_close_is_counted_and_logged_once(sender, caplog):
    with Server() as server:
        oona = client(server, sender, strict=False)
        send(oona, range(3))
        oona.event("enc.0", 1, State.DORMANT, State.GERMINATED)
        assert oona.close().frames.invalid == 0
        with caplog.at_level(logging.ERROR, "oona_client"):
            for step in range(4):
                assert not oona.frame("enc.0", step, IDS, State.TRAINING, {"loss": np.ones(10)})
            assert not oona.event("enc.0", 1, State.GERMINATED, State.TRAINING)
        for stats in (oona.stats(), oona.close()):
            assert (stats.frames.handed, stats.frames.accepted, stats.frames.invalid) == (3, 3, 4)
            assert (stats.events.handed, stats.events.accepted, stats.events.invalid) == (1, 1, 1)
        assert len(caplog.records) == 1
        assert len(server.accepted) == 4
        oona.strict = True
        with pytest.raises(Closed):
            send(oona, [5])


def test_flush_after_close_says_whether_anything_was_lost(sender):
    with Server() as server:
        oona = client(server, sender)
        send(oona, range(3))
        oona.close()
        assert oona.flush()
    oona = client(server, sender)
    send(oona, range(3))
    assert oona.close(timeout=0).frames.lost == 3
    assert not oona.flush()


def test_arrays_may_change_after_the_call(sender):
    with Server() as server, client(server, sender) as oona:
        values, states = np.ones(10, np.float32), np.full(10, 2, np.uint8)
        ids = np.arange(10)
        oona.frame("enc.0", 0, ids, states, {"loss": values})
        values[:], states[:], ids[:] = 7, 3, ids + 5
        oona.frame("enc.0", 1, ids, states, {"loss": values})
        oona.flush(300)
        first, second = server.accepted
    assert first["metrics"][0]["values"] == [1.0] * 10 and first["states"] == bytes([2] * 10) and first["seed_ids"] == list(range(10))
    assert second["metrics"][0]["values"] == [7.0] * 10 and second["seed_ids"] == list(range(5, 15))


@pytest.mark.parametrize("overflow", ["oldest", "newest"])
def test_a_full_queue_drops_by_policy(sender, overflow):
    hold = threading.Event()

    def script(n, request):
        hold.wait(300)
        return ok(n, request)

    with Server(script) as server:
        oona = client(server, sender, queue_frames=10, overflow=overflow, timeout=600.0)
        send(oona, [0])
        until(lambda: server.requests)  # it is in flight
        send(oona, range(1, 31))
        until(lambda: oona.stats().frames.dropped == 20)
        hold.set()
        counts = oona.close().frames
        assert (counts.handed, counts.accepted, counts.dropped, counts.lost) == (31, 11, 20, 0)
        assert steps_of(server) == [0, *(range(21, 31) if overflow == "oldest" else range(1, 11))]


def test_close_says_what_was_lost(sender, caplog):
    with Server() as probe:
        url = probe.url
    oona = client(url, sender)
    send(oona, range(7))
    with caplog.at_level(logging.ERROR, "oona_client"):
        began = time.monotonic()
        counts = oona.close(timeout=0.5).frames
    assert time.monotonic() - began < 100  # less than the 300 that were set first
    assert (counts.handed, counts.lost, counts.waiting) == (7, 7, 0)
    assert any("7 frames" in r.message for r in caplog.records)


def test_lost_includes_what_ingest_answers_too_late(sender, caplog):
    hold = threading.Event()

    def script(n, request):
        hold.wait(20)
        return ok(n, request)

    with caplog.at_level(logging.ERROR, "oona_client"), Server(script) as server:
        oona = client(server, sender, timeout=30.0)
        send(oona, range(2))
        until(lambda: server.requests)
        counts = oona.close(timeout=0).frames
        assert (counts.handed, counts.accepted, counts.lost) == (2, 0, 2)
        assert len(caplog.records) == 1
        hold.set()
        until(lambda: server.accepted)  # the client does not know this


def test_a_client_can_be_asked_while_another_thread_closes_it(sender):
    oona = client("http://127.0.0.1:1", sender)
    send(oona, range(3))
    closing = threading.Thread(target=oona.close, args=(1.5,))
    flushed = []
    flushing = threading.Thread(target=lambda: flushed.append(oona.flush(10)))
    flushing.start()
    until(lambda: oona.stats().failures > 0)
    closing.start()
    while closing.is_alive():
        counts = oona.stats().frames
        assert (counts.handed, counts.waiting + counts.lost) == (3, 3)
        assert oona.close().frames.handed == 3
        time.sleep(0.01)
    flushing.join()
    assert flushed == [False]
    assert oona.stats().frames.lost == 3


@pytest.mark.parametrize("metrics", [8, 40])  # 2 MB beside 7 MB that the sender has not read yet, and more than the ring can have
def test_a_frame_of_which_not_all_parts_have_room_is_dropped_as_a_whole(metrics, caplog, monkeypatch):
    monkeypatch.setattr(Sender, "_keep", lambda _: False)  # it does not read the ring
    with Server() as server:
        oona = client(server, "thread")
        ids, values = np.arange(65_536), np.zeros(65_536, np.float32)
        if metrics == 8:
            assert oona.frame("enc.0", 0, ids, State.TRAINING, {f"m{i}": values for i in range(28)})
        before = oona.stats().frames
        assert not oona.frame("enc.0", 1, ids, State.TRAINING, {f"m{i}": values for i in range(metrics)})
        after = oona.stats().frames
        monkeypatch.undo()
        assert after.waiting == before.waiting
        assert after.handed - before.handed == after.dropped - before.dropped >= 2
        assert oona.close().frames.accepted == before.handed
        assert {record["step"] for record in server.accepted} == ({0} if metrics == 8 else set())
    assert any("may have at most" in record.message for record in caplog.records) == (metrics == 40)


def test_the_message_of_an_error_is_short():
    assert told(ValueError("a\n  b" * 1000)).startswith("a b")
    assert len(told(ValueError("a\n" * 1000))) < 600
    assert told(ValueError("a b")) == "a b"
