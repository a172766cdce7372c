"""Finds out whether another file is imported in place of digitq's own top-level packages.

`producer`, `protocol` and `worker` are common names: a user's own `protocol.py`, or a package of
another distribution, may be found first.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

INSTALLED = Path(__file__).resolve().parents[1]  # the folder that holds digitq's packages


def describe_foreign_module(names: Sequence[str]) -> str | None:
    """Which of these packages is another's, and what to do about it; None where all are ours."""
    for name in names:
        path = find_module(name)
        if path is None:
            return f"its package `{name}` is missing: install digitq again"
        if path != INSTALLED / name / "__init__.py":
            return (
                f"{path} is imported in place of digitq's own `{name}`: "
                f"rename it, or run from a folder without it"
            )
    return None


def find_module(name: str) -> Path | None:
    """The file that `import NAME` loads, or has loaded; a folder, where it has no file."""
    loaded = sys.modules.get(name)
    spec = getattr(loaded, "__spec__", None) or (None if loaded else find_spec(name))
    path = getattr(loaded, "__file__", None) or (spec and spec.origin)
    if not path and spec and spec.submodule_search_locations:
        path = next(iter(spec.submodule_search_locations), None)  # a folder without __init__.py
    return Path(path).resolve() if path else None


def find_other_owners(name: str) -> list[str]:
    """The distributions beside digitq that installed a top-level package of this name: whichever
    was installed last has overwritten the other's files."""
    return sorted({*packages_distributions().get(name, [])} - {"digitq"})
