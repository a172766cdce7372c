"""Trains a network on pictures of numbers, one epoch after the other."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from worker.learning.stages import has_bfloat16

POOLED = 2_000  # batches are made of this many pictures, so that those of one size meet

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)
MakeBatches = Callable[[Sequence[Any], np.random.Generator], list[Any]]
MeasureLosses = Callable[[Any, Any], tuple[Tensor, ...]]  # of the network's answers to a batch


@dataclass(frozen=True)
class EpochsRecipe:
    """How to train a network on pictures of numbers."""

    epochs: int
    learning_rate: float = 2e-3
    warm_up_steps: int = 200
    weight_decay: float = 0.05
    ema_decay: float = 0.998  # how much of the weights' moving average a step keeps
    max_gradient: float = 10.0


class Learner(Generic[AnyNetwork]):
    """A network that learns from pictures of numbers, or from strips of them."""

    def __init__(
        self,
        network: AnyNetwork,
        make_batches: MakeBatches,
        measure_losses: MeasureLosses,
        recipe: EpochsRecipe,
        optimisers: Sequence[Optimizer],
    ) -> None:
        self.network, self.recipe, self.optimisers = network, recipe, optimisers
        self.make_batches, self.measure_losses = make_batches, measure_losses
        average = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]
        self.ema = AveragedModel(network, multi_avg_fn=average, use_buffers=True)

    @property
    def learned(self) -> AnyNetwork:
        """The network with the moving average of its weights."""
        return cast(AnyNetwork, self.ema.module.eval())

    def show(self, shown: Sequence[Any], epoch: int, seed: int, threads: int) -> str:
        """Train one epoch, on so many threads; gives the mean of each loss."""
        torch.set_num_threads(threads)
        rng = np.random.default_rng((seed, epoch, 1))
        recipe = self.recipe
        means = []
        self.network.train()
        order = rng.permutation(len(shown))
        groups = [group for optimiser in self.optimisers for group in optimiser.param_groups]
        step = 0
        for start in range(0, len(order), POOLED):
            pool = [shown[row] for row in order[start : start + POOLED]]
            done = (epoch + start / len(order)) / recipe.epochs
            rate = 0.5 + 0.5 * math.cos(math.pi * done)
            for batch in self.make_batches(pool, rng):
                step += 1
                warm = min(1, step / recipe.warm_up_steps) if epoch == 0 else 1
                for group in groups:
                    group["lr"] = max(1e-6, recipe.learning_rate * rate * warm)
                with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
                    answers = self.network(batch.images.to(memory_format=torch.channels_last))
                losses = torch.stack(self.measure_losses(answers, batch))
                self.network.zero_grad()
                losses.sum().backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.max_gradient)
                for optimiser in self.optimisers:
                    optimiser.step()
                self.ema.update_parameters(self.network)
                means.append(losses.detach())
        return " ".join(f"{value:.3f}" for value in torch.stack(means).mean(0).tolist())
