"""Arguments of frame(), event(), flush() and close() that cannot be right."""

import array
import datetime
import logging
import math

import numpy as np
import pytest
from server import Server
from test_device import torch  # noqa: F401  a fixture
from training import IDS, client

from oona_client import InvalidFrame, State
from oona_client.complaints import KINDS

FRAME = {"layer": "enc.0", "step": 0, "seed_ids": IDS, "states": np.full(10, 2, np.uint8), "metrics": {"loss": np.ones(10, np.float32)}}
EVENT = {"layer": "enc.0", "seed_id": 3, "from_state": State.DORMANT, "to_state": State.GERMINATED, "evidence": {"loss": 1.0}}
RAGGED = [[1, 2], [3]]


class Broken:
    """What raises when it is asked for anything."""

    def __array__(self, *_, **__):
        raise RuntimeError("it is broken")

    def __repr__(self):
        raise RuntimeError("it is broken")

    def __eq__(self, other):
        raise RuntimeError("it is broken")

    __hash__ = object.__hash__
    __float__ = __index__ = __len__ = __iter__ = __bool__ = __repr__


class Number(Broken):
    """A value that only fails as a number."""

    def __eq__(self, other):
        return self is other

    __hash__ = object.__hash__


INTEGER = (None, "1", b"1", 1.5, float("nan"), [], [1], {}, object(), Number(), np.arange(2), datetime.datetime(2026, 1, 1), -1, 2**63, 10**5000)
ID = (None, b"enc", 5, 1.5, [], {}, set(), object(), Broken(), np.arange(2), "", "a b", "\u00fc", "x" * 129)
TEXT = (None, b"x", 5, [], object(), Broken(), np.arange(2))

WRONG_FRAMES = [
    *(("layer", value) for value in ID),
    *(("step", value) for value in INTEGER),
    *(("observed_at", value) for value in INTEGER if value is not None),
    ("observed_at", 5),
    *(("seed_ids", value) for value in (
        None, 5, "0123456789", b"0123456789", 1.5, object(), Broken(), set(range(10)), iter(range(10)), {i: i for i in range(10)}, [], RAGGED, [None] * 10,
        ["a"] * 10, [0.5] * 10, [True] * 10, [object()] * 10, [IDS] * 10, [IDS, [1]], [[1]] * 10, [Broken()] * 10, [2**70] * 10, [0] * 10, np.zeros((10, 1), int),
        np.array(["a"] * 10), array.array("d", range(10)))),
    *(("states", value) for value in (
        None, "TRAINING", ["TRAINING"] * 10, 1.5, object(), Broken(), {}, [], [None] * 10, RAGGED, 11, -1, 2**70, 10**5000, bytes(9), bytes([11] * 10), [2] * 9,
        np.ones(10), np.ones(10, bool), np.full((10, 1), 2), b"")),
    *(("metrics", value) for value in (None, 5, "loss", [], [("loss", IDS)], IDS, object(), Broken(), set())),
    *(("metrics", {name: IDS}) for name in (None, 5, "", "a b", b"loss", ("a",), Number())),
    *(("metrics", {"loss": value}) for value in (
        None, 5, "x", b"x", object(), Broken(), {}, set(), iter([]), [None] * 10, ["a"] * 10, RAGGED, [1] * 9, [], [1j] * 10, np.full(10, 1j),
        np.ones((10, 1)), np.array(["a"] * 10), [10**400] * 10, [Broken()] * 10)),
    *(("tensors", value) for value in (5, "w", [], [1], [("w", 0)], IDS, object(), Broken(), {"w": IDS}, {("w",): IDS}, {5: IDS}, {("w", 0, 1): IDS})),
    *(("tensors", {key: IDS}) for key in ((None, 0), ("a b", 0), (b"w", 0), ("w", None), ("w", "0"), ("w", 0.5), ("w", 99), ("w", Number()))),
    *(("tensors", {("w", 0): value}) for value in (None, "x", b"x", object(), Broken(), {}, [None], ["a"], RAGGED, np.array([1j]), np.ones(2, np.longdouble))),
]
WRONG_EVENTS = [
    *(("layer", value) for value in ID),
    *((name, value) for name in ("seed_id", "step", "at") for value in INTEGER if not (name == "at" and value is None)),
    ("seed_id", 2**31), ("at", 5),
    *((name, value) for name in ("from_state", "to_state") for value in (*INTEGER, 11, "TRAINING")),
    *(("sequence", value) for value in INTEGER if value is not None),
    *(("reason", value) for value in (*TEXT, "x" * 1025, "\ud800")),
    *((name, value) for name in ("blueprint_id", "actor") for value in (*TEXT, "a b")),
    *(("mark", value) for value in (*TEXT, "", "rewound", 2)),
    *(("evidence", value) for value in (5, 0, "", "x", [], [1], [("loss", 1.0)], object(), Broken(), IDS, {5: 1.0}, {"a b": 1.0}, {None: 1.0},
                                        {f"e{i}": 1.0 for i in range(65)})),
    *(("evidence", {"loss": value}) for value in (None, "1", b"1", [], [1.0], {}, object(), Broken(), np.ones(2), 10**400, 1j)),
]


def named(value):
    return value if isinstance(value, str) and value.isidentifier() else type(value).__name__


@pytest.fixture(scope="module")
def both():
    """Two clients: one that raises, and one that does not."""
    with Server() as server, client(server, "thread") as strict, client(server, "thread", strict=False) as lenient:
        yield strict, lenient


@pytest.mark.parametrize(("name", "value"), WRONG_FRAMES, ids=named)
def test_a_wrong_argument_of_frame_is_named_and_raises_only_if_strict(both, name, value):
    strict, lenient = both
    assert strict.frame(**FRAME)  # the next one is encoded by the plan that this has made, if it can be
    with pytest.raises(InvalidFrame) as caught:
        strict.frame(**{**FRAME, name: value})
    assert caught.value.field.partition(".")[0] == name
    assert len(str(caught.value)) < 500
    before = lenient.stats().frames
    assert lenient.frame(**FRAME)
    assert lenient.frame(**{**FRAME, name: value}) is False
    assert lenient.frame(**FRAME)
    after = lenient.stats().frames
    assert (after.handed - before.handed, after.invalid - before.invalid) == (2, 1)


@pytest.mark.parametrize(("name", "value"), WRONG_EVENTS, ids=named)
def test_a_wrong_argument_of_event_is_named_and_raises_only_if_strict(both, name, value):
    strict, lenient = both
    with pytest.raises(InvalidFrame) as caught:
        strict.event(**{**EVENT, name: value})
    assert caught.value.field.partition(".")[0] == name
    assert len(str(caught.value)) < 500
    before = lenient.stats().events
    assert lenient.event(**{**EVENT, name: value}) is False
    assert lenient.event(**EVENT)
    after = lenient.stats().events
    assert (after.handed - before.handed, after.invalid - before.invalid) == (1, 1)


class Speechless(Exception):
    """An error that cannot be printed."""

    def __str__(self):
        raise RuntimeError("it is broken")

    __repr__ = __str__


class Mute:
    """What raises an error that cannot be printed when it is asked for anything."""

    def __getattr__(self, name):
        raise Speechless

    def __array__(self, *_, **__):
        raise Speechless

    __len__ = __iter__ = __float__ = __index__ = __array__


class Float(float):
    """A number that cannot be printed."""

    __repr__ = __str__ = __format__ = Mute.__array__


class Text(str):
    """A string that cannot be printed."""

    __repr__ = __str__ = __format__ = __getitem__ = Mute.__array__


@pytest.mark.parametrize(("kind", "name", "value"), [
    *[("frame", name, value) for name, value in [
        ("layer", Text("a b")), ("layer", Float(1)), ("step", Mute()), ("step", Float(1)), ("seed_ids", Mute()), ("states", Mute()),
        ("observed_at", Float(1)), ("metrics", Mute()), ("metrics", {"loss": Mute()}), ("metrics", {Text("a b"): IDS}), ("tensors", {("w", 0): Mute()}),
        ("tensors", {("w", Float(0.5)): IDS}), ("metrics", {Float(1): IDS}), ("metrics", {Float(1): Mute()}), ("metrics", {Text("loss"): IDS[:9]}),
        ("metrics", {Text("loss"): ["a"] * 10}), ("metrics", {Text("loss"): Mute()}), ("tensors", {(Float(1), 0): IDS}), ("tensors", {(Text("w"), 0): ["a"]}),
    ]],
    *[("event", name, value) for name, value in [
        ("layer", Text("a b")), ("seed_id", Mute()), ("seed_id", Float(1)), ("reason", Float(1)), ("evidence", {"loss": Mute()}),
        ("evidence", {Text("a b"): 1.0}), ("evidence", {Float(1): 1.0}), ("evidence", {Text("loss"): "a"}), ("at", Mute()), ("actor", Float(1)),
    ]],
], ids=named)
def test_what_cannot_be_printed_is_named_and_counted(both, caplog, kind, name, value):
    strict, lenient = both
    call, valid = getattr(lenient, kind), {"frame": FRAME, "event": EVENT}[kind]
    with pytest.raises(InvalidFrame) as caught:
        getattr(strict, kind)(**{**valid, name: value})
    assert caught.value.field.partition(".")[0] == name and str(caught.value)

    def counts():
        return getattr(lenient.stats(), f"{kind}s")

    before = counts()
    lenient._complaints._said.clear()
    assert call(**{**valid, name: value}) is False
    assert call(**valid)
    after = counts()
    assert (after.handed - before.handed, after.invalid - before.invalid) == (1, 1)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("value", ["1", b"", [], True, object(), 1j, float("nan")], ids=named)
def test_a_wrong_timeout_raises_and_changes_nothing(value):
    with Server() as server, client(server, "thread") as oona:
        for call in (oona.flush, oona.close):
            with pytest.raises((TypeError, ValueError)) as caught:
                call(value)
            assert "timeout" in str(caught.value)
        with pytest.raises(TypeError):
            oona.flush(None)  # None is the default of close() only
        assert oona.frame(**FRAME)
        assert oona.flush(math.inf)
        assert oona.close(np.float32(300)).frames.accepted == 1


@pytest.mark.parametrize("timeout", [-1, -math.inf, 0])
def test_a_timeout_below_zero_is_none(timeout):
    with Server(lambda n, request: (503, {}, {})) as server:
        oona = client(server, "thread")
        assert oona.frame(**FRAME)
        assert oona.flush(timeout) is False
        assert oona.close(timeout).frames.lost == 1


def test_what_is_wrong_raises_only_if_strict(sender, caplog):
    with Server() as server, client(server, sender) as oona, client(server, sender, strict=False) as lenient:
        with pytest.raises(InvalidFrame):
            oona.frame("enc.0", 0, IDS, State.TRAINING, {"loss": np.ones(9)})
        caplog.clear()  # that there are two clients was logged
        with caplog.at_level(logging.ERROR, "oona_client"):
            for _ in range(3):
                assert not lenient.frame("enc.0", 0, IDS, State.TRAINING, {"loss": np.ones(9)})
                assert not lenient.frame(None, 0, IDS, object(), {"loss": np.ones(10)})
        assert lenient.stats().frames.invalid == 6
        assert len(caplog.records) == 2  # once per kind


def test_names_that_change_take_no_memory():
    with Server() as server, client(server, "thread", strict=False) as oona:
        for i in range(2 * KINDS):
            assert not oona.frame("enc.0", 0, IDS, State.TRAINING, {f"loss.{i}": None})
        assert len(oona._complaints._said) <= KINDS


@pytest.mark.parametrize(("change", "field"), [
    ({"seed_ids": [], "states": [], "metrics": {}}, "seed_ids"),
    ({"tensors": {("weight", 99_999): np.ones(2)}}, "tensors.seed_id"),
    ({"tensors": {("weight", 0): np.ones(2, np.longdouble)}}, "tensors.dtype"),
    ({"metrics": {"loss": np.ones(9)}}, "metrics.loss"),
    ({"metrics": {"a b": np.ones(10)}}, "metrics.name"),
])
def test_a_fault_of_a_frame_names_the_field(both, change, field):
    with pytest.raises(InvalidFrame) as caught:
        both[0].frame(**{**FRAME, **change})
    assert caught.value.field == field


def test_an_event_that_ingest_would_refuse_takes_no_number(sender):
    with Server() as server, client(server, sender, strict=False) as oona:
        assert oona.event("enc.0", 3, State.DORMANT, State.GERMINATED, step=1)
        for wrong in ({"step": -1}, {"step": 1.5}, {"at": 1_790_000_001}, {"reason": "x" * 1025}, {"evidence": {"loss": "low"}}, {"actor": "a b"}):
            assert not oona.event("enc.0", 3, State.GERMINATED, State.TRAINING, **{"step": 2, **wrong})
        assert oona.event("enc.0", 3, State.GERMINATED, State.TRAINING, step=2)
        assert oona.flush(300)
        assert [e["sequence"] for e in server.accepted] == [0, 1]
        assert oona.stats().events.invalid == 6


def test_a_wrong_argument_beside_a_tensor_of_a_device_is_named(torch):  # noqa: F811
    on_device = {"norm": torch.on_device(np.ones(10))}
    with Server() as server, client(server, "thread") as oona:
        for name, value in (("seed_ids", RAGGED), ("states", RAGGED), ("states", Broken()), ("tensors", [1]), ("tensors", {("w", 0): RAGGED}),
                            ("metrics", {"loss": RAGGED, **on_device})):
            with pytest.raises(InvalidFrame) as caught:
                oona.frame(**{**FRAME, "metrics": on_device, name: value})
            assert caught.value.field.partition(".")[0] == name
        assert oona.stats().frames.handed == 0


def test_seed_ids_that_the_caller_changes_are_not_those_of_the_last_frame():
    """Also those of types that NumPy makes arrays of."""
    ids = array.array("i", range(10))
    with Server() as server, client(server, "thread") as oona:
        for step in range(2):
            assert oona.frame(**{**FRAME, "step": step, "seed_ids": ids})
            ids[0] = 77
        assert oona.flush(300)
        assert [frame["seed_ids"][0] for frame in server.accepted] == [0, 77]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32, np.uint8, bool])
def test_what_is_masked_in_a_metric_was_not_measured(dtype):
    """Also behind a frame of plain arrays, whose plan does not fit."""
    masked = np.ma.masked_array(np.ones(10, dtype), mask=[True, *[False] * 8, True])
    ids = np.ma.masked_array(np.arange(10))  # with nothing that is masked
    with Server() as server, client(server, "thread") as oona:
        assert oona.frame(**FRAME)
        assert oona.frame(**{**FRAME, "metrics": {"loss": masked}})
        assert oona.frame(**{**FRAME, "seed_ids": ids, "states": np.ma.masked_array(FRAME["states"]), "metrics": {"loss": np.ma.masked_array(np.ones(10))}})
        assert oona.flush(300)
        values = [frame["metrics"][0]["values"] for frame in server.accepted]
    assert [[math.isnan(v) for v in frame] for frame in values] == [[False] * 10, [True, *[False] * 8, True], [False] * 10]
    assert values[1][1:9] == [1.0] * 8
    assert masked.data[0] == 1  # the caller's array is as it was


def test_what_is_masked_beside_a_tensor_of_a_device_was_not_measured(torch):  # noqa: F811
    masked = np.ma.masked_array(np.ones(10), mask=[True] + [False] * 9)
    with Server() as server, client(server, "thread") as oona:
        assert oona.frame(**{**FRAME, "metrics": {"loss": masked, "norm": torch.on_device(np.ones(10))}})
        torch.run()
        assert oona.flush(300)
        found = {metric["name"]: metric["values"] for metric in server.accepted[0]["metrics"]}
    assert [math.isnan(v) for v in found["loss"]] == [True] + [False] * 9


@pytest.mark.parametrize(("name", "value"), [
    ("seed_ids", np.ma.masked_array(IDS, mask=[True] + [False] * 9)),
    ("states", np.ma.masked_array(FRAME["states"], mask=[True] + [False] * 9)),
    ("tensors", {("w", 0): np.ma.masked_array([1.0, 2.0], mask=[True, False])}),
], ids=named)
def test_what_is_masked_elsewhere_is_refused(both, name, value):
    assert both[0].frame(**FRAME)
    with pytest.raises(InvalidFrame) as caught:
        both[0].frame(**{**FRAME, name: value})
    assert caught.value.field == name


class Series:
    """Like one of pandas: a comparison with another one has many values."""

    def __init__(self, values):
        self.values = np.array(values)

    def __array__(self, *_, **__):
        return self.values

    def __eq__(self, other):
        return Series(self.values == np.asarray(other))

    def __bool__(self):
        raise ValueError("it is ambiguous")


def test_seed_ids_may_be_anything_that_numpy_makes_an_array_of():
    with Server() as server, client(server, "thread") as oona:
        for step in range(3):
            assert oona.frame(**{**FRAME, "step": step, "seed_ids": Series(range(10)), "metrics": {"loss": Series([1.0] * 10)}})
        assert oona.flush(300)
        assert [frame["seed_ids"] for frame in server.accepted] == [list(range(10))] * 3
