"""`digitq` is the one public name: what it exports, and what it says of modules in its way."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import digitq
import producer
from digitq import describe_foreign_module
from protocol import errors

PUBLIC = {
    "BrokerError",
    "Client",
    "DigitqError",
    "Job",
    "JobAbandonedError",
    "JobCancelledError",
    "JobFailedError",
    "JobRecord",
    "NumberPrediction",
    "OutputError",
    "Prediction",
    "ResultsExpiredError",
    "StoreError",
    "UnknownJobError",
    "UsageError",
    "open_sources",
}
OWN = {"Results", "classify", "local", "reader"}  # of digitq itself; the others are the producer's
IMPORT = "from digitq import Client; print(Client.__module__)"


def run_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_the_public_names() -> None:
    own_errors = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert own_errors < PUBLIC
    assert {*digitq.__all__} - OWN == {*producer.__all__} == PUBLIC
    assert all(getattr(digitq, name) is getattr(producer, name) for name in PUBLIC)
    assert digitq.__version__ == version("digitq")
    assert {*dir(digitq)} == {*PUBLIC, *OWN, "__version__"}
    assert digitq.classify and digitq.local and digitq.reader and digitq.Results
    with pytest.raises(AttributeError, match="'digitq' has no attribute 'Clients'"):
        digitq.Clients  # noqa: B018


def test_the_command_line_is_a_module_too(tmp_path: Path) -> None:
    done = run_in(tmp_path, "-m", "digitq", "--version")
    assert (done.returncode, done.stdout) == (0, f"digitq {digitq.__version__}\n")


def test_a_project_with_a_worker_of_its_own_can_use_digitq(tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir()
    (tmp_path / "worker/__init__.py").touch()
    done = run_in(tmp_path, "-c", IMPORT)
    assert (done.stdout, done.stderr) == ("producer.client\n", "")


@pytest.mark.parametrize("name", ["producer.py", "protocol.py", "protocol/__init__.py"])
def test_a_file_in_the_way_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.touch()
    package = name.removesuffix(".py").partition("/")[0]
    shown = f"digitq: {path} is imported in place of digitq's own `{package}`: "
    script = run_in(tmp_path, "-c", IMPORT)
    assert script.returncode == 1 and f"ImportError: {shown}rename it" in script.stderr
    command = run_in(tmp_path, "-m", "digitq", "--version")
    assert command.returncode == 2
    assert command.stderr.startswith(shown) and command.stderr.count("\n") == 1


def test_a_module_that_was_imported_before_is_named(tmp_path: Path) -> None:
    (tmp_path / "protocol.py").touch()
    done = run_in(tmp_path, "-c", f"import protocol, sys; sys.path.pop(0); {IMPORT}")
    assert "protocol.py is imported in place of digitq's own `protocol`" in done.stderr


def test_digitq_s_own_modules_are_in_nobody_s_way() -> None:
    assert describe_foreign_module() is None
