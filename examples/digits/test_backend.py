import sys
import types

import numpy as np
import pytest

import backend
from test_network import data, network


def test_numpy_multiplies():
    a, b = np.ones((2, 3, 4), dtype=np.float32), np.ones((4, 5), dtype=np.float32)
    assert backend.choose("numpy").product(a, b).shape == (2, 3, 5)


def test_an_unknown_backend_is_named():
    with pytest.raises(ValueError, match="'cuda'; backends are auto, numpy, torch"):
        backend.choose("cuda")


def test_without_pytorch_numpy_is_chosen(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it fails
    assert backend.choose("auto").name == "numpy"
    with pytest.raises(ImportError):
        backend.choose("torch")


class StandInTensor:
    """As much of a PyTorch tensor as the backend asks for, no less strict than it."""

    def __init__(self, array: np.ndarray) -> None:
        assert array.dtype == np.float32, "torch.matmul takes no mixed types"
        assert all(stride >= 0 for stride in array.strides), "torch.from_numpy takes no negative strides"
        self.array = array

    def numpy(self) -> np.ndarray:
        return self.array


def stand_in() -> types.ModuleType:
    module = types.ModuleType("torch")
    module.from_numpy = StandInTensor
    module.matmul = lambda a, b: StandInTensor(a.array @ b.array)
    return module


def train_a_little(chosen: backend.Backend) -> float:
    net = network(chosen)
    images, labels = data()
    seeds = np.array([0, 1])
    for _ in range(5):
        passes = net.forward(images)
        before_relu = net.backward(passes, labels, learn=True)
        for layer, p, gradient in zip(net.layers, passes, before_relu):
            layer.learn(layer.seeds_backward(p, gradient, seeds))
            layer.learn(layer.imitate(images, np.array([3, 4]), -gradient)[1])
    return net.loss(net.forward(images), labels).mean


def test_where_pytorch_is_installed_it_multiplies(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torch", stand_in())
    chosen = backend.choose("auto")
    assert chosen.name == "torch"
    assert train_a_little(chosen) == train_a_little(backend.choose("numpy"))


def test_pytorch_agrees_with_numpy():
    pytest.importorskip("torch", reason="PyTorch is not installed: its products were not compared with NumPy's")
    assert train_a_little(backend.choose("torch")) == pytest.approx(train_a_little(backend.choose("numpy")), rel=1e-4)
