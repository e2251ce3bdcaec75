"""The lifecycle of a seed: eleven states and the transitions that are allowed.

The ordinals and the table are those of Oona's lifecycle.go; a test compares
the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class State(IntEnum):
    """A seed's place in its lifecycle. The ordinals are on the wire."""

    DORMANT = 0
    GERMINATED = 1
    TRAINING = 2
    GRAFTING = 3
    STABILIZATION = 4
    EVALUATING = 5
    FINE_TUNING = 6
    FOSSILIZED = 7
    CULLED = 8
    CANCELLED = 9
    ROLLED_BACK = 10


ALLOWED: dict[State, tuple[State, ...]] = {
    State.DORMANT: (State.GERMINATED,),
    State.GERMINATED: (State.TRAINING, State.CANCELLED),
    State.TRAINING: (State.GRAFTING, State.CULLED, State.CANCELLED),
    State.GRAFTING: (State.STABILIZATION, State.ROLLED_BACK),
    State.STABILIZATION: (State.EVALUATING, State.ROLLED_BACK),
    State.EVALUATING: (State.FINE_TUNING, State.CULLED, State.ROLLED_BACK),
    State.FINE_TUNING: (State.FOSSILIZED, State.CULLED, State.ROLLED_BACK),
    State.FOSSILIZED: (),
    State.CULLED: (),
    State.CANCELLED: (),
    State.ROLLED_BACK: (),
}

LEARNING = (State.TRAINING, State.GRAFTING, State.FINE_TUNING)
"""States in which a seed's weights change."""

GRAFTED = (State.GRAFTING, State.STABILIZATION, State.EVALUATING, State.FINE_TUNING, State.FOSSILIZED)
"""States in which a seed's output takes part in its layer."""


class IllegalTransition(Exception):
    """A transition that the lifecycle does not have."""


@dataclass(frozen=True)
class Transition:
    """One change of state, with what was measured when its criterion was met."""

    layer: str
    seed: int
    sequence: int  # counts the seed's own transitions
    step: int
    from_state: State
    to_state: State
    reason: str  # the criterion, in words
    evidence: dict[str, float]


@dataclass
class Seed:
    """A seed's state and what has been measured since it entered it."""

    layer: str
    number: int
    state: State = State.DORMANT
    transitions: int = 0
    measured: list[float] = field(default_factory=list)  # one value a check, of what the state's criterion asks
    kept: float = 0.0  # the improvement that evaluation found, for fine tuning to keep

    def become(self, state: State, step: int, reason: str, evidence: dict[str, float]) -> Transition:
        """Change to the state, and clear the measurements.

        Raises IllegalTransition if the lifecycle does not allow the transition, and
        ValueError if nothing was measured, as a transition needs evidence.
        """
        if state not in ALLOWED[self.state]:
            raise IllegalTransition(f"{self.layer} seed {self.number}: {self.state.name} to {state.name}")
        if not evidence:
            raise ValueError(f"{self.layer} seed {self.number}: {state.name} without evidence")
        change = Transition(self.layer, self.number, self.transitions, step, self.state, state, reason, evidence)
        self.state = state
        self.transitions += 1
        self.measured = []
        return change
