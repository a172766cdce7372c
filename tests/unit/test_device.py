"""GPU code runs on the CPU here: torch is told that GPUs exist, and a stand-in device is used."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from digitq.private.processes import Local
from digitq.protocol.chunk import MODEL_ROWS, TILE_ROWS
from digitq.protocol.errors import UsageError
from digitq.protocol.settings import WORKER_INDEX, settings
from digitq.worker.models import model as models
from digitq.worker.models.model import (
    choose_device,
    count_gpus,
    load_model,
    load_on_device,
    move_to_gpu,
)
from tests.drawing import random_digits

PIXELS = random_digits(300).reshape(-1, 784)


@pytest.fixture(autouse=True)
def fresh_models() -> Iterator[None]:
    load_on_device.cache_clear()
    yield
    load_on_device.cache_clear()


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def ask_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITQ_DEVICE", name)
    settings.cache_clear()


@pytest.mark.parametrize("name", ["auto", "cuda"])
@pytest.mark.usefixtures("two_gpus")
def test_processes_take_gpus_in_turn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ask_for(name, monkeypatch)
    chosen = []
    for index in range(4):
        process = SimpleNamespace(index=index)
        monkeypatch.setattr(models, "current_process", lambda process=process: process)
        chosen.append(str(choose_device()))
    assert count_gpus() == 2 and chosen == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]


@pytest.mark.usefixtures("two_gpus")
def test_the_workers_of_a_command_take_gpus_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = []

    def start(command: list[str], env: dict[str, str], **options: object) -> Mock:
        if WORKER_INDEX in env:
            monkeypatch.setenv(WORKER_INDEX, env[WORKER_INDEX])
            chosen.append(str(choose_device()))
        return Mock()

    monkeypatch.setattr(subprocess, "Popen", start)
    local = Local(workers=3)
    local.folder = tmp_path
    local._start("redis", "redis-server")
    for name in ("worker1", "worker2", "worker3", "worker1"):
        local._start_worker(name)
    local._processes.clear()  # its end would kill them
    assert chosen == ["cuda:0", "cuda:1", "cuda:0", "cuda:0"]


@pytest.mark.usefixtures("two_gpus")
def test_gpus_are_left_alone_where_the_cpu_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    ask_for("cpu", monkeypatch)
    assert count_gpus() == 0 and load_on_device("mlp") is load_model("mlp")


def test_without_gpus_it_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert choose_device() == torch.device("cpu")
    ask_for("cuda", monkeypatch)
    with pytest.raises(UsageError, match="DIGITQ_DEVICE=cuda, but torch finds no GPU"):
        choose_device()


class StandIn(str):
    """A device that is the CPU for torch, and a GPU for digitq."""

    type = "cuda"


@pytest.mark.parametrize("name", ["mlp", "cnn"])
@pytest.mark.parametrize("first_row", [0, 7, TILE_ROWS - 1])
def test_a_gpu_gets_whole_tiles_and_gives_the_same_answers(
    name: str, first_row: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[torch.Size] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda rows: pinned.append(rows.shape) or rows)
    model = move_to_gpu(load_model(name), StandIn("cpu"))  # type: ignore[arg-type]
    answers = model.classify(PIXELS, first_row)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, load_model(name).classify(PIXELS), atol=1e-5)
    assert set(pinned) == {(MODEL_ROWS.get(name, TILE_ROWS), 784)}
    assert len(pinned) == (2 if first_row == TILE_ROWS - 1 else 1)
