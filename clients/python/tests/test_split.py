"""Frames that are too large."""

import numpy as np
import pytest
from server import Server, decode, ok, problem

from oona_client import Client, State
from oona_client.split import STRIDE, halves
from oona_client.frames import encode_frame


def frame(n=10, **more):
    return encode_frame(**{
        "run_id": "r", "layer_id": "l", "producer_id": "p", "producer_epoch": 1, "sequence": 5 * STRIDE, "observed_at": 1_790_000_000_000_007, "step": 3,
        "seed_ids": np.arange(n) * 1000, "states": bytes([2] * n),
        "metrics": {"loss": np.arange(n, dtype=np.float32), "norm": np.ones(n)},
        "tensors": [
            {"name": "w", "seed_id": 0, "dtype": "float32", "shape": [1], "data": b"1234"},
            {"name": "c", "seed_id": 9000, "dtype": "float32", "shape": [], "data": {"bucket": "b", "key": "k", "size": 4, "sha256": bytes(32)}},
        ], **more})


def test_halves_have_all_of_a_frame():
    [whole], parts = decode(frame()), [decode(part)[0] for part in halves(frame())]
    assert [part["sequence"] for part in parts] == [5 * STRIDE + 1, 5 * STRIDE + 2]
    assert sum((part["seed_ids"] for part in parts), []) == whole["seed_ids"]
    assert b"".join(part["states"] for part in parts) == whole["states"]
    assert sum((part["metrics"][0]["values"] for part in parts), []) == whole["metrics"][0]["values"]
    assert [part["tensors"] for part in parts] == [[t] for t in whole["tensors"]]
    for part in parts:
        assert {k: part[k] for k in ("run_id", "layer_id", "producer_id", "producer_epoch", "observed_at", "step")} == \
            {k: whole[k] for k in ("run_id", "layer_id", "producer_id", "producer_epoch", "observed_at", "step")}


def test_numbers_of_parts_are_distinct():
    found, todo = [], [frame(64, tensors=[])]
    while todo:
        one = todo.pop()
        found.append(decode(one)[0]["sequence"])
        todo += halves(one)
    assert len(found) == len(set(found)) == 15
    assert all(5 * STRIDE <= n < 6 * STRIDE for n in found)


def test_one_seed_cannot_be_split():
    assert halves(frame(1, tensors=[])) == []


@pytest.mark.parametrize("sender", ["process", "thread"])
def test_ingest_with_a_lower_limit(sender):
    def script(n, request):
        for i, record in enumerate(request.records):
            if len(record["seed_ids"]) > 30:
                return problem(413, "too-large", frame=i)
        return ok(n, request)

    with Server(script) as server, Client(server.url, "run", sender=sender, strict=True) as oona:
        for step in range(3):
            oona.frame("enc.0", step, np.arange(100), State.TRAINING, {"loss": np.arange(100, dtype=np.float32)})
        assert oona.flush(300)
        for step in range(3):
            parts = [r for r in server.accepted if r["step"] == step]
            assert sum((p["seed_ids"] for p in parts), []) == list(range(100))
            assert sum((p["metrics"][0]["values"] for p in parts), []) == list(range(100))
        assert len({r["sequence"] for r in server.accepted}) == len(server.accepted) == 12
        counts = oona.stats().frames
        assert (counts.handed, counts.accepted, counts.rejected, counts.waiting) == (12, 12, 0, 0)


def test_a_frame_above_the_limit_of_the_bus_is_split_at_once():
    n = 65_536
    with Server() as server, Client(server.url, "run", strict=True) as oona:
        oona.frame("enc.0", 0, np.arange(n), np.full(n, 2, np.uint8), {f"m{i}": np.arange(n, dtype=np.float32) for i in range(8)},
                   {("w", 60_000): np.ones(3, np.float32)})
        assert oona.flush(300)
        assert len(server.accepted) > 1
        assert sum((r["seed_ids"] for r in server.accepted), []) == list(range(n))
        assert sum((r["metrics"][7]["values"] for r in server.accepted), []) == list(range(n))
        assert sum(len(r["tensors"]) for r in server.accepted) == 1
        assert max(len(request.body) for request in server.requests) < 8 << 20
