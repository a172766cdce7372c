"""Files that a form or an option names: only regular ones are read, and no more than the limit."""

import os
from pathlib import Path

import pytest

from digitq.producer.sources.truth import read_truths
from digitq.protocol.asked.known import read_allowed
from digitq.protocol.errors import UsageError
from digitq.protocol.host.regular_files import read_regular


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe.csv")
    return tmp_path / "pipe.csv"


def test_a_pipe_or_a_device_is_refused_before_it_is_read(pipe: Path) -> None:
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(UsageError, match="it is a pipe or a device: write it to a file first"):
            read_regular(path, 100)


def test_a_pipe_is_no_list_and_has_no_right_answers(pipe: Path) -> None:
    for read in (read_truths, lambda path: read_allowed(str(path))):
        for name in (pipe, f"{pipe}:id"):
            with pytest.raises(UsageError, match="it is a pipe or a device"):
                read(Path(name))


def test_a_file_that_is_longer_than_its_size_says_is_read_up_to_the_limit() -> None:
    assert os.stat("/proc/self/environ").st_size == 0
    with pytest.raises(UsageError, match="is larger than"):
        read_regular(Path("/proc/self/environ"), 3)
    with pytest.raises(IsADirectoryError):
        read_regular(Path("/proc"), 3)
