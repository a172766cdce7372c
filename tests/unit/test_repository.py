"""What the hosted repository and its hooks read, and the notice about the data of the weights."""

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HOOKS = {
    hook["id"]: hook
    for repository in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    for hook in repository["hooks"]
}
CARDS = sorted((ROOT / "worker/models/weights").glob("*.json"))


def test_the_hooks_run_what_make_lint_runs() -> None:
    makefile = (ROOT / "Makefile").read_text()
    lint = makefile.split("\nlint: install\n")[1].split("\n\n")[0]
    commands = [line.strip().removesuffix(" .") for line in lint.splitlines()]
    hooks = [hook["entry"] for hook in HOOKS.values() if hook["language"] == "system"]
    assert [command.replace("$(BIN)", ".venv/bin") for command in commands] == hooks


@pytest.mark.parametrize(("length", "is_refused"), [(72, False), (73, True)])
def test_the_subject_of_a_commit_is_short(length: int, is_refused: bool) -> None:
    message = "x" * length + "\n\n" + "y" * 200 + "\n"
    assert bool(re.search(HOOKS["subject"]["entry"], message)) == is_refused


@pytest.mark.parametrize("path", CARDS, ids=[path.stem for path in CARDS])
def test_the_notice_names_the_data_that_the_weights_learned_from(path: Path) -> None:
    notice = (ROOT / "NOTICE").read_text()
    named = {name for line in re.findall(r"^\S.*$", notice, re.M) for name in line.split(", ")}
    for source in json.loads(path.read_text())["sources"]:
        kind = re.compile(r"^(digits|numbers) of | and drawn digits$")
        assert kind.sub("", source) in named
