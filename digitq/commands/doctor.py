"""`doctor`."""

import sys

import click

from digitq.options import broker_option, json_option
from digitq.terminal import echo_err


@click.command()
@broker_option
@click.option("--flower", metavar="URL", help="Flower to look at [http://localhost:5555]")
@json_option
def doctor(broker: str | None, flower: str | None, as_json: bool) -> None:
    """Find what could lose work or let someone in.

    It looks at Redis, the workers and Flower while they run, and prints one line per finding, with
    the remedy. Exit status: 0 if nothing was found, 1 if something was, 2 for bad usage, 3 if Redis
    can't be reached.
    """
    import json
    from dataclasses import asdict

    from digitq.doctor.deployment import look_at
    from digitq.doctor.rules import examine

    deployment = look_at(broker, flower)
    findings = examine(deployment)
    for finding in findings:
        click.echo(json.dumps(asdict(finding)) if as_json else finding)
    echo_err(f"{len(findings) or 'nothing'} found; {deployment.describe()}")
    sys.exit(1 if findings else 0)
