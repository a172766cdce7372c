"""The network alone, without a queue: `python -m benchmarks.network_alone MODEL IMAGES THREADS`.

It classifies the MNIST training images, repeated, and prints `{"images_per_second": …}`. The model
`number` looks once at blank pictures of 144×48 px, for which it takes as long as for others.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor, nn

from digitq.protocol.chunk import PIXELS
from digitq.protocol.settings import NUMBER
from digitq.worker.dataset import load_mnist
from digitq.worker.models.model import load_model
from digitq.worker.models.number_networks import load_networks
from digitq.worker.sight.numbers.search import FIRST_LOOK

CACHED_ROWS = 512  # images in a batch; the sums of 1024 no longer fit the processor's cache
WARM_UP_BATCHES = 10
LOOK_SHAPE = (
    FIRST_LOOK,
    3 * FIRST_LOOK,
)  # px: height and width of a whole number
AnswerAll = Callable[[Iterable[Tensor]], Iterable[Tensor]]  # a network's answers to many batches


def measure_network(
    network: nn.Module, batches: Iterable[Tensor], warm_up: Tensor, threads: int
) -> None:
    """Print the images per second of a network of torch. A batch is (N, 784)."""
    os.environ["MKL_CBWR"] = "OFF"  # other programs do not use the strict mode that `worker` sets
    torch.set_num_threads(threads)
    with torch.inference_mode():
        measure(partial(map, network), batches, warm_up)


def measure(answer: AnswerAll, batches: Iterable[Tensor], warm_up: Tensor) -> None:
    """Print the images per second, from the request for the first batch to the end."""
    for _ in answer([warm_up] * WARM_UP_BATCHES):
        pass
    images, started = 0, time.perf_counter()
    for answers in answer(batches):
        images += len(answers)
    print(json.dumps({"images_per_second": images / (time.perf_counter() - started)}))


if __name__ == "__main__":
    model, images, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if model == NUMBER:
        field = torch.zeros(1, 1, *LOOK_SHAPE)
        with ThreadPoolExecutor(threads) as pool:
            answer = partial(pool.map, load_networks()[0].detector)
            measure(answer, [field] * images, field)
        sys.exit()
    pixels = load_mnist("train")[0].view(-1, PIXELS)
    batches = (
        batch
        for start in range(0, images, len(pixels))
        for batch in torch.split(pixels[: images - start], CACHED_ROWS)
    )
    measure_network(load_model(model).network, batches, pixels[:CACHED_ROWS], threads)
