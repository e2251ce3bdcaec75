"""The short way by which most frames are encoded gives the bytes of the long one."""

import numpy as np
import pytest

from oona_client.encoder import REMEMBERED, Encoder
from oona_client.split import STRIDE
from oona_client.frames import encode_frame
from oona_client.wire import InvalidFrame

N = 20
IDS = np.arange(N, dtype=np.int32)
STATES = np.full(N, 2, np.uint8)
VALUES = np.arange(N, dtype=np.float32)


def expected(sequence, step, ids, states, metrics):
    return encode_frame(run_id="run", layer_id="enc.0", timeline="t", producer_id="me", producer_epoch=5, sequence=sequence * STRIDE,
                        observed_at=1_700_000_000_000_000 + step, step=step, seed_ids=ids, states=states, metrics=metrics)


def encode(encoder, step, ids, states, metrics):
    """Return the frame, and whether it went the short way."""
    arguments = ("enc.0", step, 1_700_000_000_000_000 + step, ids, states, metrics)
    short = encoder.again(*arguments)
    if short is not None:
        return short, True
    [record] = encoder.frames(*arguments, None)
    return record, False


def test_frames_that_are_like_the_last_one_go_the_short_way():
    encoder = Encoder("run", "t", "me", 5)
    for step in range(200):
        metrics = {"loss": VALUES * step, "norm": VALUES + step}
        record, short = encode(encoder, step, IDS, STATES, metrics)
        assert record == expected(step, step, IDS, STATES, metrics)
        assert short == (step > 0)


@pytest.mark.parametrize(("ids", "states", "metrics"), [
    (IDS + 1, STATES, {"loss": VALUES}),
    (IDS[:5], STATES[:5], {"loss": VALUES[:5]}),
    (IDS.astype(np.int64), STATES, {"loss": VALUES}),
    (list(range(N)), STATES, {"loss": VALUES}),
    (range(N), STATES, {"loss": VALUES}),
    (IDS, STATES.astype(int), {"loss": VALUES}),
    (IDS, bytes(STATES), {"loss": VALUES}),
    (IDS, STATES, {"loss": VALUES.astype(np.float64)}),
    (IDS, STATES, {"loss": np.repeat(VALUES, 2)[::2]}),
    (IDS, STATES, {"loss": VALUES.astype(">f4")}),
    (IDS, STATES, {"loss": VALUES.tolist()}),
    (IDS, STATES, {"norm": VALUES}),
    (IDS, STATES, {"loss": VALUES, "norm": VALUES}),
    (IDS, STATES, {}),
])
def test_others_go_the_long_way(ids, states, metrics):
    encoder = Encoder("run", "t", "me", 5)
    encode(encoder, 0, IDS, STATES, {"loss": VALUES})
    record, short = encode(encoder, 1, ids, states, metrics)
    assert record == expected(1, 1, ids, states, metrics) and not short
    again, short = encode(encoder, 2, ids, states, metrics)
    assert again == expected(2, 2, ids, states, metrics)


def test_states_that_are_none_are_found_in_both_ways():
    encoder = Encoder("run", "t", "me", 5)
    encode(encoder, 0, IDS, STATES, {"loss": VALUES})
    with pytest.raises(ValueError):
        encode(encoder, 1, IDS, np.full(N, 11, np.uint8), {"loss": VALUES})


def test_layers_whose_names_change_take_no_memory():
    encoder = Encoder("run", "t", "me", 5)
    for step in range(REMEMBERED + 100):
        [record] = encoder.frames(f"step.{step}", step, 1_790_000_000_000_000 + step, IDS, STATES, {f"loss.{step}": VALUES}, None)
    assert len(encoder._ids) <= REMEMBERED and len(encoder._layers) <= REMEMBERED
    assert len(encoder._plans) <= REMEMBERED and len(encoder._names) <= REMEMBERED
    assert b"loss.%d" % step in record


@pytest.mark.parametrize("wrong", [{"step": 1.5}, {"step": 2**70}, {"observed_at": 1.5}])
def test_a_number_that_is_none_is_named_in_both_ways(wrong):
    encoder = Encoder("run", "t", "me", 5)
    encode(encoder, 1, IDS, STATES, {"loss": VALUES})
    assert encoder.again("enc.0", 2, 1_700_000_000_000_000, IDS, STATES, {"loss": VALUES})
    at = {"step": 3, "observed_at": 1_700_000_000_000_000, **wrong}
    with pytest.raises(InvalidFrame) as short:
        encoder.again("enc.0", at["step"], at["observed_at"], IDS, STATES, {"loss": VALUES})
    with pytest.raises(InvalidFrame) as long:
        list(encoder.frames("enc.0", at["step"], at["observed_at"], IDS, STATES, {"loss": VALUES}, None))
    assert [short.value.field, long.value.field] == list(wrong) * 2
