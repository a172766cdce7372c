"""What pip installs works without the clone, and has all of it."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from digitq import Client
from tests.drawing import draw_one
from tests.servers import serve

ROOT = Path(__file__).parents[2]
# What the sdist is made of; `digitq/producer` and the like are links to the folders beside it
FOLDERS = ("digitq", "producer", "protocol", "worker")
FILES = ("pyproject.toml", "README.md", "LICENSE", "NOTICE")
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_{}(sys.argv[1]))"
CLASSIFY = "import sys, digitq; print(digitq.classify([sys.argv[1]])[0].label, digitq.__file__)"
TYPED = """
from typing import assert_type
from digitq import Client, NumberPrediction, Prediction, classify, digits, form, numbers
client = Client("redis://localhost")
assert_type(client.classify("3.png"), Prediction)
assert_type(client.classify("3.png", digits("cnn")).label, int | None)
assert_type(client.classify("3.png", form("form.toml")), dict[str, NumberPrediction])
assert_type(classify(["3.png"], numbers(length=9))[0].number, str | None)
"""


def run(*command: object, cwd: Path, **variables: str) -> str:
    """The stdout of a command that must succeed, in which nothing says where the clone is."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=env | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build(kind: str, source: Path, out: Path) -> Path:
    """Have setuptools build an `sdist`, a `wheel` or an `editable`, as pip and `build` do."""
    out.mkdir()
    return out / run(sys.executable, "-c", BUILD.format(kind), out, cwd=source).split()[-1]


def of_digitq(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.startswith("digitq/")}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this one, since setuptools also writes into it."""
    folder = tmp_path_factory.mktemp("clone")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture(scope="module")
def sdist(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", clone, tmp_path_factory.mktemp("built") / "sdist")


@pytest.fixture(scope="module")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, as `python -m build` does."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as file:
        file.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    return build("wheel", unpacked, tmp_path_factory.mktemp("built") / "wheel")


def install(wheel: Path, folder: Path) -> Path:
    """The Python of a new environment, with nothing in it but the wheel. What digitq needs is on
    its path, as if pip had installed that as well."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    python = folder / "bin/python"
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--no-index", "--no-deps", "--no-compile", wheel, cwd=folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # Python reads no .pth of a folder that a .pth names, so the clone is not found by way of it
    (packages / "needs.pth").write_text(sysconfig.get_path("purelib"))
    return python


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(wheel, tmp_path_factory.mktemp("environment") / "empty")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder of a user with modules that have the names of digitq's rooms, and an image."""
    for name in ("producer", "protocol", "worker"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('was imported')")
    draw_one().save(tmp_path / "one.png")
    return tmp_path


def test_the_sdist_and_the_wheel_have_all_files_of_the_clone_and_no_other(
    sdist: Path, wheel: Path
) -> None:
    # `os.walk` follows the links, unlike `Path.rglob`
    walk = os.walk(ROOT / "digitq", followlinks=True)
    ours = {
        str((Path(folder) / name).relative_to(ROOT))
        for folder, _, names in walk
        for name in names
        if not folder.endswith("__pycache__")
    }
    assert {"digitq/py.typed", "digitq/worker/models/weights/mlp.safetensors"} < ours
    with zipfile.ZipFile(wheel) as file:
        names = file.namelist()
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        assert "Private ::" not in file.read(metadata).decode()  # it would forbid an upload
    assert {name.partition("/")[0] for name in names} == {"digitq", metadata.partition("/")[0]}
    assert of_digitq(names) == ours
    with tarfile.open(sdist) as packed:
        files = [member for member in packed if not member.isdir()]
    assert all(file.isfile() for file in files)  # and no link, which would lead nowhere
    assert of_digitq(file.name.partition("/")[2] for file in files) == ours


def test_an_installed_digitq_classifies_beside_modules_with_the_names_of_its_rooms(
    python: Path, project: Path
) -> None:
    label, path = run(python, "-c", CLASSIFY, "one.png", cwd=project).split()
    assert label == "1" and path.startswith(str(python.parents[1]))


def test_celery_starts_an_installed_worker_there(python: Path, project: Path) -> None:
    with serve(project / "redis") as server:
        variables = {**os.environ, "DIGITQ_BROKER_URL": server.url}
        command = [python, "-m", "celery", "-A", "digitq.worker", "worker", "--concurrency", "1"]
        with (
            open(project / "log", "wb") as log,
            subprocess.Popen(command, cwd=project, env=variables, stdout=log, stderr=log) as worker,
        ):
            try:
                with Client(server.url) as client:
                    answer = client.classify(project / "one.png", timeout_seconds=60)
            finally:
                worker.terminate()
            assert answer.label == 1, (project / "log").read_text()


@pytest.mark.slow  # mypy reads digitq and what it needs anew
@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_types_are_seen_outside_the_clone(
    kind: str, wheel: Path, clone: Path, project: Path
) -> None:
    built = wheel if kind == "wheel" else build("editable", clone, project / "built")
    python = install(built, project / "environment")
    (project / "typed.py").write_text(TYPED)
    checked = ("--strict", "--python-executable", python, "typed.py")
    assert "Success" in run(sys.executable, "-m", "mypy", *checked, cwd=project)
