"""Measures accuracy and calibration, and chooses the temperature and the review threshold."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protocol.chunk import CALIBRATION_BINS
from worker.models.network import Network, softmax

REVIEWED_SHARE = 0.015  # with the threshold chosen, this share of validation images is reviewed


def classify(network: nn.Module, images: Tensor) -> Tensor:
    """Ten probabilities for each image: (N, 28, 28) → (N, 10)."""
    with torch.inference_mode():
        return torch.cat([network(part) for part in torch.split(images.flatten(1), 1000)])


def measure_accuracy(probabilities: Tensor, labels: Tensor) -> float:
    """The share of rows, (N, 10), whose most probable label is that of `labels`, (N,)."""
    return (probabilities.argmax(1) == labels).float().mean().item()


def measure_calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """The expected calibration error, 0..1, of probabilities (N, 10) for labels (N,).

    It is the mean gap between confidence and accuracy over bins of equal width, weighted by their
    rows (M. P. Naeini et al., 2015).
    """
    confidence, answers = probabilities.max(1)
    return count_gaps(confidence, answers == labels)


def count_gaps(confidence: Tensor, right: Tensor) -> float:
    """The expected calibration error of confidences, (N,), and whether each answer is right."""
    gaps = confidence.double() - right.double()
    places = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    sums = torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add_(0, places, gaps)
    return (sums.abs().sum() / max(1, len(right))).item()


def fit_logistic(features: Tensor, truths: Tensor) -> list[float]:
    """The logistic regression of truths, 0 or 1, on features: (N,) and (N, K).

    Gives the K slopes, and the offset as the last.
    """
    inputs = F.pad(features, (0, 1), value=1.0)
    line = torch.tensor([1.0] + [0.0] * features.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([line], max_iter=100, line_search_fn="strong_wolfe")

    def measure() -> Tensor:
        solver.zero_grad()
        loss = F.binary_cross_entropy_with_logits(inputs @ line, truths)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(measure)  # type: ignore[no-untyped-call]
    return list(line.tolist())


def calibrate(network: Network, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Choose temperature and review threshold on validation images, (N, 28, 28), and labels, (N,).

    The temperature has the least cross entropy (C. Guo et al., "On calibration of modern neural
    networks", 2017). With it, `REVIEWED_SHARE` of the images have a confidence below the threshold.
    """
    with torch.inference_mode():
        logits = network.logits(images.flatten(1))
        temperatures = torch.linspace(-2, 2, 401).exp()
        losses = torch.stack([F.cross_entropy(logits / t, labels) for t in temperatures])
        temperature = round(temperatures[losses.argmin()].item(), 3)
    return temperature, choose_digit_threshold(softmax(logits / temperature))


def choose_digit_threshold(probabilities: Tensor) -> float:
    """The confidence below which `REVIEWED_SHARE` of the answers are: (N, 10)."""
    return round(probabilities.amax(1).quantile(REVIEWED_SHARE).item(), 4)
