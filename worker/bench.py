"""What `digitq bench` measures of torch without a queue: `python -m worker.bench --help`.

Each command prints `{"images_per_second": …}`. Nothing is written, and no answer is kept.
"""

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST, ImageFolder
from torchvision.transforms import Compose, Grayscale, Normalize, ToTensor

from protocol.chunk import PIXELS
from worker.dataset import ensure_mnist, load_mnist
from worker.models.model import load_model
from worker.models.network import Network

MODEL = "mlp"
THREADS = 2  # and processes of a loader: as many as the queue has workers
BATCH_ROWS = 512  # faster than 1024 or 2048, whose sums leave the processor's cache
TUTORIAL_BATCH_ROWS = 64
WARM_UP_BATCHES = 10

Labelled = Iterable[tuple[Tensor, Tensor]]  # images (N, 1, 28, 28) and labels (N,)


def measure(network: Network, batches: Iterable[Tensor], warm_up: Tensor) -> None:
    """Print images a second, from asking for the first batch (N, 784) to the last answer."""
    torch.set_num_threads(THREADS)
    with torch.inference_mode():
        for _ in range(WARM_UP_BATCHES):
            network(warm_up)
        images, started = 0, time.perf_counter()
        for pixels in batches:
            network(pixels)
            images += len(pixels)
    print(json.dumps({"images_per_second": images / (time.perf_counter() - started)}))


def measure_normalised(batches: Labelled) -> None:
    """The same of images that `Normalize` has seen to."""
    network = load_model(MODEL).network
    network.scale, network.shift = 1.0, 0.0
    pixels = (images.view(-1, PIXELS) for images, _ in batches)
    measure(network, pixels, torch.zeros(TUTORIAL_BATCH_ROWS, PIXELS))


def normalise() -> Compose:
    """From a grey PIL image to what the network takes, as the tutorials have it."""
    card = load_model(MODEL).card
    return Compose([ToTensor(), Normalize((card.mean,), (card.std,))])


@click.group()
def main() -> None:
    """Measure torch without a queue."""


@main.command("torch")
@click.argument("images", type=click.IntRange(1))
def bare_torch(images: int) -> None:
    """The network alone, over MNIST as an array, again and again."""
    pixels = load_mnist("train")[0].view(-1, PIXELS)
    batches = (
        batch
        for start in range(0, images, len(pixels))
        for batch in pixels[: images - start].split(BATCH_ROWS)  # type: ignore[no-untyped-call]
    )
    measure(load_model(MODEL).network, batches, pixels[:BATCH_ROWS])


@main.command()
@click.argument("images", type=click.IntRange(1))
def dataloader(images: int) -> None:
    """The tutorials' loop over `datasets.MNIST`."""
    dataset = MNIST(ensure_mnist(), train=True, transform=normalise())
    part = Subset(dataset, range(min(images, len(dataset))))
    measure_normalised(DataLoader(part, TUTORIAL_BATCH_ROWS))


@main.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
def image_folder(folder: Path) -> None:
    """A folder of images: listed, read and decoded by `ImageFolder` and a loader's processes."""
    transform = Compose([Grayscale(), normalise()])

    def load() -> Iterator[tuple[Tensor, Tensor]]:
        dataset = ImageFolder(str(folder), transform)
        yield from DataLoader(dataset, TUTORIAL_BATCH_ROWS, num_workers=THREADS)

    measure_normalised(load())


if __name__ == "__main__":
    main()
