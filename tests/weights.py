"""Folders of own weights."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from digitq.worker.models.card import WEIGHTS_FOLDER, read_card


def copy_weights(folder: Path, model: str, **changes: Any) -> Path:
    """A folder of the built-in weights of a model, with another card."""
    folder.mkdir()
    shutil.copy(WEIGHTS_FOLDER / f"{model}.safetensors", folder)
    card = read_card(WEIGHTS_FOLDER / f"{model}.json")
    replace(card, **{"command": "digitq train", **changes}).write(folder / f"{model}.json")
    return folder
