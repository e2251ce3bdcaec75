"""What the client costs a training loop.

A step is some Python and some NumPy, 5 ms of it, and then a frame of 1,000 seeds
with 8 metrics: 200 frames a second. Steps with the client and steps without take
turns in blocks; in the blocks without it the sender has nothing to do. The sender
encodes, compresses and sends meanwhile.

	loop.py --steps 20000 --bus up --sender process

Prints a line of JSON a run: quantiles of a step's wall time with and without, their
differences, what the call itself took, and the memory of both processes.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the sender has the other core

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from oona_client import Client, State

SEEDS, METRICS, STEP = 1000, 8, 0.005
BLOCK = 250  # steps
QUANTILES = (0.5, 0.9, 0.99, 0.999)


class Work:
    """A step of training: half of it Python, half NumPy, and optionally a library that holds the interpreter."""

    def __init__(self, hold: bool) -> None:
        self.a = np.random.default_rng(1).random((192, 192), np.float32)
        self.library = ctypes.PyDLL(None) if hold else None  # PyDLL keeps the lock during calls
        self.rounds = 0
        least, held = self._least(), 0.002 if hold else 0.0
        self.rounds = 1
        self.rounds = max(1, round((0.8 * STEP - held) / (self._least() - least)))

    def _least(self) -> float:
        took = []
        for _ in range(50):
            began = time.perf_counter()
            self()
            took.append(time.perf_counter() - began)
        return min(took)

    def __call__(self) -> float:
        total = 0.0
        for _ in range(self.rounds):
            for i in range(1000):
                total += i * 0.5
            b = self.a @ self.a
            total += float(np.tanh(b).sum())
        if self.library is not None:
            self.library.usleep(2000)
        return total


def main() -> None:
    options = parse()
    logging.basicConfig(level=logging.ERROR)
    work = Work(options.hold)
    rng = np.random.default_rng(2)
    ids = np.arange(SEEDS, dtype=np.int32)
    states = np.full(SEEDS, State.TRAINING, np.uint8)
    columns = [{f"metric_{m}": rng.random(SEEDS, np.float32) for m in range(METRICS)} for _ in range(16)]
    log = LOGGERS[options.peer](options, ids, states)
    times: dict[str, list[float]] = {"with": [], "without": []}
    calls: list[float] = []
    length = min(BLOCK, options.steps)
    for block in range(2 * options.steps // length):
        kind = ("with", "without")[block % 2]
        due = time.perf_counter()
        for step in range(length):
            began = time.perf_counter()
            work()
            if kind == "with":
                called = time.perf_counter()
                log(step, columns[step % 16])
                ended = time.perf_counter()
                calls.append(ended - called)
            else:
                ended = time.perf_counter()
            times[kind].append(ended - began)
            due += STEP
            if (left := due - time.perf_counter()) > 0:
                time.sleep(left)
        if kind == "with":
            log.settle()
    print(json.dumps(report(options, times, calls, log.end())))


def report(options: argparse.Namespace, times: dict[str, list[float]], calls: list[float], more: dict) -> dict:
    us = {kind: dict(zip(map(str, QUANTILES), (np.quantile(t, QUANTILES) * 1e6).round(1).tolist())) for kind, t in times.items()}
    # Blocks next to each other are compared, so that a busy machine changes both alike.
    pairs = [np.quantile(a, 0.99) - np.quantile(b, 0.99)
             for a, b in zip(np.reshape(times["with"], (-1, min(BLOCK, options.steps))),
                         np.reshape(times["without"], (-1, min(BLOCK, options.steps))))]
    return {
        "peer": options.peer, "bus": options.bus, "sender": options.sender, "spool": options.spool, "hold": options.hold,
        "steps": len(times["with"]), "step_us": us,
        "difference_us": {q: round(us["with"][q] - us["without"][q], 1) for q in us["with"]},
        "median_of_blocks_p99_difference_us": round(float(np.median(pairs)) * 1e6, 1),
        "call_us": dict(zip(map(str, QUANTILES), (np.quantile(calls, QUANTILES) * 1e6).round(1).tolist())), **more,
    }


class Oona:
    """Logs to a client."""

    def __init__(self, options: argparse.Namespace, ids: np.ndarray, states: np.ndarray) -> None:
        self.sink = None
        url = options.url
        if not url and options.bus != "down":
            self.sink = subprocess.Popen([sys.executable, str(Path(__file__).with_name("sink.py")), "1.5" if options.bus == "slow" else "0"],
                                         stdout=subprocess.PIPE, text=True)
            url = self.sink.stdout.readline().strip()
        self.directory = tempfile.TemporaryDirectory(dir=options.directory)
        self.down = options.bus == "down"
        self.client = Client(url or "http://127.0.0.1:9", run="bench", sender=options.sender, linger=options.linger,
                             spool=self.directory.name if options.spool else "")
        self.ids, self.states = ids, states

    def __call__(self, step: int, columns: dict[str, np.ndarray]) -> None:
        self.client.frame("enc.0", step, self.ids, self.states, columns)

    def settle(self) -> None:
        if not self.down:
            self.client.flush(60)

    def end(self) -> dict:
        pid = self.client.stats().sender_pid
        memory = {"loop_rss_mb": rss(os.getpid()), "sender_rss_mb": rss(pid) if pid else None}
        stats = self.client.close(timeout=0 if self.down else 30)
        if self.sink:
            self.sink.terminate()
            self.sink.wait()
        self.directory.cleanup()
        return {**memory, "handed": stats.frames.handed, "accepted": stats.frames.accepted, "dropped": stats.frames.dropped,
                "spooled": stats.frames.spooled, "lost": stats.frames.lost}


class Wandb:
    """Logs the same numbers to Weights & Biases, offline: a histogram cannot be undone, so a list a metric."""

    def __init__(self, options: argparse.Namespace, ids: np.ndarray, states: np.ndarray) -> None:
        import wandb

        os.environ["WANDB_SILENT"] = "true"
        self.directory = tempfile.TemporaryDirectory(dir=options.directory)
        self.run = wandb.init(mode="offline", project="bench", dir=self.directory.name)

    def __call__(self, step: int, columns: dict[str, np.ndarray]) -> None:
        self.run.log({name: values.tolist() for name, values in columns.items()})

    def settle(self) -> None:
        pass

    def end(self) -> dict:
        memory = {"loop_rss_mb": rss(os.getpid())}
        self.run.finish()
        return memory


class Mlflow:
    """Logs the same numbers to MLflow's files: a metric a seed, as MLflow has only numbers."""

    def __init__(self, options: argparse.Namespace, ids: np.ndarray, states: np.ndarray) -> None:
        import mlflow
        from mlflow.entities import Metric

        self.directory = tempfile.TemporaryDirectory(dir=options.directory)
        mlflow.set_tracking_uri(f"sqlite:///{self.directory.name}/mlflow.db")
        self.client, self.metric = mlflow.MlflowClient(), Metric
        self.run = self.client.create_run("0").info.run_id
        self.names = {f"metric_{m}": [f"metric_{m}.{seed}" for seed in ids] for m in range(METRICS)}

    def __call__(self, step: int, columns: dict[str, np.ndarray]) -> None:
        now = int(time.time() * 1000)
        for name, values in columns.items():
            self.client.log_batch(self.run, [self.metric(n, float(v), now, step) for n, v in zip(self.names[name], values)])

    def settle(self) -> None:
        pass

    def end(self) -> dict:
        return {"loop_rss_mb": rss(os.getpid())}


LOGGERS = {"oona": Oona, "wandb": Wandb, "mlflow": Mlflow}


def rss(pid: int) -> float:
    """Return the memory of a process that is its own, without what it shares, in MB."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass
    return 0.0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20000, help="with the client, and as many without")
    parser.add_argument("--bus", choices=("up", "slow", "down"), default="up", help="slow: each answer takes 1.5 s")
    parser.add_argument("--sender", choices=("process", "thread"), default="process")
    parser.add_argument("--spool", action="store_true")
    parser.add_argument("--hold", action="store_true", help="2 ms of each step hold the interpreter's lock")
    parser.add_argument("--linger", type=float, default=0.1)
    parser.add_argument("--peer", choices=LOGGERS, default="oona")
    parser.add_argument("--url", default="", help="of a real ingest, instead of one that accepts everything")
    parser.add_argument("--directory", help="for files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
