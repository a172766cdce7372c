"""Private folders: one that is in use stays, one whose run was killed goes with the next run."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from digitq.local import folders
from digitq.local.folders import (
    LOCK,
    SOCKET_PATH_BYTES,
    private_folder,
    private_socket,
    remove_leftovers,
)
from protocol.errors import UsageError

HOLD = (
    "from digitq.local.folders import private_folder\nwith private_folder() as f: print(f); input()"
)


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's folder for temporary files, for this test alone."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def test_a_killed_run_s_folder_goes_with_the_next_run(temporary: Path) -> None:
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        held = Path(other.stdout.readline().strip())
        with private_folder() as own:
            assert own.stat().st_mode & 0o077 == 0
            remove_leftovers(temporary)
            assert {*temporary.iterdir()} == {held, own}
        assert {*temporary.iterdir()} == {held}
        (held / "redis.log").write_text("killed")
        other.kill()
        other.wait()
    assert held.exists()
    with private_folder() as own:
        assert {*temporary.iterdir()} == {own}


def test_what_is_no_run_s_folder_stays(temporary: Path) -> None:
    for name in ("digitq-none", "digitq-link", "other"):
        (temporary / name).mkdir()
    (temporary / "digitq-file").touch()
    (temporary / "other" / LOCK).touch()
    (temporary / "digitq-link" / LOCK).symlink_to(temporary / "other" / LOCK)
    (temporary / "digitq-linked").symlink_to(temporary / "other")
    there = {*temporary.rglob("*")}
    pipe = temporary / "digitq-pipe" / LOCK
    pipe.parent.mkdir()
    os.mkfifo(pipe)  # to open it must not wait
    remove_leftovers(temporary)
    assert {*temporary.rglob("*")} == there


def test_a_socket_s_path_is_as_long_as_the_system_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "SHORT", tmp_path)
    fits = Path("/" + "x" * (SOCKET_PATH_BYTES - len("//redis.sock")))
    with private_socket(fits) as path:
        assert path.parent == fits
        with socket.socket(socket.AF_UNIX) as probe, pytest.raises(FileNotFoundError):
            probe.connect(str(path))
    with socket.socket(socket.AF_UNIX) as probe, pytest.raises(OSError, match="too long"):
        probe.connect(f"{path}x")
    for folder in (Path(f"{fits}x"), Path(os.fsdecode(b"/x\xff"))):
        with private_socket(folder) as path:
            assert path.parent.parent == tmp_path and path.parent.stat().st_mode & 0o077 == 0
        assert not path.parent.exists()
    monkeypatch.setattr(folders, "SHORT", Path("/dev/null"))
    with pytest.raises(UsageError, match="set TMPDIR to a shorter"), private_socket(folder):
        pass
