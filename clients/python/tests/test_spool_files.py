"""Tests of the files of a spool."""

import errno
import os
import shutil

import numpy as np
import pytest

import oona_client.home as home_module
from oona_client import segment
from oona_client.frames import encode_frame
from oona_client.home import Home

IDS = np.arange(10)


class Said(list):
    def __call__(self, level, kind, message):
        self.append(kind)


def record(step):
    return encode_frame(run_id="r", layer_id="l", producer_id="p", producer_epoch=1, sequence=step, observed_at=1_790_000_000_000_000, step=step,
                        seed_ids=IDS, states=bytes(10), metrics={"loss": np.full(10, step, np.float32)})


RECORDS = [record(step) for step in range(6)]


def home(root, name="me", **more):
    said = Said()
    return Home.own(root, name, said, **{"limit": 1 << 20, "oldest": True, **more}), said


def filled(root, records=RECORDS):
    h, _ = home(root)
    assert len(h.frames.append(records)) == len(records)
    h.leave()
    [path] = root.glob("me/frames-*.log")
    return path


def contents(root):
    h, _ = home(root)
    records = []
    while not h.frames.empty:
        some, end = h.frames.read(1 << 20, 100)
        records += some
        h.frames.commit(end)
    corrupt = h.corrupt.count
    h.leave()
    return records, corrupt


def test_it_can_be_cut_at_every_byte(tmp_path):
    path = filled(tmp_path, RECORDS[:3])
    data = path.read_bytes()
    size = (len(data) - 16) // 3
    for cut in range(len(data)):
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        path.write_bytes(data[:cut])
        records, _ = contents(tmp_path)
        assert records == RECORDS[:max(0, cut - 16) // size]


def test_every_byte_can_be_wrong(tmp_path):
    path = filled(tmp_path)
    data = path.read_bytes()
    size = (len(data) - 16) // len(RECORDS)
    for at in range(16, len(data)):
        shutil.rmtree(path.parent, ignore_errors=True)
        path.parent.mkdir()
        path.write_bytes(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:])
        records, corrupt = contents(tmp_path)
        broken = (at - 16) // size
        assert records == RECORDS[:broken] + RECORDS[broken + 1:]
        assert corrupt == 1
        assert len(list(path.parent.glob("*.corrupt-*"))) == 1


def test_a_tail_of_zeros_is_cut(tmp_path):
    path = filled(tmp_path)
    path.write_bytes(path.read_bytes() + bytes(5000))
    assert contents(tmp_path) == (RECORDS, 0)


def test_what_is_committed_is_not_read_again(tmp_path):
    h, _ = home(tmp_path)
    h.frames.append(RECORDS)
    records, end = h.frames.read(1 << 20, 4)
    h.frames.commit(end)
    h.leave()
    assert (records, contents(tmp_path)[0]) == (RECORDS[:4], RECORDS[4:])


@pytest.mark.parametrize("call", ["pwrite", "fdatasync", "fsync", "open"])
@pytest.mark.parametrize("at", range(4))
def test_every_call_may_fail(tmp_path, monkeypatch, call, at):
    """Records that append has confirmed are read, whatever fails. Others can be appended again."""
    h, said = home(tmp_path)
    calls, real = [], getattr(os, call)

    def fails(*args, **more):
        calls.append(1)
        if len(calls) == at + 1:
            raise OSError(errno.EIO, "I/O error")
        return real(*args, **more)

    monkeypatch.setattr(os, call, fails)
    confirmed = []
    for one in RECORDS:
        if h.frames.append([one]):
            confirmed.append(one)
    monkeypatch.setattr(os, call, real)
    assert len(confirmed) >= len(RECORDS) - 1
    if len(confirmed) < len(RECORDS):
        assert said == ["spool-failed"]
    h.frames.close()
    os.close(h._lock)
    read, _ = contents(tmp_path)
    assert [r for r in read if r in confirmed] == confirmed


def test_a_full_spool_drops_the_oldest_or_takes_no_more(tmp_path, monkeypatch):
    monkeypatch.setattr(home_module, "SMALLEST_SEGMENT", 3 * len(RECORDS[0]))
    h, _ = home(tmp_path, "oldest", limit=10 * len(RECORDS[0]))
    many = [record(step) for step in range(100)]
    assert len(h.frames.append(many)) == 100
    kept, _ = h.frames.read(1 << 20, 1000)
    assert kept == many[-len(kept):] and 4 < len(kept) < 10
    assert h.frames.lost() == 100 - len(kept) and h.used <= h.limit
    h, said = home(tmp_path, "newest", limit=10 * len(RECORDS[0]), oldest=False)
    written = len(h.frames.append(many))
    assert h.frames.read(1 << 20, 1000)[0] == many[:written] and 4 < written < 10
    assert said == ["spool-full"]


def test_a_segment_whose_sync_failed_is_not_appended_to(tmp_path, monkeypatch):
    h, _ = home(tmp_path)
    h.frames.append(RECORDS[:1])
    monkeypatch.setattr(segment, "sync", lambda fd: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
    assert h.frames.append(RECORDS[1:2]) == []
    monkeypatch.undo()
    assert len(h.frames.append(RECORDS[1:3])) == 2
    assert len(list(tmp_path.glob("me/*.log"))) == 2
    assert h.frames.read(1 << 20, 10)[0] == RECORDS[:3]


def test_a_small_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(home_module, "HEADROOM", 1 << 60)
    h, said = home(tmp_path)
    assert h.frames.append(RECORDS) == [] and said == ["spool-full"]


def test_append_returns_once_the_disk_has_the_records(tmp_path, monkeypatch):
    h, _ = home(tmp_path)
    calls = []
    for name in ("pwrite", "fdatasync", "fsync"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, name=name, real=real: calls.append(name) or real(*args))
    h.frames.append(RECORDS[:2])
    assert calls == ["pwrite", "fsync", "pwrite", "fdatasync"]  # of the header, the directory, and the records
    calls.clear()
    h.frames.append(RECORDS[2:])
    assert calls == ["pwrite", "fdatasync"]  # one of each for all records


def test_records_that_are_being_sent_are_not_dropped(tmp_path, monkeypatch):
    monkeypatch.setattr(home_module, "SMALLEST_SEGMENT", 3 * len(RECORDS[0]))
    h, _ = home(tmp_path, limit=24 * len(RECORDS[0]))
    ends = h.frames.append([record(step) for step in range(12)])
    h.frames.skip(ends[0])
    assert h.frames.give_up()
    kept, _ = h.frames.read(1 << 20, 100)
    assert [RECORDS[1]] == kept[:1] and RECORDS[0] not in kept and h.frames.lost() == 12 - 1 - len(kept)


def test_a_spool_of_32_kib_drops_the_oldest(tmp_path):
    h, said = home(tmp_path, limit=32 << 10)
    many = [record(step) for step in range(1000)]
    assert len(h.frames.append(many)) == 1000
    kept, _ = h.frames.read(1 << 20, 1000)
    assert said == [] and kept == many[-len(kept):]
    assert h.frames.lost() == 1000 - len(kept) and 20 << 10 < h.used <= h.limit


def test_frames_are_dropped_before_events(tmp_path):
    h, _ = home(tmp_path, limit=32 << 10)
    events = [record(step) for step in range(1000)]  # the spool does not examine the content of records
    while len(h.events._segments) < 3:
        h.events.append([events[0]])
    h.frames.append(events)
    lost = h.frames.lost()
    for _ in range(8192 // len(events[0])):
        assert h.events.append([events[0]])
    assert lost > 0 and h.frames.lost() > 0 and h.events.lost() == 0
