"""Measures accuracy and calibration, and chooses the temperature and the review threshold."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from protocol.chunk import CALIBRATION_BINS
from worker.models.network import Network

REVIEWED_SHARE = 0.015  # with the threshold chosen, this share of validation images is reviewed


def classify(network: nn.Module, images: Tensor) -> Tensor:
    """Ten probabilities for each image: (N, 28, 28) → (N, 10)."""
    with torch.inference_mode():
        return torch.cat([network(part) for part in torch.split(images.flatten(1), 1000)])


def measure(probabilities: Tensor, labels: Tensor) -> tuple[float, float]:
    """The accuracy of probabilities, (N, 10), for labels, (N,), and their calibration error."""
    confidence, answers = probabilities.max(1)
    is_right = answers == labels
    return measure_share(is_right), measure_calibration_error(confidence, is_right)


def measure_share(is_right: Tensor) -> float:
    """The share of right answers, from whether each is right, (N,)."""
    return round(is_right.double().mean().item(), 6)


def measure_calibration_error(confidence: Tensor, is_right: Tensor) -> float:
    """The expected calibration error, 0..1, of confidences, (N,), and whether each answer is right.

    It is the mean gap between confidence and accuracy over bins of equal width, weighted by their
    rows (M. P. Naeini et al., 2015).
    """
    gaps = confidence.double() - is_right.double()
    places = (confidence * CALIBRATION_BINS).long().clamp(max=CALIBRATION_BINS - 1)
    sums = torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add_(0, places, gaps)
    return round((sums.abs().sum() / max(1, len(is_right))).item(), 6)


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


def choose_temperature(network: Network, images: Tensor, labels: Tensor) -> float:
    """The temperature with the least cross entropy for images, (N, 28, 28), and labels, (N,).

    C. Guo et al., "On calibration of modern neural networks", 2017.
    """
    with torch.inference_mode():
        logits = network.logits(images.flatten(1))
        temperatures = torch.linspace(-2, 2, 401).exp()
        losses = torch.stack([F.cross_entropy(logits / t, labels) for t in temperatures])
    return round(temperatures[losses.argmin()].item(), 3)


def choose_digit_threshold(probabilities: Tensor) -> float:
    """The confidence below which `REVIEWED_SHARE` of the answers are: (N, 10)."""
    return round(probabilities.amax(1).quantile(REVIEWED_SHARE).item(), 4)
