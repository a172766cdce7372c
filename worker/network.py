"""The network: 784 grey values → 256 hidden units → 10 probabilities, with a softmax after each."""

import torch
from torch import Tensor, nn

PIXELS = 28 * 28  # 784
HIDDEN = 256
LABELS = 10
ARCHITECTURE = "784-256-10, softmax after both layers"


def softmax(logits: Tensor, dim: int = -1) -> Tensor:
    """exp(x − max) / Σ exp(x − max) along `dim`; every row is ≥ 0 and sums to 1.

    Each row has its own maximum, so its largest term is exp(0) = 1: nothing overflows and no
    sum is 0. Infinite entries count as the largest finite number: −inf gets 0, +inf takes all
    (several share it), and a row that is −inf everywhere knows nothing and comes out uniform.
    NaN stays NaN. Same shape and type as `logits`.
    """
    finite = torch.finfo(logits.dtype)
    bounded = logits.clamp(finite.min, finite.max)
    exponentials = torch.exp(bounded - bounded.amax(dim, keepdim=True))
    return exponentials / exponentials.sum(dim, keepdim=True)


class DigitNetwork(nn.Module):
    """784-256-10. It takes grey values as images hold them, 0..255, and normalises them itself.

    Whoever replaces it (a `cnn`, say) keeps `logits` and `forward`: (N, 784) in, (N, 10) out.
    """

    def __init__(self, mean: float, std: float, hidden: int = HIDDEN) -> None:
        """Weights are uninitialised; `mean` and `std` are of grey values scaled to 0..1."""
        super().__init__()
        self.scale = 1 / (255 * std)
        self.shift = -mean / std
        self.w1 = nn.Parameter(torch.empty(PIXELS, hidden))
        self.b1 = nn.Parameter(torch.empty(hidden))
        self.w2 = nn.Parameter(torch.empty(hidden, LABELS))
        self.b2 = nn.Parameter(torch.empty(LABELS))

    def normalise(self, pixels: Tensor) -> Tensor:
        """(pixels / 255 − mean) / std, as float; `pixels` uint8 or float 0..255, any shape."""
        return (pixels * self.scale).add_(self.shift)

    def logits(self, pixels: Tensor) -> Tensor:
        """The ten sums before the last softmax: (N, 784) uint8 or float 0..255 → (N, 10)."""
        hidden = softmax(torch.addmm(self.b1, self.normalise(pixels), self.w1))  # (N, 256)
        return torch.addmm(self.b2, hidden, self.w2)

    def forward(self, pixels: Tensor) -> Tensor:
        """Ten probabilities for each image: (N, 784) uint8 or float 0..255 → (N, 10)."""
        return softmax(self.logits(pixels))
