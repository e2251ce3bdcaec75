"""A callback for PyTorch Lightning: lightning, or pytorch-lightning."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from oona_client.client import Client
from oona_client.modules import Watch
from oona_client.wire import shown

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
    """

    def __init__(self, watches: Callable[[Client, Any], Sequence[Watch]], urls: str | Sequence[str], run: str, **settings: Any) -> None:
        super().__init__()
        if not callable(watches):
            raise TypeError(f"watches is {shown(watches)}; it must be a function that returns a list of Watch")
        self.client: Client | None = None
        self._watches = watches
        self._arguments = (urls, run)
        self._settings = settings
        self._watching: list[Watch] = []

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        self._close()  # an earlier fit may not have closed its client
        self.client = Client(*self._arguments, **self._settings)
        self._watching = list(self._watches(self.client, pl_module))

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any, *_: Any) -> None:
        for watch in self._watching:
            watch.frame(trainer.global_step)

    def on_fit_end(self, trainer: Any, pl_module: Any) -> None:
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        """Close the client, and remove the hooks from the modules."""
        for watch in self._watching:
            watch.close()
        self._watching = []
        if self.client is not None:
            self.client.close()
