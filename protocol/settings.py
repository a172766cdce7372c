"""The settings: every `DIGITQ_*` variable of the environment, its default and its meaning."""

import os
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from digitq.protocol.errors import UsageError

INSPECT_SUFFIX = ".inspect.png"  # drawings of `digitq inspect` end in this; sources leave them out
DEFAULT_BROKER = "redis://localhost:6379/0"
# Celery prefers these URLs to the app's Redis, though they may be meant for another program
CELERY_VARIABLES = (
    "BROKER_URL",
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
    "CELERY_RESULT_BACKEND",
)
WORKER_INDEX = "_DIGITQ_WORKER_INDEX"  # the variable with a worker's number in its command, from 0
ModelName = Literal["mlp", "cnn", "random"]
MODELS: tuple[str, ...] = get_args(ModelName)  # every worker has them
NUMBER = "number"  # the network of `--read number`
ALL_MODELS = (*MODELS, NUMBER)
What = Literal["digit", "number"]  # what a job reads in its images
WHATS: tuple[What, ...] = get_args(What)
FolderLike: TypeAlias = str | os.PathLike[str]
LogFormat = Literal["plain", "json"]
LOG_FORMATS: tuple[str, ...] = get_args(LogFormat)


def read_by(model: str) -> What:
    """What a job with this model reads: single digits, or whole numbers."""
    return "number" if model == NUMBER else "digit"


class Settings(BaseSettings):
    """The settings of one process. Each field is the variable `DIGITQ_<FIELD>`."""

    model_config = SettingsConfigDict(env_prefix="DIGITQ_", env_ignore_empty=True, frozen=True)

    broker_url: str | None = Field(
        None,
        description="Redis to use, for example `redis://host:6379/0`; if it is not set, "
        "`classify` and `evaluate` start a private one (`demo` and `up` always do), and "
        f"all other commands and `Client` use `{DEFAULT_BROKER}`",
    )
    model: ModelName = Field(
        "mlp", description="network that classifies, unless `--model` is given"
    )
    weights: Path | None = Field(
        None,
        description="folder with networks from `digitq train`, which workers use instead of "
        "the built-in ones",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="device of the workers: `cuda`, `cpu`, or `auto`: a GPU if there is one"
    )
    mnist: Path | None = Field(
        None, description="folder that contains `MNIST/raw/*-ubyte`; by default, the cache folder"
    )
    cache_dir: Path = Field(Path("~/.cache/digitq"), description="folder for the downloaded MNIST")
    chunk_rows: int = Field(5120, ge=1, le=65536, description="maximum number of images in a chunk")
    chunk_bytes: int = Field(
        4 << 20,
        ge=1 << 10,
        le=256 << 20,
        description="maximum size of the images in a chunk, in bytes",
    )
    image_bytes: PositiveInt = Field(
        64 << 20,
        le=256 << 20,
        description="maximum size of an image file, in bytes; a larger file gives an error row",
    )
    window_chunks: PositiveInt = Field(
        16,
        description="number of chunks that an attached job keeps in Redis and in memory; it grows "
        "while workers are idle",
    )
    budget_bytes: PositiveInt = Field(
        256 << 20,
        description="maximum size of the unclassified images of a submitted job in Redis, and of "
        "the chunks that an attached job keeps, in bytes",
    )
    deadline_seconds: PositiveFloat = Field(
        30, description="a chunk is queued again if its worker is silent for this long, in seconds"
    )
    broker_retry_seconds: PositiveFloat = Field(
        120, description="how long to wait for a Redis that is away, in seconds"
    )
    job_ttl_seconds: PositiveInt = Field(
        7 * 86400,
        le=1 << 31,
        description="how long Redis keeps a submitted job after its last change, in seconds",
    )
    csv_bom: bool = Field(
        False, description="`1` writes a byte order mark before a CSV, by which Excel knows UTF-8"
    )
    log_format: LogFormat | None = Field(
        None,
        description="how workers and `digitq metrics` write a line of their log: "
        "`plain` (the default) or `json`; `digitq up` shows its workers' lines only if this is set",
    )

    def own_weights(self) -> Path | None:
        """The folder of `weights` as an absolute path. Raises `UsageError` if it contains no
        model."""
        return self.weights and find_weights(self.weights)

    def own_card(self, model: str) -> Path | None:
        """The card of a model in that folder; None if the built-in network is used. Raises
        `UsageError` as `own_weights`."""
        folder = self.own_weights()
        path = folder / f"{model}.json" if folder else None
        return path if path and path.exists() else None

    @property
    def mnist_root(self) -> Path:
        """The folder that contains `MNIST/raw`. Raises `UsageError` for an unknown home folder."""
        return _expand(self.mnist or self.cache_dir, "DIGITQ_MNIST or DIGITQ_CACHE_DIR")


def use_weights(folder: Path) -> None:
    """Set `DIGITQ_WEIGHTS` for this process and those that it starts."""
    os.environ["DIGITQ_WEIGHTS"] = str(folder)
    settings.cache_clear()


def find_weights(
    path: Path, model: str | None = None, named: str = "DIGITQ_WEIGHTS=", is_read_with: bool = True
) -> Path:
    """A folder with networks as an absolute path. `named` is what has named it.

    Raises `UsageError` if it has no network, or not the one of this model, which is told how to be
    chosen if images are read with it.
    """
    folder = _expand(path, named.rstrip("= ")).absolute()
    if not folder.is_dir():
        raise UsageError(f"{named}{folder}: there is no such folder")
    found = sorted(card.stem for card in folder.glob("*.json"))
    if not found:
        raise UsageError(f"{named}{folder}: no NAME.json of `digitq train` is there")
    if model and model not in found:
        use = {NUMBER: "`--read number`, in Python numbers()"}
        how = use.get(found[0], f'`--model {found[0]}`, in Python digits("{found[0]}")')
        hint = "`digitq train number` makes one" if model == NUMBER else f"add {how}"
        add = f": {hint}" if is_read_with else ""
        raise UsageError(f"{named}{folder} has no {model}.json, but {', '.join(found)}{add}")
    return folder


def _expand(path: Path, variable: str) -> Path:
    """The path with `~` replaced by the home folder of a user. Raises `UsageError`."""
    try:
        return path.expanduser()
    except RuntimeError as error:  # the user has no home folder
        raise UsageError(f"{str(error).rstrip('.')}: set {variable} to a folder") from None


def read_settings() -> Settings:
    """The settings as the environment has them now. Raises `UsageError` if a variable is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(["DIGITQ", *map(str, first["loc"])]).upper()
        raise UsageError(f"{name}={first['input']!r}: {first['msg']}") from None


settings = cache(read_settings)  # a process reads its settings once
