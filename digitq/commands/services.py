"""`worker`, `up`, `train` and `inspect`."""

import click
from click.shell_completion import CompletionItem

from digitq.commands.flower import show_help_for
from digitq.local.exec import WITH_OTHERS, PassThrough, exec_module
from digitq.options import broker_option, workers_option
from digitq.terminal import echo_err, require
from protocol.errors import UsageError
from protocol.host.cores import usable_cores
from protocol.text import plural


@click.command(context_settings=WITH_OTHERS)
@broker_option
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[CELERY OPTION]...")
def worker(broker: str | None, options: tuple[str, ...]) -> None:
    """Run a worker, a process for each core or GPU.

    It takes the options of `celery worker` as well: `--concurrency 8` for so many processes,
    `--hostname NAME`, `--loglevel WARNING`; `celery worker --help` lists them all.
    """
    show_help_for(options)
    require("torch", "worker")
    exec_module(broker, "celery", "-A", "worker", "worker", "--loglevel", "INFO", *options)


@click.command()
@workers_option("one for each core")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    metavar="N",
    default=6379,
    show_default=True,
    help="of Redis",
)
def up(workers: int | None, port: int) -> None:
    """Run Redis, workers and Flower until Ctrl-C. Redis keeps nothing afterwards."""
    from digitq.local.processes import Local, is_free

    if not is_free(port):
        raise UsageError(f"port {port} is in use: --port takes another")
    with Local(workers or usable_cores(), port=port, flower=True) as local:
        echo_err(f"starting Redis, {plural(local.workers, 'worker')} and Flower …")
        local.wait_until_ready()
        echo_err(f"Redis   {local.url}\nFlower  {local.flower_url}\nCtrl-C ends")
        local.watch()
    echo_err("all stopped")


@click.command(cls=PassThrough)
@click.argument(
    "options",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="[OPTION]...",
    shell_complete=lambda context, _, begun: [
        one for one in ("mlp", "cnn") if one.startswith(begun)
    ],
)
def train(options: tuple[str, ...]) -> None:
    """Train a network on MNIST."""
    require("torch", "worker")
    exec_module(None, "worker", "train", *options)


@click.command(cls=PassThrough)
@click.argument(
    "options",
    nargs=-1,
    type=click.UNPROCESSED,
    metavar="IMAGE... [OPTION]...",
    shell_complete=lambda context, _, begun: [CompletionItem(begun, type="file")],
)
def inspect(options: tuple[str, ...]) -> None:
    """Show how an image came to its answer."""
    require("cv2", "worker")
    require("matplotlib", "plot")
    exec_module(None, "worker", "inspect", *options)
