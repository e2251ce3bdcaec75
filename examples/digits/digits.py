"""The digits that scikit-learn ships: 1,797 images of 8 x 8 pixels, by hand."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.datasets import load_digits

SIDE = 8
CLASSES = 10
VALIDATION = 360
TEST = 360


@dataclass(frozen=True)
class Part:
    """Images, shape (n, 64), float32 from 0 to 1, and their labels, shape (n,)."""

    images: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Digits:
    """The images in three disjoint parts.

    Decisions about seeds use the validation part. The test part is used only
    once, after the training.
    """

    train: Part
    validation: Part
    test: Part


def load(rng: np.random.Generator) -> Digits:
    """Return the digits in three parts, drawn by rng."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32)
    order = rng.permutation(len(images))
    cuts = (len(order) - VALIDATION - TEST, len(order) - TEST)
    train, validation, test = (Part(images[i], labels[i]) for i in np.split(order, cuts))
    return Digits(train, validation, test)


def shifted(images: np.ndarray, rng: np.random.Generator, reach: int = 1) -> np.ndarray:
    """Return each image moved by up to reach pixels either way, at random.

    A thousand images are few. Moving them keeps the network from memorising
    them, so that it lacks only capacity, which seeds add.
    """
    n = len(images)
    padded = np.pad(images.reshape(n, SIDE, SIDE), ((0, 0), (reach, reach), (reach, reach)))
    down, right = rng.integers(0, 2 * reach + 1, size=(2, n))
    rows = down[:, None] + np.arange(SIDE)
    columns = right[:, None] + np.arange(SIDE)
    moved = padded[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.reshape(n, SIDE * SIDE)
