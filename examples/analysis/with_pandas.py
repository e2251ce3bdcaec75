"""Draws the life of a run from the Parquet files of `oona replay --parquet`, with pandas."""

from __future__ import annotations

from pathlib import Path

import pandas
import pyarrow

import life

SCHEMA = pyarrow.schema({
    "step": pyarrow.int64(),
    "producer": pyarrow.int32(),
    "sequence": pyarrow.int64(),
    "seed": pyarrow.int32(),
    "state": pyarrow.int32(),
    "gradient_norm": pyarrow.float32(),
    "run": pyarrow.string(),
    "layer": pyarrow.string(),
})
"""The columns that are needed. In files that lack a metric, it is NaN."""


def read(directory: Path, wanted: str | None) -> tuple[str, pandas.DataFrame]:
    frames = pandas.read_parquet(directory / "seed_metrics", schema=SCHEMA)
    run = life.chosen(frames.run.unique().tolist(), wanted)
    frames = frames[frames.run == run]
    # A trainer that has had no answer sends a frame again. Both are on the log.
    frames = frames.drop_duplicates(["layer", "producer", "sequence", "seed"])
    return run, frames.merge(pandas.read_parquet(directory / "states.parquet"), on="state")


def states(frames: pandas.DataFrame) -> list[life.Count]:
    counts = frames.groupby(["layer", "step", "state", "state_name"], as_index=False).size()
    return [life.Count(*row) for row in counts[["layer", "step", "state_name", "size"]].itertuples(index=False)]


def gradients(frames: pandas.DataFrame) -> list[life.Quantiles]:
    measured = frames.dropna(subset="gradient_norm")
    norms = measured.gradient_norm.astype("float64")
    grouped = norms.groupby([measured.layer, measured.step // life.BUCKET * life.BUCKET])
    table = pandas.DataFrame({"samples": grouped.size(), "p10": grouped.quantile(0.1), "p50": grouped.quantile(0.5), "p90": grouped.quantile(0.9)})
    return [life.Quantiles(*row) for row in table.reset_index().itertuples(index=False)]


def survival(frames: pandas.DataFrame, blueprints: pandas.DataFrame) -> list[life.Survival]:
    seed = ["layer", "seed"]
    born = frames[frames.state_name != "DORMANT"].groupby(seed).step.min()
    died = frames[frames.state_name.isin(["CULLED", "CANCELLED", "ROLLED_BACK"])].groupby(seed).step.min()
    last = frames.groupby(seed).step.max()
    seeds = pandas.DataFrame({"born": born, "died": died, "last": last}).dropna(subset="born").reset_index()
    seeds["age"] = (seeds.died.fillna(seeds["last"]) - seeds.born).astype(int)
    seeds = seeds.merge(blueprints, on=seed, how="left")
    seeds["group"] = seeds.blueprint_id.fillna("no blueprint") if len(blueprints) else seeds.layer

    rows = []
    for group, members in seeds.groupby("group"):
        alive = 1.0
        for age, deaths in members[members.died.notna()].groupby("age").size().items():
            at_risk = int((members.age >= age).sum())
            alive *= 1 - deaths / at_risk
            rows.append(life.Survival(group, age, at_risk, deaths, alive))
    return rows


def blueprints(directory: Path, run: str) -> pandas.DataFrame:
    """Return the blueprint of each seed, from the events of the run, if there are any."""
    tables = [pandas.read_parquet(table) for table in sorted(directory.glob("events_seed_*"))]
    columns = ["layer", "seed", "blueprint_id"]
    if not tables:
        return pandas.DataFrame(columns=columns)
    events = pandas.concat(tables)
    events = events[(events.run == run) & (events.blueprint_id != "")]
    return events[columns].drop_duplicates(["layer", "seed"])


def main() -> None:
    args = life.arguments(__doc__, "parquet")
    run, frames = read(args.directory, args.run)
    life.write(life.Life(run, states(frames), gradients(frames), survival(frames, blueprints(args.directory, run))), args.out)


if __name__ == "__main__":
    main()
