"""Tests of the spool: which records survive, and how the others are counted and logged."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import training
from server import SILENT, Server, ok, refuses_step_3, until
from training import send, steps_of

from oona_client import State, segment, spool
from oona_client.home import Home
from oona_client.ring import END

SOURCE = Path(__file__).resolve().parents[1] / "src"


def client(url, directory, sender="process", **more):
    return training.client(url, sender, spool=directory, **more)


def nowhere():
    with Server() as server:
        return server.url, server.port


def test_nothing_is_written_while_ingest_answers(tmp_path, sender):
    with Server() as server, client(server.url, tmp_path, sender) as oona:
        send(oona, range(50))
        assert oona.flush(300)
        assert not list(tmp_path.glob("*/*.log"))
    assert steps_of(server) == list(range(50))
    assert list(tmp_path.iterdir()) == []


def test_directories_of_other_programs_are_left_alone(tmp_path, sender):
    """A directory does not belong to the spool only because it has a file named lock."""
    theirs = tmp_path / "theirs"
    (theirs / "more").mkdir(parents=True)
    for path in (theirs / "lock", theirs / "more" / "precious"):
        path.write_text("data")
    with Server() as server, client(server.url, tmp_path, sender) as oona:
        send(oona, range(3))
        assert oona.flush(300)
    assert steps_of(server) == [0, 1, 2]
    assert {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")} == {"theirs", "theirs/lock", "theirs/more", "theirs/more/precious"}


def test_a_directory_that_cannot_be_read_does_not_block_others(tmp_path):
    bad = tmp_path / "a-1" / "frames-00000001.log"
    bad.mkdir(parents=True)  # a directory cannot be read as a file, by any user
    (tmp_path / "a-1" / "lock").touch()
    url, _ = nowhere()
    with client(url, tmp_path, "thread", close_timeout=0.0) as oona:
        send(oona, range(3))
    assert oona.stats().frames.spooled == 3
    with Server() as server, client(server.url, tmp_path, "thread") as oona:
        until(lambda: oona.stats().recovered == 3)
    assert steps_of(server) == [0, 1, 2]
    assert bad.exists()


def test_a_damaged_file_is_kept_where_a_copy_has_no_room(tmp_path, monkeypatch):
    url, _ = nowhere()
    with client(url, tmp_path, "thread", close_timeout=0.0) as oona:
        send(oona, range(3))
    path, = tmp_path.glob("*/frames-*.log")
    content = b"X" + path.read_bytes()[1:]
    path.write_bytes(content)
    full = []

    def no_room(*_):
        full.append(True)
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(Path, "write_bytes", no_room)
    said = []
    home, = Home.adopt(tmp_path, set(), lambda *message: said.append(message))
    assert home.frames.read(1 << 20, 1) == ([], 0)
    aside, = tmp_path.glob("*/*.corrupt-0")
    assert aside.read_bytes() == content
    assert [kind for _, kind, _ in said] == ["spool-corrupt"]
    assert home.frames.empty


def test_damage_is_counted(tmp_path):
    url, _ = nowhere()
    with client(url, tmp_path, "thread", close_timeout=0.0) as oona:
        send(oona, range(3))
        oona.close()
        assert (oona.stats().frames.spooled, oona.stats().damaged) == (3, 0)
    path, = tmp_path.glob("*/frames-*.log")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with Server() as server, client(server.url, tmp_path, "thread") as oona:
        until(lambda: oona.stats().recovered == 2)
        until(lambda: oona.stats().damaged == 1)
        assert sorted(steps_of(server)) == [0, 2]


def test_what_ingest_does_not_want_of_an_earlier_client_is_counted(tmp_path, sender, caplog):
    url, _ = nowhere()
    with client(url, tmp_path, "thread", close_timeout=0.0) as oona:
        send(oona, range(5))
        assert event(oona, 1)
        oona.close()
    assert (oona.stats().frames.spooled, oona.stats().events.spooled) == (5, 1)

    def script(n, request):
        status, body, headers = refuses_step_3(n, request)
        return status, {**body, "aside": [{"frames": 1, "reason": "stale"}]} if status == 200 else body, headers

    with Server(script) as server, client(server.url, tmp_path, sender) as oona:
        until(lambda: oona.stats().recovered == 5)
        caplog.clear()
        stats = oona.close()
    assert sorted(steps_of(server)) == [0, 0, 1, 2, 4]
    requests = len([request for request in server.requests if not any(record["step"] == 3 for record in request.records)])
    assert (stats.recovered, stats.recovered_rejected, stats.recovered_dropped, stats.recovered_aside) == (5, 1, 0, requests)
    assert stats.frames.rejected == stats.frames.handed == stats.events.handed == 0
    assert [record.levelname for record in caplog.records] == ["WARNING"]


def test_order_is_kept_through_an_outage(tmp_path, sender):
    url, port = nowhere()
    oona = client(url, tmp_path, sender)
    send(oona, range(20))
    until(lambda: oona.stats().frames.spooled == 20)
    send(oona, range(20, 40))
    until(lambda: oona.stats().frames.spooled == 40)
    assert oona.stats().spool_bytes > 0
    with Server(port=port) as server:
        send(oona, range(40, 60))
        assert oona.flush(300)
        send(oona, range(60, 70))
        counts = oona.close().frames
    assert steps_of(server) == list(range(70))
    assert (counts.accepted, counts.spooled, counts.lost) == (70, 0, 0)
    assert list(tmp_path.iterdir()) == []


def event(to, n):
    return to.event("enc.0", n, State.DORMANT, State.GERMINATED)


def test_frames_that_fail_do_not_keep_events_from_the_spool(tmp_path, sender):
    url, _ = nowhere()
    with client(url, tmp_path, sender, close_timeout=0.1) as oona:
        send(oona, range(5))
        assert event(oona, 1)
        until(lambda: oona.stats().events.spooled == 1 and oona.stats().frames.spooled == 5)


def test_what_waits_behind_a_request_without_an_answer_goes_to_the_spool(tmp_path, sender):
    def script(n, request):
        return SILENT if request.path == "/v1/frames" else ok(n, request)

    with Server(script) as server, client(server.url, tmp_path, sender, close_timeout=0.1) as oona:
        send(oona, range(5))
        until(lambda: server.requests)
        assert event(oona, 1)
        until(lambda: oona.stats().events.spooled == 1)
        assert {request.path for request in server.requests} == {"/v1/frames"}


def test_what_comes_now_does_not_wait_for_what_an_earlier_client_has_left(tmp_path, monkeypatch):
    monkeypatch.setattr("oona_client.lane.MAX_FRAMES", 1)
    url, port = nowhere()
    with client(url, tmp_path, "thread", close_timeout=0.1) as oona:
        send(oona, range(20))
    gate = threading.Event()

    def script(n, request):
        assert gate.wait(300)
        return ok(n, request)

    with Server(script, port) as server, client(url, tmp_path, "thread", linger=0.0) as oona:
        until(lambda: server.requests)  # the first of the 20 requests
        send(oona, [100])
        assert event(oona, 1)
        until(lambda: all(lane.waiting == 1 for lane in oona._link._inner.own[:END]))  # the sender has taken them from the ring
        gate.set()
        until(lambda: oona.stats().recovered == 20)
    kinds = [record.get("step") if "metrics" in record else "event" for record in server.accepted]
    assert sorted(kinds[1:4], key=str) == [1, 100, "event"]


def test_the_next_client_sends_what_was_left(tmp_path, sender):
    url, port = nowhere()
    oona = client(url, tmp_path, sender)
    send(oona, range(30))
    oona.event("enc.0", 1, State.DORMANT, State.GERMINATED)
    until(lambda: (oona.stats().frames.spooled, oona.stats().events.spooled) == (30, 1))
    stats = oona.close(timeout=0.5)
    assert (stats.frames.spooled, stats.frames.lost, stats.events.spooled) == (30, 0, 1)
    with Server(port=port) as server, client(url, tmp_path, sender) as following:
        until(lambda: following.stats().recovered == 31)
        assert following.stats().frames.handed == 0
        assert sorted(steps_of(server)) == [0, *range(30)]
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[3])
import numpy as np
from oona_client import Client
oona = Client(sys.argv[1], "run", spool=sys.argv[2], linger=0.01, strict=True)
for step in range(40):
    oona.frame("enc.0", step, np.arange(10), 2, {"loss": np.zeros(10)})
while oona.stats().frames.spooled < 40:
    time.sleep(0.01)
print(oona.stats().sender_pid, flush=True)
time.sleep(600)
"""


def test_kill_9_of_the_training_and_of_the_sender(tmp_path):
    url, port = nowhere()
    with subprocess.Popen([sys.executable, "-c", KILLED, url, str(tmp_path), str(SOURCE)], stdout=subprocess.PIPE, text=True) as training:
        pid = int(training.stdout.readline())
        os.kill(pid, signal.SIGKILL)
        training.kill()
    with Server(port=port) as server, client(url, tmp_path) as oona:
        until(lambda: oona.stats().recovered == 40)
        assert steps_of(server) == list(range(40))


def test_a_sender_that_is_killed_is_replaced(tmp_path, caplog):
    url, port = nowhere()
    oona = client(url, tmp_path)
    send(oona, range(20))
    until(lambda: oona.stats().frames.spooled == 20)
    os.kill(oona.stats().sender_pid, signal.SIGKILL)
    send(oona, range(20, 40))
    with Server(port=port) as server:
        until(lambda: len(server.accepted) >= 40)
        counts = oona.close().frames
    assert steps_of(server) == list(range(40))
    assert (counts.accepted, counts.lost) == (40, 0)
    assert any("died" in r.message for r in caplog.records)


def test_spool_bytes_is_a_limit_for_each_client_not_for_the_directory(tmp_path):
    url, _ = nowhere()
    limit = 256 << 10
    clients = [client(url, tmp_path, "thread", producer=f"rank{rank}", spool_bytes=limit, close_timeout=0.1) for rank in range(2)]
    rng = np.random.default_rng(1)
    for oona in clients:
        for step in range(80):  # more frames than a request has
            oona.frame("enc.0", step, np.arange(10_000), State.TRAINING, {"loss": rng.random(10_000, np.float32)})
    until(lambda: all(oona.stats().frames.dropped for oona in clients))
    used = [oona.stats().spool_bytes for oona in clients]
    for oona in clients:
        oona.close()
    assert max(used) <= limit < sum(used)


def test_a_directory_in_use_is_left_alone(tmp_path):
    url, port = nowhere()
    first = client(url, tmp_path, producer="first")
    send(first, range(10))
    until(lambda: first.stats().frames.spooled == 10)
    second = client(url, tmp_path, producer="second")
    send(second, range(10, 20))
    until(lambda: second.stats().frames.spooled == 10)
    with Server(port=port) as server:
        assert first.flush(300) and second.flush(300)
        assert sorted(steps_of(server)) == list(range(20))
        assert second.close().recovered == first.close().recovered == 0


def test_an_answer_that_comes_after_the_spill_counts_once(tmp_path, sender, monkeypatch):
    go = threading.Event()

    def script(n, request):
        go.wait(300)
        return ok(n, request)

    with Server(script) as server:
        oona = client(server.url, tmp_path, sender, timeout=600.0)
        send(oona, range(5))
        until(lambda: oona.stats().frames.spooled == 5)  # the sender has waited for a second
        go.set()
        send(oona, range(5, 10))
        counts = oona.close().frames
    assert steps_of(server) == list(range(10))
    assert (counts.handed, counts.accepted, counts.spooled, counts.lost) == (10, 10, 0, 0)


def test_a_full_spool_drops_the_oldest_frames_and_counts_them(tmp_path, sender):
    url, port = nowhere()
    oona = client(url, tmp_path, sender, spool_bytes=1 << 20)
    ids, values = np.arange(10_000), np.random.default_rng(1).random(10_000, np.float32)
    for step in range(100):  # 6 MB
        oona.frame("enc.0", step, ids, State.TRAINING, {"loss": values})
        until(lambda: (c := oona.stats().frames).waiting == 0 or c.dropped > 0)
    until(lambda: oona.stats().frames.dropped > 50)
    assert oona.stats().spool_bytes <= 1 << 20
    with Server(port=port) as server:
        counts = oona.close().frames
    assert (counts.handed, counts.accepted, counts.lost) == (100, 100 - counts.dropped, 0)
    assert steps_of(server)[-1] == 99
    assert sorted(set(steps_of(server))) == steps_of(server)


@pytest.mark.parametrize(("module", "call"), [(segment, "write_at"), (segment, "sync"), (spool, "sync_directory")])
def test_a_disk_that_fails_does_not_keep_frames_from_an_ingest_that_answers(tmp_path, monkeypatch, module, call):
    failed = threading.Event()

    def fail(*arguments):
        if call == "write_at" and arguments[1].startswith(segment.MAGIC):
            return intact(*arguments)
        failed.set()
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    url, port = nowhere()
    intact = getattr(module, call)
    oona = client(url, tmp_path, "thread")
    monkeypatch.setattr(module, call, fail)
    send(oona, range(5))
    assert failed.wait(300)
    with Server(port=port) as server:
        send(oona, range(5, 10))
        until(lambda: oona.stats().frames.accepted == 10)
        send(oona, range(10, 15))
        files = list(tmp_path.glob("*/*.log"))
        counts = oona.close().frames
    assert files == []
    assert steps_of(server) == list(range(15))
    assert (counts.accepted, counts.lost, counts.spooled) == (15, 0, 0)
