"""Trains networks on rendered scenes, epoch after epoch, and saves their state after each."""

import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from protocol.errors import UsageError
from protocol.host.cores import usable_cores
from protocol.text import plural
from training.muon import Muon
from training.rendered import Scene, collect, start_rendering
from training.synthetic.rendering import start_processes
from training.trainer import has_bfloat16

POOLED_SCENES = 2_000  # batches are made of this many scenes, so that those of one size meet

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


class Learner(Generic[AnyNetwork]):
    """A network that learns from scenes.

    Each epoch shows it the new scenes, and those of the epochs before: of `shown_epochs` in all.
    """

    def __init__(
        self,
        network: AnyNetwork,
        make_batches: MakeBatches,
        measure_losses: MeasureLosses,
        recipe: EpochsRecipe,
        shown_epochs: int,
    ) -> None:
        self.network, self.recipe = network, recipe
        self.shown_epochs = shown_epochs
        self.make_batches, self.measure_losses = make_batches, measure_losses
        average = get_ema_multi_avg_fn(recipe.ema_decay)  # type: ignore[no-untyped-call]
        self.ema = AveragedModel(network, multi_avg_fn=average, use_buffers=True)
        self.optimisers = make_optimisers(network, recipe)

    @property
    def learned(self) -> AnyNetwork:
        """The network with the moving average of its weights."""
        return cast(AnyNetwork, self.ema.module.eval())

    def parts(self) -> dict[str, Any]:
        return {"network": self.network, "ema": self.ema, **self.optimisers}

    def show(self, scenes: Sequence[Scene], epoch: int, seed: int, threads: int) -> str:
        """Train one epoch, on so many threads; gives the mean of each loss."""
        torch.set_num_threads(threads)
        rng = np.random.default_rng((seed, epoch, 1))
        recipe = self.recipe
        shown = []
        self.network.train()
        order = rng.permutation(len(scenes))
        optimisers = self.optimisers.values()
        groups = [group for optimiser in optimisers for group in optimiser.param_groups]
        step = 0
        for start in range(0, len(order), POOLED_SCENES):
            pool = [scenes[row] for row in order[start : start + POOLED_SCENES]]
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
                for optimiser in optimisers:
                    optimiser.step()
                self.ema.update_parameters(self.network)
                shown.append(losses.detach())
        return " ".join(f"{value:.3f}" for value in torch.stack(shown).mean(0).tolist())


def make_optimisers(network: nn.Module, recipe: EpochsRecipe) -> dict[str, Optimizer]:
    """Muon for the convolutions that mix channels, except the last layer; AdamW for the rest."""
    mixing: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, weight in network.named_parameters():
        is_mixing = weight.ndim == 4 and weight.shape[1] > 1 and not name.startswith("head")
        (mixing if is_mixing else others).append(weight)
    rate, decay = recipe.learning_rate, recipe.weight_decay
    return {
        "muon": Muon(mixing, rate, decay),
        "adamw": torch.optim.AdamW(others, rate, weight_decay=decay, fused=True),
    }


def train(
    learners: Mapping[str, Learner[Any]],
    recipe: EpochsRecipe,
    seed: int,
    saved: Path | None = None,
    begun_with: str | None = None,
) -> None:
    """Train networks side by side with the same scenes, while other processes render.

    The state is `saved` after each epoch. If the file has a state, the training continues with it.
    Raises `UsageError` if that is of another training. `begun_with` is the SHA-256 of the weights
    that the networks have. In the end, torch has one thread.
    """
    run = [seed, recipe.epochs, recipe.scenes, begun_with]
    first, last = 0, recipe.epochs
    if saved and saved.exists():
        first = resume(learners, run, saved)
        print(f"continuing after epoch {first}", file=sys.stderr)
    elif saved and last:
        print(
            f"training for {plural(last, 'epoch')}; if it is broken off, "
            "the same command continues",
            file=sys.stderr,
        )
    started = time.monotonic()
    threads = max(1, usable_cores() // len(learners))
    shown: list[list[Scene]] = []
    most = max(learner.shown_epochs for learner in learners.values())
    earliest = max(0, first - most + 1)
    with start_processes() as pool, ThreadPoolExecutor(len(learners)) as side_by_side:
        render = partial(start_rendering, pool, False, count=recipe.scenes)
        coming = [render(seed=(seed, epoch)) for epoch in range(earliest, min(first + 1, last))]
        for epoch in range(earliest, last if first < last else 0):
            if first <= epoch + 1 < last and len(coming) < 2:
                coming.append(render(seed=(seed, epoch + 1)))
            shown = [*shown, collect(coming.pop(0))][-most:]
            if epoch < first:
                continue
            shows = [
                side_by_side.submit(
                    learner.show, [*chain(*shown[-learner.shown_epochs :])], epoch, seed, threads
                )
                for learner in learners.values()
            ]
            texts = [f"{name} {show.result()}" for name, show in zip(learners, shows, strict=True)]
            if saved:
                save(learners, {"run": run, "epoch": epoch + 1}, saved)
            seconds = time.monotonic() - started
            left = seconds / (epoch + 1 - first) * (last - epoch - 1)
            print(
                f"epoch {epoch + 1}/{last}  loss: {', '.join(texts)}  "
                f"{seconds:.0f} s, {left:.0f} s left",
                file=sys.stderr,
            )
    torch.set_num_threads(1)


def resume(learners: Mapping[str, Learner[Any]], run: list[Any], saved: Path) -> int:
    """Load the saved state, and give the number of its epochs. Raises `UsageError`."""
    state = torch.load(saved, weights_only=True)
    try:
        if state["run"] != run:
            raise ValueError
        for name, learner in learners.items():
            for part, of in learner.parts().items():
                of.load_state_dict(state[name][part])
    except (ValueError, KeyError, RuntimeError) as error:  # perhaps of an older digitq
        raise UsageError(
            f"{saved} is of another training: remove it, or choose another --out"
        ) from error
    return int(state["epoch"])


def save(learners: Mapping[str, Learner[Any]], state: dict[str, Any], saved: Path) -> None:
    for name, learner in learners.items():
        state[name] = {part: of.state_dict() for part, of in learner.parts().items()}
    new = saved.with_suffix(".new")
    torch.save(state, new)
    new.replace(saved)
