import pytest

from growth import Criteria, Growth, Measurement, Plateau
from lifecycle import Seed, State, Transition

CRITERIA = Criteria()
LOSS = 0.5


def judged(state: State, measurements: list[Measurement], kept: float = 0.0) -> tuple[Seed, Transition | None]:
    """Return a seed and the transition that the last of the measurements brought about."""
    seed = Seed("enc.0", 0, state, kept=kept)
    growth = Growth(CRITERIA, {"enc.0": [seed]})
    change = None
    for step, found in enumerate(measurements):
        assert change is None, f"changed at measurement {step - 1} of {len(measurements)}"
        change = growth.judge(seed, found, step)
    return seed, change


def signal(value: float) -> Measurement:
    return Measurement(LOSS, signal=value)


def reconstruction(value: float) -> Measurement:
    return Measurement(LOSS, reconstruction=value)


def improvement(value: float) -> Measurement:
    return Measurement(LOSS, improvement=value)


def steady(state: State, value: float, checks: int, kept: float = 0.0) -> State | None:
    change = judged(state, [improvement(value)] * checks, kept)[1]
    return change and change.to_state


def test_a_falling_loss_is_no_plateau_and_a_level_one_is():
    plateau = Plateau(CRITERIA)
    loss = 2.0
    for _ in range(100):
        loss *= 0.99
        assert plateau.check(loss) is None
    found = [plateau.check(loss) for _ in range(2 * CRITERIA.plateau_checks)]
    evidence = next(e for e in found if e)
    assert evidence["gain"] < CRITERIA.plateau_gain
    assert evidence["validation_loss"] == pytest.approx(loss, rel=0.05)


def test_after_a_cohort_there_is_a_pause():
    plateau = Plateau(CRITERIA)
    times = [i for i in range(200) if plateau.check(0.5)]
    assert times[0] == 2 * CRITERIA.plateau_checks - 1
    assert {b - a for a, b in zip(times, times[1:])} == {CRITERIA.pause}


def test_a_plateau_wakes_a_cohort_in_every_layer():
    seeds = {name: [Seed(name, i) for i in range(CRITERIA.cohort + 2)] for name in ("a", "b")}
    growth = Growth(CRITERIA, seeds)
    woken = [growth.germinate(0.5, step) for step in range(2 * CRITERIA.plateau_checks + 2 * CRITERIA.pause)]
    sizes = [len(w) for w in woken if w]
    assert sizes == [2 * CRITERIA.cohort, 2 * 2]  # the second takes what is left
    assert all(s.state == State.GERMINATED for layer in seeds.values() for s in layer)


def test_a_seed_without_signal_is_cancelled():
    assert judged(State.GERMINATED, [signal(0.1)] * CRITERIA.signal_checks)[1].to_state == State.CANCELLED
    assert judged(State.GERMINATED, [signal(1.1)] * CRITERIA.signal_checks)[1].to_state == State.TRAINING
    assert judged(State.GERMINATED, [signal(0.1)] * (CRITERIA.signal_checks - 1))[1] is None


def test_a_seed_that_does_not_learn_is_culled():
    seed, change = judged(State.TRAINING, [reconstruction(1.0)] * CRITERIA.training_checks)
    assert (seed.state, change.to_state) == (State.CULLED, State.CULLED)
    assert change.evidence["reconstruction_loss"] == 1.0
    assert judged(State.TRAINING, [reconstruction(1.0)] * (CRITERIA.training_checks - 1))[1] is None


def test_a_seed_that_learns_is_grafted():
    change = judged(State.TRAINING, [reconstruction(0.5)] * 5)[1]
    assert change.to_state == State.GRAFTING
    assert change.evidence == {"reconstruction_loss": 0.5, "criterion": CRITERIA.reconstruction, "checks": 5}


def test_one_good_check_does_not_graft():
    values = [1.0] * 10 + [CRITERIA.reconstruction - 0.001] + [1.0] * 10
    assert judged(State.TRAINING, [reconstruction(v) for v in values])[1] is None


def test_blend_ramps_while_grafting():
    seed = Seed("a", 0, State.GRAFTING)
    growth = Growth(CRITERIA, {"a": [seed]})
    blends = []
    while seed.state == State.GRAFTING:
        blends.append(growth.blend(seed))
        growth.judge(seed, improvement(0.01), 0)
    n = CRITERIA.graft_checks
    assert blends == [pytest.approx((i + 1) / n) for i in range(n)]
    assert (seed.state, growth.blend(seed)) == (State.STABILIZATION, 1.0)


@pytest.mark.parametrize("state", [State.GRAFTING, State.STABILIZATION, State.FINE_TUNING])
def test_harm_is_rolled_back(state: State):
    harm = -2 * CRITERIA.tolerance * LOSS
    assert steady(state, harm, 5) == State.ROLLED_BACK


def test_a_steady_seed_is_evaluated_and_an_unsteady_one_rolled_back():
    assert steady(State.STABILIZATION, 0.01, CRITERIA.settle_checks) == State.EVALUATING
    unsteady = [improvement(0.1 * (i % 2)) for i in range(CRITERIA.settle_timeout)]
    assert judged(State.STABILIZATION, unsteady)[1].to_state == State.ROLLED_BACK


def test_evaluation():
    least, n = CRITERIA.improvement * LOSS, CRITERIA.evaluation_checks
    assert steady(State.EVALUATING, 1.1 * least, n) == State.FINE_TUNING
    assert steady(State.EVALUATING, 0.9 * least, n) == State.CULLED
    assert steady(State.EVALUATING, -2 * CRITERIA.tolerance * LOSS, n) == State.ROLLED_BACK
    assert judged(State.EVALUATING, [improvement(0.02)] * n)[0].kept == pytest.approx(0.02)


def test_fine_tuning_must_keep_the_improvement():
    n = CRITERIA.tuning_checks
    assert steady(State.FINE_TUNING, 0.01, n, kept=0.01) == State.FOSSILIZED
    assert steady(State.FINE_TUNING, 0.01, n, kept=0.02) == State.CULLED


def test_an_end_is_an_end():
    for state in (State.DORMANT, State.FOSSILIZED, State.CULLED, State.CANCELLED, State.ROLLED_BACK):
        assert judged(state, [Measurement(LOSS, 1.0, 0.1, 0.1)] * 100)[1] is None
