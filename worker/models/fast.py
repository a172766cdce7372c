"""`mlp` as it classifies fastest: what is the same for all images is computed once.

Its first layer is summed in float32; on processors that multiply bytes, in whole numbers. Pixels
are bytes, and a weight is three digits of base 256. So the sum over an image's pixels is three sums
of products of bytes, and those are exact: what is rounded is each weight, to 24 bits as in float32,
and the three sums as they are put together. With the instructions that Intel calls VNNI it takes
two thirds of float32's time or less, and is nearer to the true sum.
"""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import linear

from protocol.chunk import TILE_ROWS
from worker.models.network import CLASSES, HIDDEN, PIXELS, Mlp, Network

DIGITS = 3
BASE = 256
COLUMNS = 16  # of the second layer, padded: for ten, MKL's strict mode takes half as long again
LARGEST = 127 * BASE**2  # whole number that a weight becomes; the other digits reach past it


def has_byte_products() -> bool:
    """Whether this processor has AVX-512 VNNI."""
    return bool(getattr(torch.cpu, "_is_vnni_supported", bool)())  # it is no public name


@cache
def multiplies_bytes() -> bool:
    """Whether it has, and torch uses it: any other way, sums may overflow in 16 bits."""
    if not has_byte_products():
        return False
    pixels = torch.full((TILE_ROWS, PIXELS), 255, dtype=torch.uint8)
    weights = torch.tensor([127, -128], dtype=torch.int8).repeat(PIXELS, HIDDEN // 2)
    try:
        sums = ByteProduct(weights, torch.ones(HIDDEN))(pixels, torch.zeros(len(pixels), HIDDEN))
    except (AttributeError, RuntimeError):  # a torch without this product, or of another form
        return False
    return torch.equal(sums, (255 * PIXELS * weights[0].long()).float().expand_as(sums))


Product = Callable[[Tensor, Tensor], Tensor]  # pixels (N, 784) uint8, and sums (N, 256) to add to


def optimise(network: Network) -> Network:
    """The network in the form that classifies bytes fastest on this processor."""
    return FastNetwork(network) if isinstance(network, Mlp) else network


class FastNetwork(Network):
    """The answers of a `Mlp`, to (N, 784) uint8 alone."""

    architecture = Mlp.architecture
    tile_rows = TILE_ROWS

    def __init__(self, network: Mlp) -> None:
        super().__init__(0, 1)
        self.temperature = network.temperature
        weights = network.w1.detach().double()
        # the normalisation is folded in: its shift into the bias, so that pixels of 0 add nothing
        self.b1 = (network.b1 + network.shift * weights.sum(0)).float().detach()
        self.products = build_products(weights * network.scale)
        self.w2 = torch.zeros(COLUMNS, HIDDEN)
        self.w2[:CLASSES] = network.w2.t()
        self.b2 = network.b2

    def logits(self, pixels: Tensor) -> Tensor:
        hidden = self.b1.repeat(len(pixels), 1)  # (N, 256)
        for product in self.products:
            hidden = product(pixels, hidden)
        hidden.sub_(hidden.amax(1, keepdim=True)).exp_()  # a softmax but for its divisor
        weighted = linear(hidden, self.w2)[:, :CLASSES]
        return weighted.div_(hidden.sum(1, keepdim=True)).add_(self.b2)


def build_products(weights: Tensor) -> list[Product]:
    """What adds pixels times weights, (784, 256) float64, to sums."""
    if not multiplies_bytes():
        floats = weights.float()
        return [lambda pixels, sums: sums.addmm_(pixels.float(), floats)]
    digits, scales = split_digits(weights)
    parts = zip(digits.chunk(DIGITS, 1), scales.chunk(DIGITS), strict=True)
    return [ByteProduct(*part) for part in parts]


class ByteProduct:
    """Pixels (N, 784) uint8 times weights (784, M) int8, summed exactly, rounded to float32, times
    a scale for each column, and added: oneDNN's product, as torch's quantised layers use it."""

    def __init__(self, weights: Tensor, scales: Tensor) -> None:
        self.weights = torch.ops.onednn.qlinear_prepack(weights.t().contiguous(), None)
        self.scales, self.zeros = scales, torch.zeros(len(scales), dtype=torch.int32)

    def __call__(self, pixels: Tensor, sums: Tensor) -> Tensor:
        """(N, 784) uint8, and the sums so far, (N, M) float32, which take the new ones."""
        exact = (1.0, 0)  # scale and zero point
        weights = (self.weights, self.scales, self.zeros)
        added = (sums, None, *exact, torch.float32, *exact, "sum", 1.0)
        sums = torch.ops.onednn.qlinear_pointwise.binary(
            pixels, *exact, *weights, *added, "none", [], ""
        )
        return sums


def split_digits(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (784, 256) as digits (784, 3 · 256) int8, the highest first, and what a 1 of each
    stands for, (3 · 256,) float32: each column has a unit of its own."""
    units = weights.abs().amax(0).clamp(min=1e-30) / LARGEST
    rest = (weights / units).round().long()
    digits: list[Tensor] = []
    for _ in range(DIGITS):
        digit = (rest + BASE // 2) % BASE - BASE // 2  # −128 … 127
        digits.insert(0, digit.to(torch.int8))
        rest = (rest - digit) // BASE
    scales = torch.cat([units * BASE**power for power in reversed(range(DIGITS))])
    return torch.cat(digits, 1), scales.float()
