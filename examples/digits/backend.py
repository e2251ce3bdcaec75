"""The products of matrices, where a training step spends its time.

All arrays are NumPy's. Where PyTorch is installed it multiplies them in place
(a tensor made from an array shares its memory); otherwise NumPy does. The rest
of the arithmetic is the same code for both.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Product = Callable[[np.ndarray, np.ndarray], np.ndarray]

NAMES = ("auto", "numpy", "torch")


@dataclass(frozen=True)
class Backend:
    """A library for products: product(a, b) is a @ b, batched over leading axes."""

    name: str
    product: Product


def choose(name: str = "auto") -> Backend:
    """Return the backend with the name; "auto" is PyTorch if it can be imported.

    Raises ValueError for an unknown name, and ImportError if PyTorch is requested
    and cannot be imported.
    """
    if name not in NAMES:
        raise ValueError(f"unknown backend {name!r}; backends are {', '.join(NAMES)}")
    if name == "numpy":
        return Backend("numpy", np.matmul)
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        if name == "torch":
            raise
        return Backend("numpy", np.matmul)

    def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return torch.matmul(torch.from_numpy(a), torch.from_numpy(b)).numpy()

    return Backend("torch", product)
