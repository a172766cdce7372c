"""`make chaos`: each fault alone, then mixed ones until enough was killed; prints a table."""

import sys
import tempfile
import time
from pathlib import Path
from random import Random

import click

from tests.chaos.campaign import Campaign
from tests.chaos.deployment import Deployment
from tests.chaos.faults import FAULTS
from tests.chaos.runs import write_images


@click.command()
@click.option("--kills", default=200, show_default=True)
@click.option("--seed", type=int, help="of the faults and their moments  [default: a new one]")
@click.option("--rows", default=3000, show_default=True, help="images of a run")
def main(kills: int, seed: int | None, rows: int) -> None:
    """Harm a deployment until so many processes were killed; exit 1 where a row was lost."""
    seed = time.time_ns() % 1_000_000 if seed is None else seed
    click.echo(f"seed {seed}")
    random, started = Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory() as name, Deployment(5, stop_seconds=30) as deployment:
        folder = Path(name)
        source = folder / "images.parquet"
        write_images(source, rows)
        deployment.wait_until_ready()
        campaign = Campaign(deployment, source, folder, random)
        for fault in FAULTS:
            for detached in (False, True)[: 1 if fault.forgets else 2]:
                campaign.strike_run(1, detached, (fault,))
            click.echo(f"alone: {fault.name}", err=True)
        deployment.stop_seconds = 5  # it was the full time above
        while campaign.kills < kills:
            campaign.strike_run(random.randint(1, 12), random.random() < 0.5)
            click.echo(f"{campaign.kills} kills, {campaign.total.runs} results", err=True)
    click.echo(campaign.table())
    total, minutes = campaign.total, (time.monotonic() - started) / 60
    click.echo(
        f"{campaign.kills} kills, {total.times} faults, {total.runs} results in {minutes:.0f} min: "
        f"{total.lost} rows lost, {total.twice} twice"
    )
    sys.exit(1 if total.lost or total.twice else 0)


if __name__ == "__main__":
    main()
