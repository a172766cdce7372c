"""The second reader: a network of another make, which has learned from other images.

It is the recognition model of PP-OCRv6 small, which the package `rapidocr` brings (Apache-2.0). For
every eighth column of a line it gives how likely each of 18,708 characters is there, or none.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from digitq.protocol.asked import UnmetError
from digitq.protocol.asked.reading import INSTALL_SECOND, SECOND_PACKAGE
from digitq.worker.models.onnx_session import Session, make_session

MODEL_FILE = "models/PP-OCRv6_rec_small.onnx"  # in the package
MODEL_SHA256 = "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884"
SECOND_READER = f"+{MODEL_SHA256[:8]}"  # what results add to the name of the network
# The model's classes of the signs in `ALPHABET`, in its order, and of no character and a space
SIGN_CLASSES = (*range(33, 43), 14, 12, 13, 11, 15, 16, 5, 121, 120, 122)
BLANK_CLASSES = (0, 18709)
STRIP_DEVIATION, STRIP_MEAN = 0.5, 0.6  # of what it sees, where white is 1 and black is -1
MIN_SECOND_CHANCE = 1e-6  # it is never surer than this that a sign is not there

_is_used: ContextVar[bool] = ContextVar("second reader", default=False)


@contextmanager
def use_second_reader(is_used: bool) -> Iterator[None]:
    """Within this context, numbers are read with the second reader, or without it."""
    token = _is_used.set(is_used)
    try:
        yield
    finally:
        _is_used.reset(token)


def is_second_reader_used() -> bool:
    return _is_used.get()


@cache
def load_second_reader() -> Session:
    """The second reader, which takes and gives what the networks of columns do, but for the size of
    the strip. Raises `UnmetError` if its package is not installed, or brings another model."""
    package = find_spec(SECOND_PACKAGE)
    folders = (package.submodule_search_locations if package else None) or []
    files = [path for folder in folders if (path := Path(folder) / MODEL_FILE).exists()]
    if not files:
        raise UnmetError(f"a worker lacks {SECOND_PACKAGE}: {INSTALL_SECOND} there")
    if hashlib.sha256(files[0].read_bytes()).hexdigest() != MODEL_SHA256:
        raise UnmetError(
            f"a worker's {files[0].name} is not the model that digitq knows: {INSTALL_SECOND} there"
        )
    read = make_session(files[0], {})

    def answer(strips: Tensor) -> Tensor:
        grey = (strips * STRIP_DEVIATION + STRIP_MEAN).clamp(-1, 1)  # an equalised strip has mean 0
        chances = read(grey.expand(-1, 3, -1, -1))  # (N, T, classes)
        signs, blank = chances[..., SIGN_CLASSES], chances[..., BLANK_CLASSES].sum(-1, True)
        shares = torch.cat([signs, blank], -1).clamp(min=MIN_SECOND_CHANCE).log()
        return shares.transpose(1, 2)[:, :, None]

    return answer
