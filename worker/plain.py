"""The worker of `protocol.plain`: `celery -A worker.plain worker`."""

from typing import Any

import torch
from celery.signals import worker_process_init

from protocol.plain import PLAIN_CLASSIFY, make_plain_app
from protocol.settings import DEFAULT_BROKER, settings
from worker.models.model import load_model

app = make_plain_app(settings().broker_url or DEFAULT_BROKER)
app.conf.worker_proc_alive_timeout = 120  # seconds for torch and the weights to load


@worker_process_init.connect
def prepare_process(**_: Any) -> None:
    """After the fork: the model loaded and warm, as digitq's own workers have it."""
    classify([0] * 784)


@app.task(name=PLAIN_CLASSIFY)
def classify(pixels: list[int]) -> list[float]:
    """Ten probabilities for 784 grey values."""
    with torch.inference_mode():
        answers: list[float] = load_model("mlp").network(torch.tensor([pixels]))[0].tolist()
    return answers
