"""The device that the network runs on: the CPU, or a GPU for each process of a worker."""

import copy
import os
from functools import cache

import torch
from billiard.process import current_process

from protocol.chunk import MODEL_ROWS, TILE_ROWS
from protocol.errors import UsageError
from protocol.settings import WORKER_INDEX, settings
from worker.models.model import Model, load_model


def count_gpus() -> int:
    """The number of GPUs to use; torch asks NVML, so that CUDA isn't started before the fork.

    Raises `UsageError` if `DIGITQ_DEVICE` asks for a GPU and there is none.
    """
    found = 0 if settings().device == "cpu" else torch.cuda.device_count()
    if settings().device == "cuda" and not found:
        raise UsageError(
            "DIGITQ_DEVICE=cuda, but torch finds no GPU: see `nvidia-smi` and install torch's "
            "CUDA build, or set DIGITQ_DEVICE=auto"
        )
    return found


def choose_device() -> torch.device:
    """This process's device: the processes of a worker, or the workers of a command, take turns.

    Raises `UsageError` as `count_gpus` does.
    """
    gpus = count_gpus()
    if not gpus:
        return torch.device("cpu")
    place = int(os.environ.get(WORKER_INDEX, "0")) + getattr(current_process(), "index", 0)
    return torch.device("cuda", place % gpus)


@cache
def load_on_device(name: str) -> Model:
    """The model of that name on this process's device. Raises as `load_model` and `count_gpus`."""
    device = choose_device()
    model = load_model(name)
    return model if device.type == "cpu" else move_to_gpu(model, device)


def move_to_gpu(model: Model, device: torch.device) -> Model:
    """The model on a GPU, with larger tiles, sums in float32 and always in one order."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.deterministic = True
    network = copy.deepcopy(model.network).to(device)
    rows = MODEL_ROWS.get(model.card.name, TILE_ROWS)  # as many as a job's first chunks have
    return Model(network, model.card, network, rows, rows, device)
