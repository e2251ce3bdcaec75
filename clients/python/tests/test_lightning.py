"""The callback for Lightning: with its Trainer if it is installed, and with a stand-in for its Trainer."""

import importlib
import sys
import types

import numpy as np
import pytest
from server import Server

from oona_client import State

torch = pytest.importorskip("torch", reason="torch is not installed")


def real():
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return importlib.import_module(name)
        except Exception:  # also one that does not work with this Python or torch
            pass
    return None


@pytest.fixture
def callback(monkeypatch):
    """Return the module with the callback, on a stand-in if Lightning is not installed."""
    if real() is None:
        package, callbacks = types.ModuleType("pytorch_lightning"), types.ModuleType("pytorch_lightning.callbacks")
        callbacks.Callback = type("Callback", (), {})
        monkeypatch.setitem(sys.modules, "pytorch_lightning", package)
        monkeypatch.setitem(sys.modules, "pytorch_lightning.callbacks", callbacks)
        monkeypatch.setitem(sys.modules, "lightning.pytorch.callbacks", None)  # is not there
    monkeypatch.delitem(sys.modules, "oona_client.lightning", raising=False)
    return importlib.import_module("oona_client.lightning")


def seeds():
    torch.manual_seed(1)
    return torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(3))


def watches_of(client, module):
    from oona_client.modules import Watch

    return [Watch(client, "enc.0", module.seeds, State.TRAINING)]


class Trainer:
    """Calls a callback in the order in which Lightning's Trainer does."""

    def __init__(self, callback):
        self.callback, self.global_step = callback, 0

    def fit(self, module, steps, fail_at=-1):
        try:
            self.callback.on_fit_start(self, module)
            for step in range(steps):
                if step == fail_at:
                    raise RuntimeError("the training fails")
                sum(seed(torch.ones(2, 4)).sum() for seed in module.seeds).backward()
                self.callback.on_before_optimizer_step(self, module, None)
                self.global_step += 1
            self.callback.on_fit_end(self, module)
        except RuntimeError as failure:
            self.callback.on_exception(self, module, failure)


def test_watches_must_be_a_function(callback):
    with pytest.raises(TypeError, match="^watches "):
        callback.OonaCallback([], "http://127.0.0.1:1", run="run")


@pytest.mark.parametrize("fail_at", [-1, 3])
def test_a_frame_for_each_step_of_the_optimiser(callback, fail_at):
    module = types.SimpleNamespace(seeds=seeds())
    with Server() as server:
        oona = callback.OonaCallback(watches_of, server.url, run="run", strict=True)
        Trainer(oona).fit(module, 5, fail_at)
        sent = 5 if fail_at < 0 else fail_at
        assert [r["step"] for r in server.accepted] == list(range(sent))
        assert oona.client.stats().frames.accepted == sent
        assert not any(seed._forward_hooks for seed in module.seeds)
        Trainer(oona).fit(module, 2)  # again, with another client
        assert [r["step"] for r in server.accepted[sent:]] == [0, 1]


@pytest.mark.skipif(real() is None, reason="SKIPPED: lightning is not installed, or does not work here")
def test_with_lightnings_trainer(callback, tmp_path, monkeypatch):
    pl = real()
    # Debian's PyTorch 1.13 cannot import its own torch.distributed._shard with Python 3.11.
    monkeypatch.setattr(torch.distributed, "is_available", lambda: False)

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.seeds = seeds()

        def training_step(self, batch, index):
            return sum(seed(batch).pow(2).sum() for seed in self.seeds)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    with Server() as server:
        oona = callback.OonaCallback(watches_of, server.url, run="run", strict=True)
        trainer = pl.Trainer(max_epochs=2, accelerator="cpu", callbacks=[oona], logger=False, enable_checkpointing=False,
                             enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)
        trainer.fit(Module(), torch.utils.data.DataLoader(torch.ones(12, 4), batch_size=4))
        assert [r["step"] for r in server.accepted] == list(range(6))
    norms = next(m["values"] for m in server.accepted[0]["metrics"] if m["name"] == "gradient_norm")
    assert np.all(np.array(norms) > 0)
