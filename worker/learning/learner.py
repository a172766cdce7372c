"""Trains a network, one epoch after the other."""

import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from digitq.protocol.host.cores import usable_cores

MeasureLosses = Callable[[Any, Any], tuple[Tensor, ...]]  # takes a network and a batch
Batches = Iterable[tuple[float, Any]]  # with the share of the epoch that was shown before


@dataclass(frozen=True)
class Recipe:
    """What the recipes of all networks have in common."""

    epochs: int = 1
    warm_up_steps: int = 1  # the first steps, in which the learning rates rise
    ema_decay: float = 0.999  # a step keeps this share of the weights' moving average
    max_gradient: float = math.inf  # a longer gradient is shortened to this


class Course(NamedTuple):
    """How a network goes on to learn one's own images."""

    seed: int = 0
    epochs: int | None = None  # those of the recipe by default
    threads: int | None = None  # one for each core by default
    tell: Callable[[float], None] = lambda share: None  # is told how much is done, from 0 to 1

    def part(self, number: int, of: int) -> "Course":
        """One of several parts, each of which begins with a seed of its own."""
        return self._replace(
            seed=self.seed + number, tell=lambda share: self.tell((number + share) / of)
        )

    @contextmanager
    def many_threads(self) -> Iterator[None]:
        """Compute with all threads within this context, and then with one again."""
        torch.set_num_threads(self.threads or usable_cores())
        try:
            yield
        finally:
            torch.set_num_threads(1)


class Learner:
    """A network that learns, with the moving average of its weights.

    A cosine schedule lowers the optimisers' learning rates to 0.
    """

    def __init__(
        self,
        network: nn.Module,
        measure_losses: MeasureLosses,
        recipe: Recipe,
        optimisers: Sequence[Optimizer],
    ) -> None:
        self.network, self.recipe, self.optimisers = network, recipe, optimisers
        self.measure_losses = measure_losses
        self.rates = [group["lr"] for group in self.groups()]
        average = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]
        self.ema = AveragedModel(network, multi_avg_fn=average, use_buffers=True)

    def groups(self) -> list[dict[str, Any]]:
        return [group for optimiser in self.optimisers for group in optimiser.param_groups]

    @property
    def learned(self) -> Any:
        """The network with the moving average of its weights."""
        return self.ema.module.eval()

    def show(self, batches: Batches, epoch: int) -> str:
        """Train one epoch; gives the mean of each loss.

        Raises `FloatingPointError` before a step with a loss or gradient that is not finite.
        """
        losses = []
        self.network.train()
        groups = [*zip(self.groups(), self.rates, strict=True)]
        for step, (shown, batch) in enumerate(batches, start=1):
            factor = 0.5 + 0.5 * math.cos(math.pi * (epoch + shown) / self.recipe.epochs)
            if epoch == 0:
                factor *= min(1, step / self.recipe.warm_up_steps)
            for group, rate in groups:
                group["lr"] = factor * rate
            each = torch.stack(self.measure_losses(self.network, batch))
            self.network.zero_grad()
            each.sum().backward()  # type: ignore[no-untyped-call]
            gradient = torch.nn.utils.clip_grad_norm_(
                self.network.parameters(), self.recipe.max_gradient
            )
            if not (each.sum() + gradient).isfinite():
                raise FloatingPointError(f"the loss or its gradient in step {step} is not finite")
            for optimiser in self.optimisers:
                optimiser.step()
            self.ema.update_parameters(self.network)
            losses.append(each.detach())
        return " ".join(f"{value:.4f}" for value in torch.stack(losses).mean(0).tolist())

    def train(
        self,
        make_batches: Callable[[int], Batches],
        tell: Callable[[float], None] = lambda share: None,
    ) -> Any:
        """Train all epochs, print a line on each, and tell how much is done; gives what was
        learned.

        A loss that is not finite ends the training: what was learned before it is given.
        """
        started = time.monotonic()
        for epoch in range(self.recipe.epochs):
            try:
                losses = self.show(make_batches(epoch), epoch)
            except FloatingPointError as error:
                text = f"epoch {epoch + 1}: {error}; the training ends with the weights before it"
                print(text, file=sys.stderr)
                break
            report_epoch(epoch, self.recipe.epochs, f"loss {losses}", started)
            tell((epoch + 1) / self.recipe.epochs)
        return self.learned


def blend_weights(network: nn.Module, before: nn.Module, share: float) -> None:
    """Make the weights a mean: this share of the network's own, the rest of those `before`.

    So less is forgotten (M. Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).
    """
    with torch.no_grad():
        for new, old in zip(network.parameters(), before.parameters(), strict=True):
            new.lerp_(old, 1 - share)


def report_epoch(epoch: int, epochs: int, text: str, started: float, first: int = 0) -> None:
    """Print a line on an epoch, with the time since `first` was `started`, and the time left."""
    seconds = time.monotonic() - started
    left = seconds / (epoch + 1 - first) * (epochs - epoch - 1)
    line = f"epoch {epoch + 1}/{epochs}  {text}  {seconds:.0f} s, {left:.0f} s left"
    print(line, file=sys.stderr)


def has_bfloat16() -> bool:
    """Whether the processor multiplies in 16 bits; one that doesn't takes ten times as long."""
    is_supported = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)  # has no public name
    return bool(is_supported())
