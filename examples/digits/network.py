"""The host network and the seeds in it, with backpropagation by hand.

A layer computes  relu(x W + b + sum over its attached seeds of blend * s(image)),
where a seed is a small module of its own that looks at the image again:
s(image) = relu(image D) U,  with D of shape (pixels, RANK) and U of shape
(RANK, width) that is zero outside the seed's group of units. A seed's output
is as wide as the layer, so the attached seeds of a layer compute together as
one wide hidden layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from backend import Backend

RANK = 8  # hidden units of a seed
GROUP = 4  # units of the layer that a seed adds to


class Adam:
    """Adam (Kingma and Ba, 2015) on one array, each of whose rows counts its own steps."""

    def __init__(self, value: np.ndarray, rate: float) -> None:
        self.value = value
        self.rate = rate
        self.mean = np.zeros_like(value)
        self.square = np.zeros_like(value)
        self.steps = np.zeros((len(value),) + (1,) * (value.ndim - 1), dtype=np.float32)

    def update(self, gradient: np.ndarray, rows: np.ndarray | slice = slice(None)) -> None:
        """Take a step on those rows; gradient has the shape of value[rows]."""
        self.steps[rows] += 1
        self.mean[rows] = 0.9 * self.mean[rows] + 0.1 * gradient
        self.square[rows] = 0.999 * self.square[rows] + 0.001 * gradient**2
        mean = self.mean[rows] / (1 - 0.9 ** self.steps[rows])
        square = self.square[rows] / (1 - 0.999 ** self.steps[rows])
        self.value[rows] -= self.rate * mean / (np.sqrt(square) + 1e-8)


@dataclass
class Pass:
    """What one layer computed on a batch of n inputs, kept for the way back."""

    inputs: np.ndarray  # (n, inputs)
    images: np.ndarray  # (n, pixels)
    attached: np.ndarray  # seeds that took part
    hidden: np.ndarray  # (n, len(attached) * RANK), after relu
    output: np.ndarray  # (n, width), after relu


@dataclass
class SeedGradients:
    """Gradients of some seeds' weights, in the order of seeds."""

    seeds: np.ndarray
    down: np.ndarray
    up: np.ndarray

    def norms(self) -> np.ndarray:
        """Return the length of each seed's gradient."""
        return np.sqrt((self.down**2).sum((1, 2)) + (self.up**2).sum((1, 2)))


@dataclass(frozen=True)
class Rates:
    """Learning rates."""

    host: float = 1e-3
    seed: float = 4e-3


class Layer:
    """A dense layer with seeds. blend[i] is the share of seed i's output that is added."""

    def __init__(self, name: str, inputs: int, width: int, seeds: int, pixels: int,
                 backend: Backend, rng: np.random.Generator, rates: Rates) -> None:
        self.name = name
        self.product = backend.product
        self.weight = normal(rng, (inputs, width), inputs)
        self.bias = np.zeros(width, dtype=np.float32)
        self.down = normal(rng, (seeds, pixels, RANK), pixels)
        self.up = np.zeros((seeds, RANK, width), dtype=np.float32)  # a new seed adds nothing
        self.group = np.arange(seeds)[:, None] % (width // GROUP) == np.arange(width) // GROUP
        self.blend = np.zeros(seeds, dtype=np.float32)
        self.optimizers = Adam(self.weight, rates.host), Adam(self.bias, rates.host)
        self.seed_optimizers = Adam(self.down, rates.seed), Adam(self.up, rates.seed)

    def forward(self, x: np.ndarray, images: np.ndarray, without: int | None = None) -> Pass:
        """Compute the layer's output, with one seed's left out if asked."""
        attached = np.flatnonzero(self.blend)
        if without is not None:
            attached = attached[attached != without]
        total = self.product(x, self.weight) + self.bias
        hidden = self.hidden(images, attached)
        if len(attached):
            up = self.up[attached] * self.blend[attached, None, None]
            total += self.product(hidden, up.reshape(len(attached) * RANK, -1))
        return Pass(x, images, attached, hidden, relu(total))

    def hidden(self, images: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Return relu(images D) of those seeds side by side, shape (n, len(seeds) * RANK)."""
        down = np.ascontiguousarray(self.down[seeds].transpose(1, 0, 2))
        return relu(self.product(images, down.reshape(images.shape[1], -1)))

    def outputs(self, images: np.ndarray, seeds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each seed's output, (seeds, n, width), and its hidden units, (seeds, n, RANK)."""
        hidden = self.hidden(images, seeds).reshape(len(images), len(seeds), RANK)
        hidden = np.ascontiguousarray(hidden.transpose(1, 0, 2))
        return self.product(hidden, self.up[seeds]), hidden

    def backward(self, p: Pass, d_total: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        """Return the gradients of the inputs and of the host's weight and bias.

        d_total, (n, width), is the loss's gradient before relu.
        """
        return self.product(d_total, self.weight.T), [self.product(p.inputs.T, d_total), d_total.sum(0)]

    def seeds_backward(self, p: Pass, d_total: np.ndarray, seeds: np.ndarray) -> SeedGradients:
        """Return the gradients of some of the seeds whose output took part in the pass."""
        hidden = p.hidden.reshape(len(p.images), -1, RANK)[:, np.isin(p.attached, seeds)]
        hidden = hidden.reshape(len(p.images), -1)
        blend = self.blend[seeds, None, None]
        d_up = self.product(hidden.T, d_total).reshape(len(seeds), RANK, -1)
        d_up = d_up * blend * self.group[seeds, None, :]
        up = (self.up[seeds] * blend).reshape(len(seeds) * RANK, -1)
        d_hidden = self.product(d_total, up.T) * (hidden > 0)
        d_down = self.product(p.images.T, d_hidden).reshape(-1, len(seeds), RANK)
        return SeedGradients(seeds, d_down.transpose(1, 0, 2), d_up)

    def imitate(self, images: np.ndarray, seeds: np.ndarray, signal: np.ndarray) -> tuple[np.ndarray, SeedGradients]:
        """Return those seeds' reconstruction losses of the signal, (n, width), and their gradients.

        The loss is the squared error on the seed's group of units relative to
        the signal's own square: 1 is what an output of zero has.
        """
        outputs, hidden = self.outputs(images, seeds)
        group = self.group[seeds, None, :]
        error = (outputs - signal) * group
        power = ((signal * group) ** 2).sum((1, 2)) + 1e-12
        d_outputs = 2 * error / power[:, None, None]
        d_up = self.product(hidden.transpose(0, 2, 1), d_outputs)
        d_hidden = self.product(d_outputs, self.up[seeds].transpose(0, 2, 1)) * (hidden > 0)
        d_hidden = np.ascontiguousarray(d_hidden.transpose(1, 0, 2)).reshape(len(images), -1)
        d_down = self.product(images.T, d_hidden).reshape(-1, len(seeds), RANK)
        return (error**2).sum((1, 2)) / power, SeedGradients(seeds, d_down.transpose(1, 0, 2), d_up)

    def learn(self, gradients: SeedGradients) -> None:
        """Take a step with those seeds' gradients."""
        for optimizer, gradient in zip(self.seed_optimizers, (gradients.down, gradients.up)):
            optimizer.update(gradient, gradients.seeds)


@dataclass
class Loss:
    """Cross entropy of a batch, and the share of it that was classified right."""

    mean: float
    accuracy: float


class Network:
    """Layers in a row and a linear head."""

    def __init__(self, layers: list[Layer], classes: int, backend: Backend,
                 rng: np.random.Generator, rates: Rates) -> None:
        self.layers = layers
        self.product = backend.product
        width = layers[-1].weight.shape[1]
        self.head = normal(rng, (width, classes), width)
        self.head_bias = np.zeros(classes, dtype=np.float32)
        self.optimizers = Adam(self.head, rates.host), Adam(self.head_bias, rates.host)

    def forward(self, images: np.ndarray) -> list[Pass]:
        """Return each layer's pass over the images, (n, pixels)."""
        passes: list[Pass] = []
        x = images
        for layer in self.layers:
            passes.append(layer.forward(x, images))
            x = passes[-1].output
        return passes

    def logits(self, features: np.ndarray) -> np.ndarray:
        return self.product(features, self.head) + self.head_bias

    def loss(self, passes: list[Pass], labels: np.ndarray) -> Loss:
        """Return the loss of the passes' outcome."""
        return cross_entropy(self.logits(passes[-1].output), labels)

    def loss_without(self, passes: list[Pass], depth: int, seed: int, labels: np.ndarray) -> float:
        """Return the loss that the passes would have had without one seed of the layer at depth."""
        images = passes[depth].images
        x = self.layers[depth].forward(passes[depth].inputs, images, without=seed).output
        for layer in self.layers[depth + 1:]:
            x = layer.forward(x, images).output
        return cross_entropy(self.logits(x), labels).mean

    def backward(self, passes: list[Pass], labels: np.ndarray, learn: bool) -> list[np.ndarray]:
        """Return, by layer, the mean loss's gradient before relu, (n, width).

        The host takes a step if it is to learn. Whether a seed does depends on
        its state, which the network does not know.
        """
        features = passes[-1].output
        d_logits = softmax(self.logits(features))
        d_logits[np.arange(len(labels)), labels] -= 1
        d_logits /= len(labels)
        steps = [(self.optimizers, [self.product(features.T, d_logits), d_logits.sum(0)])]
        d_output = self.product(d_logits, self.head.T)
        before_relu: list[np.ndarray] = []
        for layer, p in zip(reversed(self.layers), reversed(passes)):
            d_total = d_output * (p.output > 0)
            d_output, host = layer.backward(p, d_total)
            before_relu.insert(0, d_total)
            steps.append((layer.optimizers, host))
        if learn:
            for optimizers, gradients in steps:
                for optimizer, gradient in zip(optimizers, gradients):
                    optimizer.update(gradient)
        return before_relu


def normal(rng: np.random.Generator, shape: tuple[int, ...], inputs: int) -> np.ndarray:
    """Return weights that keep the variance of a relu layer's input (He et al., 2015)."""
    return rng.normal(0, np.sqrt(2 / inputs), shape).astype(np.float32)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return shifted / shifted.sum(1, keepdims=True)


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> Loss:
    likelihood = softmax(logits)[np.arange(len(labels)), labels]
    return Loss(float(-np.log(likelihood + 1e-12).mean()), float((logits.argmax(1) == labels).mean()))
