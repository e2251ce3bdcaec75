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


def frames_of(server):
    return [record for record in server.accepted if "metrics" in record]


def ends_of(server):
    return [(record["outcome"], record["reason"]) for record in server.accepted if "outcome" in record]


class Trainer:
    """Calls a callback in the order in which Lightning's Trainer does."""

    is_global_zero, interrupted, should_stop, max_epochs, max_steps, current_epoch = True, False, False, 10, -1, 10

    def __init__(self, callback, *others):
        self.callback, self.callbacks, self.global_step = callback, [callback, *others], 0

    def fit(self, module, steps, fail_at=-1, failure=RuntimeError("the training fails")):
        try:
            self.callback.on_fit_start(self, module)
            for step in range(steps):
                if step == fail_at:
                    raise failure
                sum(seed(torch.ones(2, 4)).sum() for seed in module.seeds).backward()
                self.callback.on_before_optimizer_step(self, module, None)
                self.global_step += 1
            self.callback.on_fit_end(self, module)
        except BaseException as exception:
            self.callback.on_exception(self, module, exception)


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
        assert [r["step"] for r in frames_of(server)] == list(range(sent))
        assert oona.client.stats().frames.accepted == sent
        assert not any(seed._forward_hooks for seed in module.seeds)
        Trainer(oona).fit(module, 2)  # again, with another client
        assert [r["step"] for r in frames_of(server)[sent:]] == [0, 1]


class Exit(SystemExit):
    """Like the exception of Lightning for SIGTERM."""


@pytest.mark.parametrize(("fails", "expected"), [
    (None, ("COMPLETED", "")),
    (RuntimeError("the loss is NaN"), ("FAILED", "RuntimeError: the loss is NaN")),
    (KeyboardInterrupt(), ("STOPPED", "KeyboardInterrupt: ")),
    (Exit("SIGTERM"), ("STOPPED", "Exit: SIGTERM")),
], ids=repr)
def test_it_says_how_the_run_has_ended(callback, fails, expected):
    module = types.SimpleNamespace(seeds=seeds())
    with Server() as server:
        oona = callback.OonaCallback(watches_of, server.url, run="run", strict=True)
        trainer = Trainer(oona)
        trainer.fit(module, 5, -1 if fails is None else 3, fails)
        oona.on_exception(trainer, module, RuntimeError("in trainer.test()"))  # after the fit
        assert server.accepted[-1]["step"] == (4 if fails is None else 2)
        assert oona.client.stats().events.invalid == 0
    assert ends_of(server) == [expected]


@pytest.mark.parametrize(("change", "outcome"), [
    ({"should_stop": True, "current_epoch": 3}, "STOPPED"),
    ({"should_stop": True, "current_epoch": 3, "callbacks": [types.SimpleNamespace(stopped_epoch=0)]}, "STOPPED"),
    ({"should_stop": True, "current_epoch": 3, "callbacks": [types.SimpleNamespace(stopped_epoch=3)]}, "COMPLETED"),
    ({"should_stop": True}, "COMPLETED"),
    ({"should_stop": True, "max_epochs": -1, "max_steps": 5}, "COMPLETED"),
    ({"should_stop": True, "max_epochs": None, "max_steps": 6}, "STOPPED"),
    ({"interrupted": True}, "STOPPED"),
    ({"current_epoch": 3}, "COMPLETED"),
], ids=str)
def test_a_fit_may_have_been_stopped(callback, change, outcome):
    module = types.SimpleNamespace(seeds=seeds())
    with Server() as server:
        trainer = Trainer(callback.OonaCallback(watches_of, server.url, run="run", strict=True, sender="thread"))
        vars(trainer).update(change)
        trainer.fit(module, 5)
    assert [end for end, _ in ends_of(server)] == [outcome]


@pytest.mark.parametrize(("rank", "settings"), [(1, {}), (0, {"ends_run": False})])
def test_another_rank_or_program_says_it(callback, rank, settings):
    module = types.SimpleNamespace(seeds=seeds())
    with Server() as server:
        for fail_at in (-1, 3):
            trainer = Trainer(callback.OonaCallback(watches_of, server.url, run="run", strict=True, sender="thread", **settings))
            trainer.is_global_zero = rank == 0
            trainer.fit(module, 5, fail_at)
    assert len(server.accepted) == 8 and not ends_of(server)


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
            self.log("loss", 1.0)  # it does not get better
            return sum(seed(batch).pow(2).sum() for seed in self.seeds)

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    with Server() as server:
        oona = callback.OonaCallback(watches_of, server.url, run="run", strict=True)
        trainer = pl.Trainer(max_epochs=2, accelerator="cpu", callbacks=[oona], logger=False, enable_checkpointing=False,
                             enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)
        trainer.fit(Module(), torch.utils.data.DataLoader(torch.ones(12, 4), batch_size=4))
        assert [r["step"] for r in frames_of(server)] == list(range(6))
        assert ends_of(server) == [("COMPLETED", "")]

        class Stop(pl.Callback):
            def on_train_batch_end(self, trainer, *_):
                trainer.should_stop = True

        class Fail(pl.Callback):
            def on_train_batch_end(self, *_):
                raise RuntimeError("the training fails")

        for what, expected in ((Stop(), "STOPPED"), (Fail(), "FAILED"), (pl.callbacks.EarlyStopping("loss", patience=1), "COMPLETED")):
            del server.accepted[:]
            trainer = pl.Trainer(max_epochs=9, accelerator="cpu", callbacks=[oona, what], logger=False, enable_checkpointing=False,
                                 enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)
            try:
                trainer.fit(Module(), torch.utils.data.DataLoader(torch.ones(12, 4), batch_size=4))
            except RuntimeError:
                assert expected == "FAILED"
            assert [outcome for outcome, _ in ends_of(server)] == [expected]
            assert len(frames_of(server)) < 27
        del server.accepted[:]
        trainer = pl.Trainer(max_epochs=1, accelerator="cpu", callbacks=[oona], logger=False, enable_checkpointing=False,
                             enable_progress_bar=False, enable_model_summary=False, default_root_dir=tmp_path)
        trainer.fit(Module(), torch.utils.data.DataLoader(torch.ones(12, 4), batch_size=4))
    norms = next(m["values"] for m in frames_of(server)[0]["metrics"] if m["name"] == "gradient_norm")
    assert np.all(np.array(norms) > 0)
