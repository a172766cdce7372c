"""How each network is trained: with the seed, its course decides the weights."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from digitq.worker.learning.augmentation import Distortion
from digitq.worker.learning.courses import BaseRecipe, CnnRecipe, DigitRecipe, MlpRecipe
from digitq.worker.models.card import card_path, read_card
from digitq.worker.models.network import Cnn, Mlp, Network
from training.normalised_cnn import NormalisedCnn

# Standard deviations of the initial weights of both layers of `mlp`; `MlpRecipe` says why they
# differ. The loss after 30 epochs was 0.104 with a second scale of 8 and a rate of 0.03, and 0.072
# with 30 and 0.3. A rate of 1 gave a still lower loss, but it is unstable over a long run.
FIRST_SCALE, SECOND_SCALE = 0.02, 30.0


@dataclass(frozen=True)
class Course:
    """What a network learns, and from whom."""

    recipe: DigitRecipe
    copies: int = 3  # this many pictures are rendered from an image
    rendered_step: int = 1  # only every image with this step is rendered
    teachers: int = 0  # the mean answer of this many networks is learned in place of the labels
    teacher: str | None = None  # to train on, this network in use teaches; without it, one's own
    shows: int = 1  # an epoch shows the images with the teachers' answers this many times
    distillation_temperature: float = 2.0
    corrects_teachers: bool = False  # where their answer is wrong, the label is learned
    fine_tuning: DigitRecipe | None = None  # trains the folded network a third as many epochs


COURSES = {
    "mlp": Course(MlpRecipe(epochs=900)),
    "cnn": Course(
        CnnRecipe(
            epochs=48,
            distortion=Distortion(
                rotation_degrees=8.0,
                stretch=0.15,
                shear=0.15,
                shift_pixels=1.0,
                elastic_pixels=0.6,
                thresholded_share=0.06,
                faded_share=0.06,
            ),
        ),
        teachers=4,
        # The data are closer to MNIST: fewer rendered pictures, less distortion.
        fine_tuning=CnnRecipe(
            learning_rate=5e-4,
            more_share=0.2,
            distortion=Distortion(thresholded_share=0.04, faded_share=0.04),
        ),
    ),
}

# How the weights in use learn real hands. `cnn` is its own teacher, so that it forgets little.
TUNING_COURSES = {
    "mlp": Course(
        MlpRecipe(epochs=30, more_share=0.6, second_learning_rate=0.25),
        copies=1,
        rendered_step=3,
        teacher="cnn",
        shows=4,  # what was shown 24 times was learned by heart: see docs/networks.md
        corrects_teachers=True,
    ),
    "cnn": Course(
        CnnRecipe(
            epochs=2,
            bfloat16=False,
            learning_rate=1.5e-3,
            ema_decay=0.99,
            more_share=0.3,
            distortion=Distortion(thresholded_share=0.04, faded_share=0.04),
        ),
        copies=1,
        rendered_step=3,
        corrects_teachers=True,
    ),
}


def init_network(recipe: DigitRecipe) -> Network:
    """A network with random weights."""
    if isinstance(recipe, CnnRecipe):
        return NormalisedCnn(recipe.mean, recipe.std)
    network = Mlp(recipe.mean, recipe.std)
    torch.nn.init.normal_(network.w1, std=FIRST_SCALE)
    torch.nn.init.normal_(network.w2, std=SECOND_SCALE)
    torch.nn.init.zeros_(network.b1)
    torch.nn.init.zeros_(network.b2)
    return network


def copy_network(trained: Network) -> Network:
    """A network to train or to learn from, with the weights of one that was trained."""
    recipe = BaseRecipe()
    network = (Mlp if isinstance(trained, Mlp) else Cnn)(recipe.mean, recipe.std)
    network.load_state_dict(trained.state_dict())
    return network


def describe_command(
    name: str,
    seed: int,
    epochs: int,
    limit: int | None,
    fine_tune: bool,
    hands: Sequence[Path],
    judges: Sequence[Path] = (),
    blend: float = 1.0,
    is_expert: bool = False,
) -> str:
    """The commands that make the weights, with those that made the weights in use if need be."""
    is_further = fine_tune or is_expert
    before = f"{read_card(card_path(name)).command}; DIGITQ_WEIGHTS=DIR " if is_further else ""
    return (
        f"{before}python -m training {name} --seed {seed} --epochs {epochs}"
        + ("" if limit is None else f" --limit-images {limit}")
        + ("" if blend == 1 else f" --blend {blend}")
        + "".join(f" --hands {folder.name}" for folder in hands)
        + "".join(f" --judge {folder.name}" for folder in judges)
        + (" --expert" if is_expert else "")
        + (" --fine-tune" if fine_tune else "")
        + (" --out NEW" if is_further else " --out DIR")
    )
