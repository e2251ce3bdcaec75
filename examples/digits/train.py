"""Trains a small morphogenetic network on handwritten digits and records its telemetry."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from dataclasses import replace
from pathlib import Path

import backend
from live import Live
from lifecycle import State
from recorder import Clock, Output, Recorder, Recording
from training import LAYERS, SEEDS, Outcome, Plan, Training


class Quiet:
    """A sink that ignores everything."""

    def frame(self, frame: object) -> None: ...

    def transition(self, transition: object) -> None: ...


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    plan = Plan(seed=options.seed, steps=options.steps)
    chosen = backend.choose(options.backend)
    notes = {
        "oona.example": "examples/digits",
        "oona.seed": str(plan.seed),
        "oona.steps": str(plan.steps),
        "oona.stretch": str(options.stretch),
        "oona.backend": chosen.name,
    }
    started = time.perf_counter()
    live: Live | None = None
    with contextlib.ExitStack() as stack:
        outputs: list[Output] = []
        if options.out:
            outputs.append(stack.enter_context(Recording(options.out, notes)))
        if options.post:
            live = Live(options.post)
            stack.callback(live.close)
            outputs.append(live)
        clock = Clock(options.stretch)
        run = options.run or f"digits-{clock.started}"
        outcome = Training(plan, chosen).run(Recorder(run, clock, outputs))
    took = time.perf_counter() - started
    alone: Outcome | None = None
    if options.compare:
        alone = Training(replace(plan, grow=False), chosen).run(Quiet())
    print(report(outcome, alone, f"{plan.steps} steps in {took:.1f} s with {chosen.name}"))
    if live:
        print(f"\n{live.sent} frames sent, {live.dropped} dropped{': ' + live.trouble if live.dropped else ''}")
    return 1 if live and live.dropped else 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, metavar="FILE",
                        help="record frames, tensors and events as an Avro object container file")
    parser.add_argument("--post", metavar="URL", help="send the frames to a running ingest, e.g. http://127.0.0.1:8080")
    parser.add_argument("--run", metavar="ID", help="the run's id (default: digits- and the time)")
    parser.add_argument("--seed", type=int, default=1, help="of all that is random (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=Plan.steps, help="batches to learn from (default: %(default)s)")
    parser.add_argument("--stretch", type=float, default=1.0, metavar="N",
                        help="record the time as N times as long as it took (default: 1)")
    parser.add_argument("--backend", choices=backend.NAMES, default="auto",
                        help="who multiplies matrices (default: PyTorch where it is installed)")
    parser.add_argument("--compare", action="store_true", help="train the network without seeds too, to compare")
    options = parser.parse_args(arguments)
    if options.steps < 1:
        parser.error(f"--steps is {options.steps}; give at least 1")
    if not options.stretch > 0:
        parser.error(f"--stretch is {options.stretch}; give a number above 0")
    if options.post and options.stretch > 1:
        parser.error("--stretch above 1 would send frames from the future; leave it out with --post")
    return options


def report(outcome: Outcome, alone: Outcome | None, title: str) -> str:
    """Return what came of the run as text."""
    lines = [title, "", "step   validation loss and accuracy"]
    width = 40 / max(loss for _, loss, _ in outcome.losses)
    for step, loss, accuracy in outcome.losses[::max(1, len(outcome.losses) // 20)]:
        lines.append(f"{step:5}  {loss:6.3f} {accuracy:6.1%}  {'#' * round(loss * width)}")
    lines += ["", f"{'test images':34}{'loss':>8}{'accuracy':>10}"]
    results = [("with its seeds", outcome.test), ("the same with its grafts taken out", outcome.test_without_seeds)]
    if alone:
        results.append(("the host trained alone", alone.test))
    lines += [f"{name:34}{loss.mean:8.3f}{loss.accuracy:10.1%}" for name, loss in results]
    lines += ["", f"{SEEDS} seeds a layer" + " " * 5 + "".join(f"{layer:>8}" for layer in LAYERS)]
    for state in State:
        lines.append(f"{state.name:19}" + "".join(f"{outcome.states[layer][state.name]:8}" for layer in LAYERS))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
