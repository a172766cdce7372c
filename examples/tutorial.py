"""The usual first steps with MNIST, in digitq's parts.

Takes batches of 64 images, draws one image as text, and shows the ten probabilities that an
untrained and the trained network give it. Then the same batch goes through a producer, Redis and a
worker, and the same numbers come back.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import digitq
from digitq.protocol.formats.mnist import NoMnistError
from digitq.worker.dataset import load_mnist
from digitq.worker.models.model import load_model

BATCH_IMAGES = 64
SHADES = " ░▒▓█"


def load_images() -> tuple[torch.Tensor, torch.Tensor]:
    """MNIST's 70,000 images (N, 28, 28) uint8 and their labels (N,), or 5,000 of them if it is not
    on this machine and can't be downloaded."""
    try:
        parts = [load_mnist("train"), load_mnist("test")]
    except NoMnistError as error:
        print(error)
        parts = [load_mnist("sample")]
    images, labels = zip(*parts, strict=True)
    return torch.cat(images), torch.cat(labels)


def draw_text(image: torch.Tensor) -> str:
    """Draw an image as text, a line for two rows of pixels: (28, 28) uint8 → 14 lines."""
    grey = image.view(14, 2, 28).float().mean(1)  # (14, 28)
    shades = grey.long() * len(SHADES) // 256
    return "\n".join("".join(SHADES[shade] for shade in row).rstrip() for row in shades)


def show(probabilities: np.ndarray) -> str:
    """(10,) → three decimals each."""
    return " ".join(f"{value:.3f}" for value in probabilities)


def main() -> None:
    """Go from the data to an answer, and then to the same answer by way of Redis."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", nargs="?", type=Path, help="a file for the first image, a .png")
    picture = parser.parse_args().picture
    torch.manual_seed(1)
    images, labels = load_images()
    loader = DataLoader(TensorDataset(images[:, None], labels), BATCH_IMAGES, shuffle=True)
    print(f"{len(images):,} images, {len(loader):,} batches")
    images, labels = next(iter(loader))
    print(images.shape)  # 64 images of one channel
    print(labels.shape)

    image = images[0]
    print(image.shape)
    print(draw_text(image[0]))
    if picture:
        Image.fromarray(image[0].numpy()).save(picture)

    pixels = images.flatten(1).numpy()
    print(pixels.shape)
    random = load_model("random").classify(pixels)  # (64, 10)
    trained = load_model("mlp").classify(pixels)
    print(f"random: {show(random[0])} (sum {random[0].sum():.6f})")
    print(f"mlp:    {show(trained[0])} (sum {trained[0].sum():.6f})")
    right = int((trained.argmax(1) == labels.numpy()).sum())
    print(f"it is a {trained[0].argmax()}, the label says {labels[0]}; {right} of 64 are right")

    with digitq.local(workers=1) as client:  # starts a Redis and a worker
        job = client.submit(images[:, 0].numpy())  # the producer puts them into Redis
        answers = job.table()  # waits for the worker, and collects what it has stored in Redis
    queued = np.array(answers["probabilities"].to_pylist(), np.float32)
    assert np.array_equal(queued, trained)
    print(f"{len(queued)} answers came through Redis from a worker: the same numbers")


if __name__ == "__main__":
    main()
