"""The training run: steps of learning, and checks at which seeds are judged."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

import digits
from backend import Backend
from growth import Criteria, Growth, Measurement
from lifecycle import Seed, State, Transition
from network import Layer, Loss, Network, Rates
from readings import measure, numbers, signal, strengths

LAYERS = ("enc.0", "enc.1", "enc.2")
SEEDS = 96  # of each layer
WIDTH = 12  # units of a layer: too few for the task, on purpose
BATCH = 64


@dataclass(frozen=True)
class Plan:
    """How long to train, and how often to check."""

    seed: int = 1
    steps: int = 8000
    check_every: int = 10
    grow: bool = True  # false: the host alone, to compare with
    rates: Rates = Rates()
    criteria: Criteria = Criteria()


@dataclass(frozen=True)
class Tensor:
    """An array that belongs to one seed."""

    name: str
    seed: int
    values: np.ndarray


@dataclass(frozen=True)
class Frame:
    """The measurements of one layer at one check, with the states at that time."""

    layer: str
    step: int
    states: list[State]
    columns: dict[str, np.ndarray]
    tensors: list[Tensor]


class Sink(Protocol):
    """Receives the frames and events of a run."""

    def frame(self, frame: Frame) -> None: ...

    def transition(self, transition: Transition) -> None: ...


@dataclass
class Outcome:
    """The result of a run."""

    validation: Loss
    test: Loss
    test_without_seeds: Loss  # of the same network with every graft taken out
    losses: list[tuple[int, float, float]] = field(default_factory=list)  # step, validation loss and accuracy
    states: dict[str, dict[str, int]] = field(default_factory=dict)  # layer, state, seeds in it


class Training:
    """A network of three layers that learns digits, and the seeds in it."""

    def __init__(self, plan: Plan, backend: Backend) -> None:
        self.plan = plan
        self.rng = np.random.default_rng(plan.seed)
        self.data = digits.load(self.rng)
        pixels = self.data.train.images.shape[1]
        layers = [Layer(name, WIDTH if depth else pixels, WIDTH, SEEDS, pixels, backend, self.rng, plan.rates)
                  for depth, name in enumerate(LAYERS)]
        self.network = Network(layers, digits.CLASSES, backend, self.rng, plan.rates)
        self.seeds = {name: [Seed(name, i) for i in range(SEEDS)] for name in LAYERS}
        self.growth = Growth(plan.criteria, self.seeds)
        self.losses: list[tuple[int, float, float]] = []

    def run(self, sink: Sink) -> Outcome:
        """Train to the plan's end, telling the sink of every check and transition."""
        for step in range(self.plan.steps):
            if step % self.plan.check_every == 0:
                self.check(step, sink)
            self.learn()
        self.check(self.plan.steps, sink)
        return self.outcome()

    def learn(self) -> None:
        """Take one step with a batch drawn at random."""
        chosen = self.rng.integers(0, len(self.data.train.labels), BATCH)
        images = digits.shifted(self.data.train.images[chosen], self.rng)
        passes = self.network.forward(images)
        before_relu = self.network.backward(passes, self.data.train.labels[chosen], learn=True)
        for layer, p, gradient in zip(self.network.layers, passes, before_relu):
            seeds = self.seeds[layer.name]
            training = numbers(seeds, State.TRAINING)
            if len(training):
                layer.learn(layer.imitate(images, training, signal(gradient))[1])
            tuned = numbers(seeds, State.GRAFTING, State.FINE_TUNING)
            if len(tuned):
                layer.learn(layer.seeds_backward(p, gradient, tuned))

    def check(self, step: int, sink: Sink) -> None:
        """Measure every layer on the validation images, then judge its seeds."""
        images, labels = self.data.validation.images, self.data.validation.labels
        passes = self.network.forward(images)
        loss = self.network.loss(passes, labels)
        self.losses.append((step, loss.mean, loss.accuracy))
        before_relu = self.network.backward(passes, labels, learn=False)
        changes: list[Transition] = []
        for depth, layer in enumerate(self.network.layers):
            seeds = self.seeds[layer.name]
            states = [s.state for s in seeds]
            columns = measure(self.network, depth, passes, before_relu[depth], labels, loss.mean, seeds,
                              step // self.plan.check_every)
            judged = self.judge(seeds, columns, strengths(before_relu[depth], layer.group), loss.mean, step)
            sink.frame(Frame(layer.name, step, states, columns, self.tensors(layer, judged)))
            changes += judged
        if self.plan.grow:
            changes += self.growth.germinate(loss.mean, step)
        for change in changes:
            sink.transition(change)
        for layer in self.network.layers:
            layer.blend[:] = [self.growth.blend(s) for s in self.seeds[layer.name]]

    def judge(self, seeds: list[Seed], columns: dict[str, np.ndarray], strength: np.ndarray,
              loss: float, step: int) -> list[Transition]:
        """Judge each seed by what was measured of it."""
        changes = []
        for seed in seeds:
            i = seed.number
            found = Measurement(loss, float(strength[i]), float(columns["reconstruction_loss"][i]),
                                float(columns["improvement"][i]))
            if change := self.growth.judge(seed, found, step):
                changes.append(change)
        return changes

    def tensors(self, layer: Layer, changes: list[Transition]) -> list[Tensor]:
        """Return the weights of seeds that are grafted or fossilized now.

        Of a fossilized seed also its response: what it adds to its units for
        each training image.
        """
        found = []
        for change in changes:
            if change.to_state not in (State.GRAFTING, State.FOSSILIZED):
                continue
            i, units = change.seed, layer.group[change.seed]
            found += [Tensor("down", i, layer.down[i].copy()), Tensor("up", i, layer.up[i][:, units])]
            if change.to_state == State.FOSSILIZED:
                outputs, _ = layer.outputs(self.data.train.images, np.array([i]))
                found.append(Tensor("response", i, outputs[0][:, units]))
        return found

    def outcome(self) -> Outcome:
        """Return the losses on validation and test images, and the test's without any seed."""
        validation, test = self.data.validation, self.data.test
        result = Outcome(self.loss(validation), self.loss(test), self.loss(test), self.losses)
        blends = [layer.blend.copy() for layer in self.network.layers]
        for layer in self.network.layers:
            layer.blend[:] = 0
        result.test_without_seeds = self.loss(test)
        for layer, blend in zip(self.network.layers, blends):
            layer.blend[:] = blend
        for name, seeds in self.seeds.items():
            result.states[name] = {state.name: len(numbers(seeds, state)) for state in State}
        return result

    def loss(self, part: digits.Part) -> Loss:
        """Return the loss on a part of the data."""
        return self.network.loss(self.network.forward(part.images), part.labels)
