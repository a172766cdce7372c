"""The record of a result file: what made its rows."""

import json
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Self, TypeVar

import pyarrow as pa
from pydantic import TypeAdapter

from digitq.producer.counts import Counts
from digitq.protocol.asked.own_network import name_network
from digitq.protocol.asked.risk import LIKENESS, Curve, Likeness
from digitq.protocol.asked.sample import Sample
from digitq.protocol.chunk import FINGERPRINT_KEY, LIKENESS_KEY, REVIEW_BELOW_KEY, WEIGHTS_KEY
from digitq.protocol.errors import UsageError
from digitq.protocol.origin import Origin
from digitq.protocol.settings import What, read_by, settings

MAX_RECORD_BYTES = 1 << 20
MIN_SECONDS = 0.001  # the speed of a shorter part is that of this time
Names = tuple[str, ...]
Name = TypeVar("Name", str, float)


def now() -> str:
    """The time in UTC, as ISO 8601 has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class RunPart:
    """The rows that one command wrote. A run that was interrupted has a part for each command."""

    job: str  # its id
    started: str = field(default_factory=now)
    seconds: float = 0.0  # from the start to the last row
    images: int = 0
    weights: Names = ()  # the networks that answered: the first digits of their cards' SHA-256
    fingerprints: Names = ()  # the workers that answered
    review_below: tuple[float, ...] = ()  # answers of a lower confidence are to be reviewed
    likeness: Likeness | None = None  # to the answers by which a risk was measured

    @property
    def images_per_second(self) -> float:
        return self.images / max(self.seconds, MIN_SECONDS)

    def add(self, batch: pa.RecordBatch, seconds: float) -> Self:
        """The part including one more result batch, which came `seconds` after its start."""
        likeness = [*map(LIKENESS.validate_json, named_in(batch, LIKENESS_KEY))]
        return replace(
            self,
            seconds=round(seconds, 3),
            images=self.images + batch.num_rows,
            weights=each_once(*self.weights, *named_in(batch, WEIGHTS_KEY)),
            fingerprints=each_once(*self.fingerprints, *named_in(batch, FINGERPRINT_KEY)),
            review_below=each_once(
                *self.review_below, *map(float, named_in(batch, REVIEW_BELOW_KEY))
            ),
            likeness=sum(likeness, self.likeness or Likeness()) if likeness else self.likeness,
        )


Parts = tuple[RunPart, ...]


def named_in(batch: pa.RecordBatch, key: bytes) -> Names:
    """The name under `key` in the metadata of a result batch, if there is one."""
    name = (batch.schema.metadata or {}).get(key)
    return (name.decode(errors="replace"),) if name else ()


def each_once(*names: Name) -> tuple[Name, ...]:
    return tuple(dict.fromkeys(names))


def all_weights(parts: Parts) -> Names:
    """The networks that answered in any part."""
    return each_once(*(name for part in parts for name in part.weights))


def all_fingerprints(parts: Parts) -> Names:
    """The workers that answered in any part."""
    return each_once(*(name for part in parts for name in part.fingerprints))


def all_thresholds(parts: Parts) -> tuple[float, ...]:
    """The confidences below which answers of any part were to be reviewed."""
    return each_once(*(below for part in parts for below in part.review_below))


def join_likeness(parts: Parts) -> Likeness:
    """How like the answers of all parts are to those by which the risk was measured."""
    return sum((part.likeness for part in parts if part.likeness), Likeness())


def own_weights_name(model: str) -> str | None:
    """How results name the user's own network for a model; None if the built-in one is used."""
    card = settings().own_card(model)
    return name_network(card.read_bytes()) if card else None


@dataclass(frozen=True, kw_only=True)
class Record(Origin):
    """What made the rows of a result file: a JSON object in `OUT.json` beside it."""

    digitq: str  # the version
    read: What
    model: str
    counts: Counts
    parts: Parts
    finished: str  # the time, see `now`
    sample: Sample | None = None  # what a person who looked at some unmarked rows found
    curve: Curve = ()  # by this sample: what may be wrong above which confidence

    @classmethod
    def build(cls, model: str, origin: Origin, counts: Counts, parts: Parts) -> Self:
        """The record of a job that ends now."""
        return cls(
            **asdict(origin),
            digitq=version_of("digitq"),
            read=read_by(model),
            model=model,
            counts=counts,
            parts=tuple(part for part in parts if part.images),
            finished=now(),
        )

    def encode(self) -> bytes:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False).encode() + b"\n"


PARSER = TypeAdapter(Record)


def record_path(path: Path) -> Path:
    """Where the record of a result file is."""
    return path.with_name(path.name + ".json")


def find_record(results: Path) -> Record | None:
    """The record of a result file; None if there is none. Raises `UsageError` if it is damaged or
    can't be read."""
    path = record_path(results)
    try:
        with open(path, "rb") as file:
            record = PARSER.validate_json(file.read(MAX_RECORD_BYTES))
        datetime.fromisoformat(record.finished).timestamp()
        return record
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror or error}") from None
    except (ValueError, OverflowError):  # pydantic's is a `ValueError`
        raise UsageError(
            f"{path} is not the record of a result file of this version: remove or rename it"
        ) from None
