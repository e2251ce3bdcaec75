"""Measures the seeds of a PyTorch model, and sends the measurements.

Nothing here waits for a GPU: the values stay on the device, and the client
copies them without synchronising its stream.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from oona_client import frames, settings
from oona_client.client import Client
from oona_client.device import on_device
from oona_client.handover import ON_DEVICE
from oona_client.ring import FRAME
from oona_client.wire import InvalidFrame, shown, whole

log = logging.getLogger("oona_client")


class _Hook:
    """A hook of a module. A copy of the module, such as an average of the model or a file of torch.save, has one that does nothing:
    the copy is not watched, and can be loaded without this package."""

    def __init__(self, call: Callable[..., None]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> None:
        self._call(*arguments)

    def __reduce__(self) -> Any:
        return getattr, (contextlib.nullcontext(), "__exit__")


class Watch:
    """Watches the modules of a layer's seeds.

    It measures, for each seed,

    - gradient_norm and weight_norm: the norms of the gradients and of the values of
      all its parameters,
    - activation_variance: the variance of its last output,
    - dead_fraction: the fraction of the values in its last output that are not above 0,
      if count_dead says that the module ends in an activation like ReLU,
    - compute_seconds: the time of its last forward pass. It is measured on the CPU
      only, because it would be necessary to wait for a GPU.

    A value that cannot be measured is NaN. A fault of the telemetry must not end the
    training, so errors are logged, and raised only if the client is strict.

    Call frame() after backward() and before the gradients are set to zero:

        watch = Watch(oona, "enc.0", model.seeds, states=lambda: lifecycle.states)
        for step, batch in enumerate(batches):
            loss(model(batch)).backward()
            watch.frame(step, metrics={"improvement": improvements})
            optimiser.step()
    """

    def __init__(self, client: Client, layer: str, seeds: Mapping[int, torch.nn.Module] | Sequence[torch.nn.Module],
                 states: Any | Callable[[], Any], *, every: int = 1, count_dead: bool = False) -> None:
        self.client = client
        self.layer = settings.identifier("layer", layer)
        self.every = settings.whole("every", every)  # one in so many steps is sent
        modules = _modules(seeds)
        try:
            self.seed_ids = frames.seeds(list(modules))
        except InvalidFrame as failure:
            raise ValueError(f"seeds: the ids are not right: {failure.reason}") from None
        self._states = states if callable(states) else lambda: states
        self._modules = list(modules.values())
        self._count_dead = count_dead
        self._began: dict[int, float] = {}
        self._seconds: dict[int, float] = {}
        self._outputs: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._indexes: dict[Any, tuple[torch.Tensor, torch.Tensor]] = {}
        self._due = True
        self._said = False
        self._handles = []
        for i, module in enumerate(self._modules):
            self._handles.append(module.register_forward_pre_hook(_Hook(self._before(i))))
            self._handles.append(module.register_forward_hook(_Hook(self._after(i))))

    def frame(self, step: int, metrics: Mapping[str, Any] | None = None,
              tensors: Mapping[tuple[str, int], Any] | None = None) -> bool:
        """Send a frame if the step is one of those that are sent. metrics and tensors are added to the measurements."""
        try:
            if not self._is_due(step):
                return False
            columns, states = self._measured(), self._states()
            if metrics is not None:
                if not isinstance(metrics, Mapping):
                    raise InvalidFrame("metrics", f"{type(metrics).__name__} is not a mapping of names to values")
                columns.update(metrics)
        except Exception as failure:
            return self.client._failed(FRAME, failure)
        return self.client.frame(self.layer, step, self.seed_ids, states, columns, tensors)

    def _is_due(self, step: Any) -> bool:
        """Report whether the step is one of those that are sent."""
        if on_device(step):
            raise InvalidFrame("step", ON_DEVICE)
        step = whole("step", step)
        self._due = (step + 1) % self.every == 0
        return bool(step % self.every == 0)

    def _measured(self) -> dict[str, Any]:
        try:
            return self._columns()
        finally:
            self._outputs.clear()
            self._seconds.clear()

    def __deepcopy__(self, memo: Any) -> Watch:
        return self  # a copy of the model is not watched

    def _columns(self) -> dict[str, Any]:
        columns: dict[str, Any] = {
            "gradient_norm": self._norms(lambda p: p.grad),
            "weight_norm": self._norms(lambda p: p),
        }
        if self._outputs:
            columns["activation_variance"] = self._column({i: variance for i, (variance, _) in self._outputs.items()})
            if self._count_dead:
                columns["dead_fraction"] = self._column({i: dead for i, (_, dead) in self._outputs.items()})
        if self._seconds:
            seconds = np.full(len(self._modules), np.nan, np.float32)
            for i, took in self._seconds.items():
                seconds[i] = took
            columns["compute_seconds"] = seconds
        return columns

    def close(self) -> None:
        """Remove the hooks from the modules."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _before(self, i: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: Any) -> None:
            if self._due:
                self._began[i] = time.perf_counter()
        return hook

    def _after(self, i: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            began = self._began.pop(i, None)
            if began is None or not isinstance(output, torch.Tensor):
                return
            if output.device.type == "cpu":
                self._seconds[i] = time.perf_counter() - began
            try:
                with torch.no_grad():
                    values = output.detach().float()
                    self._outputs[i] = values.var(unbiased=False), (values <= 0).float().mean()
            except Exception as failure:  # the output is a sparse tensor, for example
                if self.client.strict:
                    raise
                if not self._said:
                    self._said = True
                    log.error("what a seed of %s returns cannot be measured: %s", self.layer, failure)
        return hook

    def _column(self, values: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Return one value for each seed, which is NaN if there is none."""
        first = next(iter(values.values()))
        missing = torch.full_like(first, float("nan"))
        return torch.stack([values.get(i, missing).to(first.device) for i in range(len(self._modules))])

    def _norms(self, of: Callable[[torch.nn.Parameter], torch.Tensor | None]) -> torch.Tensor | Any:
        """Return the norm of each seed's tensors, which is NaN if the seed has none."""
        tensors, owners = [], []
        for i, module in enumerate(self._modules):
            for parameter in module.parameters():
                tensor = of(parameter)
                if tensor is not None:
                    tensors.append(tensor.detach())
                    owners.append(i)
        if not tensors:
            return np.full(len(self._modules), np.nan, np.float32)
        device = tensors[0].device
        norms = torch.stack([norm.to(device).float() for norm in _lengths(tensors)])
        key = (device, tuple(owners))
        if key not in self._indexes:  # created only once, because it has to be copied to the device
            none = torch.ones(len(self._modules), dtype=torch.bool)
            none[owners] = False
            self._indexes = {**self._indexes, key: (torch.tensor(owners).to(device), none.to(device))}
        index, none = self._indexes[key]
        squares = torch.zeros(len(self._modules), device=device).index_add_(0, index, norms * norms)
        return squares.sqrt().masked_fill(none, float("nan"))


def _modules(seeds: Any) -> dict[int, torch.nn.Module]:
    """Return the modules by seed id."""
    try:
        modules = dict(seeds) if isinstance(seeds, Mapping) else dict(enumerate(seeds))
    except TypeError:
        modules = {}
    if not modules or not all(isinstance(module, torch.nn.Module) for module in modules.values()):
        raise TypeError(f"seeds is {shown(seeds)}; it must be a mapping of seed ids to modules, or a list of modules")
    return modules


def _lengths(tensors: list[torch.Tensor]) -> Sequence[torch.Tensor]:
    """Return the norms of tensors. If all are on one device, this takes few kernels. For sparse tensors it waits for the device."""
    tensors = [t.coalesce().values() if t.is_sparse else t for t in tensors]
    together = getattr(torch, "_foreach_norm", None)  # what clip_grad_norm_ uses
    if together is not None and len({t.device for t in tensors}) == 1:
        norms: Sequence[torch.Tensor] = together(tensors)
        return norms
    return [t.norm() for t in tensors]
