"""Plain Celery: `celery -A benchmarks.rivals.plain_celery worker`.

Most tutorials have a task for each image, with its pixels as a list in the message and the answer
in a result backend. The other task is what a good engineer makes of it: batches, as bytes, both in
the message and in the answer. Kombu's JSON holds them as base64; nothing is pickled.
"""

from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.signals import worker_process_init

from benchmarks.deployment.measures import BENCH_MODEL
from digitq.protocol.broker.address import read_address
from digitq.protocol.chunk import PIXELS
from digitq.protocol.settings import DEFAULT_BROKER, settings

if TYPE_CHECKING:
    from torch import Tensor

PLAIN_TASK, PLAIN_BATCH_TASK = "plain.classify", "plain.classify_batch"


def make_plain_app(broker_url: str) -> Celery:
    """An app with Celery's own defaults; Redis is its broker and its result backend."""
    url = read_address(broker_url).celery_url
    app = Celery("plain", broker=url, backend=url, set_as_current=False)
    app.conf.broker_connection_retry_on_startup = True  # the default; unset, Celery warns
    app.conf.worker_proc_alive_timeout = 120  # seconds for torch and the weights to load
    return app


app = make_plain_app(settings().broker_url or DEFAULT_BROKER)


@worker_process_init.connect
def prepare_process(**_: Any) -> None:
    """After the fork, load the model and use it once, as digitq's own workers do."""
    classify([0] * PIXELS)


@app.task(name=PLAIN_TASK)
def classify(pixels: list[int]) -> list[float]:
    """Ten probabilities for 784 grey values."""
    import torch  # here, so that the process that sends tasks does without it

    answers: list[float] = compute(torch.tensor([pixels]))[0].tolist()
    return answers


@app.task(name=PLAIN_BATCH_TASK)
def classify_batch(pixels: bytes) -> bytes:
    """Ten probabilities, float32, for each 784 grey values, uint8."""
    import torch

    images = torch.frombuffer(bytearray(pixels), dtype=torch.uint8)
    return compute(images.view(-1, PIXELS)).numpy().tobytes()


def compute(pixels: "Tensor") -> "Tensor":
    """The network's answers (N, 10) to images (N, 784)."""
    import torch

    from digitq.worker.models.model import load_model

    with torch.inference_mode():
        answers: Tensor = load_model(BENCH_MODEL).network(pixels)
    return answers
