"""For the tests of single parts: a busy machine does not cut their chunks short."""

import pytest

from digitq.producer import chunking
from digitq.producer.sources import contents


@pytest.fixture(autouse=True)
def patient_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images wait for others however long a test stands still: it counts on whole chunks."""
    monkeypatch.setattr(chunking, "PENDING_SECONDS", 600.0)
    monkeypatch.setattr(contents, "GATHER_FILES_SECONDS", 600.0)
