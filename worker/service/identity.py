"""What a worker's answers depend on, besides the images.

No tensor may be made here: torch must not be used before the pool is forked.
"""

import hashlib
from functools import cache
from importlib.metadata import version

import onnxruntime
import torch

from digitq.protocol.settings import ALL_MODELS
from digitq.worker.models.card import hash_card
from digitq.worker.models.fast import has_byte_products
from digitq.worker.models.model import count_gpus

FINGERPRINT_DIGITS = 8  # hexadecimal digits of a SHA-256


@cache
def own_kind() -> str:
    """All that this worker's answers depend on, to the last bit, besides the images: versions, the
    processor's instructions, whether there is a GPU, and weights."""
    instructions = torch.backends.cpu.get_cpu_capability() + " VNNI" * has_byte_products()
    device = "GPU" if count_gpus() else "CPU"
    weights = shorten("".join(map(hash_card, ALL_MODELS)))
    return (
        f"digitq {version('digitq')}, torch {torch.__version__}, ONNX Runtime "
        f"{onnxruntime.__version__}, {device} {instructions}, weights {weights}"
    )


@cache
def own_fingerprint() -> str:
    """A hash that two workers share only if both are of the same kind."""
    return shorten(own_kind())


def shorten(text: str) -> str:
    """A short hash."""
    return hashlib.sha256(text.encode()).hexdigest()[:FINGERPRINT_DIGITS]
