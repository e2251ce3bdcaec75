"""Tests of the spool: many files, faults of the disk, and whether the counters add up nevertheless."""

import errno
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from server import Server, ok, problem, until
from test_spool import client, nowhere, send, steps_of
from test_spool_files import RECORDS, home, record

import oona_client.home as home_module
import oona_client.sender as sender_module
from oona_client import State
from oona_client.counts import read
from oona_client.home import Home
from oona_client.ring import Ring
from oona_client.sender import Config, Sender
from oona_client.spool import Spool


def silent(*_):
    pass


def left(root, count):
    """Write the directories of count senders that have ended, with a record in each."""
    for n in range(count):
        h = Home.own(root, f"gone-{n}", silent, limit=1 << 20, oldest=True)
        assert h.frames.append([record(n)])
        h.leave()


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0


def of_disk(number=errno.EIO):
    return OSError(number, os.strerror(number))


def add_up(counts):
    return counts.handed == counts.waiting + counts.spooled + counts.accepted + counts.rejected + counts.dropped + counts.lost


def test_an_answer_after_close_is_written_to_no_other_file(tmp_path):
    """After a file is closed, its descriptor may belong to another file, such as a checkpoint."""
    h, _ = home(tmp_path)
    h.frames.append(RECORDS)
    _, end = h.frames.read(1 << 20, 2)
    h.leave()
    files = [(tmp_path / str(n)).open("wb+", buffering=0) for n in range(32)]
    for file in files:
        file.write(b"precious data of the user")
    h.frames.commit(end)
    for file in files:
        file.seek(0)
        assert file.read() == b"precious data of the user"
        file.close()


def test_a_spool_of_many_files_has_few_of_them_open(tmp_path, monkeypatch):
    monkeypatch.setattr(home_module, "SMALLEST_SEGMENT", 1)
    monkeypatch.setattr(home_module, "LARGEST_SEGMENT", 1)
    before = descriptors()
    h, _ = home(tmp_path)
    many = [record(step) for step in range(100)]
    assert len(h.frames.append(many)) == 100
    assert len(list(tmp_path.glob("me/*.log"))) == 100
    assert descriptors() < before + 10
    assert h.frames.read(1 << 20, 1000)[0] == many
    assert descriptors() < before + 10
    h.leave()
    assert descriptors() == before
    [again] = Home.adopt(tmp_path, set(), silent)
    assert again.frames.read(1 << 20, 1000)[0] == many[:1]  # a file at a time
    assert descriptors() < before + 10
    again.leave()


def test_many_directories_are_adopted_some_at_a_time(tmp_path):
    left(tmp_path, 100)
    before = descriptors()
    homes = Home.adopt(tmp_path, set(), silent)
    assert 0 < len(homes) < 100 and descriptors() < before + 100
    for h in homes:
        h.leave()
    with Server() as server, client(server.url, tmp_path, "thread") as oona:
        assert oona.close().recovered == 100  # close() waits for all of them
    assert sorted(steps_of(server)) == list(range(100))
    assert list(tmp_path.iterdir()) == []


def test_a_spool_is_not_read_before_it_is_sent(tmp_path, monkeypatch):
    """Reading takes a while, and the ring would not be emptied in that time."""
    monkeypatch.setattr(home_module, "SMALLEST_SEGMENT", 1)
    monkeypatch.setattr(home_module, "LARGEST_SEGMENT", 1)
    h, _ = home(tmp_path)
    h.frames.append(RECORDS)
    h.leave()
    read, real = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path.name), real(path))[1])
    [h] = Home.adopt(tmp_path, set(), silent)
    assert not [name for name in read if name.endswith(".log")]
    for n, one in enumerate(RECORDS, 1):
        records, end = h.frames.read(1 << 20, 100)
        assert records == [one] and len([name for name in read if name.endswith(".log")]) == n
        h.frames.commit(end)
    assert h.frames.empty
    h.leave()


def test_a_file_that_cannot_be_read_does_not_block_the_files_after_it(tmp_path, monkeypatch):
    url, port = nowhere()
    oona = client(url, tmp_path, "thread")
    send(oona, range(5))
    until(lambda: oona.stats().frames.spooled == 5)
    oona._link._inner._home.frames._broken = True  # the next frames go into another file
    send(oona, range(5, 10))
    until(lambda: oona.stats().frames.spooled == 10)
    pread, failed = os.pread, []
    broken = os.stat(next(iter(sorted(tmp_path.glob("*/frames-*.log"))))).st_ino

    def fail(fd, *rest):
        if os.fstat(fd).st_ino == broken:
            failed.append(1)
            raise of_disk()
        return pread(fd, *rest)

    monkeypatch.setattr(os, "pread", fail)
    with oona._link._inner._changed:
        flight = oona._link._inner.own[0].flight  # these frames are also in memory
    in_memory = len(flight.records) if flight is not None else 0
    with Server(port=port) as server:
        until(lambda: oona.stats().frames.accepted == 5 + in_memory)
        send(oona, range(10, 15))
        assert oona.flush(300)
        counts = oona.close().frames
    assert add_up(counts)
    assert (counts.accepted, counts.dropped, counts.lost) == (10 + in_memory, 5 - in_memory, 0)
    assert bool(failed) == (in_memory < 5)


def test_records_of_an_earlier_client_that_cannot_be_read_are_counted(tmp_path, monkeypatch):
    url, _ = nowhere()
    with client(url, tmp_path, "thread", close_timeout=0.0) as oona:
        send(oona, range(3))
    assert oona.stats().frames.spooled == 3

    def fail(*_):
        raise of_disk()  # at this time, the number of records is known

    monkeypatch.setattr(os, "pread", fail)
    with Server() as server, client(server.url, tmp_path, "thread") as oona:
        until(lambda: oona.stats().recovered_dropped == 3)
        until(lambda: oona.stats().damaged == 1)
        stats = oona.close()
    assert (stats.recovered, stats.frames.handed, stats.frames.dropped) == (0, 0, 0)
    assert list(tmp_path.glob("*/frames-*.log"))


def test_a_spool_that_cannot_be_opened_is_opened_later(tmp_path, monkeypatch, caplog):
    """Until the spool is open, records wait in memory. Then they go to the spool, before newer ones."""
    monkeypatch.setattr(sender_module, "OPEN_EVERY", 0.01)
    real, failed, mended = Home.own, [], threading.Event()

    def fail(*args, **more):
        if not mended.is_set():
            failed.append(True)
            raise of_disk(errno.EROFS)
        return real(*args, **more)

    monkeypatch.setattr(Home, "own", fail)
    url, _ = nowhere()
    with caplog.at_level("INFO", "oona_client"), client(url, tmp_path, "thread", close_timeout=0.0) as oona:
        send(oona, range(3))
        until(lambda: oona.stats().frames.waiting == 3 and len(failed) > 3)
        assert oona.stats().frames.spooled == 0
        mended.set()
        until(lambda: oona.stats().frames.spooled == 3)
        send(oona, range(3, 6))
        until(lambda: oona.stats().frames.spooled == 6)
        until(lambda: any(str(tmp_path) in record.message and record.levelname == "INFO" for record in caplog.records))
    counts = oona.stats().frames
    assert (counts.spooled, counts.dropped, counts.lost) == (6, 0, 0) and add_up(counts)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 1, "each attempt is logged"
    with Server() as server, client(server.url, tmp_path, "thread") as oona:
        until(lambda: oona.stats().recovered == 6)
    assert steps_of(server) == list(range(6))


def test_a_directory_that_could_not_be_read_can_be_opened_again(tmp_path, monkeypatch):
    """A failed attempt does not keep the lock. Otherwise the next attempt would wait for it."""
    left(tmp_path, 1)
    real, failed = Spool.load, []

    def fail(spool):
        if not failed:
            failed.append(True)
            raise of_disk()
        return real(spool)

    monkeypatch.setattr(Spool, "load", fail)
    with pytest.raises(OSError):
        home(tmp_path, "gone-0")
    assert failed
    h, _ = home(tmp_path, "gone-0")
    assert h.frames.read(1 << 20, 2)[0] == [record(0)]
    h.leave()


def test_what_cannot_be_read_for_now_is_read_later(tmp_path, monkeypatch):
    left(tmp_path, 1)
    real, failed = Path.read_bytes, threading.Event()

    def fail(path):
        if path.suffix == ".log" and not failed.is_set():
            failed.set()
            raise of_disk(errno.EMFILE)
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    with Server() as server, client(server.url, tmp_path, "thread") as oona:
        until(lambda: oona.stats().recovered == 1)
    assert failed.is_set()


def test_a_file_that_cannot_be_deleted_does_not_end_the_sending(tmp_path, monkeypatch):
    url, port = nowhere()
    oona = client(url, tmp_path, "thread")
    send(oona, range(5))
    until(lambda: oona.stats().frames.spooled == 5)
    unlink, failed = Path.unlink, []

    def fail(path, **more):
        if path.suffix == ".log":
            failed.append(path)
            raise of_disk(errno.EROFS)
        unlink(path, **more)

    monkeypatch.setattr(Path, "unlink", fail)
    with Server(port=port) as server:
        send(oona, range(5, 10))
        assert oona.flush(300)
        counts = oona.close().frames
    assert failed and steps_of(server) == list(range(10))
    assert (counts.accepted, counts.lost, counts.spooled) == (10, 0, 0)


@pytest.mark.parametrize("sender", ["process", "thread"])
def test_a_spool_that_somebody_deletes_does_not_end_the_sending(tmp_path, sender):
    url, port = nowhere()
    oona = client(url, tmp_path, sender)
    send(oona, range(5))
    until(lambda: oona.stats().frames.spooled == 5)
    shutil.rmtree(tmp_path)
    send(oona, range(5, 10))
    with Server(port=port) as server:
        assert oona.flush(300)
        counts = oona.close().frames
        assert oona.stats().requests > 0
    assert add_up(counts) and counts.accepted + counts.dropped == 10 and counts.accepted >= 5
    assert set(range(5, 10)) <= set(steps_of(server))


@pytest.mark.parametrize("sender", ["process", "thread"])
def test_counters_add_up_while_a_part_of_the_spooled_frames_is_answered(tmp_path, sender):
    """One frame is refused, the frames before it are accepted, and then ingest is unavailable again."""
    url, port = nowhere()
    oona = client(url, tmp_path, sender, close_timeout=0.1)
    send(oona, range(20))
    until(lambda: oona.stats().frames.spooled == 20)
    rest = []

    def script(n, request):
        steps = [r["step"] for r in request.records]
        if 10 in steps:
            return problem(400, "invalid", frame=steps.index(10), field="step")
        if not rest:
            rest.append(True)
            return ok(n, request)
        return problem(503, "publish", retry=100)

    with Server(script, port) as server:
        until(lambda: len(server.requests) >= 3)
        until(lambda: oona.stats().frames.accepted > 0)
        until(lambda: add_up(oona.stats().frames))
        counts = oona.stats().frames
        assert (counts.handed, counts.rejected) == (20, 1)
        last = oona.close().frames
    assert add_up(last)
    assert (last.accepted, last.spooled, last.lost) == (counts.accepted, 19 - counts.accepted, 0)


def test_a_record_that_is_larger_than_the_spool_drops_nothing(tmp_path):
    h, said = home(tmp_path, limit=32 << 10)
    many = [record(step) for step in range(100)]
    assert len(h.frames.append(many)) == 100
    assert h.frames.append([bytes(64 << 10)]) == []
    assert (h.frames.pending, h.frames.lost(), said) == (100, 0, ["spool-full"])


def test_a_record_that_is_larger_than_the_queue_drops_only_itself():
    with Server(lambda *_: problem(503, "publish", retry=1000)) as server, client(server.url, "", "thread", queue_bytes=100_000, close_timeout=0.1) as oona:
        send(oona, range(5))
        oona.frame("enc.0", 5, np.arange(50_000), State.TRAINING, {"loss": np.zeros(50_000)})
        until(lambda: oona.stats().frames.dropped == 1)
        send(oona, range(6, 9))
        until(lambda: oona._ring.used == 0)
        assert oona.stats().frames.dropped == 1


def test_a_spool_that_is_smaller_than_a_request_counts_each_frame_once(tmp_path):
    url, port = nowhere()
    oona = client(url, tmp_path, "thread", spool_bytes=256 << 10)
    values = np.random.default_rng(1).random(10_000, np.float32)
    for step in range(60):
        oona.frame("enc.0", step, np.arange(10_000), State.TRAINING, {"loss": values})
    until(lambda: oona.stats().frames.dropped > 0)
    with Server(port=port) as server:
        assert oona.flush(300)
        counts = oona.close().frames
    assert add_up(counts) and counts.accepted == 60 - counts.dropped == len(set(steps_of(server)))


def test_damage_is_counted_after_its_directory_is_gone(tmp_path):
    left(tmp_path, 1)
    path, = tmp_path.glob("*/frames-*.log")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with Server() as server, client(server.url, tmp_path, "thread") as oona:
        assert oona.close().damaged == 1


def test_records_that_a_killed_sender_has_written_are_not_lost(tmp_path):
    """The sender was killed after the records were on the disk, and before it counted them as spooled."""
    h, _ = home(tmp_path)
    h.frames.append(RECORDS)
    h.leave()
    ring = Ring.create(1 << 16)
    ring.set("handed0", len(RECORDS) + 2)
    ring.add("lost0", len(RECORDS) + 2)  # the client has counted all records of the killed sender as lost
    for _ in range(2):  # the next sender is killed, too
        following = Sender(ring, Config(["http://127.0.0.1:1"], spool=str(tmp_path), name="me"), silent, -1, lambda: False)
        counts = read(ring, [0, 0], 0).frames
        assert (counts.lost, counts.spooled, counts.waiting) == (2, len(RECORDS), 0)
        following._home.leave()
    ring.close()
