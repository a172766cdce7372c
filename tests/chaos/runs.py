"""Runs over a deployment that is being harmed, and whether their results are whole."""

import csv
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen

import pyarrow as pa
import pyarrow.parquet as pq

from tests.chaos.deployment import Deployment
from tests.drawing import draw_one, encode_image

UNUSABLE = 2  # the exit status of a command that was wrong
DONE = (0, 1)
THERE = "exists: --overwrite"
FREED = "were deleted from Redis to make room"


def write_images(path: Path, rows: int) -> None:
    """A Parquet file of images, some of which can't be read."""
    images = [
        encode_image(draw_one((100 + n % 60, 160), ink=n % 100)) if n % 50 else b"broken"
        for n in range(100)
    ]
    pq.write_table(pa.table({"image": (images * (rows // 100 + 1))[:rows]}), path)


class Run:
    """Commands of digitq, one after another; each is started again until it is done."""

    def __init__(self, deployment: Deployment, source: Path, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.outs = [folder / "out.csv"]
        self.errors: list[str] = []
        self._deployment, self._source = deployment, source
        self._moved, self._size = time.monotonic(), 0
        self._steps: list[Callable[[], Popen[str]]] = []

    def start(self) -> None:
        """Begin with the first command."""
        self.moved()
        self._deployment.results = self.outs[0].parent
        self._process = self._steps[0]()
        self._deployment.producer = self._process.pid

    @property
    def stall_seconds(self) -> float:
        """How long nothing was written, or since `moved` was called."""
        return time.monotonic() - self._moved

    def moved(self) -> None:
        """Count a stall from here."""
        self._moved = time.monotonic()

    def size(self) -> int:
        """What is done, in an arbitrary measure that grows."""
        return sum(self._deployment.written())

    def is_done(self) -> bool:
        """Look after the command. Raises `AssertionError` where it was wrong."""
        if (size := self.size()) != self._size:
            self._size = size
            self.moved()
        status = self._process.poll()
        if status is None:
            return False
        out, err = self._process.communicate()
        self.errors.append(err)
        too_early = "KeyboardInterrupt" in err  # Python itself was still loading
        assert "Traceback" not in err or too_early, err
        done = (status in DONE and not too_early) or THERE in err  # killed when all was written
        if FREED in err and self.outs[1:] and len(self._steps) == 1:
            self.outs.pop()  # Redis was full while the first file took the results
            done = True
        assert done or status != UNUSABLE, err
        if done:
            self._take(out)
            self._steps.pop(0)
        if self._steps:
            self.start()
        else:
            self._deployment.producer = None
        return not self._steps

    def most_attempts(self) -> int:
        """How often any one chunk was begun, at most; 0 where no record says so."""
        return 0

    def _take(self, out: str) -> None:
        """What a command that is done has printed."""


class AttachedRun(Run):
    """`digitq classify`."""

    def __init__(self, deployment: Deployment, source: Path, folder: Path) -> None:
        super().__init__(deployment, source, folder)
        self._steps = [lambda: deployment.digitq("classify", source, "-o", self.outs[0])]


class DetachedRun(Run):
    """`digitq submit`, and `digitq collect` twice: the first while the job still runs."""

    def __init__(self, deployment: Deployment, source: Path, folder: Path) -> None:
        super().__init__(deployment, source, folder)
        self.outs = [folder / "out.csv", folder / "again.csv"]
        self.job_id = ""
        self._steps = [
            lambda: deployment.digitq("submit", source),
            *(
                lambda out=out: deployment.digitq("collect", self.job_id, "-o", out)
                for out in self.outs
            ),
        ]

    def most_attempts(self) -> int:
        return self._deployment.ledger().record(self.job_id).most_attempts

    def _take(self, out: str) -> None:
        self.job_id = out.strip() or self.job_id


def compare(out: bytes, expected: bytes) -> tuple[int, int, int]:
    """Rows of the result, those lost, and those that are there twice; (0, 0, 0) for equal ones."""
    if out == expected:
        return len(expected.splitlines()) - 1, 0, 0
    found, wanted = _count_ids(out), _count_ids(expected)
    lost, twice = (wanted - found).total(), (found - wanted).total()
    assert lost or twice, "the same rows, but other answers or another order"
    return found.total(), lost, twice


def _count_ids(table: bytes) -> Counter[str]:
    return Counter(row["id"] for row in csv.DictReader(table.decode().splitlines()))
