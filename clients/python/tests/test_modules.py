"""The hook for PyTorch's modules. Debian has python3-torch; .ci/run does not install it."""

import copy
import io
import pickle

import numpy as np
import pytest
from server import Server

from oona_client import Client, State

torch = pytest.importorskip("torch", reason="torch is not installed")


def seeds(n=3):
    torch.manual_seed(1)
    return torch.nn.ModuleList(torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU()) for _ in range(n))


def columns(record):
    return {m["name"]: np.float32(m["values"]) for m in record["metrics"]}


@pytest.mark.parametrize(("name", "value"), [
    *(("layer", value) for value in ("a b", "", None, 5)), *(("every", value) for value in (0, -1, 1.5, "2", None, True)),
    *(("seeds", value) for value in ([], {}, None, 5, "ab", [1, 2], torch.nn.ReLU(), {"a": torch.nn.ReLU()}, {-1: torch.nn.ReLU()}, {2**31: torch.nn.ReLU()})),
], ids=str)
def test_an_argument_of_a_watch_that_cannot_be_right_is_named(name, value):
    from oona_client.modules import Watch

    with pytest.raises((TypeError, ValueError), match=f"^{name}\\b"):
        Watch(**{"client": None, "layer": "enc.0", "seeds": seeds(), "states": State.TRAINING, name: value})


def test_what_is_measured():
    from oona_client.modules import Watch

    modules, batch = seeds(), torch.ones(5, 4)
    with Server() as server, Client(server.url, "run", strict=True) as oona:
        watch = Watch(oona, "enc.0", {7: modules[0], 8: modules[1], 9: modules[2]}, lambda: bytes([2, 3, 0]), count_dead=True)
        outputs = [modules[i](batch) for i in range(2)]  # the third seed is dormant
        sum(out.pow(2).sum() for out in outputs).backward()
        assert watch.frame(0, {"improvement": np.ones(3)})
        assert oona.flush(300)
        [record] = server.accepted
    assert record["seed_ids"] == [7, 8, 9] and record["states"] == bytes([2, 3, 0])
    found = columns(record)
    for i in range(2):
        length = np.sqrt(sum(float(p.grad.pow(2).sum()) for p in modules[i].parameters()))
        assert found["gradient_norm"][i] == pytest.approx(length, rel=1e-5)
        assert found["activation_variance"][i] == pytest.approx(float(outputs[i].var(unbiased=False)), rel=1e-5)
        assert found["dead_fraction"][i] == pytest.approx(float((outputs[i] <= 0).float().mean()))
        assert found["compute_seconds"][i] > 0
    for name in ("gradient_norm", "activation_variance", "dead_fraction", "compute_seconds"):
        assert np.isnan(found[name][2])
    for i in range(3):
        length = np.sqrt(sum(float(p.detach().pow(2).sum()) for p in modules[i].parameters()))
        assert found["weight_norm"][i] == pytest.approx(length, rel=1e-5)
    np.testing.assert_array_equal(found["improvement"], np.ones(3))


def test_only_every_nth_step_is_measured_and_sent():
    from oona_client.modules import Watch

    modules = seeds()
    with Server() as server, Client(server.url, "run", strict=True) as oona:
        watch = Watch(oona, "enc.0", modules, State.TRAINING, every=3)
        for step in range(7):
            for module in modules:
                module(torch.ones(1, 4)).sum().backward()
            watch.frame(step)
        assert oona.flush(300)
        assert [r["step"] for r in server.accepted] == [0, 3, 6]
        assert all("activation_variance" in columns(r) for r in server.accepted)
        watch.close()
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_a_step_without_gradients():
    from oona_client.modules import Watch

    with Server() as server, Client(server.url, "run", strict=True) as oona:
        Watch(oona, "enc.0", seeds(), State.DORMANT).frame(0)
        assert oona.flush(300)
        found = columns(server.accepted[0])
    assert np.isnan(found["gradient_norm"]).all() and (found["weight_norm"] > 0).all()


@pytest.mark.parametrize("arguments", [(None,), ("x",), (1.5,), (0, [1, 2, 3]), (0, np.ones(3)), (0, {"a b": np.ones(3)})], ids=str)
def test_an_argument_of_a_frame_that_cannot_be_right_does_not_end_the_training(arguments):
    from oona_client.modules import Watch

    with Server() as server, Client(server.url, "run") as oona:
        watch = Watch(oona, "enc.0", seeds(), State.TRAINING)
        assert not watch.frame(*arguments)
        assert watch.frame(0, {"improvement": np.ones(3)})
        assert (oona.close().frames.accepted, oona.stats().frames.invalid) == (1, 1)


def copied(model):
    return copy.deepcopy(model)


def saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    assert b"oona_client" not in file.getvalue()  # it can be loaded where there is no client
    file.seek(0)
    return torch.load(file, **({"weights_only": False} if torch.__version__ >= "2" else {}))


@pytest.mark.parametrize("again", [copied, saved])
def test_a_copy_of_the_model_is_not_watched(again):
    from oona_client.modules import Watch

    modules, batch = seeds(), torch.randn(5, 4)
    with Server() as server, Client(server.url, "run", strict=True) as oona:
        watch = Watch(oona, "enc.0", modules, State.TRAINING)
        outputs = [module(batch) for module in modules]
        for module in again(modules):
            module(100 * batch)
        assert watch.frame(0)
        assert oona.flush(300)
        found = columns(server.accepted[0])["activation_variance"]
    assert found == pytest.approx([float(out.var(unbiased=False)) for out in outputs], rel=1e-5)


def test_a_model_that_refers_to_a_watch_can_be_copied():
    from oona_client.modules import Watch

    with Server() as server, Client(server.url, "run") as oona:
        modules = seeds()
        modules.watch, modules.client = Watch(oona, "enc.0", modules, State.TRAINING), oona
        other = copy.deepcopy(modules)
        assert other.watch is modules.watch and other.client is oona
        with pytest.raises(TypeError, match="each process"):
            pickle.dumps(oona)


class Sparse(torch.nn.Module):
    def forward(self, x):
        return x.to_sparse()


def broken():
    raise RuntimeError("a fault of the program")


@pytest.mark.parametrize(("module", "batch", "states", "sent"), [
    (torch.nn.Embedding(10, 4, sparse=True), torch.tensor([1, 2, 2]), State.TRAINING, True),
    (Sparse(), torch.randn(3, 3), State.TRAINING, True),
    (torch.nn.LazyLinear(3), None, State.TRAINING, False),
    (torch.nn.Linear(4, 8), torch.ones(5, 4), broken, False),
])
def test_what_cannot_be_measured_does_not_end_the_training(module, batch, states, sent, caplog):
    from oona_client.modules import Watch

    module.zero_grad()
    with Server() as server, Client(server.url, "run") as oona:
        watch = Watch(oona, "enc.0", [module], states)
        if batch is not None:
            out = module(batch)
            if out.requires_grad:
                out.sum().backward()
        assert watch.frame(0) == sent
        watch.close()
        assert oona.flush(300)
        assert (oona.stats().frames.accepted, oona.stats().frames.invalid) == ((1, 0) if sent else (0, 1))
    if isinstance(module, torch.nn.Embedding):
        gradient = module.weight.grad.to_dense()
        assert np.isclose(columns(server.accepted[0])["gradient_norm"][0], float(gradient.norm()))
    else:
        assert len(caplog.records) == 1
    with Server() as server, Client(server.url, "run", strict=True) as oona:
        watch = Watch(oona, "enc.0", [module], states)
        if not sent:
            with pytest.raises((RuntimeError, ValueError)):
                watch.frame(1)
        watch.close()
