"""Short runs of real training."""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

import backend
import digits
from growth import Criteria
from lifecycle import ALLOWED, GRAFTED, LEARNING, State, Transition
from network import Rates
from readings import METRICS
from training import LAYERS, SEEDS, Frame, Outcome, Plan, Training

# Checks come in quick succession, so that seeds live through it all in few steps.
QUICK = Plan(steps=1200, check_every=5, criteria=Criteria(
    plateau_checks=6, plateau_gain=0.1, pause=12, signal_checks=2, reconstruction=0.999, training_checks=40,
    graft_checks=4, settle_checks=3, settle_spread=0.05, settle_timeout=8, evaluation_checks=3, tuning_checks=5))


@dataclass
class Kept:
    """A sink that keeps all it is told."""

    frames: list[Frame] = field(default_factory=list)
    transitions: list[Transition] = field(default_factory=list)

    def frame(self, frame: Frame) -> None:
        self.frames.append(frame)

    def transition(self, transition: Transition) -> None:
        self.transitions.append(transition)


def run(plan: Plan) -> tuple[Kept, Outcome]:
    kept = Kept()
    return kept, Training(plan, backend.choose("numpy")).run(kept)


@pytest.fixture(scope="module")
def quick() -> tuple[Kept, Outcome]:
    return run(QUICK)


def test_every_seed_goes_an_allowed_way(quick: tuple[Kept, Outcome]):
    states = {(layer, seed): State.DORMANT for layer in LAYERS for seed in range(SEEDS)}
    counts = Counter()
    for change in quick[0].transitions:
        seed = change.layer, change.seed
        assert change.from_state == states[seed]
        assert change.to_state in ALLOWED[change.from_state]
        assert change.sequence == counts[seed]
        assert change.reason and change.evidence
        assert all(np.isfinite(v) for v in change.evidence.values())
        states[seed] = change.to_state
        counts[seed] += 1
    ends = {layer: Counter(s.name for (l, _), s in states.items() if l == layer) for layer in LAYERS}
    assert quick[1].states == {layer: {s.name: ends[layer][s.name] for s in State} for layer in LAYERS}


def test_seeds_are_grafted_kept_and_given_up(quick: tuple[Kept, Outcome]):
    reached = {change.to_state for change in quick[0].transitions}
    assert reached >= {State.GRAFTING, State.EVALUATING, State.FOSSILIZED, State.CULLED}


def test_frames_show_the_states_of_their_time(quick: tuple[Kept, Outcome]):
    kept, _ = quick
    changes = Counter((c.layer, c.step) for c in kept.transitions)
    before = {layer: [State.DORMANT] * SEEDS for layer in LAYERS}
    last_step = {layer: -1 for layer in LAYERS}
    for frame in kept.frames:
        differ = sum(a != b for a, b in zip(before[frame.layer], frame.states))
        assert differ == changes[frame.layer, last_step[frame.layer]]  # changed at the check before
        before[frame.layer], last_step[frame.layer] = frame.states, frame.step
    assert len(kept.frames) == 3 * (QUICK.steps // QUICK.check_every + 1)


def test_what_is_measured_depends_on_the_state(quick: tuple[Kept, Outcome]):
    always = {"activation_variance", "dead_fraction", "weight_norm", "blend", "compute_seconds"}
    for frame in quick[0].frames:
        assert tuple(frame.columns) == METRICS
        for i, state in enumerate(frame.states):
            measured = {name for name in METRICS if not np.isnan(frame.columns[name][i])}
            if state == State.FOSSILIZED:
                measured.discard("improvement")  # in turn
            expected = always if state == State.TRAINING or state in GRAFTED else set()
            if state in LEARNING:
                expected = expected | {"gradient_norm"}
            if state == State.TRAINING:
                expected = expected | {"reconstruction_loss"}
            elif state in GRAFTED and state != State.FOSSILIZED:
                expected = expected | {"improvement"}
            assert measured == expected, state.name


def test_blend_is_what_the_state_allows(quick: tuple[Kept, Outcome]):
    for frame in quick[0].frames:
        for state, blend in zip(frame.states, frame.columns["blend"]):
            if state == State.TRAINING:
                assert blend == 0
            elif state == State.GRAFTING:
                assert 0 < blend <= 1
            elif state in GRAFTED:
                assert blend == 1


def test_tensors_come_with_grafts_and_fossils(quick: tuple[Kept, Outcome]):
    kept, _ = quick
    expected = Counter()
    for change in kept.transitions:
        if change.to_state in (State.GRAFTING, State.FOSSILIZED):
            expected.update((change.layer, change.step, change.seed, name) for name in ("down", "up"))
        if change.to_state == State.FOSSILIZED:
            expected[change.layer, change.step, change.seed, "response"] += 1
    found = Counter((f.layer, f.step, t.seed, t.name) for f in kept.frames for t in f.tensors)
    assert found == expected


def test_the_same_seed_gives_the_same_run(quick: tuple[Kept, Outcome]):
    kept, outcome = run(QUICK)
    assert kept.transitions == quick[0].transitions
    assert outcome == quick[1]
    for a, b in zip(kept.frames, quick[0].frames, strict=True):
        for name in METRICS:
            if name != "compute_seconds":
                np.testing.assert_array_equal(a.columns[name], b.columns[name])


def test_another_seed_gives_another_run(quick: tuple[Kept, Outcome]):
    assert run(replace(QUICK, seed=2, steps=50))[1].losses != quick[1].losses[:11]


def test_growing_helps(quick: tuple[Kept, Outcome]):
    alone = run(replace(QUICK, grow=False))[1]
    grown = quick[1]
    assert grown.test.mean < alone.test.mean < grown.test_without_seeds.mean
    assert grown.test.accuracy > alone.test.accuracy
    assert alone.states["enc.0"] == {s.name: SEEDS * (s == State.DORMANT) for s in State}


def test_seeds_that_cannot_learn_are_culled():
    kept, outcome = run(replace(QUICK, rates=Rates(seed=0.0)))
    ends = Counter(c.to_state for c in kept.transitions if not ALLOWED[c.to_state])
    assert ends[State.CULLED] > 0
    assert set(ends) <= {State.CULLED, State.CANCELLED}
    assert outcome.test == outcome.test_without_seeds


def test_the_parts_of_the_data_share_no_image():
    data = digits.load(np.random.default_rng(1))
    sizes = [len(part.labels) for part in (data.train, data.validation, data.test)]
    assert sizes == [1077, 360, 360]
    images = np.concatenate([data.train.images, data.validation.images, data.test.images])
    assert len(np.unique(images, axis=0)) == 1797
    assert images.min() == 0 and images.max() == 1


def test_a_shift_moves_the_image():
    image = np.zeros((1, 64), dtype=np.float32)
    image[0, 8 * 3 + 4] = 1
    rng = np.random.default_rng(1)
    places = {divmod(int(digits.shifted(image, rng).argmax()), 8) for _ in range(200)}
    assert places == {(row, column) for row in (2, 3, 4) for column in (3, 4, 5)}
