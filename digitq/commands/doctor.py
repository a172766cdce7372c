"""`doctor`."""

import sys

import click

from digitq.options import broker_option, json_option
from digitq.terminal import echo_err

FOUND = 1


@click.command()
@broker_option
@click.option("--flower", metavar="URL", help="Flower to look at [http://localhost:5555]")
@json_option
def doctor(broker: str | None, flower: str | None, as_json: bool) -> None:
    """Find what could lose work or let someone in.

    Looks at Redis, the workers and Flower as they run; prints a line for each finding, with what
    helps. Exit status: 0 nothing found, 1 something found, 2 bad usage, 3 Redis can't be reached.
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
    sys.exit(FOUND if findings else 0)
