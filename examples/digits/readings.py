"""What is measured of a layer's seeds at one check: the columns of a frame."""

from __future__ import annotations

import time

import numpy as np

from lifecycle import GRAFTED, Seed, State
from network import Layer, Network, Pass

METRICS = (
    "reconstruction_loss",  # relative squared error of a training seed's output to the signal
    "gradient_norm",  # length of the gradient of a learning seed's weights
    "activation_variance",  # variance of its output over the images
    "dead_fraction",  # share of its hidden units that no image makes active
    "weight_norm",  # length of its weights
    "improvement",  # loss without it less loss with it
    "blend",  # share of its output that the layer adds
    "compute_seconds",  # one pass of it over the images
)

TURNS = 8  # a fossilized seed's improvement is measured at every eighth check

SIGNAL_SCALE = 0.3
"""Root mean square of the signal that seeds imitate. It is small compared with the
layer's own output, so that a graft changes the network only a little."""


def signal(before_relu: np.ndarray) -> np.ndarray:
    """Return what the layer lacks: the direction in which the loss falls, at a fixed scale."""
    return -before_relu * np.float32(SIGNAL_SCALE / (np.sqrt((before_relu**2).mean()) + 1e-12))


def strengths(before_relu: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the gradient at each seed's units relative to the mean over the layer's units.

    before_relu is (n, width), group is (seeds, width).
    """
    strength = np.sqrt((before_relu**2).mean(0))
    return (group @ strength) / group.sum(1) / (strength.mean() + 1e-12)


def numbers(seeds: list[Seed], *states: State) -> np.ndarray:
    """Return the numbers of the seeds that are in one of the states."""
    return np.array([s.number for s in seeds if s.state in states], dtype=np.int64)


def measure(network: Network, depth: int, passes: list[Pass], before_relu: np.ndarray,
            labels: np.ndarray, loss: float, seeds: list[Seed], check: int) -> dict[str, np.ndarray]:
    """Return a value of every metric for every seed of the layer at depth, NaN where not measured.

    A seed that is dormant, germinated or given up has no module, and nothing of it
    is measured.
    """
    layer, images = network.layers[depth], passes[depth].images
    columns = {name: np.full(len(seeds), np.nan, dtype=np.float32) for name in METRICS}
    training = numbers(seeds, State.TRAINING)
    if len(training):
        losses, gradients = layer.imitate(images, training, signal(before_relu))
        columns["reconstruction_loss"][training] = losses
        columns["gradient_norm"][training] = gradients.norms()
    tuned = numbers(seeds, State.GRAFTING, State.FINE_TUNING)
    if len(tuned):
        columns["gradient_norm"][tuned] = layer.seeds_backward(passes[depth], before_relu, tuned).norms()
    for seed in numbers(seeds, State.TRAINING, *GRAFTED):
        measure_module(layer, seed, images, columns)
    for seed in seeds:
        if seed.state in GRAFTED and (seed.state != State.FOSSILIZED or (seed.number + check) % TURNS == 0):
            columns["improvement"][seed.number] = network.loss_without(passes, depth, seed.number, labels) - loss
    return columns


def measure_module(layer: Layer, seed: int, images: np.ndarray, columns: dict[str, np.ndarray]) -> None:
    """Fill in the values that depend only on the seed's module."""
    started = time.perf_counter()
    outputs, hidden = layer.outputs(images, np.array([seed]))
    columns["compute_seconds"][seed] = time.perf_counter() - started
    columns["activation_variance"][seed] = outputs[0][:, layer.group[seed]].var()
    columns["dead_fraction"][seed] = (hidden[0].max(0) == 0).mean()
    columns["weight_norm"][seed] = np.sqrt((layer.down[seed] ** 2).sum() + (layer.up[seed] ** 2).sum())
    columns["blend"][seed] = layer.blend[seed]
