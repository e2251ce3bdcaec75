"""A callback for PyTorch Lightning: lightning, or pytorch-lightning."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from oona_client.client import Client
from oona_client.modules import Watch
from oona_client.settings import flag
from oona_client.wire import Outcome, shown, told

_NAMES = ("lightning.pytorch.callbacks", "pytorch_lightning.callbacks")


def _callback() -> Any:
    """Return the class Callback of the package that the program has imported, or else of one that is installed."""
    imported = [name for name in _NAMES if name.rpartition(".")[0] in sys.modules]
    for name in [*imported, *_NAMES]:
        try:
            return importlib.import_module(name).Callback
        except ImportError:
            pass
    raise ImportError("the callback needs the package lightning or pytorch-lightning; install one of them")


class OonaCallback(_callback()):  # type: ignore[misc]
    """Watches the seeds of a module while a Trainer fits it.

        def watches(client, module):
            return [Watch(client, f"enc.{i}", layer.seeds, lambda: layer.states) for i, layer in enumerate(module.layers)]

        Trainer(callbacks=[OonaCallback(watches, "http://127.0.0.1:8080", run="my-run")])

    Each process of the training has its own client. A frame of each watch is sent
    before each step of an optimiser, when the gradients are complete. The step is the
    global step of the Trainer. From on_fit_start on, client can be used to send events.

    When fit ends, the process of rank 0 says how the run has ended: FAILED after an
    exception, STOPPED after Ctrl-C or if should_stop was set by something else than
    early stopping, and otherwise COMPLETED. With ends_run=False it says nothing, for
    example because the program fits again in the same run.
    """

    def __init__(self, watches: Callable[[Client, Any], Sequence[Watch]], urls: str | Sequence[str], run: str, *,
                 ends_run: bool = True, **settings: Any) -> None:
        super().__init__()
        if not callable(watches):
            raise TypeError(f"watches is {shown(watches)}; it must be a function that returns a list of Watch")
        self.client: Client | None = None
        self._watches = watches
        self._arguments = (urls, run)
        self._settings = settings
        self._ends_run = flag("ends_run", ends_run)
        self._fitting = False
        self._watching: list[Watch] = []

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._close()  # an earlier fit may not have closed its client
        self.client = Client(*self._arguments, **self._settings)
        self._fitting = True
        self._watching = list(self._watches(self.client, pl_module))

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any, *_: Any) -> None:
        for watch in self._watching:
            watch.frame(trainer.global_step)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        if _stopped(trainer):
            self._end(trainer, Outcome.STOPPED, "the Trainer was told to stop")
        else:
            self._end(trainer, Outcome.COMPLETED, "")
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        # Ctrl-C, and the exception of Lightning for SIGTERM, are no errors.
        outcome = Outcome.FAILED if isinstance(exception, Exception) else Outcome.STOPPED
        self._end(trainer, outcome, f"{type(exception).__name__}: {told(exception)}")
        self._close()

    def _end(self, trainer: Any, outcome: Outcome, reason: str) -> None:
        """Say how the run has ended, in one of its processes. An exception may also come from trainer.test() after fit."""
        if self._fitting and self._ends_run and self.client is not None and trainer.is_global_zero:
            self.client.end(outcome, reason)
        self._fitting = False

    def _close(self) -> None:
        """Close the client, and remove the hooks from the modules."""
        for watch in self._watching:
            watch.close()
        self._watching = []
        if self.client is not None:
            self.client.close()


def _stopped(trainer: Any) -> bool:
    """Report whether something has stopped a fit before its end. Early stopping is an end: the module does not get better."""
    if trainer.interrupted:
        return True
    if not trainer.should_stop:
        return False
    epochs, steps = trainer.max_epochs, trainer.max_steps
    if epochs is not None and 0 <= epochs <= trainer.current_epoch or steps is not None and 0 <= steps <= trainer.global_step:
        return False
    return not any(getattr(callback, "stopped_epoch", 0) for callback in trainer.callbacks)
