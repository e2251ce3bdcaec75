"""A training loop in NumPy that sends frames, events and the end of the run.

Start an ingest, for example with `go run ./cmd/oona demo`, and then this:

	python plain_loop.py http://127.0.0.1:8080

Each seed of a layer learns a random linear map. Seeds germinate one after the
other; a seed is grafted once its error is small, and fossilized a while later.
"""

import argparse
import logging
import time

import numpy as np

from oona_client import Client, State

SEEDS, WIDTH, BATCH = 64, 16, 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", nargs="+", help="of ingest; several if there are several")
    parser.add_argument("--run", default=f"plain-{int(time.time())}")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--token-file", default="")
    parser.add_argument("--spool", default="", help="directory for frames while ingest is away")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    with Client(options.url, options.run, token_file=options.token_file, spool=options.spool) as oona:
        try:
            train(oona, options.steps)
        except BaseException as failure:
            oona.end("failed" if isinstance(failure, Exception) else "stopped", repr(failure))
            raise
        oona.end()
        stats = oona.close()
    print(f"run {options.run}: {stats.frames.accepted} of {stats.frames.handed} frames and "
          f"{stats.events.accepted} of {stats.events.handed} events, with the end of the run, were accepted")


def train(oona: Client, steps: int) -> None:
    rng = np.random.default_rng(1)
    ids = np.arange(SEEDS, dtype=np.int32)
    states = np.full(SEEDS, State.DORMANT, np.uint8)
    wanted = rng.standard_normal((SEEDS, WIDTH, WIDTH)).astype(np.float32)
    weights = np.zeros_like(wanted)
    rates = rng.uniform(0.002, 0.02, SEEDS).astype(np.float32)
    for step in range(steps):
        x = rng.standard_normal((BATCH, WIDTH)).astype(np.float32)
        error = x @ (weights - wanted)
        gradients = x.T @ error / BATCH
        learning = (states >= State.TRAINING) & (states != State.FOSSILIZED)
        weights -= rates[:, None, None] * gradients * learning[:, None, None]
        losses = (error**2).mean((1, 2))
        oona.frame("enc.0", step, ids, states, {
            "reconstruction_loss": losses,
            "gradient_norm": np.sqrt((gradients**2).sum((1, 2))),
            "weight_norm": np.sqrt((weights**2).sum((1, 2))),
        })
        move(oona, step, states, losses)
        time.sleep(0.01)  # a real step takes longer


def move(oona: Client, step: int, states: np.ndarray, losses: np.ndarray) -> None:
    """Change states by the losses, and send an event for each change."""
    order = [State.DORMANT, State.GERMINATED, State.TRAINING, State.GRAFTING, State.STABILIZATION, State.EVALUATING, State.FINE_TUNING, State.FOSSILIZED]
    steps = list(zip(order, order[1:], (np.inf, np.inf, 5.0, 4.0, 3.0, 2.0, 1.0)))
    for now, following, limit in reversed(steps):
        for seed in np.flatnonzero((states == now) & (losses < limit)):
            states[seed] = following
            oona.event("enc.0", int(seed), now, following, step=step, reason="the loss is small enough",
                       evidence={"loss": float(losses[seed]), "limit": limit})
            return  # one a step


if __name__ == "__main__":
    main()
