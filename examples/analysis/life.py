"""What the three scripts share: the command line, the tables that they make, and the pictures of them."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np

matplotlib.use("svg")
from matplotlib import pyplot

pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "oona"})

STATES = ("DORMANT", "GERMINATED", "TRAINING", "GRAFTING", "STABILIZATION", "EVALUATING", "FINE_TUNING", "FOSSILIZED", "CULLED", "CANCELLED", "ROLLED_BACK")
"""The names of the states. The place in the list is the number in the records."""

COLOURS = ("#e8e8e8", "#f0e442", "#e69f00", "#56b4e9", "#7fc9f0", "#0072b2", "#cc79a7", "#009e73", "#999999", "#bbbbbb", "#d55e00")

BUCKET = 100
"""Steps that have one set of quantiles."""

LEARNING = 8
"""Medians from which the first expected range is learnt."""


class Count(NamedTuple):
    """So many seeds of a layer are in a state at a step."""

    layer: str
    step: int
    state: str
    seeds: int


class Quantiles(NamedTuple):
    """Quantiles of the gradient norms that a layer had in the steps from step to step + BUCKET."""

    layer: str
    step: int
    samples: int
    p10: float
    p50: float
    p90: float


class Survival(NamedTuple):
    """The share of the seeds that are still alive at an age, in steps since they germinated."""

    group: str  # the blueprint; the layer, if the run has no blueprints
    age: int
    at_risk: int  # seeds that have been observed up to this age
    died: int  # of them, at this age
    alive: float  # Kaplan-Meier estimate


class Life(NamedTuple):
    """The tables of a run."""

    run: str
    states: Sequence[Count]
    gradients: Sequence[Quantiles]
    survival: Sequence[Survival]


def arguments(description: str, form: str) -> argparse.Namespace:
    """Parse the command line of a script that reads what `oona replay --FORM` has written."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("directory", metavar="DIR", type=Path, help=f"directory that oona replay --{form} has written")
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, required=True, help="directory for the tables and pictures")
    parser.add_argument("--run", help="the run to draw; default: the first by name")
    args = parser.parse_args()
    try:
        found = json.loads((args.directory / "_oona.json").read_text())["form"]
    except FileNotFoundError:
        parser.error(f"{args.directory} is not a directory that oona replay has written: it has no _oona.json")
    if found != form:
        parser.error(f"{args.directory} was written by oona replay --{found}, and this script reads what --{form} writes")
    if form == "parquet" and not (args.directory / "seed_metrics").is_dir():
        parser.error(f"{args.directory} has no frames: replay kasmina.telemetry.seed.metrics, too")
    return args


def chosen(runs: Sequence[str], wanted: str | None) -> str:
    """Return the run to draw: the wanted one, else the first by name."""
    if not runs or (wanted and wanted not in runs):
        raise SystemExit(f"there is no run {wanted or ''}; the directory has {', '.join(sorted(runs)) or 'none'}")
    if len(runs) > 1 and not wanted:
        print(f"there are {len(runs)} runs; --run says which one to draw: {', '.join(sorted(runs))}", file=sys.stderr)
    return wanted or min(runs)


def expected(medians: Sequence[float]) -> list[tuple[float, float]]:
    """Return the range in which each median was expected, from the medians before it.

    A short form of what docs/verdict.md describes: the level follows the logarithm of the
    median by 1/8, and the width follows the distance between them by 1/16. A median is
    outside if it is further away than 6 widths and a factor of 2; then the level follows by
    1/32. For the first eight there is no range (NaN). Unlike Oona's verdict, this does not
    accept new levels, and takes no account of seeds that change their states.
    """
    at = [math.log2(median) if median > 0 else math.nan for median in medians]
    first = [x for x in at[:LEARNING] if not math.isnan(x)]
    if not first:
        return [(math.nan, math.nan)] * len(medians)
    level = statistics.median(first)
    width = statistics.fmean(abs(x - level) for x in first)
    ranges = [(math.nan, math.nan)] * min(LEARNING, len(medians))
    for x in at[LEARNING:]:
        width = max(width, 1 / 16)
        reach = max(6 * width, 1.0)
        ranges.append((2 ** (level - reach), 2 ** (level + reach)))
        distance = abs(x - level)
        if distance <= reach:
            width += (distance - width) / 16
            level += (x - level) / 8
        elif not math.isnan(x):
            level += (x - level) / 32
    return ranges


def write(life: Life, out: Path) -> None:
    """Write the tables as CSV and the pictures as SVG."""
    out.mkdir(parents=True, exist_ok=True)
    for name, kind, rows in (("states", Count, life.states), ("gradients", Quantiles, life.gradients), ("survival", Survival, life.survival)):
        with (out / f"{name}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(kind._fields)
            table.writerows(rows)
    draw_states(life, out / "states.svg")
    draw_gradients(life, out / "gradients.svg")
    draw_survival(life, out / "survival.svg")
    print(f"run {life.run}: tables and pictures are in {out}")


def save(figure: pyplot.Figure, path: Path) -> None:
    """Write the figure as SVG. Coordinates have one decimal, so the file is small."""
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    path.write_text(re.sub(r"(\d+\.\d)\d+", r"\1", text.getvalue()))


def draw_states(life: Life, path: Path) -> None:
    layers = sorted({row.layer for row in life.states})
    figure, axes = pyplot.subplots(len(layers), 1, figsize=(9, 2 + 1.7 * len(layers)), sharex=True, squeeze=False, layout="constrained")
    for layer, ax in zip(layers, axes[:, 0]):
        seeds = {(row.step, row.state): row.seeds for row in life.states if row.layer == layer}
        steps = sorted({step for step, _ in seeds})
        top = np.zeros(len(steps), int)
        for state, colour in zip(STATES, COLOURS):
            area = np.array([top, top + [seeds.get((step, state), 0) for step in steps]])
            top = area[1]
            # Between two changes the area is straight, so the points there are not needed.
            changes = np.diff(area, axis=1, prepend=-1, append=-1).any(axis=0)
            kept = changes[:-1] | changes[1:]
            ax.fill_between(np.array(steps)[kept], *area[:, kept], label=state, color=colour, linewidth=0)
        ax.set(ylabel=f"seeds of {layer}", xlim=(steps[0], steps[-1]))
        ax.margins(y=0)
    axes[-1, 0].set_xlabel("step")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=6, fontsize="small", frameon=False)
    save(figure, path)


def draw_gradients(life: Life, path: Path) -> None:
    layers = sorted({row.layer for row in life.gradients})
    if not layers:
        figure = pyplot.figure(figsize=(9, 1.5))
        figure.text(0.5, 0.5, "The run has no values of gradient_norm.", ha="center", va="center")
        save(figure, path)
        return
    figure, axes = pyplot.subplots(len(layers), 1, figsize=(9, 1 + 1.7 * len(layers)), sharex=True, squeeze=False, layout="constrained")
    for layer, ax in zip(layers, axes[:, 0]):
        rows = [row for row in life.gradients if row.layer == layer]
        steps = [row.step for row in rows]
        low, high = zip(*expected([row.p50 for row in rows]))
        ax.fill_between(steps, low, high, color="#dddddd", label="expected range of the median")
        ax.fill_between(steps, [row.p10 for row in rows], [row.p90 for row in rows], color="#56b4e9", alpha=0.5, label="10% to 90% of the seeds")
        ax.plot(steps, [row.p50 for row in rows], color="#0072b2", label="median")
        ax.set(ylabel=f"gradient norm\n{layer}", yscale="log")
    axes[-1, 0].set_xlabel("step")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize="small", frameon=False)
    save(figure, path)


def draw_survival(life: Life, path: Path) -> None:
    figure, ax = pyplot.subplots(figsize=(9, 3.2), layout="constrained")
    end = 1.1 * max((row.age for row in life.survival), default=1)
    for group in sorted({row.group for row in life.survival}):
        rows = [row for row in life.survival if row.group == group]
        ages, alive = [0, *(row.age for row in rows), end], [1.0, *(row.alive for row in rows), rows[-1].alive]
        ax.step(ages, alive, where="post", label=group)
    ax.set(xlabel="steps since the seed germinated", ylabel="share that is alive", xlim=(0, end), ylim=(0, 1.02))
    if life.survival:
        ax.legend(frameon=False)
    save(figure, path)
