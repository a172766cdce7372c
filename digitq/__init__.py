"""digitq: classify handwritten digits in bulk over a queue.

`from digitq import Client` is the way in from Python; `python -m digitq` is the command line.
`digitq.classify`, `digitq.local` and `digitq.reader` are for notebooks and scripts.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if sys.platform == "win32":
    sys.exit(
        "digitq does not run on Windows itself: run it in WSL (`wsl --install`), or in Docker "
        "(`docker compose up`)"
    )

if TYPE_CHECKING:
    from digitq.backend import local as local
    from digitq.notebook import Results as Results
    from digitq.notebook import classify as classify
    from digitq.phases import Client as Client
    from digitq.producer import *  # noqa: F403 (`__getattr__` imports these names)
    from digitq.without_queue import reader as reader

    __version__: str

OWN = {
    "Client": "digitq.phases",
    "Results": "digitq.notebook",
    "classify": "digitq.notebook",
    "local": "digitq.backend",
    "reader": "digitq.without_queue",
}


def __getattr__(name: str) -> Any:
    """Import a public name on demand, so that `digitq --help` does not wait for Arrow."""
    if name == "__version__":
        from importlib.metadata import version  # takes as long as all else that `--check` needs

        return version("digitq")
    producer = import_module("digitq.producer")
    if name == "__all__":
        return sorted([*producer.__all__, *OWN])
    if name in OWN:
        return getattr(import_module(OWN[name]), name)
    if name in producer.__all__:
        return getattr(producer, name)
    raise AttributeError(f"module 'digitq' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__getattr__("__all__"), "__version__"]
