"""How each network is trained from scratch: with the seed, its course decides the weights."""

from dataclasses import dataclass

import torch

from training.normalised_cnn import NormalisedCnn
from worker.learning.augmentation import Distortion
from worker.learning.recipes import CnnRecipe, DigitRecipe, MlpRecipe
from worker.models.network import Mlp, Network

# Standard deviations of the initial weights of both layers of `mlp`; `MlpRecipe` says why they
# differ. The loss after 30 epochs was 0.104 with a second scale of 8 and a rate of 0.03, and 0.072
# with 30 and 0.3. A rate of 1 gave a still lower loss, but it is unstable over a long run.
FIRST_SCALE, SECOND_SCALE = 0.02, 30.0


@dataclass(frozen=True)
class Course:
    """What a network learns, and from whom."""

    recipe: DigitRecipe
    copies: int = 3  # this many pictures are rendered from each image
    teachers: int = 0  # the mean answer of this many networks is learned in place of the labels
    distillation_temperature: float = 2.0
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
