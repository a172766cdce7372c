"""Plain Celery as most tutorials have it: a task for each image, with its pixels as a list in the
message and the answer in a result backend. `celery -A benchmarks.rivals.plain_celery worker`.
"""

from typing import Any

from celery import Celery
from celery.signals import worker_process_init

from benchmarks.deployment.measures import BENCH_MODEL
from digitq.protocol.broker.address import read_address
from digitq.protocol.settings import DEFAULT_BROKER, settings

PLAIN_TASK = "plain.classify"


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
    classify([0] * 784)


@app.task(name=PLAIN_TASK)
def classify(pixels: list[int]) -> list[float]:
    """Ten probabilities for 784 grey values."""
    import torch  # here, so that the process that sends tasks does without it

    from digitq.worker.models.model import load_model

    with torch.inference_mode():
        answers: list[float] = load_model(BENCH_MODEL).network(torch.tensor([pixels]))[0].tolist()
    return answers
