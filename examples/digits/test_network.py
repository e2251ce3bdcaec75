"""The gradients by hand against differences of the loss."""

import numpy as np
import pytest

import backend
from network import GROUP, Layer, Network, Rates

WIDTH, PIXELS, SEEDS = 8, 6, 5


def network(chosen: backend.Backend = backend.choose("numpy")) -> Network:
    rng = np.random.default_rng(3)
    rates = Rates()
    layers = [Layer(f"l{i}", PIXELS if i == 0 else WIDTH, WIDTH, SEEDS, PIXELS, chosen, rng, rates) for i in range(2)]
    net = Network(layers, 3, chosen, rng, rates)
    for layer in layers:
        layer.up[:] = rng.normal(0, 0.5, layer.up.shape) * layer.group[:, None, :]
        layer.blend[:3] = (1.0, 0.5, 0.25)
    return net


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(4)
    return rng.normal(size=(20, PIXELS)).astype(np.float32), rng.integers(0, 3, 20)


def in_double(net: Network) -> None:
    """Differences need more digits than training does."""
    for layer in net.layers:
        for name in ("weight", "bias", "down", "up", "blend"):
            setattr(layer, name, getattr(layer, name).astype(np.float64))
    net.head, net.head_bias = net.head.astype(np.float64), net.head_bias.astype(np.float64)


def slope(loss, array: np.ndarray, index: tuple[int, ...]) -> float:
    """Return the loss's slope along one entry of the array."""
    kept, step = array[index], 1e-6
    array[index] = kept + step
    above = loss()
    array[index] = kept - step
    below = loss()
    array[index] = kept
    return (above - below) / (2 * step)


@pytest.mark.parametrize("depth", [0, 1])
def test_gradients_of_host_and_seeds(depth: int):
    net = network()
    in_double(net)
    images, labels = data()
    images = images.astype(np.float64)
    passes = net.forward(images)
    before_relu = net.backward(passes, labels, learn=False)
    layer = net.layers[depth]
    _, (weight, bias) = layer.backward(passes[depth], before_relu[depth])
    seeds = np.array([0, 2])
    found = layer.seeds_backward(passes[depth], before_relu[depth], seeds)

    def loss() -> float:
        return net.loss(net.forward(images), labels).mean

    rng = np.random.default_rng(5)
    for _ in range(10):
        i, j = rng.integers(0, weight.shape[0]), rng.integers(0, WIDTH)
        assert weight[i, j] == pytest.approx(slope(loss, layer.weight, (i, j)), abs=1e-7)
        assert bias[j] == pytest.approx(slope(loss, layer.bias, (j,)), abs=1e-7)
        k, r = rng.integers(0, 2), rng.integers(0, 8)
        pixel = rng.integers(0, PIXELS)
        assert found.down[k, pixel, r] == pytest.approx(slope(loss, layer.down, (seeds[k], pixel, r)), abs=1e-7)
        unit = rng.choice(np.flatnonzero(layer.group[seeds[k]]))
        assert found.up[k, r, unit] == pytest.approx(slope(loss, layer.up, (seeds[k], r, unit)), abs=1e-7)
    assert not found.up[~np.broadcast_to(layer.group[seeds][:, None, :], found.up.shape)].any()


def test_gradients_of_imitation():
    net = network()
    in_double(net)
    layer, seeds = net.layers[1], np.array([1, 4])
    images = data()[0].astype(np.float64)
    signal = np.random.default_rng(6).normal(size=(20, WIDTH))
    losses, found = layer.imitate(images, seeds, signal)
    assert losses.shape == (2,)
    for k, seed in enumerate(seeds):
        def loss() -> float:
            return layer.imitate(images, seeds, signal)[0][k]
        for r in range(3):
            assert found.down[k, r, r] == pytest.approx(slope(loss, layer.down, (seed, r, r)), abs=1e-6)
            unit = np.flatnonzero(layer.group[seed])[r]
            assert found.up[k, r, unit] == pytest.approx(slope(loss, layer.up, (seed, r, unit)), abs=1e-6)


def test_a_new_seed_imitates_nothing():
    chosen = backend.choose("numpy")
    layer = Layer("l", PIXELS, WIDTH, SEEDS, PIXELS, chosen, np.random.default_rng(1), Rates())
    losses, _ = layer.imitate(data()[0], np.arange(SEEDS), np.ones((20, WIDTH), dtype=np.float32))
    assert losses == pytest.approx(np.ones(SEEDS))


def test_loss_without_a_seed_is_that_of_a_network_without_it():
    net = network()
    images, labels = data()
    passes = net.forward(images)
    without = net.loss_without(passes, 0, 1, labels)
    assert without != pytest.approx(net.loss(passes, labels).mean)
    net.layers[0].blend[1] = 0
    assert without == pytest.approx(net.loss(net.forward(images), labels).mean)


def test_seeds_share_the_units_evenly():
    layer = network().layers[0]
    assert (layer.group.sum(1) == GROUP).all()
    assert layer.group.any(0).all()


def test_learning_changes_those_seeds_only():
    net = network()
    layer, seeds = net.layers[0], np.array([1, 3])
    before = layer.down.copy()
    for _ in range(3):
        _, gradients = layer.imitate(data()[0], seeds, np.ones((20, WIDTH), dtype=np.float32))
        layer.learn(gradients)
    changed = (layer.down != before).any((1, 2))
    assert list(np.flatnonzero(changed)) == [1, 3]
