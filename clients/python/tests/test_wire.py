"""The encoding, read back by fastavro with the schemas of the repository."""

import numpy as np
import pytest
from server import decode

from oona_client import InvalidFrame, State
from oona_client.events import encode_event
from oona_client.frames import encode_frame
from oona_client.wire import ints

FRAME = {
    "run_id": "run", "layer_id": "enc.0", "timeline": "", "producer_id": "me", "producer_epoch": 1_700_000_000_000_000,
    "sequence": 300, "observed_at": 1_700_000_000_000_001, "step": 7, "seed_ids": [0, 63, 64, 8191, 8192, 2**31 - 1],
    "states": bytes(range(6)), "tensors": [],
    "metrics": [{"name": "loss", "values": [0.5, -1.0, float("inf"), 0.0, 1e-30, 2.0]}, {"name": "norm", "values": [1.0] * 6}],
}


def test_a_frame_is_what_fastavro_reads():
    [read] = decode(encode_frame(**FRAME))
    assert read["observed_at"].timestamp() * 1e6 == pytest.approx(FRAME["observed_at"], abs=1)
    assert {k: v for k, v in read.items() if k not in ("observed_at", "metrics")} == \
        {k: v for k, v in FRAME.items() if k not in ("observed_at", "metrics")}
    for column, expected in zip(read["metrics"], FRAME["metrics"], strict=True):
        assert column["name"] == expected["name"]
        np.testing.assert_array_equal(np.float32(column["values"]), np.float32(expected["values"]))


def test_ids_of_any_size_are_what_fastavro_reads():
    rng = np.random.default_rng(1)
    ids = np.unique(np.concatenate([2 ** np.arange(31), 2 ** np.arange(1, 32) - 1, rng.integers(0, 2**31, 1000)]))
    [read] = decode(encode_frame(**{**FRAME, "seed_ids": ids, "states": bytes(len(ids)), "metrics": []}))
    assert read["seed_ids"] == ids.tolist()
    assert ints(np.empty(0, np.int32)) == b"\0"


@pytest.mark.parametrize("state", [State.GRAFTING, 3, np.int64(3), np.uint8(3), np.array(3)])
def test_one_state_for_all_seeds(state):
    [read] = decode(encode_frame(**{**FRAME, "states": state}))
    assert read["states"] == bytes([3] * 6)


def test_tensors_and_claims():
    claim = {"bucket": "b", "key": "k", "size": 4, "sha256": bytes(range(32))}
    tensors = [
        {"name": "w", "seed_id": 0, "dtype": "float32", "shape": [2, 1], "data": b"12345678"},
        {"name": "c", "seed_id": 63, "dtype": "float32", "shape": [], "data": claim},
    ]
    [read] = decode(encode_frame(**{**FRAME, "tensors": tensors}))
    assert read["tensors"] == tensors


@pytest.mark.parametrize(("change", "field"), [
    ({"run_id": "a b"}, "run_id"),
    ({"layer_id": ""}, "layer_id"),
    ({"seed_ids": [0, 0, 1, 2, 3, 4]}, "seed_ids"),
    ({"seed_ids": [-1, 0, 1, 2, 3, 4]}, "seed_ids"),
    ({"seed_ids": [[0, 1, 2, 3, 4, 5]]}, "seed_ids"),
    ({"seed_ids": [0.5, 1, 2, 3, 4, 5]}, "seed_ids"),
    ({"seed_ids": np.arange(65_537)}, "seed_ids"),
    ({"seed_ids": [], "states": b"", "metrics": {}}, "seed_ids"),
    ({"observed_at": 1_790_000_000}, "observed_at"),
    ({"step": -1}, "step"),
    ({"states": bytes(5)}, "states"),
    ({"states": [0, 1, 2, 3, 4, 11]}, "states"),
    ({"metrics": {"loss": [1.0] * 5}}, "metrics.loss"),
    ({"metrics": {"loss": ["a"] * 6}}, "metrics.loss"),
    ({"metrics": {"a b": [1.0] * 6}}, "metrics.name"),
    ({"metrics": {f"m{i}": [1.0] * 6 for i in range(65)}}, "metrics"),
])
def test_what_ingest_would_refuse_is_refused(change, field):
    with pytest.raises(InvalidFrame) as caught:
        encode_frame(**{**FRAME, **change})
    assert caught.value.field == field


def test_an_event_is_what_fastavro_reads():
    event = {
        "run_id": "run", "layer_id": "enc.0", "seed_id": 3, "sequence": 2, "at": 1_700_000_000_000_001, "step": 9,
        "from_state": State.TRAINING, "to_state": State.GRAFTING, "reason": "it is good: ü", "evidence": {"loss": 0.25, "n": 3},
        "mark": "ADOPTED", "producer_id": "me", "producer_epoch": 5, "trigger_position": 7,
    }
    [read] = decode(encode_event(**event))
    assert read["at"].timestamp() * 1e6 == pytest.approx(event["at"], abs=1)
    del read["at"], event["at"]
    assert {k: read[k] for k in event} == event
    assert read["command_id"] == "" and read["incarnation"] == 0


@pytest.mark.parametrize("step", [np.int8(100), np.uint8(200), np.int16(20_000), np.int32(2**30), np.uint64(2**62)])
def test_a_step_of_any_type_of_integers_is_what_fastavro_reads(step):
    [read] = decode(encode_frame(**{**FRAME, "step": step}))
    assert read["step"] == int(step)


@pytest.mark.parametrize("step", [1.5, "1", None, np.float32(2)])
def test_a_step_that_is_no_integer_is_refused(step):
    with pytest.raises(InvalidFrame):
        encode_frame(**{**FRAME, "step": step})
