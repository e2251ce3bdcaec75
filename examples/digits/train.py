"""Trains a small morphogenetic network on handwritten digits and records its telemetry."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from dataclasses import replace
from pathlib import Path

import backend
import live
from lifecycle import State, Transition
from recorder import Clock, Recorder, Recording
from training import LAYERS, SEEDS, Frame, Outcome, Plan, Sink, Training


class Sinks:
    """Passes everything on to some sinks, or to none."""

    def __init__(self, *sinks: Sink) -> None:
        self.sinks = sinks

    def frame(self, frame: Frame) -> None:
        for sink in self.sinks:
            sink.frame(frame)

    def transition(self, transition: Transition) -> None:
        for sink in self.sinks:
            sink.transition(transition)


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
    clock = Clock(options.stretch)
    run = options.run or f"digits-{clock.started}"
    sender: live.Live | None = None
    with contextlib.ExitStack() as stack:
        sinks: list[Sink] = []
        if options.out:
            sinks.append(Recorder(run, clock, stack.enter_context(Recording(options.out, notes))))
        if options.post:
            sender = stack.enter_context(live.Live(options.post, run, clock, options.spool))
            sinks.append(sender)
        outcome = Training(plan, chosen).run(Sinks(*sinks))
        took = time.perf_counter() - started
    alone: Outcome | None = None
    if options.compare:
        alone = Training(replace(plan, grow=False), chosen).run(Sinks())
    print(report(outcome, alone, f"{plan.steps} steps in {took:.1f} s with {chosen.name}"))
    if not sender:
        return 0
    text, complete = live.report(sender.close())
    print(f"\n{text}")
    return 0 if complete else 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, metavar="FILE",
                        help="record frames, tensors and events as an Avro object container file")
    parser.add_argument("--post", metavar="URL", help="send frames, events and the end of the run to a running ingest, e.g. http://127.0.0.1:8080")
    parser.add_argument("--spool", type=Path, metavar="DIR",
                        help="keep on disk what ingest does not take, also after the training; the next run with the directory sends it")
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
    if options.spool and not options.post:
        parser.error("--spool is for what --post sends; give both")
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
