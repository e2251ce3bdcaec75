"""What the client costs a training loop.

A step is 4 ms of work, half Python and half NumPy, and then a frame of 1,000 seeds
with 8 metrics: 200 frames a second. With --torch the work is the training of a small
network of PyTorch on the CPU, which holds the interpreter as training does.

Blocks of three kinds take turns: with the client, whose sender encodes, compresses and
sends meanwhile; without it, while the sender has nothing to do; and with the floor. The
floor is the least that any client must do: it joins the columns of the frame and copies
them to shared memory. Nobody reads them there.

	loop.py --steps 20000 --bus up --sender process

With --peers, blocks of other programs that log the same numbers take turns with these,
after `pip install wandb mlflow`:

	loop.py --steps 4000 --peers wandb,mlflow,mlflow-async

A block of theirs may have fewer steps. After it, 50 steps are not measured.

Prints a line of JSON, with times in microseconds:

	step_us, call_us, floor_call_us  quantiles of the wall time of a step, of the call, and of the floor's
	difference_us                    quantiles of the steps with the client, less those of the steps without
	block_p99_difference_us          p99 of a block with the client, less p99 of the next one, without it
	floor_..., null_...              the same for the floor, and for two blocks without: what the machine adds
	peers                            the same for each of --peers, and how many steps it had

A difference of blocks has quantiles over all pairs of blocks. One that is within those
of null_... says nothing.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import logging
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

for library in ("OPENBLAS", "OMP", "MKL"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")  # the sender has the other core

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from oona_client import Client, State
from peers import PEERS, Peer

SEEDS, METRICS, STEP = 1000, 8, 0.005
BLOCK = 250  # steps
# Each pair of neighbours is compared. The second block without is for the null comparison.
ROUND = ("with", "without", "without again", "floor")
QUANTILES = (0.5, 0.9, 0.99, 0.999)
RING = 8 << 20  # bytes, as the client has
SETTLE = 50  # steps after the block of a peer


class Work:
    """A step of training, and optionally a library that holds the interpreter."""

    def __init__(self, part: Callable[[], float], hold: bool) -> None:
        self.part = part
        self.library = ctypes.PyDLL(None) if hold else None  # PyDLL keeps the lock during calls
        self.parts = 0
        least, held = self._least(), 0.002 if hold else 0.0
        self.parts = 1
        self.parts = max(1, round((0.8 * STEP - held) / (self._least() - least)))

    def _least(self) -> float:
        took = []
        for _ in range(50):
            began = time.perf_counter()
            self()
            took.append(time.perf_counter() - began)
        return min(took)

    def __call__(self) -> float:
        total = 0.0
        for _ in range(self.parts):
            total += self.part()
        if self.library is not None:
            self.library.usleep(2000)
        return total


def numpy_part() -> Callable[[], float]:
    """Return a part of a step: some Python and some NumPy."""
    a = np.random.default_rng(1).random((192, 192), np.float32)

    def part() -> float:
        total = 0.0
        for i in range(1000):
            total += i * 0.5
        return total + float(np.tanh(a @ a).sum())

    return part


def torch_part() -> Callable[[], float]:
    """Return a part of a step: a small network learns from a small batch."""
    try:
        import torch
    except ImportError as missing:
        raise SystemExit(f"loop.py: --torch needs PyTorch ({missing}); `make test-torch` installs it in .cache/torch") from None
    torch.manual_seed(1)
    torch.set_num_threads(1)
    network = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 64))
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-3)
    batch, wanted = torch.randn(64, 64), torch.randn(64, 64)

    def part() -> float:
        optimiser.zero_grad()
        loss = (network(batch) - wanted).square().mean()
        loss.backward()
        optimiser.step()
        return float(loss)

    return part


class Floor:
    """The least that any client must do with a frame."""

    def __init__(self) -> None:
        flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_POPULATE", 0)
        self.memory = memoryview(mmap.mmap(-1, RING, flags))
        self.place = 0

    def __call__(self, step: int, columns: dict[str, np.ndarray]) -> None:
        frame = b"".join(columns.values())
        end = self.place + len(frame)
        if end > RING:
            self.place, end = 0, len(frame)
        self.memory[self.place:end] = frame
        self.place = end


def main() -> None:
    options = parse()
    logging.basicConfig(level=logging.ERROR)
    work = Work(torch_part() if options.torch else numpy_part(), options.hold)
    rng = np.random.default_rng(2)
    ids = np.arange(SEEDS, dtype=np.int32)
    states = np.full(SEEDS, State.TRAINING, np.uint8)
    columns = [{f"metric_{m}": rng.random(SEEDS, np.float32) for m in range(METRICS)} for _ in range(16)]
    try:
        peers = {name: PEERS[name](options.directory) for name in options.peers}
    except ImportError as missing:
        raise SystemExit(f"loop.py: --peers {','.join(options.peers)} needs what is not installed ({missing}); pip install wandb mlflow") from None
    log = Oona(options, ids, states)
    clients = {"with": log, "floor": Floor(), **peers}
    kinds = (*ROUND, *peers)
    steps: dict[str, list[list[float]]] = {kind: [] for kind in kinds}
    calls: dict[str, list[float]] = {kind: [] for kind in clients}
    length = min(BLOCK, options.steps)
    for block in range(options.steps // length * len(kinds)):
        kind = kinds[block % len(kinds)]
        client, peer = clients.get(kind), peers.get(kind)
        times, called = run(work, client, columns, min(length, peer.block) if peer else length)
        steps[kind].append(times)
        if client is not None:
            calls[kind] += called
        if peer is not None:
            peer.settle()
            run(work, None, columns, SETTLE)
        elif client is log:
            log.settle()
    result = report(options, steps, calls, log.end())
    for peer in peers.values():
        peer.end()
    print(json.dumps(result))


def run(work: Work, client: Oona | Floor | Peer | None, columns: list[dict[str, np.ndarray]], length: int) -> tuple[list[float], list[float]]:
    """Take the steps of a block. Return how long each step took, and each call of the client."""
    times, calls = [], []
    due = time.perf_counter()
    for step in range(length):
        began = time.perf_counter()
        work()
        called = ended = time.perf_counter()
        if client is not None:
            client(step, columns[step % 16])
            ended = time.perf_counter()
            calls.append(ended - called)
        times.append(ended - began)
        due += STEP
        if (left := due - time.perf_counter()) > 0:
            time.sleep(left)
    return times, calls


def report(options: argparse.Namespace, steps: dict[str, list[list[float]]], calls: dict[str, list[float]], more: dict) -> dict:
    step_us = {kind: quantiles(np.concatenate(times), QUANTILES) for kind, times in steps.items()}
    p99 = {kind: np.quantile(times, 0.99, axis=1) for kind, times in steps.items()}
    # Blocks next to each other are compared, so that a busy machine changes both alike.
    differences = {"": p99["with"] - p99["without"], "floor_": p99["floor"] - p99["without again"],
                   "null_": p99["without"] - p99["without again"]}
    peers = {name: {"steps": len(calls[name]), "call_us": quantiles(calls[name], QUANTILES),
                    "block_p99_difference_us": quantiles(p99[name] - p99["without again"], (0.1, 0.5, 0.9))} for name in options.peers}
    return {
        "bus": options.bus, "sender": options.sender, "spool": options.spool, "hold": options.hold,
        "torch": options.torch, "steps": sum(map(len, steps["with"])), "step_us": step_us,
        "difference_us": {q: round(step_us["with"][q] - step_us["without"][q], 1) for q in step_us["with"]},
        **{f"{name}block_p99_difference_us": quantiles(d, (0.1, 0.5, 0.9)) for name, d in differences.items()},
        "call_us": quantiles(calls["with"], QUANTILES), "floor_call_us": quantiles(calls["floor"], QUANTILES), "peers": peers, **more,
    }


def quantiles(seconds: list[float] | np.ndarray, of: tuple[float, ...]) -> dict[str, float]:
    """Return quantiles in microseconds."""
    return dict(zip(map(str, of), (np.quantile(seconds, of) * 1e6).round(1).tolist()))


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


def rss(pid: int) -> float:
    """Return the memory of a process that is its own, without what it shares, in MB."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return round(int(line.split()[1]) / 1024, 1)
    except OSError:
        pass
    return 0.0


def named_peers(names: str) -> list[str]:
    named = names.split(",")
    if unknown := set(named) - set(PEERS):
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))} is unknown; the names are {', '.join(PEERS)}")
    return named


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20000, help="of each kind of block")
    parser.add_argument("--bus", choices=("up", "slow", "down"), default="up", help="slow: each answer takes 1.5 s")
    parser.add_argument("--sender", choices=("process", "thread"), default="process")
    parser.add_argument("--spool", action="store_true")
    parser.add_argument("--hold", action="store_true", help="2 ms of each step hold the interpreter's lock")
    parser.add_argument("--torch", action="store_true", help="the work of a step is PyTorch's")
    parser.add_argument("--linger", type=float, default=0.1)
    parser.add_argument("--peers", type=named_peers, default=[], metavar="NAME,...", help=f"measure these too: {', '.join(PEERS)}")
    parser.add_argument("--url", default="", help="of a real ingest, instead of one that accepts everything")
    parser.add_argument("--directory", help="for files")
    return parser.parse_args()


if __name__ == "__main__":
    main()
