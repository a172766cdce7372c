"""The rooms keep to their doors: producer → protocol ← worker."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import producer
from protocol import errors
from protocol.settings import MODELS
from worker.models import WEIGHTS

ROOT = Path(__file__).parents[2]
FORBIDDEN = {
    "producer": {"worker", "torch", "torchvision", "safetensors"},
    "protocol": {"worker", "producer", "torch", "torchvision", "safetensors"},
    "worker": {"producer"},
}


def imported_packages(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    modules = list((ROOT / room).rglob("*.py"))
    assert modules
    for module in modules:
        assert not imported_packages(module) & FORBIDDEN[room], module


def run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    "name",
    [
        "producer.client",
        "digitq.cli",
        "producer.contenders",
        "digitq.doctor.rules",
        "digitq.progress",
        "protocol.celery",
    ],
)
def test_producer_and_flower_need_no_torch(name: str) -> None:
    run_python(f"import sys; sys.modules['torch'] = sys.modules['worker'] = None; import {name}")


@pytest.mark.parametrize("module", ["digitq.cli", "worker.commands"])
def test_help_waits_for_nothing_heavy(module: str) -> None:
    heavy = {"celery", "pyarrow", "numpy", "torch", "rich", "redis"}
    run_python(f"import sys, {module}; assert not {heavy} & set(sys.modules)")


def test_the_public_names() -> None:
    own = {name for name, value in vars(errors).items() if isinstance(value, type)}
    public = {"Client", "Job", "JobRecord", "Prediction", "open_sources", *own}
    assert {*producer.__all__} == public
    assert all(getattr(producer, name) for name in producer.__all__)


def test_producer_and_worker_know_the_same_models() -> None:
    assert {*MODELS} == {"random", *(card.stem for card in WEIGHTS.glob("*.json"))}


def test_nothing_is_unpickled() -> None:
    for module in [*ROOT.glob("p*/*.py"), *ROOT.glob("worker/*.py")]:
        assert not imported_packages(module) & {"pickle", "dill", "cloudpickle"}, module
