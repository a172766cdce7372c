"""Whatever happens, the result is that of a quiet run, byte for byte."""

import time
from collections.abc import Iterator
from random import Random

import pytest

from tests.chaos.campaign import Campaign
from tests.chaos.deployment import Deployment
from tests.chaos.faults import FAULTS, Fault
from tests.chaos.runs import write_images

ROWS = 2000
AT_FIRST_SECONDS = 0.2  # until the fault strikes, at most; then much of the run is to come
# Faults that do nearly the same as another one, or that another test has
ALIKE = {
    "a worker's main process is killed",
    "all workers are killed at once",
    "a worker is told to end",
    "Redis's disk is full",
    "a worker's child stands still",
    "a worker's main process stands still",
    "the producer is killed",
    "the producer gets Ctrl-C",
    "the disk is full",
    "Redis drops its clients",
    "connections are cut",
    "the network is slow",
    "streams are cut in half",
    "messages come late",
    "chunks that are done come again",
    "messages come twice",
    "messages are dropped",
    "rubbish in the queue",
    "messages of another version",
}


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    folder = tmp_path_factory.mktemp("chaos")
    source = folder / "images.parquet"
    write_images(source, ROWS)
    seed = time.time_ns() % 1_000_000
    print(f"seed {seed}")  # shown where a test fails
    with Deployment(deadline_seconds=1, stop_seconds=2) as deployment:
        deployment.wait_until_ready()
        yield Campaign(deployment, source, folder, Random(seed), AT_FIRST_SECONDS)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=fault.name, marks=[pytest.mark.slow] * (fault.name in ALIKE))
        for fault in FAULTS
    ],
)
def test_one_fault(fault: Fault, campaign: Campaign) -> None:
    run = campaign.strike_run(1, detached=False, faults=(fault,))
    assert campaign.tallies[fault].times == 1
    assert (campaign.total.lost, campaign.total.twice) == (0, 0)
    assert fault.ends or len(run.errors) == 1, run.errors  # the command was started once


@pytest.mark.slow  # `make chaos` tries many for longer
@pytest.mark.parametrize("detached", [False, True])
def test_many_faults(detached: bool, campaign: Campaign) -> None:
    campaign.strike_run(6, detached)
    assert (campaign.total.lost, campaign.total.twice) == (0, 0)
