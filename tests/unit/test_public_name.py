"""`digitq` is the one public name, and what it exports."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import digitq
from digitq import producer
from digitq.protocol import errors

PUBLIC = {
    "Answer",
    "BrokerError",
    "DigitqError",
    "Image",
    "Job",
    "JobAbandonedError",
    "JobCancelledError",
    "JobFailedError",
    "JobRecord",
    "NumberPrediction",
    "OutputError",
    "Prediction",
    "Reading",
    "ResultsExpiredError",
    "Source",
    "StoreError",
    "UnknownJobError",
    "UsageError",
    "digits",
    "form",
    "numbers",
    "open_sources",
}
OWN = {
    "Client",
    "Results",
    "classify",
    "local",
    "reader",
}  # of digitq itself; the others are the producer's
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
    assert digitq.Client and digitq.classify and digitq.local and digitq.reader and digitq.Results
    with pytest.raises(AttributeError, match="'digitq' has no attribute 'Clients'"):
        digitq.Clients  # noqa: B018


def test_the_command_line_is_a_module_too(tmp_path: Path) -> None:
    done = run_in(tmp_path, "-m", "digitq", "--version")
    assert (done.returncode, done.stdout) == (0, f"digitq {digitq.__version__}\n")


def test_modules_of_a_project_with_names_of_digitq_s_folders_hide_nothing(tmp_path: Path) -> None:
    for name in ("producer", "protocol", "worker"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('was run')")
    done = run_in(tmp_path, "-c", IMPORT)
    assert (done.stdout, done.stderr) == ("digitq.phases\n", "")
    command = run_in(tmp_path, "-m", "digitq", "--version")
    assert (command.returncode, command.stderr) == (0, "")
