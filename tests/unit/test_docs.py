"""The README, the other pages, and the program say the same."""

import ast
import json
import re
import shlex
from collections import Counter
from inspect import signature
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
import pytest

import digitq
from benchmarks.deployment.__main__ import bench
from digitq import Client, Job, JobRecord
from digitq.cli import digitq as cli
from digitq.operate.metrics import describe
from digitq.producer.sources.archives import ARCHIVE_SUFFIXES
from digitq.producer.sources.source import IMAGE_SUFFIXES
from digitq.protocol import errors
from digitq.protocol.chunk import REASONS, WEIGHTS_DIGITS
from digitq.protocol.overview import Overview
from digitq.protocol.settings import Settings
from digitq.without_queue import Reader
from digitq.worker.models.card import WEIGHTS_FOLDER, hash_card
from digitq.worker.sight.normalisation.steps import STEPS
from digitq.worker.sight.normalisation.views import VIEWS

ROOT = Path(__file__).parents[2]
PATHS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in PATHS}
ALL = "\n".join(PAGES.values())
ALL_BUT_README = "\n".join(page for name, page in PAGES.items() if name != "README.md")
README_WORDS = 950  # four minutes of reading
PUBLIC = {*digitq.__all__, "__version__"}
OTHERS_OPTIONS = {"--build", "--wait", "--scale", "--rm", "--user"}  # Docker Compose's
OTHERS_OPTIONS |= {"--profile", "--from-env-file", "--dry-run"}  # Docker Compose's and kubectl's
OTHERS_OPTIONS |= {"--port", "--address", "--conf"}  # Flower's
OTHERS_OPTIONS |= {"--concurrency", "--hostname", "--no-deps"}  # Celery's, and pip's
OTHERS_OPTIONS |= {
    "--blend",
    "--sheets",
    "--fine-tune",
    "--expert",
    "--hands",
    "--judge",
    "--limit-images",
}  # those of `python -m training`
ROOMS = ("digitq", "producer", "protocol", "training", "worker", "tests")
ROOM = rf"(?:{'|'.join(ROOMS)}|benchmarks|examples|docs|deploy|\.ci|\.github)"


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language, in all pages."""
    return re.findall(rf"```{language}\n(.*?)```", ALL, re.DOTALL)


def shown_commands(name: str) -> set[str]:
    """Commands that begin with `name`, at a prompt or between backticks."""
    prompted = {
        line[2:]
        for block in blocks("console")
        for line in block.splitlines()
        if line.startswith(f"$ {name} ")
    }
    return prompted | set(re.findall(rf"`({name} [^`→]+)`", ALL))


DIGITQ = sorted(shown_commands("digitq"))


def heading_anchors(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def options_of(command: click.Command) -> set[str]:
    """Its options, and those of its subcommands."""
    parts = [command, *getattr(command, "commands", {}).values()]
    parameters = [one for part in parts for one in part.params]
    return {option for one in parameters for option in (*one.opts, *one.secondary_opts)}


# Commands


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_is_shown(name: str) -> None:
    assert any(shlex.split(command)[1] == name for command in DIGITQ)


@pytest.mark.parametrize("command", DIGITQ)
def test_a_shown_command_exists_with_its_options(command: str) -> None:
    _, name, *arguments = shlex.split(command.partition(r"\|")[0])
    if name.startswith("-"):
        assert name in {"-h", "--help", "--version"}
        return
    found = cli.commands[name]
    takes_any = any(parameter.name == "passed_on" for parameter in found.params)
    for argument in arguments:
        if re.match("--?[a-z]", argument) and not takes_any:
            assert argument.partition("=")[0] in options_of(found) | {"--help", "-h"}, command


def test_every_option_that_is_named_exists() -> None:
    known = set().union(*map(options_of, [*cli.commands.values(), bench]))
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", re.sub(r"```.*?```", "", ALL)))
    assert named - known - OTHERS_OPTIONS <= {"--help", "--version"}


@pytest.mark.parametrize("option", cli.commands["classify"].params)
def test_every_option_of_classify_is_explained(option: click.Parameter) -> None:
    if isinstance(option, click.Option):
        assert f"| `{option.opts[0]}`" in PAGES["docs/run.md"]


def test_every_help_fits_a_line() -> None:
    for command in cli.commands.values():
        assert command.help and not command.get_short_help_str(limit=60).endswith("...")


def test_make_targets_are_those_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = {name for name in re.findall(r"^([a-z-]+):", makefile, re.M)}
    shown = re.findall(r"(?:`|\$ )make (?:[A-Z]+=\S+ )?([a-z-]+)", ALL)
    assert set(shown) == targets


@pytest.mark.parametrize("command", sorted(shown_commands("python")))
def test_a_shown_script_or_module_exists(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    path = ROOT / (arguments[0].replace(".", "/") if name == "-m" else name)
    places = path, path.with_name(f"{path.name}.py"), path / "__main__.py"
    assert any(place.is_file() for place in places)


# Pages


def test_the_readme_is_short() -> None:
    assert len(PAGES["README.md"].split()) <= README_WORDS


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name: str) -> None:
    page = re.sub(r"```.*?```", "", PAGES[name], flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)]+)\)", page):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        path = (ROOT / name).parent / file if file else ROOT / name
        assert path.exists(), target
        if lines := re.fullmatch(r"L(\d+)-L(\d+)", anchor):
            assert_whole(path.read_text().splitlines(), int(lines[1]), int(lines[2]))
        elif anchor:
            assert anchor in heading_anchors(path.read_text()), target


def assert_whole(lines: list[str], first: int, last: int) -> None:
    """Lines `first` to `last`, counted from 1, are whole functions and classes."""
    assert re.match("def |class ", lines[first - 1]) and lines[last - 1]
    assert not any(lines[last : last + 2])


def test_the_readme_links_the_softmax_and_the_network_that_was_asked_for() -> None:
    found = re.search(r"\]\(worker/models/network\.py#L(\d+)-L(\d+)\)", PAGES["README.md"])
    assert found
    lines = (ROOT / "worker/models/network.py").read_text().splitlines()
    shown = lines[int(found[1]) - 1 : int(found[2])]
    assert shown[0].startswith("def softmax(") and "class Mlp(Network):" in shown


def test_the_readme_and_the_architecture_name_the_same_eight_files_to_read_first() -> None:
    core = PAGES["README.md"].split("**The core** is in eight files: ")[1].split(". ")[0]
    table = PAGES["ARCHITECTURE.md"].split("## Read first")[1].split("\n## ")[0]
    files = re.findall(r"^\| `([\w/.]+)` \|", table, re.M)
    assert re.findall(r"`([^`]+)`", core) == files and len(files) == 8


@pytest.mark.parametrize("name", [name for name in PAGES if name != "README.md"])
def test_every_page_is_linked_from_the_readme(name: str) -> None:
    assert f"]({name})" in PAGES["README.md"]


@pytest.mark.parametrize("name", PAGES)
def test_every_path_exists_and_has_the_name_beside_it(name: str) -> None:
    """`worker/tasks.py: classify` names a file, and what is in it."""
    found = re.findall(rf"`({ROOM}/[\w./-]+)(?:: (\w+))?`", PAGES[name])
    for path, inside in found:
        if path.endswith("NAME.json"):
            path = str(Path(path).parent)
        assert (ROOT / path).exists(), path
        definition = rf"^(?:    )?(?:(?:async )?def |class )?{inside}\b(?!\.)"
        assert not inside or re.search(definition, (ROOT / path).read_text(), re.M), (path, inside)


def test_the_rooms_are_the_folders() -> None:
    drawing = PAGES["ARCHITECTURE.md"].split("```")[1]
    drawn: set[Path] = set()
    above: dict[int, Path] = {}
    for indent, folder in re.findall(r"^( *)(\w+)/", drawing, re.M):
        above[len(indent)] = above.get(len(indent) - 2, Path()) / folder
        drawn.add(above[len(indent)])
    packages = ("digitq", "producer", "protocol", "training", "worker")
    inits = [path for room in packages for path in (ROOT / room).rglob("__init__.py")]
    assert drawn == {path.parent.relative_to(ROOT) for path in inits} | {Path("benchmarks")}


@pytest.mark.parametrize("name", PAGES)
def test_no_machine_and_no_registry_is_named(name: str) -> None:
    assert not re.search(r"pypi\.org|download\.pytorch|/(home|tmp|root)/", PAGES[name])


# Facts


def test_the_settings_table_is_the_settings() -> None:
    lines = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        lines.append(f"| `DIGITQ_{name.upper()}` | {default} | {field.description} |")
    table = "\n".join(lines)
    assert table in PAGES["docs/settings.md"], f"paste this into docs/settings.md:\n{table}"


def test_every_variable_that_is_named_is_a_setting() -> None:
    known = {f"DIGITQ_{name.upper()}" for name in Settings.model_fields} | {"DIGITQ_TEST_REDIS"}
    now = "".join(page for name, page in PAGES.items() if name != "CHANGELOG.md")
    assert set(re.findall(r"(?<!_)DIGITQ_[A-Z_]+", now)) == known


def first_column(page: str, heading: str) -> list[str]:
    """The code in the first column of the table under a header row."""
    table = page[page.index(heading) :].split("\n\n")[0]
    return re.findall(r"^\| `(\w+)` ", table, re.M)


def test_the_steps_and_views_are_those_of_the_program() -> None:
    page = PAGES["docs/images.md"]
    assert first_column(page, "| step | what it does |") == [step.__name__ for step in STEPS]
    assert first_column(page, "| view | what it is |") == [*VIEWS]


def test_the_metrics_are_listed() -> None:
    nothing = Overview(
        jobs=(),
        running=(),
        workers=(),
        counted=Counter(),
        queued_images=0,
        memory_bytes=0,
        memory_limit_bytes=0,
    )
    names = {one.name + "_total" * (one.type == "counter") for one in describe(nothing)}
    page = PAGES["docs/watch.md"]
    listed = [first_column(page, f"| {kind} | labels |") for kind in ("counter", "gauge")]
    assert sorted(sum(listed, [])) == sorted(names | {"digitq_redis_up"})


def test_the_reasons_for_review_are_explained() -> None:
    table = PAGES["docs/images.md"].split("| `reason` | when |")[1].split("\n\n")[0]
    assert {*re.findall(r"^\| `([a-z,? ]+)` ", table, re.M)} == {*REASONS} - {""}


def test_the_keys_of_a_job_are_listed() -> None:
    keys = re.findall(r"key \.\. '(:\w+)'", (ROOT / "protocol/ledger/shared.lua").read_text())
    assert keys and {f"`{key}`" for key in keys} <= {
        *re.findall(r"`:[\w-]+`", PAGES["ARCHITECTURE.md"])
    }


def test_the_states_of_a_chunk_are_changed_by_steps_of_the_ledger() -> None:
    diagram = PAGES["ARCHITECTURE.md"].split("```mermaid\nstateDiagram-v2\n")[1].split("```")[0]
    events = re.findall(r"--> .+: (.+)$", diagram, re.M)
    named = set(re.findall(r"[a-z_]+", re.sub(r"\(.*?\)", "", " ".join(events))))
    steps = {path.stem for path in (ROOT / "protocol/ledger/steps").iterdir()}
    assert {"dispatch", "begin", "complete"} <= named <= steps


def test_the_states_of_a_job_are_explained() -> None:
    states = get_args(get_type_hints(JobRecord)["state"])
    assert {*states} <= {*first_column(PAGES["docs/run.md"], "| state | meaning |")}


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, *ARCHIVE_SUFFIXES])
def test_every_ending_is_listed(suffix: str) -> None:
    assert f"`{suffix}`" in PAGES["docs/images.md"]


# Accuracy


def read_card(name: str) -> dict[str, Any]:
    card: dict[str, Any] = json.loads((WEIGHTS_FOLDER / f"{name}.json").read_text())
    return card


def show(share: float) -> str:
    return f"{100 * share:.2f} %"


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_the_accuracy_is_that_of_the_card(name: str) -> None:
    card = read_card(name)
    right, error = show(card["test_accuracy"]), show(card["test_calibration_error"])
    assert re.search(rf"^\| `{name}` \| {right} .* {error} \|$", PAGES["docs/accuracy.md"], re.M)
    assert f"| `{name}` | `{card['command']}` |" in PAGES["docs/networks.md"]
    assert f"{card['review_below']:.0%}".replace("%", " %") in PAGES["docs/images.md"]


def find_accuracy_tables() -> list[tuple[str, str, str]]:
    """Each table of accuracy: its page, its first line, and the line below it."""
    tables = re.findall(r"((?:^\|.*\n)+)\n?(.*)", ALL_BUT_README, re.M)
    heads = [(table.partition("\n")[0], table, below) for table, below in tables]
    words = r"\b(right|wrong|marked|to review|accuracy)\b"
    return [one for one in heads if re.search(words, one[0]) and re.search(r"\d %", one[1])]


@pytest.mark.parametrize(("head", "table", "below"), find_accuracy_tables())
def test_a_table_of_accuracy_says_of_which_weights_it_is(head: str, table: str, below: str) -> None:
    """Those of older weights say so: measure them anew, or write `of older weights`."""
    assert below.startswith("Weights: "), head
    told = dict(re.findall(r"`(\w+)` ([0-9a-f]{16})", below))
    is_of_today = all(hash_card(name)[:WEIGHTS_DIGITS] == digits for name, digits in told.items())
    if not below.startswith("Weights: none"):
        assert told and ("of older weights" in below) != is_of_today, below
    assert re.search(r"measured (by hand )?on \d{4}-\d\d-\d\d", below)


def test_the_figures_of_the_readme_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| (.+?) \(([\d,]+)\) \| (.*\d %) \|$", PAGES["README.md"], re.M)
    assert rows
    for name, count, shares in rows:
        if name == "MNIST test images":
            right = [show(read_card(model)["test_accuracy"]) for model in ("cnn", "mlp")]
            assert shares.split(" | ")[:2] == right
        else:
            assert f"| {name} | {count} | {shares} |" in PAGES["docs/accuracy.md"]


# Python


@pytest.mark.parametrize("block", blocks("python"))
def test_python_compiles_and_imports_public_names(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            assert node.module == "digitq"
            assert {alias.name for alias in node.names} <= PUBLIC


def test_the_first_lines_for_a_notebook_are_an_example_whose_types_are_checked() -> None:
    assert (ROOT / "examples/notebook.py").read_text() in blocks("python")


@pytest.mark.parametrize("block", blocks("python"))
def test_python_uses_arguments_that_exist(block: str) -> None:
    """Functions of digitq are called by their names, methods as those of any object."""
    methods = {name: getattr(kind, name) for kind in (Reader, Client, Job) for name in dir(kind)}
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.Call):
            of, _, name = ast.unparse(node.func).rpartition(".")
            is_ours = of in ("", "digitq") and name in PUBLIC
            called = getattr(digitq, name) if is_ours else methods.get(name)
            given = {argument.arg for argument in node.keywords}
            assert called is None or given <= {*signature(called).parameters}, name


def test_every_public_name_is_explained() -> None:
    page = PAGES["docs/python.md"]
    assert {name for name in PUBLIC if not re.search(rf"\b{name}\b", page)} == set()


@pytest.mark.parametrize(
    "error", [name for name, value in vars(errors).items() if isinstance(value, type)]
)
def test_every_error_is_explained(error: str) -> None:
    assert f"| `{error}`" in PAGES["docs/python.md"]
