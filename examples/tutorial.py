"""The usual first steps with MNIST, in digitq's parts.

Shows a batch of 64 images, one of them drawn as text, the ten probabilities of an untrained
network, and the answer of the trained one.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

from digitq.worker.dataset import load_mnist
from digitq.worker.models.model import load_model

SHADES = " ░▒▓█"


def draw_text(image: torch.Tensor) -> str:
    """Draw an image as text, with two columns for a pixel: (28, 28) uint8 → 28 lines."""
    shades = image.long() * len(SHADES) // 256
    return "\n".join("".join(SHADES[shade] * 2 for shade in row).rstrip() for row in shades)


def main() -> None:
    """Go from the data to an answer; save the first image if a path is given."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("picture", nargs="?", type=Path, help="a file for the first image, a .png")
    picture = parser.parse_args().picture
    torch.manual_seed(0)
    images, labels = load_mnist("sample")
    loader = DataLoader(TensorDataset(images[:, None], labels), batch_size=64, shuffle=True)
    images, labels = next(iter(loader))
    print(images.shape)  # 64 images of one channel
    print(labels.shape)

    image = images[0]
    print(image.shape)
    print(draw_text(image[0]))
    if picture:
        Image.fromarray(image[0].numpy()).save(picture)

    pixels = image.flatten().numpy().reshape(1, 784)
    print(pixels.shape)

    probabilities = load_model("random").classify(pixels)[0]
    print("random:", np.array2string(probabilities, precision=3, suppress_small=True))
    print(f"they sum to {probabilities.sum():.6f}")

    probabilities = load_model("mlp").classify(pixels)[0]
    print("mlp:", np.array2string(probabilities, precision=3, suppress_small=True))
    print(
        f"it is a {probabilities.argmax()} ({probabilities.max():.1%} sure); "
        f"the label says {labels[0].item()}"
    )


if __name__ == "__main__":
    main()
