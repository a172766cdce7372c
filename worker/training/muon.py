"""The optimiser Muon: each step of a matrix of weights is its momentum, made nearly orthogonal.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; the length of
a step is that of J. Liu et al., "Muon is scalable for LLM training", 2025. PyTorch has it since
2.9, but only for two dimensions, and in bfloat16: without units for it, an epoch takes half as
long again.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

MOMENTUM = 0.95
ITERATIONS = 5
QUINTIC = 3.4445, -4.7750, 2.0315  # of x, x³ and x⁵: brings singular values near 1
STEP = 0.5  # with AdamW's learning rate, steps are about 2.5 times as long as AdamW's


class Muon(Optimizer):
    """For filters that mix channels, (outputs, inputs, height, width); each is one row."""

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        super().__init__(weights, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                gradient = weight.grad.flatten(1)
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(gradient)
                mean = state["momentum"].lerp_(gradient, 1 - MOMENTUM)
                change = make_orthogonal(gradient.lerp(mean, MOMENTUM))
                length = STEP * max(change.shape) ** 0.5
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.sub_(change.view(weight.shape), alpha=group["lr"] * length)


def make_orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with singular values of about 0.7 to 1.2, but for tiny ones (Newton-Schulz)."""
    first, third, fifth = QUINTIC
    is_wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if is_wide else matrix.T
    x = x / (x.norm() + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = torch.addmm(x, third * square + fifth * square @ square, x, beta=first)
    return x if is_wide else x.T
