"""Tensors on a device. The tests use a fake of torch that records which threads wait, and torch on the CPU if it is installed."""

import dataclasses
import importlib.util
import sys
import threading
import types

import numpy as np
import pytest
from server import Server, until

from oona_client import Client, InvalidFrame, State
from oona_client.device import Pool


class Fake(types.ModuleType):
    """The part of torch that the client uses. Copies are done when run() is called."""

    float32, bfloat16 = "float32", "bfloat16"

    def __init__(self):
        super().__init__("torch")
        self.synchronised_by = []  # threads that waited for the device
        self.work = []  # what is on the stream and not done yet
        self.pinned = 0
        self.cuda = types.SimpleNamespace(Event=self.event, current_stream=lambda device: "stream")

    def event(self, blocking=False):
        assert blocking  # a thread that waits for it must not spin
        return FakeEvent(self)

    def empty(self, shape, dtype, pin_memory):
        assert pin_memory
        self.pinned += 1
        return FakeTensor(self, np.zeros(shape, np.float32), "cpu")

    def stack(self, tensors):
        assert all(t.device.type == "cuda" for t in tensors)
        return FakeTensor(self, np.stack([t.a for t in tensors]), "cuda")

    def run(self):
        """Let the stream do its work."""
        work, self.work = self.work, []
        for task in work:
            task()


class FakeEvent:
    def __init__(self, torch):
        self.torch = torch
        self.happened = threading.Event()

    def record(self, stream):
        assert stream == "stream"
        self.torch.work.append(self.happened.set)

    def synchronize(self):
        self.torch.synchronised_by.append(threading.current_thread())
        assert self.happened.wait(300)


@dataclasses.dataclass(frozen=True)
class Device:
    type: str


class FakeTensor:
    def __init__(self, torch, a, device):
        self.torch, self.a = torch, a
        self.device = Device(device)
        self.dtype, self.shape = "float32", a.shape

    def detach(self):
        return self

    def dim(self):
        return self.a.ndim

    def numel(self):
        return self.a.size

    def element_size(self):
        return 4

    def to(self, what):
        assert what == "float32"
        return self

    def copy_(self, source, non_blocking):
        assert non_blocking and self.device.type == "cpu" and source.device.type == "cuda"
        values = source.a.copy()
        self.torch.work.append(lambda: self.a.__setitem__(..., values))

    def numpy(self):
        assert self.device.type == "cpu"
        return self.a

    def _waits(self, *_):
        raise AssertionError("this synchronises the stream")

    cpu = item = tolist = __array__ = __float__ = __index__ = __len__ = __bool__ = __repr__ = _waits


@pytest.fixture
def torch(monkeypatch):
    fake = Fake()
    monkeypatch.setitem(sys.modules, "torch", fake)
    fake.on_device = lambda a: FakeTensor(fake, np.asarray(a, np.float32), "cuda")
    return fake


def test_the_training_loop_never_waits_for_the_device(torch):
    with Server() as server, Client(server.url, "run", strict=True, linger=0.01) as oona:
        ids = np.arange(4)
        for step in range(3):
            values = torch.on_device([step, 1, 2, 3])
            assert oona.frame("enc.0", step, ids, State.TRAINING, {"loss": values, "norm": values, "host": np.ones(4)},
                              {("w", 2): torch.on_device(np.eye(2))})
        assert oona.frame("enc.0", 3, ids, State.TRAINING, {"loss": np.full(4, 3.0)})  # it waits for the ones before it
        ids[:] = 9
        assert not oona.flush(0.3)
        assert oona.stats().frames.handed == 4 and not server.accepted
        torch.run()
        assert oona.flush(300)
        assert [r["step"] for r in server.accepted] == [0, 1, 2, 3]
        first = server.accepted[0]
        assert {m["name"]: m["values"] for m in first["metrics"]} == {"loss": [0, 1, 2, 3], "norm": [0, 1, 2, 3], "host": [1, 1, 1, 1]}
        assert first["seed_ids"] == [0, 1, 2, 3]
        assert first["tensors"][0]["data"] == np.eye(2, dtype=np.float32).tobytes()
        assert {t.name for t in torch.synchronised_by} == {"oona-copies"}


def test_pinned_memory_is_used_again(torch):
    with Server() as server, Client(server.url, "run", strict=True, linger=0.01) as oona:
        for step in range(20):
            oona.frame("enc.0", step, np.arange(4), State.TRAINING, {"loss": torch.on_device([step] * 4)})
            torch.run()
            assert oona.flush(300)
        assert torch.pinned < 20
        assert [r["metrics"][0]["values"] for r in server.accepted] == [[step] * 4 for step in range(20)]


def test_pinned_memory_of_many_shapes_is_bounded(torch, monkeypatch):
    monkeypatch.setattr("oona_client.device.PINNED_BYTES", 100)
    pool = Pool()
    for length in [4, 5, 4, 6, 4, 7]:
        pool.give([pool.take(torch, (length,), np.float32)])
    assert pool.bytes <= 100 and torch.pinned == 4  # the one of length 4 was kept, because it was used last
    pool.give([pool.take(torch, (20,), np.float32)])
    assert 0 < pool.bytes <= 100
    pool.give([pool.take(torch, (30,), np.float32)])
    assert pool.bytes == 0


def test_too_much_under_way_is_dropped_and_counted(torch, monkeypatch):
    monkeypatch.setattr("oona_client.device.PINNED_BYTES", 100)
    with Server() as server, Client(server.url, "run", strict=True, linger=0.01) as oona:
        taken = [oona.frame("enc.0", step, np.arange(4), State.TRAINING, {"loss": torch.on_device([step] * 4)}) for step in range(10)]
        assert taken == [True] * 6 + [False] * 4
        torch.run()
        assert oona.flush(300)
        counts = oona.stats().frames
    assert (counts.handed, counts.accepted, counts.dropped) == (10, 6, 4)
    assert len(server.accepted) == 6


def test_a_failing_device_loses_the_frame_and_counts_it(torch, monkeypatch, caplog):
    monkeypatch.setattr(FakeEvent, "synchronize", lambda self: (_ for _ in ()).throw(RuntimeError("CUDA error")))
    with Server() as server, Client(server.url, "run", strict=True, linger=0.01) as oona:
        oona.frame("enc.0", 0, np.arange(4), State.TRAINING, {"loss": torch.on_device([1] * 4)})
        until(lambda: oona.stats().frames.lost == 1)
        assert oona.flush(300)
    assert any("CUDA error" in r.message for r in caplog.records)


def test_what_is_wrong_with_a_device_frame_is_counted(torch):
    with Server() as server, Client(server.url, "run", linger=0.01) as oona:
        assert oona.frame("enc.0", 0, np.arange(4), State.TRAINING, {"loss": torch.on_device([1] * 5)})
        assert not oona.frame("enc.0", 0, torch.on_device([1]), State.TRAINING, {"loss": torch.on_device([1])})
        torch.run()
        assert oona.flush(300)
        counts = oona.stats().frames
    assert (counts.handed, counts.invalid) == (0, 2)


@pytest.mark.parametrize("field", ["layer", "seed_id", "from_state", "to_state", "step", "at", "sequence", "reason", "evidence", "evidence.loss", "actor", "blueprint_id", "mark"])
def test_an_event_does_not_wait_for_a_tensor_of_a_device(torch, field):
    with Server() as server, Client(server.url, "run", strict=True, linger=0.01) as oona:
        arguments = {"layer": "enc.0", "seed_id": 1, "from_state": 2, "to_state": 3, "evidence": {"gain": 1.0}}
        value = torch.on_device(1)  # its methods that wait for the device raise
        wrong = {"evidence": {"gain": 1.0, "loss": value}} if field == "evidence.loss" else {field: value}
        with pytest.raises(InvalidFrame) as raised:
            oona.event(**{**arguments, **wrong})
        assert raised.value.field == field
        assert oona.event(**arguments)
        assert oona.flush()
        assert [event["sequence"] for event in server.accepted] == [0]
        assert oona.stats().events.invalid == 1


@pytest.mark.parametrize("again", [False, True], ids=["first", "again"])
@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize("field", ["layer", "step", "seed_ids", "observed_at", "tensors.seed_id"])
def test_a_frame_does_not_wait_for_a_tensor_that_is_not_copied(torch, field, where, again):
    with Server() as server, Client(server.url, "run", linger=0.01) as oona:
        values = np.ones(4, np.float32)
        arguments = {"layer": "enc.0", "step": 1, "seed_ids": np.arange(4), "states": np.full(4, 2, np.uint8), "metrics": {"loss": values}}
        if again:
            assert oona.frame(**arguments)  # the next one is like it
        value = torch.on_device(np.arange(4) if field == "seed_ids" else 1)  # its methods that wait for the device raise
        if where == "device":
            arguments["metrics"] = {"loss": torch.on_device(values)}
        wrong = {"tensors": {("w", value): values}} if field == "tensors.seed_id" else {field: value}
        taken = oona.frame(**{**arguments, **wrong})
        torch.run()
        assert oona.flush(300)
        assert (oona.stats().frames.handed, oona.stats().frames.invalid) == (again, 1)
        assert taken == (where == "device" and field == "tensors.seed_id")  # the seeds are compared when the copy is done
        oona.strict = True
        if not taken:
            with pytest.raises(InvalidFrame) as raised:
                oona.frame(**{**arguments, **wrong})
            assert raised.value.field == field


def test_what_the_caller_changes_after_the_call_is_copied(torch):
    with Server() as server, Client(server.url, "run", strict=True, linger=0.01) as oona:
        step, ids, states, host = np.array(3), np.arange(4), np.full(4, 2, np.uint8), np.ones(4, np.float32)
        assert oona.frame("enc.0", step, ids, states, {"loss": torch.on_device([1] * 4), "host": host})
        for array in (step, ids, states, host):
            array += 5
        torch.run()
        assert oona.flush(300)
        [frame] = server.accepted
    assert (frame["step"], frame["seed_ids"], frame["states"]) == (3, [0, 1, 2, 3], bytes([2] * 4))
    assert {m["name"]: m["values"] for m in frame["metrics"]} == {"loss": [1] * 4, "host": [1] * 4}


def test_a_copy_that_ends_after_close_is_counted_once(torch):
    with Server() as server:
        oona = Client(server.url, "run", linger=0.01)
        assert oona.frame("enc.0", 0, np.arange(4), State.TRAINING, {"loss": torch.on_device([1] * 4)})
        assert oona.frame("enc.0", 1, np.arange(4), State.TRAINING, {"loss": torch.on_device([1] * 5)})  # its length is wrong
        counts = oona.close(timeout=0.1).frames
        assert (counts.handed, counts.lost, counts.invalid) == (2, 2, 0)
        torch.run()
        until(lambda: not oona._handover.copier.busy)
        assert oona.stats().frames == counts


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_tensors_on_the_cpu():
    import torch

    with Server() as server, Client(server.url, "run", strict=True) as oona:
        loss = torch.arange(4, dtype=torch.bfloat16, requires_grad=True)
        oona.frame("enc.0", 0, torch.arange(4), torch.full((4,), 2), {"loss": loss, "norm": torch.ones(4, dtype=torch.float64)},
                   {("w", 1): torch.ones(2, 2)[:, 0]})
        assert oona.flush(300)
        [frame] = server.accepted
    assert [m["values"] for m in frame["metrics"]] == [[0, 1, 2, 3], [1] * 4]
    assert frame["seed_ids"] == [0, 1, 2, 3] and frame["states"] == bytes([2] * 4)
