"""The only reader of the environment: every `DIGITQ_*` variable, its default and its meaning."""

from functools import cache
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from protocol.errors import UsageError

INSPECT_SUFFIX = (
    ".inspect.png"  # ends the names of what `inspect` draws: no image of a folder or an archive
)
DEFAULT_BROKER = "redis://localhost:6379/0"
# Celery's own, of another program perhaps: in workers and Flower they would go before all else
OTHER_BROKERS = (
    "BROKER_URL",
    "CELERY_BROKER_URL",
    "CELERY_BROKER_READ_URL",
    "CELERY_BROKER_WRITE_URL",
)
WORKER_INDEX = (
    "_DIGITQ_WORKER_INDEX"  # tells a worker its number among those of one command, from 0
)
Model = Literal["mlp", "cnn", "random"]
MODELS: tuple[str, ...] = get_args(Model)  # what every worker has


class Settings(BaseSettings):
    """Settings of one process. Every field is the variable `DIGITQ_<FIELD>`."""

    model_config = SettingsConfigDict(
        env_prefix="DIGITQ_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    broker_url: str | None = Field(
        None,
        description="Redis to use, as `redis://host:6379/0`; unset, `classify`, `evaluate` and "
        "`bench` start a private one for the run (`demo` and `up` always do), and who hands jobs "
        f"over or takes them uses `{DEFAULT_BROKER}`",
    )
    model: Model = Field("mlp", description="network that classifies, unless `--model` names one")
    weights: Path | None = Field(
        None,
        description="folder that `digitq train` wrote to: workers take its networks in place of "
        "digitq's own",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="what workers compute on: `cuda`, `cpu`, or `auto`: a GPU where one is"
    )
    mnist: Path | None = Field(
        None, description="folder holding `MNIST/raw/*-ubyte`; unset, the cache folder"
    )
    cache_dir: Path = Field(
        Path("~/.cache/digitq"), description="where MNIST is kept once it was downloaded"
    )
    chunk_rows: int = Field(5120, ge=1, le=65536, description="most images in one chunk")
    chunk_bytes: int = Field(
        4 << 20, ge=1 << 10, le=256 << 20, description="most bytes of images in one chunk"
    )
    image_bytes: int = Field(
        64 << 20, ge=1, le=256 << 20, description="largest image file; a larger one is an error row"
    )
    window_chunks: int = Field(
        16,
        ge=1,
        description="chunks an attached job keeps in Redis and in memory at a time; more where "
        "workers have nothing to do",
    )
    budget_bytes: int = Field(
        256 << 20,
        ge=1,
        description="bytes of unclassified images `submit` may leave in Redis, and to which an "
        "attached job's window may grow",
    )
    deadline_seconds: float = Field(
        30, gt=0, description="a chunk of which a worker says nothing for so long is sent again"
    )
    broker_retry_seconds: float = Field(
        120, gt=0, description="how long a lost Redis is waited for"
    )
    job_ttl_seconds: int = Field(
        7 * 86400,
        ge=1,
        le=1 << 31,
        description="how long Redis keeps a submitted job after its last change",
    )

    def own_weights(self) -> Path | None:
        """The folder of `weights`. Raises `UsageError` where it has no model."""
        if self.weights is None:
            return None
        folder = _expand(self.weights, "DIGITQ_WEIGHTS").absolute()
        if not any(folder.glob("*.json")):
            raise UsageError(f"DIGITQ_WEIGHTS={folder}: no NAME.json of `digitq train` is there")
        return folder

    @property
    def mnist_root(self) -> Path:
        """The folder given to `torchvision.datasets.MNIST` as its root. Raises `UsageError`."""
        return _expand(self.mnist or self.cache_dir, "DIGITQ_MNIST or DIGITQ_CACHE_DIR")


def _expand(path: Path, variable: str) -> Path:
    """With `~` for the home of a user."""
    try:
        return path.expanduser()
    except RuntimeError as error:  # there is none
        reason = str(error).rstrip(".")
        raise UsageError(f"{reason}: set {variable} to a folder") from None


@cache
def settings() -> Settings:
    """This process's settings, read once. Raises `UsageError` where a variable is unusable."""
    return read_settings()


def read_settings() -> Settings:
    """The settings of a process that starts now. Raises `UsageError` as `settings` does."""
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = "_".join(["DIGITQ", *map(str, first["loc"])]).upper()
        raise UsageError(f"{name}={first['input']!r}: {first['msg']}") from None
