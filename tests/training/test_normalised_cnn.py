"""Normalisations are merged into convolutions after training."""

import torch

from digitq.worker.models.network import Cnn
from training.normalised_cnn import NormalisedCnn


def train_a_little(network: Cnn) -> None:
    """Let the batch normalisations see some data."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    for _ in range(20):
        network.logits(torch.rand(64, 784) * 255)


def test_a_folded_network_is_the_same_without_its_normalisations() -> None:
    network = NormalisedCnn(mean=0.1, std=0.3)
    train_a_little(network)
    folded = network.fold()
    assert network.training  # folding leaves the network itself as it is
    pixels = torch.randint(0, 256, (9, 784), dtype=torch.uint8)
    torch.testing.assert_close(
        folded.logits(pixels), network.eval().logits(pixels), atol=1e-4, rtol=1e-4
    )
    shipped = Cnn(mean=0.1, std=0.3)
    shipped.load_state_dict(folded.state_dict())
    torch.testing.assert_close(shipped(pixels), folded(pixels))
