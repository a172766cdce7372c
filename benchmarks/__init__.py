"""Measurements that are run from a clone of digitq; they are not installed with it."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]


def share_path() -> None:
    """Let processes that run in other folders import this package."""
    paths = [str(ROOT), *filter(None, [os.getenv("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)
