"""Other programs that log the numbers of a training loop, as loop.py measures them.

They need `pip install wandb mlflow`. Each gets all numbers of a frame: a trainer could log
less, such as a histogram of wandb, but then no value of a seed can be looked up later.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np


class Peer(Protocol):
    """Logs the metrics of each step."""

    block: int  # steps of a block

    def __call__(self, step: int, columns: dict[str, np.ndarray]) -> None: ...

    def settle(self) -> None:
        """Wait until what was logged has been written, so that the next block is not disturbed."""

    def end(self) -> None: ...


class Wandb:
    """Logs to Weights & Biases, offline: a list of 1,000 numbers for each metric."""

    block = 250

    def __init__(self, directory: str | None) -> None:
        os.environ["WANDB_SILENT"] = "true"
        import wandb

        self.directory = tempfile.TemporaryDirectory(dir=directory)
        self.run = wandb.init(mode="offline", project="bench", dir=self.directory.name)

    def __call__(self, step: int, columns: dict[str, np.ndarray]) -> None:
        self.run.log({name: values.tolist() for name, values in columns.items()})

    def settle(self) -> None:
        size = -1
        while size != (size := self._written()):  # its process writes it later
            time.sleep(0.5)

    def _written(self) -> int:
        return sum(file.stat().st_size for file in Path(self.directory.name).rglob("*.wandb"))

    def end(self) -> None:
        self.run.finish()
        self.directory.cleanup()


class Mlflow:
    """Logs to MLflow with SQLite: 8,000 metrics of one number, as MLflow has no lists."""

    block = 5  # a step takes a second

    def __init__(self, directory: str | None, synchronous: bool = True) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow
        from mlflow.entities import Metric

        self.directory = tempfile.TemporaryDirectory(dir=directory)
        mlflow.set_tracking_uri(f"sqlite:///{self.directory.name}/mlflow.db")
        self.client, self.metric, self.synchronous = mlflow.MlflowClient(), Metric, synchronous
        self.run = self.client.create_run("0").info.run_id
        self.pending: list = []

    def __call__(self, step: int, columns: dict[str, np.ndarray]) -> None:
        now = int(time.time() * 1000)
        for name, values in columns.items():  # 1,000 is the most that a batch may have
            batch = [self.metric(f"{name}.{seed}", value, now, step) for seed, value in enumerate(values.tolist())]
            logged = self.client.log_batch(self.run, batch, synchronous=self.synchronous)
            if logged is not None:
                self.pending.append(logged)

    def settle(self) -> None:
        for logged in self.pending:
            logged.wait()
        self.pending.clear()

    def end(self) -> None:
        self.directory.cleanup()


class AsyncMlflow(Mlflow):
    """Logs to MLflow asynchronously: threads of MLflow write the metrics later."""

    def __init__(self, directory: str | None) -> None:
        super().__init__(directory, synchronous=False)


PEERS: dict[str, Callable[[str | None], Peer]] = {"wandb": Wandb, "mlflow": Mlflow, "mlflow-async": AsyncMlflow}
