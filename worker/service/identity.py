"""What a worker's answers depend on, besides the images.

No tensor may be made here: torch must not be used before the pool is forked.
"""

import hashlib
from functools import cache
from importlib.metadata import version

import onnxruntime
import torch

from protocol.settings import ALL_MODELS
from worker.models.card import fingerprint
from worker.models.fast import has_byte_products
from worker.models.model import count_gpus

FINGERPRINT_DIGITS = 8  # of a SHA-256 in base 16


def describe_builds() -> str:
    """The versions of torch and ONNX Runtime, and the instructions that torch uses.

    An answer's last bits depend on them.
    """
    instructions = torch.backends.cpu.get_cpu_capability() + " VNNI" * has_byte_products()
    return f"{torch.__version__} {instructions}, ONNX Runtime {onnxruntime.__version__}"


@cache
def own_fingerprint() -> str:
    """The same for two workers only if both give the same answers to the last bit.

    It is a hash of the versions of digitq and its libraries, of all weights, of the processor's
    instructions, and of whether there is a GPU.
    """
    device = "GPU" if count_gpus() else "CPU"
    parts = [version("digitq"), describe_builds(), device, *map(fingerprint, ALL_MODELS)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:FINGERPRINT_DIGITS]
