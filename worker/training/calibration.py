"""How right a network is, and how well it knows: accuracy, calibration, what is to be reviewed."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worker.models.network import Network, softmax

BINS = 15  # of the calibration error
REVIEWED = 0.015  # of the held back images are less sure than what a person should look at


def classify(network: nn.Module, images: Tensor) -> Tensor:
    """Ten probabilities for each of (N, 28, 28) images: (N, 10)."""
    with torch.inference_mode():
        return torch.cat([network(part) for part in torch.split(images.flatten(1), 1000)])


def measure_accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """The share of (N, 10) rows whose most probable label is the right one."""
    return (probabilities.argmax(1) == labels).float().mean().item()


def measure_calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """How far confidence and accuracy are apart: the mean over bins of equal width, by rows.

    The expected calibration error of M. P. Naeini et al., 2015; (N, 10) and (N,) → 0..1.
    """
    confidence, answers = probabilities.max(1)
    gaps = confidence.double() - (answers == labels).double()
    places = (confidence * BINS).long().clamp(max=BINS - 1)
    sums = torch.zeros(BINS, dtype=torch.float64).index_add_(0, places, gaps)
    return (sums.abs().sum() / len(labels)).item()


def calibrate(network: Network, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """The temperature of the least cross entropy on (N, 28, 28) images that were held back, and
    the confidence that `REVIEWED` of them don't reach with it.

    C. Guo et al., "On calibration of modern neural networks", 2017.
    """
    with torch.inference_mode():
        logits = network.logits(images.flatten(1))
        temperatures = torch.linspace(-2, 2, 401).exp()
        losses = torch.stack([F.cross_entropy(logits / t, labels) for t in temperatures])
        temperature = round(temperatures[losses.argmin()].item(), 3)
        confidence = softmax(logits / temperature).amax(1)
    return temperature, round(confidence.quantile(REVIEWED).item(), 4)
