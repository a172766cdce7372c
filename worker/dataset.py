"""MNIST as tensors."""

import torch
from torch import Tensor

from digitq.protocol.formats import mnist


def load_mnist(part: mnist.Part) -> tuple[Tensor, Tensor]:
    """Images (N, 28, 28) uint8 and labels (N,) int64 of MNIST's `train`, `test` or `sample`.

    Raises `UsageError` as `digitq.protocol.formats.mnist.load_mnist`.
    """
    images, labels = mnist.load_mnist(part)
    return torch.tensor(images).view(-1, 28, 28), torch.tensor(labels, dtype=torch.int64)
