"""The optimiser Muon. It makes the momentum of a weight matrix nearly orthogonal, and steps by it.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. The length of a
step depends on the matrix's shape as in J. Liu et al., "Muon is scalable for LLM training", 2025.
PyTorch has Muon since 2.9, but only for matrices, and always in bfloat16. This one computes in
bfloat16 only if the processor can: otherwise an epoch would take a third longer.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from digitq.worker.learning.learner import has_bfloat16

MOMENTUM = 0.95
ITERATIONS = 5
QUINTIC = 3.4445, -4.7750, 2.0315  # the factors of x, x³ and x⁵ in an iteration
STEP = 0.5  # with AdamW's learning rate, steps are about 2.5 times as long as AdamW's


class Muon(Optimizer):
    """For weights of convolutions, (outputs, inputs, height, width): one row for each output."""

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
    """The matrix with its singular values brought near 1, between about 0.7 and 1.2.

    Newton-Schulz iteration; singular values that are tiny beside the largest stay smaller.
    """
    first, third, fifth = QUINTIC
    is_wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if is_wide else matrix.T
    x = (x / (x.norm() + 1e-7)).to(torch.bfloat16 if has_bfloat16() else torch.float32)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = torch.addmm(x, third * square + fifth * square @ square, x, beta=first)
    return (x if is_wide else x.T).float()
