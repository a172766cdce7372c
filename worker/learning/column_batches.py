"""What the columns and the expert learn from: strips of numbers, in batches, with targets."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from digitq.protocol.asked.values import ALPHABET
from digitq.protocol.chunk import CLASSES
from digitq.worker.learning.learner import Recipe, has_bfloat16
from digitq.worker.models.number_networks import BLANK, COLUMNS_SIZE, STRIDE, StripSize
from digitq.worker.picture import Grey
from digitq.worker.sight.numbers.line_strip import Boxes, cut_strip, fit_line

BATCH_STRIPS = 48
POOLED = 2_000  # batches are made of this many pictures, so that those of one size meet
# px of a strip of `COLUMNS_SIZE`
AT_SIGN = 1.6  # a column nearer than this to a sign's middle shows the sign
NEAR_SIGN = 3.6  # a column nearer than this may show the sign; any other is blank
BLANK_WEIGHT = 0.5  # the loss of a blank column counts this much, that of a sign's column 1
NO_BOXES: Boxes = np.zeros((0, 4), np.float32)
NOT_LEARNED = -1  # the class of a column from which nothing is learned
SHARED_RANGE = 4.0  # signs this much below the likeliest learn 1/e of what it learns
NEVER = -1e4  # the log-odds of a sign that is passed over; CTC has no gradient at minus infinity

Rng = np.random.Generator
MakeBatches = Callable[[Sequence[Any], Rng], list[Any]]


@dataclass(frozen=True)
class NumberRecipe(Recipe):
    """How to train a network on pictures of numbers."""

    warm_up_steps: int = 200
    ema_decay: float = 0.998
    max_gradient: float = 10.0
    weight_decay: float = 0.05


class LearnedStrip(NamedTuple):
    """The line of a number, as it was cut out of its picture."""

    values: NDArray[np.float32]  # (height, W), normalised
    middles: NDArray[np.float64]  # px: where the middle of each sign is; none if that is unknown
    text: str  # its digits, and its signs if they are known
    knows_signs: bool = True


class StripBatch(NamedTuple):
    images: Tensor  # (N, 1, height, W)
    columns: Tensor  # (N, W / 2): the class of each column, or NOT_LEARNED
    widths: Tensor  # (N,): how many columns are the strip's own
    classes: Tensor  # (M,): those of all texts, one after the other
    lengths: Tensor  # (N,)
    knows_signs: Tensor  # (N,): whether signs are learned, or passed over like a blank column


def cut_inexactly(
    picture: Grey,
    digits: Boxes,
    text: str,
    boxes: Boxes,
    rng: Rng,
    size: StripSize,
    is_alone: bool = True,
) -> LearnedStrip:
    """Cut a number out as inexactly as a line that was found.

    The boxes of the digits place the line; those of all signs of the text are learned, if there are
    any. If the number is not alone in its picture, the strip shows little beyond its ends.
    """
    line = fit_line(digits)
    line = line._replace(
        y=line.y + rng.normal(0, 0.11) * line.height,
        height=line.height * np.exp(rng.normal(0.02, 0.14)),
        slope=line.slope + rng.normal(0, 0.035),
    )
    before, after = rng.uniform(0.35, 1.3 if is_alone else 0.5, 2).tolist()
    if is_alone and rng.random() < 0.4:  # an empty cell was taken for a digit's
        more = rng.uniform(1.3, 5)
        before, after = (more, after) if rng.random() < 0.5 else (before, more)
    values, matrix = cut_strip(picture, line, before, after, size)
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2 @ matrix[0, :2] + matrix[0, 2]
    inside = (middles > 0) & (middles < values.shape[1])
    if len(boxes):
        text = "".join(sign for sign, is_inside in zip(text, inside, strict=True) if is_inside)
    return LearnedStrip(values, middles[inside], text)


def batch_strips(strips: Sequence[LearnedStrip], rng: Rng) -> list[StripBatch]:
    """Batches of strips of similar widths, in random order."""
    # Between two signs that are the same there must be a column that is none.
    strips = [one for one in strips if one.values.shape[1] > 2 * STRIDE * len(one.text) > 0]
    strips.sort(key=lambda one: one.values.shape[1])
    groups = [strips[at : at + BATCH_STRIPS] for at in range(0, len(strips), BATCH_STRIPS)]
    return [collate(groups[number]) for number in rng.permutation(len(groups))]


def collate(strips: Sequence[LearnedStrip]) -> StripBatch:
    """Strips on canvases of one width, with their targets."""
    width = max(one.values.shape[1] for one in strips)
    images = np.zeros((len(strips), 1, len(strips[0].values), width), np.float32)
    columns = np.full((len(strips), width // STRIDE), NOT_LEARNED)
    for row, one in enumerate(strips):
        images[row, 0, :, : one.values.shape[1]] = one.values
        classes = name_columns(one)
        columns[row, : len(classes)] = classes
    return StripBatch(
        torch.from_numpy(images),
        torch.from_numpy(columns),
        torch.tensor([one.values.shape[1] // STRIDE for one in strips]),
        torch.tensor([ALPHABET.index(sign) for one in strips for sign in one.text]),
        torch.tensor([len(one.text) for one in strips]),
        torch.tensor([one.knows_signs for one in strips]),
    )


def name_columns(strip: LearnedStrip) -> NDArray[np.int64]:
    """The class of each column: a sign at its middle, BLANK far from any, else NOT_LEARNED."""
    if not len(strip.middles):
        return np.full(strip.values.shape[1] // STRIDE, NOT_LEARNED)
    at = (np.arange(strip.values.shape[1] // STRIDE) + 0.5) * STRIDE
    away = np.abs(at[:, None] - strip.middles)
    nearest = away.argmin(1)
    least = away.min(1) * (COLUMNS_SIZE.height / len(strip.values))
    classes = np.where(least < NEAR_SIGN, NOT_LEARNED, BLANK)
    is_sign = least < AT_SIGN
    classes[is_sign] = np.array([*map(ALPHABET.index, strip.text)])[nearest[is_sign]]
    return classes


def draw_batches(
    shown: Sequence[Any], make_batches: MakeBatches, seed: int, epoch: int
) -> Iterator[tuple[float, Any]]:
    """The batches of an epoch, with the share of the pictures that were shown before each."""
    rng = np.random.default_rng((seed, epoch, 1))
    order = rng.permutation(len(shown))
    for start in range(0, len(order), POOLED):
        pool = [shown[row] for row in order[start : start + POOLED]]
        for batch in make_batches(pool, rng):
            yield start / len(order), batch


def answer(network: nn.Module, images: Tensor) -> Tensor:
    """The network's answer to a batch, computed in 16 bits if the processor can."""
    with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
        answers: Tensor = network(images.to(memory_format=torch.channels_last))
    return answers.float()


def measure_losses(network: nn.Module, batch: StripBatch) -> tuple[Tensor, Tensor]:
    """The CTC loss for each sign, and the cross entropy of the columns with a known class."""
    logits = answer(network, batch.images).squeeze(2)
    chances = torch.where(
        batch.knows_signs[:, None, None], logits.log_softmax(1), pass_over_signs(logits)
    )
    losses = F.ctc_loss(
        chances.permute(2, 0, 1),
        batch.classes,
        batch.widths,
        batch.lengths,
        BLANK,
        "none",
        zero_infinity=True,
    )
    weights = torch.ones(BLANK + 1)
    weights[BLANK] = BLANK_WEIGHT
    chances = chances[:, :, : batch.columns.shape[1]]  # the expert may give one column more
    summed = F.nll_loss(chances, batch.columns, weights, ignore_index=NOT_LEARNED, reduction="sum")
    # a batch of a user's own numbers has no column whose class is known: the mean would be 0 / 0
    learned = weights[batch.columns[batch.columns != NOT_LEARNED]].sum()
    return (losses / batch.lengths).mean(), summed / learned.clamp(min=BLANK_WEIGHT)


def pass_over_signs(logits: Tensor) -> Tensor:
    """The log-probabilities as if signs were blank: (N, 21, T) → (N, 21, T).

    Their gradient moves signs and the blank nearly alike, so that how these share what is no digit
    stays as it is: the likeliest, mostly the blank, would learn more than the others. Signs that
    are far less likely stay where they are: nothing would stop them on their way down.
    """
    digits, others = logits[:, :CLASSES], logits[:, CLASSES:]
    shares = (others.detach() / SHARED_RANGE).softmax(1)
    mean = (shares * others).sum(1, keepdim=True)
    blank = others.logsumexp(1, keepdim=True).detach() + mean - mean.detach()
    none = torch.full_like(logits[:, CLASSES:BLANK], NEVER)
    return torch.cat([digits, none, blank], 1).log_softmax(1)
