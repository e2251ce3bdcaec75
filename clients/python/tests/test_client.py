"""The client against scripted servers, with the sender as a process and as a thread."""

import logging
import socket
import threading
import time
from collections import Counter

import numpy as np
import pytest
from server import RESET, SILENT, Server, ok, problem, until

from oona_client import Client, InvalidFrame, State, lane, post
from oona_client.client import Closed

IDS = np.arange(10)


@pytest.fixture(params=["process", "thread"])
def sender(request):
    return request.param


def client(server, sender="process", **more):
    urls = server if isinstance(server, (str, list)) else server.url
    return Client(urls, "run", **{"sender": sender, "strict": True, "linger": 0.01, "timeout": 60.0, "close_timeout": 300.0, **more})


def send(to, steps, **more):
    for step in steps:
        assert to.frame("enc.0", step, IDS, State.TRAINING, {"loss": np.full(10, step, np.float32)}, **more)


def steps_of(server):
    return [record["step"] for record in server.accepted]


def test_frames_and_events_arrive_in_order(sender):
    with Server() as server, client(server, sender) as oona:
        send(oona, range(200))
        oona.event("enc.0", 3, State.DORMANT, State.GERMINATED, step=1, reason="why", evidence={"loss": 0.5})
        oona.event("enc.0", 3, State.GERMINATED, State.TRAINING, step=2)
        assert oona.flush(300)
        stats = oona.stats()
        frames = [r for r in server.accepted if "step" in r and "metrics" in r]
        assert [f["step"] for f in frames] == list(range(200))
        assert [f["sequence"] for f in frames] == sorted({f["sequence"] for f in frames})
        assert {(f["run_id"], f["producer_id"], f["producer_epoch"]) for f in frames} == {("run", oona.producer, oona.epoch)}
        events = [r for r in server.accepted if "evidence" in r]
        assert [(e["sequence"], e["to_state"]) for e in events] == [(0, 1), (1, 2)]
    assert (stats.frames.handed, stats.frames.accepted, stats.frames.waiting) == (200, 200, 0)
    assert stats.events.accepted == 2


@pytest.mark.parametrize("wrong", [
    {"step": -1}, {"step": 1.5}, {"at": 1_790_000_001}, {"reason": "x" * 1025}, {"reason": "\ud800"}, {"evidence": {"a b": 1.0}},
    {"evidence": {"loss": "low"}}, {"evidence": {f"e{i}": 1.0 for i in range(65)}}, {"blueprint_id": "a/b"}, {"actor": "a b"},
])
def test_an_event_that_ingest_would_refuse_takes_no_number(sender, wrong):
    with Server() as server, client(server, sender, strict=False) as oona:
        assert oona.event("enc.0", 3, State.DORMANT, State.GERMINATED, step=1)
        assert not oona.event("enc.0", 3, State.GERMINATED, State.TRAINING, **{"step": 2, **wrong})
        assert oona.event("enc.0", 3, State.GERMINATED, State.TRAINING, step=2)
        assert oona.flush(300)
        assert [e["sequence"] for e in server.accepted] == [0, 1]
        assert oona.stats().events.invalid == 1


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


def test_what_is_wrong_raises_only_if_strict(sender, caplog):
    with Server() as server, client(server, sender) as oona, client(server, sender, strict=False) as lenient:
        with pytest.raises(InvalidFrame):
            oona.frame("enc.0", 0, IDS, State.TRAINING, {"loss": np.ones(9)})
        with caplog.at_level(logging.ERROR, "oona_client"):
            for _ in range(3):
                assert not lenient.frame("enc.0", 0, IDS, State.TRAINING, {"loss": np.ones(9)})
                assert not lenient.frame(None, 0, IDS, object(), {"loss": np.ones(10)})
        assert lenient.stats().frames.invalid == 6
        assert len(caplog.records) == 2  # once per kind


@pytest.mark.parametrize(("change", "field"), [
    ({"seed_ids": [], "states": [], "metrics": {}}, "seed_ids"),
    ({"metrics": None}, "metrics"),
    ({"metrics": [("loss", np.ones(10))]}, "metrics"),
    ({"tensors": {"weight": np.ones(2)}}, "tensors"),
    ({"tensors": {("weight", 99_999): np.ones(2)}}, "tensors.seed_id"),
    ({"tensors": {("weight", 0): np.ones(2, np.longdouble)}}, "tensors.dtype"),
    ({"observed_at": 5}, "observed_at"),
    ({"step": -1}, "step"),
])
def test_a_fault_of_a_frame_names_the_field(change, field):
    right = {"layer": "enc.0", "step": 0, "seed_ids": IDS, "states": State.TRAINING, "metrics": {"loss": np.ones(10)}}
    with Server() as server, client(server, "thread") as oona:
        assert oona.frame(**right)  # the next one is encoded by the plan that this has made, if it can be
        with pytest.raises(InvalidFrame) as caught:
            oona.frame(**{**right, **change})
        assert caught.value.field == field
        assert (oona.stats().frames.handed, oona.stats().frames.invalid) == (1, 1)


def test_a_server_that_is_away_comes_back(sender):
    with Server() as probe:
        port = probe.port
    oona = client(f"http://127.0.0.1:{port}", sender)
    send(oona, range(20))
    until(lambda: oona.stats().failures > 0)
    with Server(port=port) as server:
        assert oona.flush(300)
        assert steps_of(server) == list(range(20))
        assert oona.close().frames.accepted == 20


@pytest.mark.parametrize("answer", [
    (200, {"accepted": 1, "aside": 5}, {}),
    (503, {"type": "urn:oona:problem:timeout"}, {"Retry-After": "nan"}),
    (503, {"type": "urn:oona:problem:timeout"}, {"Retry-After": "0"}),
    (503, {"type": "urn:oona:problem:timeout"}, {"Retry-After": "-1"}),
    (503, {"type": "urn:oona:problem:timeout"}, {"Retry-After": "Sat, 28 Nov 2026 08:00:00"}),
], ids=lambda answer: answer[2].get("Retry-After", "aside"))
def test_an_odd_answer_neither_ends_the_sender_nor_makes_it_hurry(answer):
    with Server(lambda n, request: answer if n < 2 else ok(n, request)) as server, client(server, "thread") as oona:
        for step in range(5):
            send(oona, [step])
            if answer[0] == 200:
                assert oona.flush(300)
        assert oona.flush(300)
        assert oona.stats().frames.accepted == 5


def test_a_retry_after_that_names_no_time_is_none():
    for value in ("", "nan", "0", "-1", "soon", "Sat, 28 Nov 2020 08:00:00 GMT", "Sat, 99 Foo 2026 99:99:99"):
        assert post._seconds(value) is None, value
    assert post._seconds("1.5") == 1.5
    assert (post._seconds("Sat, 28 Nov 2099 08:00:00 GMT") or 0) > 86400


def test_what_nobody_expected_is_tried_again():
    """An answer nested too deeply for the decoder, and a fault of the sender itself."""
    deep = "[" * 200_000
    with Server(lambda n, request: (200, deep, {}) if n == 0 else ok(n, request)) as server, client(server, "thread") as oona:
        poster = oona._link._inner._poster
        working = poster.post
        faults = []

        def faulty(*arguments):
            poster.post = working
            faults.append(arguments)
            raise AssertionError("a fault")

        poster.post = faulty
        send(oona, [1])
        assert oona.flush(300)
        assert faults
        assert len(server.requests) == 2
        assert oona.stats().frames.accepted == 1


def test_retry_after_is_honoured_and_the_bytes_are_the_same(sender):
    def script(n, request):
        return problem(503, "timeout", retry=1) if n == 0 else ok(n, request)

    with Server(script) as server, client(server, sender) as oona:
        send(oona, [1])
        assert oona.flush(300)
        first, second = server.requests
    assert first.body == second.body
    assert 1.0 <= second.at - first.at < 60.0


def test_a_reset_connection_and_a_half_open_one(sender):
    def script(n, request):
        return {0: RESET, 2: SILENT}.get(n) or ok(n, request)

    with Server(script) as server, client(server, sender, timeout=0.5) as oona:
        send(oona, [1])
        assert oona.flush(300)
        send(oona, [2])
        assert oona.flush(300)
        assert list(dict.fromkeys(steps_of(server))) == [1, 2]  # a busy machine may be too late with an answer, too
        assert oona.stats().frames.accepted == 2


def test_it_stays_with_one_address_and_moves_on_when_that_fails(sender):
    with Server() as a, Server() as b, client([a.url, b.url], sender) as oona:
        for step in range(3):
            send(oona, [step])
            assert oona.flush(300)
        assert (steps_of(a), steps_of(b), a.connections) == ([0, 1, 2], [], 1)
        a.close()
        send(oona, [3])
        assert oona.flush(300)
        assert steps_of(b) == [3]


def test_a_bad_frame_is_dropped_and_the_others_are_sent_again(sender, caplog):
    def script(n, request):
        for i, record in enumerate(request.records):
            if record["step"] == 3:
                return problem(400, "invalid", frame=i, field="step")
        return ok(n, request)

    with caplog.at_level(logging.INFO, "oona_client"), Server(script) as server, client(server, sender, linger=60.0) as oona:
        send(oona, range(6))
        assert oona.flush(300)
        assert sorted(steps_of(server)) == [0, 1, 2, 4, 5]
        counts = oona.stats().frames
        until(lambda: any("refuses frames" in r.message for r in caplog.records))
    assert (counts.accepted, counts.rejected) == (5, 1)
    assert sum("refuses frames" in r.message for r in caplog.records) == 1


def test_a_request_that_is_too_large_is_split(sender):
    def script(n, request):
        return problem(413, "too-large") if len(request.records) > 2 else ok(n, request)

    with Server(script) as server, client(server, sender, linger=60.0) as oona:
        send(oona, range(9))
        assert oona.flush(300)
        assert steps_of(server) == list(range(9))


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_holds_the_frames(sender, status, caplog):
    allowed = threading.Event()

    def script(n, request):
        return ok(n, request) if allowed.is_set() else problem(status, "unauthorized")

    with caplog.at_level(logging.ERROR, "oona_client"), Server(script) as server, client(server, sender, token="secret") as oona:
        send(oona, range(3))
        assert not oona.flush(0.5)
        allowed.set()
        assert oona.flush(300)
        assert server.requests[0].headers["authorization"] == "Bearer secret"
        until(lambda: any("token" in r.message for r in caplog.records))
    assert not any("secret" in r.message for r in caplog.records)


def test_frames_put_aside_are_counted(sender, caplog):
    def script(_, request):
        return 200, {"accepted": len(request.records), "aside": [{"reason": "stale", "frames": 2, "first": 0, "detail": "old"}]}, {}

    with caplog.at_level(logging.WARNING, "oona_client"), Server(script) as server, client(server, sender, linger=60.0) as oona:
        send(oona, range(3))
        assert oona.flush(300)
        counts = oona.stats().frames
        until(lambda: any("stale" in r.message for r in caplog.records))
    assert (counts.accepted, counts.aside) == (3, 2)


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
    assert time.monotonic() - began < 100  # and not the 300 that were given before
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
        until(lambda: server.accepted)  # and the client does not know


@pytest.mark.parametrize("wrong", [
    {"urls": []}, {"urls": "ftp://x"}, {"urls": "127.0.0.1:8080"}, {"urls": "http://u:p@x"}, {"run": "a b"},
    {"overflow": "all"}, {"sender": "x"}, {"producer": "ü"},
])
def test_wrong_settings_are_refused_at_once(wrong):
    with pytest.raises(ValueError):
        Client(**{"urls": "http://127.0.0.1:1", "run": "run", **wrong})


def test_another_server_is_not_taken_for_ingest(sender, caplog):
    with Server(lambda n, request: (200, {"hello": "world"}, {})) as server:
        oona = client(server, sender)
        send(oona, range(3))
        until(lambda: any("not an answer of ingest" in r.message for r in caplog.records))
        counts = oona.close(timeout=0).frames
    assert (counts.accepted, counts.lost) == (0, 3)


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


def test_a_connection_that_was_closed_while_it_was_idle_is_not_a_failure(sender):
    with Server() as server, client(server, sender) as oona:
        for step in range(3):
            send(oona, [step])
            assert oona.flush(300)
            server.forget()
        stats = oona.stats()
        assert (stats.failures, stats.requests, server.connections) == (0, 3, 3)


def test_a_refusal_that_comes_before_the_body_was_read_is_seen():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def refuse():
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"HTTP/1.1 401 X\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
                time.sleep(0.3)  # the rest of the body is in the buffers, unread: closing resets the connection

        server = threading.Thread(target=refuse)
        server.start()
        poster = post.Poster([f"http://127.0.0.1:{listener.getsockname()[1]}"])
        assert poster.post("/v1/frames", bytes(32 << 20)).status == 401
        server.join()


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


@pytest.mark.parametrize("settings", [
    {"queue_bytes": "64MB"}, {"queue_bytes": 0}, {"queue_frames": 1.5}, {"spool_bytes": -1}, {"linger": "0"}, {"linger": float("nan")},
    {"timeout": None}, {"timeout": 0}, {"timeout": float("inf")}, {"close_timeout": ""}, {"token": "a b"}, {"token": b"a"}, {"token": "\u00e9"},
    {"ca_file": __file__}, {"cert_file": __file__}, {"token_file": "."},
])
def test_settings_that_cannot_be_right_are_refused(settings):
    with pytest.raises((TypeError, ValueError, OSError)):
        Client("https://localhost:1", "run", **settings)


def test_a_token_is_not_logged(sender, tmp_path, caplog):
    with Server() as server, Client(server.url, "run", token=" secret\n", sender=sender) as oona:
        send(oona, [1])
        assert oona.flush(300)
        assert server.requests[0].headers["authorization"] == "Bearer secret"
    file = tmp_path / "token"
    file.write_text("secret\nother")
    with Server() as server, client(server, sender, token_file=file) as oona:
        send(oona, [1])
        until(lambda: oona.stats().failures > 0)
        file.write_text("right")
        assert oona.flush(300)
        assert server.requests[0].headers["authorization"] == "Bearer right"
    assert "does not answer" in caplog.text and "secret" not in caplog.text


def test_frames_are_kept_if_it_is_not_ingest_that_refuses_them(sender):
    refusals = iter([(400, {}, {}), (415, {}, {}), (451, {}, {}), problem(400, "coding")])

    def answer(n, request):
        return next(refusals, None) or ok(n, request)

    with Server(answer) as server, client(server, sender, compress=False) as oona:
        send(oona, range(3))
        assert oona.flush(300)
        assert steps_of(server) == [0, 1, 2]
        assert len(server.requests) == 5
        assert oona.stats().frames.rejected == 0
