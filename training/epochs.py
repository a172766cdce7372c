"""Trains networks on rendered scenes, epoch after epoch, and saves their state after each."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from digitq.protocol.errors import UsageError
from digitq.protocol.host.cores import usable_cores
from digitq.protocol.text import plural
from digitq.worker.learning.column_batches import MakeBatches, NumberRecipe, draw_batches
from digitq.worker.learning.learner import Learner, MeasureLosses, report_epoch
from digitq.worker.learning.number_examples import Scene
from training.muon import Muon
from training.rendered import collect, start_rendering
from training.synthetic.rendering import start_processes


@dataclass(frozen=True)
class ScenesRecipe(NumberRecipe):
    """How to train a network on rendered scenes."""

    learning_rate: float = 2e-3
    scenes: int = 8_000  # how many scenes are rendered for each epoch


class SceneLearner(Learner):
    """A network that learns from rendered scenes.

    Each epoch shows it the scenes of the last `shown_epochs` epochs.
    """

    def __init__(
        self,
        network: nn.Module,
        make_batches: MakeBatches,
        measure_losses: MeasureLosses,
        recipe: ScenesRecipe,
        shown_epochs: int,
    ) -> None:
        self.shown_epochs, self.make_batches = shown_epochs, make_batches
        self.named = make_optimisers(network, recipe)
        super().__init__(network, measure_losses, recipe, [*self.named.values()])

    def show_scenes(self, scenes: Sequence[Scene], epoch: int, seed: int, threads: int) -> str:
        """Train one epoch on scenes; gives the mean of each loss."""
        torch.set_num_threads(threads)
        return self.show(draw_batches(scenes, self.make_batches, seed, epoch), epoch)

    def parts(self) -> dict[str, Any]:
        return {"network": self.network, "ema": self.ema, **self.named}


def make_optimisers(network: nn.Module, recipe: ScenesRecipe) -> dict[str, Optimizer]:
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
    learners: Mapping[str, SceneLearner],
    recipe: ScenesRecipe,
    seed: int,
    saved: Path | None = None,
    begun_with: str | None = None,
    hands: tuple[Path, ...] = (),
    prepare: Callable[[int], None] = lambda epoch: None,
) -> None:
    """Train networks side by side with the same scenes, while other processes render.

    Scenes are also written by real `hands`. Before each epoch, `prepare` is called with its number.

    The state is `saved` after each epoch. If the file has a state, the training continues with it.
    Raises `UsageError` if that is of another training. `begun_with` is the SHA-256 of the weights
    that the networks have. In the end, torch has one thread.
    """
    run = [seed, recipe.epochs, recipe.scenes, begun_with, *(folder.name for folder in hands)]
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
        render = partial(start_rendering, pool, False, hands, count=recipe.scenes)
        coming = [render(seed=(seed, epoch)) for epoch in range(earliest, min(first + 1, last))]
        for epoch in range(earliest, last if first < last else 0):
            if first <= epoch + 1 < last and len(coming) < 2:
                coming.append(render(seed=(seed, epoch + 1)))
            shown = [*shown, collect(coming.pop(0))][-most:]
            if epoch < first:
                continue
            prepare(epoch)
            shows = [
                side_by_side.submit(
                    learner.show_scenes,
                    [*chain(*shown[-learner.shown_epochs :])],
                    epoch,
                    seed,
                    threads,
                )
                for learner in learners.values()
            ]
            texts = [f"{name} {show.result()}" for name, show in zip(learners, shows, strict=True)]
            if saved:
                save(learners, {"run": run, "epoch": epoch + 1}, saved)
            report_epoch(epoch, last, f"loss: {', '.join(texts)}", started, first)
    torch.set_num_threads(1)


def resume(learners: Mapping[str, SceneLearner], run: list[Any], saved: Path) -> int:
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


def save(learners: Mapping[str, SceneLearner], state: dict[str, Any], saved: Path) -> None:
    for name, learner in learners.items():
        state[name] = {part: of.state_dict() for part, of in learner.parts().items()}
    new = saved.with_suffix(".new")
    torch.save(state, new)
    new.replace(saved)
