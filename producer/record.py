"""The record of a result file: what made its rows."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Self

import pyarrow.parquet as pq
from pydantic import TypeAdapter

from producer.counts import Counts
from protocol.errors import UsageError
from protocol.origin import Origin
from protocol.reading import What
from protocol.settings import NUMBER

PARQUET_SUFFIX = ".parquet"
METADATA_KEY = b"digitq"  # in the metadata of a Parquet file
MAX_RECORD_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Record(Origin):
    """A JSON object, beside the rows in `OUT.json`, or in the metadata of a Parquet file."""

    digitq: str  # the version
    read: What
    model: str
    # Of a run that was continued, these four are of the last part
    job: str  # its id
    fingerprints: tuple[str, ...]  # of the workers that answered
    weights: tuple[str, ...]  # the first 16 hex digits of the SHA-256 of each network's card
    seconds: float  # that the run took
    images: int
    failed: int  # rows with an error
    review: int  # rows with an answer that a person should check
    labelled: int  # rows with a truth and an answer
    correct: int  # labelled rows whose answer equals the truth
    finished: str  # the time in UTC, as ISO 8601 has it

    @classmethod
    def build(
        cls,
        job_id: str,
        model: str,
        origin: Origin,
        counts: Counts,
        seconds: float,
        fingerprints: Sequence[str] = (),
        weights: Sequence[str] = (),
    ) -> Self:
        """The record of a job that ends now."""
        return cls(
            **asdict(origin),
            digitq=version_of("digitq"),
            read="number" if model == NUMBER else "digit",
            model=model,
            job=job_id,
            fingerprints=tuple(fingerprints),
            weights=tuple(weights),
            images=counts.images,
            failed=counts.failed,
            review=counts.review,
            labelled=counts.labelled,
            correct=counts.correct,
            seconds=round(seconds, 3),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def encode(self) -> bytes:
        return json.dumps(asdict(self), indent=2, ensure_ascii=False).encode() + b"\n"


PARSER = TypeAdapter(Record)


def record_path(path: Path) -> Path:
    """Where the record of a result file is, unless that is a Parquet file."""
    return path.with_name(path.name + ".json")


def find_record(path: Path) -> Record | None:
    """The record of a result file; None if there is none. Raises `UsageError` if it is damaged, or
    if the file can't be read."""
    if path.suffix.lower() != PARQUET_SUFFIX:
        return read_record(record_path(path))
    try:
        content = (pq.read_schema(path).metadata or {}).get(METADATA_KEY)
    except (OSError, ValueError) as error:
        raise UsageError(f"can't read {path}: {getattr(error, 'strerror', '') or error}") from None
    return parse_record(content, path) if content else None


def read_record(path: Path) -> Record | None:
    """The record in a JSON file; None if there is no such file. Raises `UsageError`."""
    try:
        with open(path, "rb") as file:
            return parse_record(file.read(MAX_RECORD_BYTES), path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror or error}") from None


def parse_record(content: bytes, path: Path) -> Record:
    """The record that `Record.encode` encoded. Raises `UsageError` if it is none."""
    try:
        record = PARSER.validate_json(content)
        datetime.fromisoformat(record.finished).timestamp()
        return record
    except (ValueError, OverflowError):  # pydantic's is a `ValueError`
        raise UsageError(
            f"{path} is not the record of a result file: remove or rename it"
        ) from None
