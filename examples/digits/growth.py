"""When seeds germinate, are grafted, kept or given up: criteria over measurements.

No transition is random or scheduled: each has the criterion that was met and the
numbers that met it.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev

from lifecycle import Seed, State, Transition


@dataclass(frozen=True)
class Criteria:
    """The criteria for seeds. A check is one measurement on the validation images."""

    plateau_checks: int = 16  # checks that are compared with as many before them
    plateau_gain: float = 0.03  # validation loss falls by less than this share: a plateau
    pause: int = 26  # checks between two cohorts
    cohort: int = 5  # seeds that germinate in each layer on a plateau

    signal_checks: int = 6  # checks over which a germinated seed's signal is judged
    signal_floor: float = 0.92  # of the layer's mean signal; below it there is nothing to learn
    reconstruction: float = 0.99  # relative error below which a seed may be grafted
    training_checks: int = 80  # checks within which it must be reached

    graft_checks: int = 20  # checks in which blend goes from 0 to 1
    tolerance: float = 0.01  # share of the loss by which a seed may harm while it settles
    settle_checks: int = 10  # checks over which the improvement must be steady
    settle_spread: float = 0.01  # its standard deviation, as a share of the loss
    settle_timeout: int = 40  # checks within which it must be

    evaluation_checks: int = 12  # checks over which the improvement is judged
    improvement: float = 0.01  # share of the loss that a seed must save
    tuning_checks: int = 20  # checks of fine tuning
    keep: float = 0.8  # share of the evaluated improvement that must be left after it


@dataclass(frozen=True)
class Measurement:
    """The measurements of one seed at one check. NaN means not measured."""

    loss: float  # of the network, on the validation images
    signal: float = float("nan")  # gradient at the seed's units, relative to the layer's mean
    reconstruction: float = float("nan")  # relative error of its output to the signal
    improvement: float = float("nan")  # loss without the seed less loss with it


class Plateau:
    """Tells when the validation loss has stopped falling."""

    def __init__(self, criteria: Criteria) -> None:
        self.criteria = criteria
        self.losses: list[float] = []
        self.quiet = 0

    def check(self, loss: float) -> dict[str, float] | None:
        """Add the loss of one check, and return the evidence if there is a plateau."""
        self.losses.append(loss)
        self.quiet -= 1
        n = self.criteria.plateau_checks
        if len(self.losses) < 2 * n or self.quiet > 0:
            return None
        before, now = fmean(self.losses[-2 * n:-n]), fmean(self.losses[-n:])
        gain = (before - now) / before
        if gain >= self.criteria.plateau_gain:
            return None
        self.quiet = self.criteria.pause
        return {"validation_loss_before": before, "validation_loss": now, "gain": gain}


class Growth:
    """Takes seeds through their lifecycle."""

    def __init__(self, criteria: Criteria, seeds: dict[str, list[Seed]]) -> None:
        self.criteria = criteria
        self.seeds = seeds
        self.plateau = Plateau(criteria)

    def germinate(self, loss: float, step: int) -> list[Transition]:
        """Wake the next dormant seeds of every layer if the loss is on a plateau."""
        evidence = self.plateau.check(loss)
        if evidence is None:
            return []
        woken = []
        for seeds in self.seeds.values():
            dormant = [s for s in seeds if s.state == State.DORMANT]
            woken += dormant[:self.criteria.cohort]
        return [s.become(State.GERMINATED, step, "validation loss is on a plateau", evidence) for s in woken]

    def judge(self, seed: Seed, found: Measurement, step: int) -> Transition | None:
        """Add the measurements of a check, and change the seed's state if a criterion is met."""
        criterion = {
            State.GERMINATED: self._germinated,
            State.TRAINING: self._training,
            State.GRAFTING: self._grafting,
            State.STABILIZATION: self._stabilization,
            State.EVALUATING: self._evaluating,
            State.FINE_TUNING: self._fine_tuning,
        }.get(seed.state)
        return criterion(seed, found, step) if criterion else None

    def blend(self, seed: Seed) -> float:
        """Return the share of the seed's output that its layer adds."""
        if seed.state == State.GRAFTING:
            return (len(seed.measured) + 1) / self.criteria.graft_checks
        grafted = (State.STABILIZATION, State.EVALUATING, State.FINE_TUNING, State.FOSSILIZED)
        return 1.0 if seed.state in grafted else 0.0

    def _germinated(self, seed: Seed, found: Measurement, step: int) -> Transition | None:
        seed.measured.append(found.signal)
        if len(seed.measured) < self.criteria.signal_checks:
            return None
        signal = fmean(seed.measured)
        evidence = {"signal": signal, "floor": self.criteria.signal_floor}
        if signal < self.criteria.signal_floor:
            return seed.become(State.CANCELLED, step, "too little gradient reaches the seed's units", evidence)
        return seed.become(State.TRAINING, step, "gradient reaches the seed's units", evidence)

    def _training(self, seed: Seed, found: Measurement, step: int) -> Transition | None:
        seed.measured.append(found.reconstruction)
        loss = fmean(seed.measured[-5:])
        evidence = {"reconstruction_loss": loss, "criterion": self.criteria.reconstruction, "checks": len(seed.measured)}
        if len(seed.measured) >= 5 and loss < self.criteria.reconstruction:
            return seed.become(State.GRAFTING, step, "reconstruction loss is below the criterion", evidence)
        if len(seed.measured) >= self.criteria.training_checks:
            return seed.become(State.CULLED, step, "reconstruction loss did not fall below the criterion in time", evidence)
        return None

    def _grafting(self, seed: Seed, found: Measurement, step: int) -> Transition | None:
        seed.measured.append(found.improvement)
        if harm := self._harm(seed, found, step):
            return harm
        if len(seed.measured) < self.criteria.graft_checks:
            return None
        evidence = {"improvement": found.improvement, "validation_loss": found.loss, "blend": 1.0}
        return seed.become(State.STABILIZATION, step, "all of its output is blended in without harm", evidence)

    def _stabilization(self, seed: Seed, found: Measurement, step: int) -> Transition | None:
        seed.measured.append(found.improvement)
        if harm := self._harm(seed, found, step):
            return harm
        if len(seed.measured) < self.criteria.settle_checks:
            return None
        spread = stdev(seed.measured[-self.criteria.settle_checks:]) / found.loss
        evidence = {"spread": spread, "criterion": self.criteria.settle_spread, "checks": len(seed.measured)}
        if spread < self.criteria.settle_spread:
            return seed.become(State.EVALUATING, step, "its effect on validation loss is steady", evidence)
        if len(seed.measured) >= self.criteria.settle_timeout:
            return seed.become(State.ROLLED_BACK, step, "its effect on validation loss did not settle in time", evidence)
        return None

    def _evaluating(self, seed: Seed, found: Measurement, step: int) -> Transition | None:
        seed.measured.append(found.improvement)
        if len(seed.measured) < self.criteria.evaluation_checks:
            return None
        improvement = fmean(seed.measured)
        least = self.criteria.improvement * found.loss
        evidence = {"improvement": improvement, "least": least, "validation_loss": found.loss}
        if improvement >= least:
            seed.kept = improvement
            return seed.become(State.FINE_TUNING, step, "validation loss is lower with it than without", evidence)
        if improvement < -self.criteria.tolerance * found.loss:
            return seed.become(State.ROLLED_BACK, step, "validation loss is higher with it than without", evidence)
        return seed.become(State.CULLED, step, "it saves too little validation loss", evidence)

    def _fine_tuning(self, seed: Seed, found: Measurement, step: int) -> Transition | None:
        seed.measured.append(found.improvement)
        if harm := self._harm(seed, found, step):
            return harm
        if len(seed.measured) < self.criteria.tuning_checks:
            return None
        improvement = fmean(seed.measured[-self.criteria.evaluation_checks:])
        least = self.criteria.keep * seed.kept
        evidence = {"improvement": improvement, "evaluated": seed.kept, "least": least}
        if improvement >= least:
            return seed.become(State.FOSSILIZED, step, "fine tuning kept the improvement", evidence)
        return seed.become(State.CULLED, step, "fine tuning did not keep the improvement", evidence)

    def _harm(self, seed: Seed, found: Measurement, step: int) -> Transition | None:
        """Roll the seed back if the loss with it is higher, by more than the tolerance, over five checks."""
        recent = seed.measured[-5:]
        if len(recent) < 5 or fmean(recent) >= -self.criteria.tolerance * found.loss:
            return None
        allowed = self.criteria.tolerance * found.loss
        evidence = {"improvement": fmean(recent), "tolerance": allowed, "validation_loss": found.loss}
        return seed.become(State.ROLLED_BACK, step, "validation loss is higher with it than without", evidence)
