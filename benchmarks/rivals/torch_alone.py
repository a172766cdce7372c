"""The loops of torch's tutorials; the arguments are LOOP SOURCE MODEL THREADS.

LOOP is `dataloader`, whose SOURCE is a number of MNIST training images, or `image-folder`, whose
SOURCE is a folder. It prints `{"images_per_second": …}`. Nothing is written.
"""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import MNIST, ImageFolder
from torchvision.transforms import Compose, Grayscale, Normalize, ToTensor

from benchmarks.network_alone import measure_network
from digitq.protocol.chunk import PIXELS
from digitq.protocol.formats.mnist import ensure_mnist
from digitq.worker.models.card import Card
from digitq.worker.models.model import load_model

TUTORIAL_ROWS = 64  # images in a batch, as in torch's own MNIST example

Batches = Iterable[tuple[Tensor, Tensor]]  # images (N, 1, 28, 28) and labels (N,)


def to_network_input(card: Card) -> Compose:
    """The tutorials' steps from a grey PIL image to what the network computes on."""
    return Compose([ToTensor(), Normalize((card.mean,), (card.std,))])


def load_dataset(images: int, card: Card) -> Batches:
    """The loop over `datasets.MNIST`, in the process that classifies."""
    dataset = MNIST(ensure_mnist(), train=True, transform=to_network_input(card))
    return DataLoader(Subset(dataset, range(min(images, len(dataset)))), TUTORIAL_ROWS)


def load_folder(folder: Path, card: Card, threads: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A folder of images, read and decoded by as many processes of a `DataLoader` as threads.

    It is a generator, so that the time to list the folder counts.
    """
    dataset = ImageFolder(str(folder), Compose([Grayscale(), to_network_input(card)]))
    yield from DataLoader(dataset, TUTORIAL_ROWS, num_workers=threads)


def main(loop: str, source: str, model_name: str, threads: int) -> None:
    model = load_model(model_name)
    model.network.scale, model.network.shift = 1.0, 0.0  # `Normalize` has done it
    batches: Batches
    if loop == "dataloader":
        batches = load_dataset(int(source), model.card)
    else:
        batches = load_folder(Path(source), model.card, threads)
    pixels = (images.view(-1, PIXELS) for images, _ in batches)
    measure_network(model.network, pixels, torch.zeros(TUTORIAL_ROWS, PIXELS), threads)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
