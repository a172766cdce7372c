"""Trains a network on rendered scenes, epoch after epoch, and saves its state after each."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from protocol.errors import UsageError
from worker.training.rendered import Scene, collect, start_rendering
from worker.training.synthetic.rendering import start_processes
from worker.training.trainer import has_bfloat16

POOLED_SCENES = 500  # batches are made of this many scenes, so that those of one size meet
SHOWN_EPOCHS = 3  # an epoch shows its own scenes, and those of the two epochs before it

AnyNetwork = TypeVar("AnyNetwork", bound=nn.Module)
MakeBatches = Callable[[Sequence[Scene], np.random.Generator], list[Any]]
MeasureLosses = Callable[[Any, Any], tuple[Tensor, ...]]  # of the network's answers to a batch


@dataclass(frozen=True)
class EpochsRecipe:
    """How to train a network on rendered scenes."""

    epochs: int
    scenes: int = 8_000  # how many scenes are rendered for each epoch
    learning_rate: float = 2e-3
    warm_up_steps: int = 200
    weight_decay: float = 0.05
    ema_decay: float = 0.998  # how much of the weights' moving average a step keeps
    max_gradient: float = 10.0


class Training(Generic[AnyNetwork]):
    """A network that is being trained, and the file in which its state is saved."""

    def __init__(
        self,
        network: AnyNetwork,
        make_batches: MakeBatches,
        measure_losses: MeasureLosses,
        recipe: EpochsRecipe,
        seed: int,
        saved: Path,
        begun_with: str | None = None,
    ) -> None:
        """Start anew, or with the state in the file. Raises `UsageError` if that is another's.

        `begun_with` is the SHA-256 of the weights that the network has.
        """
        self.seed, self.recipe, self.saved, self.epoch = seed, recipe, saved, 0
        self.run = [seed, recipe.epochs, recipe.scenes, begun_with]
        self.network, self.make_batches = network, make_batches
        self.measure_losses = measure_losses
        average = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]
        self.ema = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
        self.optimiser = torch.optim.AdamW(
            network.parameters(),
            recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        if not saved.exists():
            return
        state = torch.load(saved, weights_only=True)
        if state["run"] != self.run:
            raise UsageError(f"{saved} is of another training: remove it, or choose another --out")
        self.epoch = state["epoch"]
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        print(f"continuing after epoch {self.epoch}", file=sys.stderr)

    def _parts(self) -> dict[str, Any]:
        return {"network": self.network, "ema": self.ema, "optimiser": self.optimiser}

    def finish(self) -> AnyNetwork:
        """Train the epochs that are left, while other processes render; gives the network."""
        started, first, last = time.monotonic(), self.epoch, self.recipe.epochs
        earliest = max(0, first - SHOWN_EPOCHS + 1)
        shown: list[list[Scene]] = []
        with start_processes() as pool:
            render = partial(start_rendering, pool, False, count=self.recipe.scenes)
            coming = [
                render(seed=(self.seed, epoch)) for epoch in range(earliest, min(first + 1, last))
            ]
            for epoch in range(earliest, last if first < last else 0):
                if first <= epoch + 1 < last and len(coming) < 2:
                    coming.append(render(seed=(self.seed, epoch + 1)))
                shown = [*shown, collect(coming.pop(0))][-SHOWN_EPOCHS:]
                if epoch < first:
                    continue
                losses = self._show([scene for part in shown for scene in part])
                seconds = time.monotonic() - started
                left = seconds / (self.epoch - first) * (last - self.epoch)
                print(
                    f"{self.saved.stem} {self.epoch}/{last}  loss {losses}  "
                    f"{seconds:.0f} s, {left:.0f} s left",
                    file=sys.stderr,
                )
        return cast(AnyNetwork, self.ema.module.eval())

    def _show(self, scenes: Sequence[Scene]) -> str:
        """Train one epoch, and save the state; gives the mean of each loss."""
        rng = np.random.default_rng((self.seed, self.epoch, 1))
        recipe = self.recipe
        shown = []
        self.network.train()
        order = rng.permutation(len(scenes))
        step = 0
        for start in range(0, len(order), POOLED_SCENES):
            pool = [scenes[row] for row in order[start : start + POOLED_SCENES]]
            done = (self.epoch + start / len(order)) / recipe.epochs
            rate = 0.5 + 0.5 * math.cos(math.pi * done)
            for batch in self.make_batches(pool, rng):
                step += 1
                warm = min(1, step / recipe.warm_up_steps) if self.epoch == 0 else 1
                for group in self.optimiser.param_groups:
                    group["lr"] = max(1e-6, recipe.learning_rate * rate * warm)
                with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
                    answers = self.network(batch.images.to(memory_format=torch.channels_last))
                losses = torch.stack(self.measure_losses(answers, batch))
                self.optimiser.zero_grad()
                losses.sum().backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(self.network.parameters(), recipe.max_gradient)
                self.optimiser.step()
                self.ema.update_parameters(self.network)
                shown.append(losses.detach())
        self.epoch += 1
        state = {name: part.state_dict() for name, part in self._parts().items()}
        new = self.saved.with_suffix(".new")
        torch.save(state | {"epoch": self.epoch, "run": self.run}, new)
        new.replace(self.saved)
        return " ".join(f"{value:.3f}" for value in torch.stack(shown).mean(0).tolist())
