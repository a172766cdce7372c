"""The rooms keep to their doors: digitq → producer → protocol ← worker, and no import circle."""

import ast
import os
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache
from graphlib import TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

from digitq.protocol.settings import MODELS, NUMBER
from digitq.worker.models.card import WEIGHTS_FOLDER

ROOT = Path(__file__).parents[2]
TORCH = {"torch", "torchvision", "safetensors", "onnx", "onnxruntime"}
PRODUCER, PROTOCOL, WORKER = "digitq.producer", "digitq.protocol", "digitq.worker"
PACKAGES = ("digitq", PRODUCER, PROTOCOL, "training", WORKER)
FORBIDDEN = {  # by room: what no module in it may import
    "digitq": {"benchmarks", "training", WORKER, *TORCH},
    PRODUCER: {"digitq", "training", WORKER, *TORCH},
    PROTOCOL: {"digitq", PRODUCER, "training", WORKER, *TORCH},
    WORKER: {"digitq", PRODUCER, "training", "onnx"},
    "training": {"benchmarks", "digitq", PRODUCER},
    "digitq.worker.sight.decoding": {"digitq.worker.sight.normalisation"},
    "digitq.worker.sight.normalisation": {"digitq.worker.sight.decoding"},
}
# torchvision downloads MNIST. Only the function that does so imports it: nothing else in a producer
# needs torch, as `test_producer_and_flower_need_no_torch` shows.
DOWNLOAD = ("digitq.protocol.formats.mnist", "torchvision.datasets.MNIST")
# `digitq.reader` imports it when it is called
READER = ("digitq.without_queue", "digitq.worker.in_process.classify_chunks")
MAY_RUN = {  # by room: what `python -m` may run from it, in a process of its own
    "digitq": {"digitq", WORKER},
    PRODUCER: {PROTOCOL},
    PROTOCOL: {PROTOCOL},
    "training": set(),
    WORKER: set(),
}


def find_modules() -> dict[str, Path]:
    """The path of each module; `digitq` has links to the folders of three of its packages."""
    modules = {}
    for package in ("digitq", "training"):
        for folder, _, names in os.walk(ROOT / package, followlinks=True):
            for path in (Path(folder, name) for name in names if name.endswith(".py")):
                parts = path.relative_to(ROOT).with_suffix("").parts
                modules[".".join(parts).removesuffix(".__init__")] = path
    return modules


MODULES = find_modules()


def lies_in(name: str, room: str) -> bool:
    """Whether a module is in a room; `digitq` is a room without its three packages."""
    if room == "digitq" and any(lies_in(name, part) for part in (PRODUCER, PROTOCOL, WORKER)):
        return False
    return name == room or name.startswith(f"{room}.")


def package_of(name: str) -> str:
    return next((package for package in PACKAGES if lies_in(name, package)), "")


@cache
def nodes(path: Path) -> list[ast.AST]:
    """All of a module's syntax tree."""
    return [*ast.walk(ast.parse(path.read_text()))]


def imported_names(path: Path) -> set[str]:
    """All that a module imports, inside of its functions too: `a.b` for `from a import b`."""
    names = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imported_modules(path: Path) -> set[str]:
    """Which of the project's modules it imports."""
    names = imported_names(path)
    return {name if name in MODULES else name.rpartition(".")[0] for name in names} & {*MODULES}


@pytest.mark.parametrize("room", sorted(FORBIDDEN))
def test_a_room_imports_only_what_it_may(room: str) -> None:
    inside = {name: path for name, path in MODULES.items() if lies_in(name, room)}
    assert inside
    for name, path in inside.items():
        for imported in imported_names(path):
            allowed = (name, imported) in (DOWNLOAD, READER)
            assert allowed or not any(lies_in(imported, other) for other in FORBIDDEN[room]), name


def started_modules(path: Path) -> set[str]:
    """Modules that it starts as processes: the word after `-m`, and any dotted name of a module."""
    found = set()
    for node in nodes(path):
        parts = node.elts if isinstance(node, ast.List | ast.Tuple) else getattr(node, "args", [])
        if not isinstance(parts, list):  # it is the arguments of a function's definition
            continue
        words = [part.value if isinstance(part, ast.Constant) else None for part in parts]
        found |= {word for before, word in pairwise(words) if before == "-m" and word}
        found |= {word for word in words if word in MODULES and "." in str(word)}
    return found


@pytest.mark.parametrize("room", sorted({*FORBIDDEN} - {"digitq"}))
def test_only_the_command_line_runs_modules_that_it_may_not_import(room: str) -> None:
    assert WORKER in started_modules(ROOT / "digitq/review/thumbnails.py")
    for name, path in MODULES.items():
        if lies_in(name, room):
            for started in started_modules(path):
                assert not any(lies_in(started, other) for other in FORBIDDEN[room]), name


def run_names(path: Path) -> set[str]:
    """The modules that a module runs by `python -m`."""
    names = set()
    for node in nodes(path):
        if isinstance(node, ast.List):
            texts = [one.value if isinstance(one, ast.Constant) else None for one in node.elts]
            names |= {name for flag, name in pairwise(texts) if flag == "-m" and name}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("exec_module"):
            names |= {one.value for one in node.args[1:2] if isinstance(one, ast.Constant)}
    return {str(name) for name in names}


@pytest.mark.parametrize("room", PACKAGES)
def test_a_room_runs_only_what_it_may(room: str) -> None:
    for name, path in MODULES.items():
        if lies_in(name, room):
            ours = {package_of(run) for run in run_names(path)} - {""}
            assert ours <= MAY_RUN[room], name


def test_packages_are_imported_by_their_full_names() -> None:
    """In a clone, `import worker` would give a second copy of `digitq.worker`."""
    for name, path in MODULES.items():
        tops = {imported.partition(".")[0] for imported in imported_names(path)}
        assert not tops & {"producer", "protocol", "worker"}, name


def test_no_modules_import_each_other_in_a_circle() -> None:
    TopologicalSorter({name: imported_modules(path) for name, path in MODULES.items()}).prepare()


def room_in(package: str, name: str) -> str:
    """The room or loose module of a package that a module is in."""
    return name.removeprefix(f"{package}.").partition(".")[0]


@pytest.mark.parametrize(
    "package", sorted({name.rpartition(".")[0] for name in MODULES if "." in name})
)
def test_no_rooms_of_a_package_import_each_other_in_a_circle(package: str) -> None:
    """A loose module counts as a room of its own."""
    imports: dict[str, set[str]] = defaultdict(set)
    for name, path in MODULES.items():
        if name.startswith(f"{package}."):
            inside = {one for one in imported_modules(path) if one.startswith(f"{package}.")}
            room = room_in(package, name)
            imports[room] |= {room_in(package, one) for one in inside} - {room}
    TopologicalSorter(imports).prepare()


def test_the_contract_is_small() -> None:
    """What a job reads and files that both sides open are rooms of their own."""
    apart = {f"{PROTOCOL}.asked", f"{PROTOCOL}.formats"}
    inside = [
        path
        for name, path in MODULES.items()
        if lies_in(name, PROTOCOL) and not any(lies_in(name, room) for room in apart)
    ]
    assert sum(len(path.read_text().splitlines()) for path in inside) <= 3000


def test_the_way_of_one_image_changes_the_room_as_often_as_is_said() -> None:
    """In the table, ✓ marks the steps of each way."""
    text = (ROOT / "ARCHITECTURE.md").read_text().partition("## The way of one image")[2]
    rows = [line.split("|")[2:6] for line in text.splitlines() if line.startswith("| ")][1:]
    ways = {"file": 9, "field": 10, "call": 6}
    for way, (name, changes) in enumerate(ways.items(), 1):
        paths = [row[0].strip(" `") for row in rows if len(row) > way and row[way].strip() == "✓"]
        assert paths and all((ROOT / path).exists() for path in paths)
        rooms = [find_outer_room(path) for path in paths]
        assert sum(one != other for one, other in pairwise(rooms)) == changes, name
        assert f"{changes} times" in text


def find_outer_room(path: str) -> str:
    """`worker/sight` for what is anywhere below it, `protocol` for all of it."""
    folders = path.split("/")[:-1]
    return folders[0] if folders[0] == "protocol" else "/".join(folders[:2])


@pytest.mark.parametrize("name", ["chunking", "feeder", "job"])
def test_what_comes_after_the_sources_does_not_go_back_to_them(name: str) -> None:
    module = f"{PRODUCER}.{name}"
    assert not any(lies_in(one, f"{PRODUCER}.sources") for one in imported_modules(MODULES[module]))


def test_no_two_files_have_one_name() -> None:
    """Nor one name and its plural; the file of a command has the command's name."""
    names = [name for name in MODULES if "." in name and not lies_in(name, "digitq.commands")]
    files = [name.rpartition(".")[2] for name in names if MODULES[name].name != "__init__.py"]
    counts = Counter(name.removesuffix("s") for name in files if not name.startswith("__"))
    assert not [name for name, count in counts.items() if count > 1]


def test_no_command_imports_the_command_line() -> None:
    for name, path in MODULES.items():
        if lies_in(name, "digitq.commands"):
            assert "digitq.cli" not in imported_modules(path), name


def assigned(node: ast.AST) -> list[tuple[ast.expr, ast.expr]]:
    """The names and the values of an assignment, each of `A, B = 1, 2` for itself."""
    if isinstance(node, ast.AnnAssign) and node.value:
        return [(node.target, node.value)]
    if not isinstance(node, ast.Assign):
        return []
    (target, *_), value = node.targets, node.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return [*zip(target.elts, value.elts, strict=True)]
    return [(target, value)]


def test_a_constant_has_one_value_in_the_whole_project() -> None:
    values = defaultdict(set)
    for path in MODULES.values():
        for node in nodes(path):
            for name, value in assigned(node):
                if isinstance(name, ast.Name) and name.id.isupper():
                    values[name.id].add(ast.unparse(value))
    assert len(values) > 100
    assert not {name: found for name, found in values.items() if len(found) > 1}


def run_python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_producer_and_flower_need_no_torch() -> None:
    names = "digitq.backend, benchmarks.deployment.measures, digitq.cli, digitq.operate.doctor, "
    names += "digitq.operate.metrics, digitq.producer.client, digitq.protocol.app, "
    names += "digitq.protocol.formats.mnist"
    without = (
        "sys.modules['torch'] = sys.modules['torchvision'] = sys.modules['digitq.worker'] = None"
    )
    run_python(f"import sys; {without}; import {names}")


@pytest.mark.parametrize("module", ["digitq.cli", "digitq.worker.subcommands"])
def test_help_waits_for_nothing_heavy(module: str) -> None:
    heavy = {"celery", "pyarrow", "numpy", "torch", "rich", "redis"}
    run_python(f"import sys, {module}; assert not {heavy} & set(sys.modules)")


@pytest.mark.parametrize("module", ["surroundings", "overlay"])
def test_fields_are_shown_without_torch(module: str) -> None:
    """It takes seconds to import; a typo in a form is told before."""
    name = f"digitq.worker.show.{module}"
    run_python(f"import sys, {name}; assert not {{'torch', 'onnxruntime'}} & set(sys.modules)")


def test_a_private_worker_waits_for_no_command_line_of_celery() -> None:
    """It would import Flower and a shell, too."""
    heavy = {"celery.bin", "flower", "prompt_toolkit", "tornado"}
    start = "find_app('digitq.worker').Worker"
    modules = "import sys; from digitq.private.start_worker import find_app"
    run_python(f"{modules}; {start}; assert not {heavy} & set(sys.modules)")


def test_a_probe_waits_for_next_to_nothing() -> None:
    heavy = {"click", "pydantic", "celery", "numpy", "redis", "importlib.metadata"}
    run_python(
        f"import sys, digitq.__main__, digitq.worker_check; assert not {heavy} & set(sys.modules)"
    )


def test_a_worker_imports_no_pandas_and_sends_no_telemetry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime keeps a device id in the home folder if it sends telemetry."""
    for name in [name for name in os.environ if "TELEMETRY" in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    modules = "import sys, celery.signals, digitq.worker.celery, digitq.worker.tasks"
    modules += "; from digitq.worker.models.number_networks import load_networks"
    start = "celery.signals.worker_process_init.send(None); load_networks()"
    run_python(f"{modules}; {start}; assert 'pandas' not in sys.modules")
    assert not [*tmp_path.iterdir()]


def test_producer_and_worker_know_the_same_models() -> None:
    cards = {card.stem for card in WEIGHTS_FOLDER.glob("*.json")}
    assert {*MODELS} == {"random", *cards} - {NUMBER}


def test_nothing_is_unpickled() -> None:
    for name, path in MODULES.items():
        packages = {imported.partition(".")[0] for imported in imported_names(path)}
        assert not packages & {"pickle", "dill", "cloudpickle"}, name
