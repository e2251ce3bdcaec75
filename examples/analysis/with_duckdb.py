"""Draws the life of a run from the Parquet files of `oona replay --parquet`, with SQL."""

from __future__ import annotations

import duckdb

import life

FRAMES = """
-- A trainer that has had no answer sends a frame again. Both are on the log.
create table frames as
select distinct on (layer, producer, sequence, seed) layer, step, seed, state, state_name, gradient_norm
from (
    from read_parquet($directory || '/seed_metrics/**/*.parquet', hive_partitioning = true, hive_types_autocast = false, union_by_name = true)
    union all by name
    select null::float as gradient_norm where false -- the column, if no file has it
) as rows
join read_parquet($directory || '/states.parquet') as states using (state)
where run = $run
"""

STATES = """
select layer, step, state_name, count(*)
from frames group by layer, step, state, state_name order by layer, step, state
"""

GRADIENTS = """
select layer, step // $bucket * $bucket as first, count(*),
    quantile_cont(gradient_norm::double, 0.1), quantile_cont(gradient_norm::double, 0.5), quantile_cont(gradient_norm::double, 0.9)
from frames where gradient_norm is not null
group by all order by layer, first
"""

BLUEPRINTS = """
create table blueprints as
select layer, seed, any_value(blueprint_id) as blueprint_id
from read_parquet($directory || '/events_seed_*/**/*.parquet', hive_partitioning = true, hive_types_autocast = false, union_by_name = true) as rows
where run = $run and blueprint_id != ''
group by layer, seed
"""

SURVIVAL = """
with lives as (
    select layer, seed,
        min(step) filter (state_name != 'DORMANT') as born,
        min(step) filter (state_name in ('CULLED', 'CANCELLED', 'ROLLED_BACK')) as died,
        max(step) as last
    from frames group by layer, seed
), seeds as (
    select if((select count(*) from blueprints) = 0, layer, coalesce(blueprint_id, 'no blueprint')) as "group",
        coalesce(died, last) - born as age, died is not null as dead
    from lives left join blueprints using (layer, seed) where born is not null
), ages as (
    select "group", age, count(*) as seeds, count(*) filter (dead) as died from seeds group by all
), risks as (
    select *, sum(seeds) over (partition by "group" order by age desc) as at_risk from ages
)
select "group", age, at_risk::bigint, died, product(1 - died / at_risk) over (partition by "group" order by age)
from risks where died > 0 order by "group", age
"""


def main() -> None:
    args = life.arguments(__doc__, "parquet")
    database = duckdb.connect()
    directory = str(args.directory)

    runs = database.execute("select distinct run from read_parquet($1 || '/seed_metrics/**/*.parquet', hive_partitioning = true, hive_types_autocast = false)", [directory]).fetchall()
    run = life.chosen([row[0] for row in runs], args.run)
    of = {"directory": directory, "run": run}
    database.execute(FRAMES, of)
    if list(args.directory.glob("events_seed_*")):
        database.execute(BLUEPRINTS, of)
    else:
        database.execute("create table blueprints (layer varchar, seed integer, blueprint_id varchar)")

    def rows(query: str, **parameters: object) -> list[tuple]:
        return database.execute(query, parameters).fetchall()

    life.write(life.Life(
        run,
        [life.Count(*row) for row in rows(STATES)],
        [life.Quantiles(*row) for row in rows(GRADIENTS, bucket=life.BUCKET)],
        [life.Survival(*row) for row in rows(SURVIVAL)],
    ), args.out)


if __name__ == "__main__":
    main()
