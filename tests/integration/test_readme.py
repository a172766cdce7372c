"""Every command of README.md, typed as it stands, prints what README.md shows."""

import os
import platform
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from digitq.private.processes import Local
from examples.draw import draw_all
from tests.drawing import likeness
from tests.readme import README, list_blocks, mask

ROOT = Path(__file__).parents[2]
# `make` and `up` are compared in test_commands.py, and tests/compose/run needs a Docker engine; the
# virtual environment is active in tests
TYPED_ELSEWHERE = ("make ", ". .venv/bin/activate", "digitq up", "deploy/", "docker ")
OF_MNIST = ("digitq classify mnist:", "python examples/tutorial.py")  # these need all of MNIST
END = "@@@\n"  # is printed after each command
Block = list[tuple[str, str]]
BLOCKS = [
    block
    for all_commands in list_blocks()
    if (block := [pair for pair in all_commands if not pair[0].startswith(TYPED_ELSEWHERE)])
]
BLOCKS_OF_MNIST = [block for block in BLOCKS if block[0][0].startswith(OF_MNIST)]
OTHER_BLOCKS = [block for block in BLOCKS if block not in BLOCKS_OF_MNIST]


def type_commands(commands: list[str], folder: Path, **variables: str) -> list[str]:
    """What each command prints in a shell: first its stdout, a terminal, and then its stderr."""
    mark = f"printf {END!r}; printf {END!r} >&2"
    script = "\n".join(f"{command}\n{mark}" for command in commands)
    terminal, stdout = pty.openpty()
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    process = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **variables, "PATH": programs, "NO_COLOR": "1"},
    )
    os.close(stdout)
    _, err = process.communicate(timeout=120)
    out = b""
    try:
        while block := os.read(terminal, 1 << 16):
            out += block
    except OSError:  # Linux raises it at the end
        pass
    os.close(terminal)
    outs = out.decode().replace("\r", "").split(END)
    return ["".join(pair) for pair in zip(outs[:-1], err.split(END)[:-1], strict=True)]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with the examples, as a clone has them."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path


@pytest.mark.parametrize("block", OTHER_BLOCKS, ids=[block[0][0] for block in OTHER_BLOCKS])
def test_commands_print_what_is_shown(block: Block, local: Local, clone: Path) -> None:
    commands = [command for command, _ in block]
    printed = type_commands(commands, clone, DIGITQ_BROKER_URL=local.url)
    assert [*map(mask, printed)] == [mask(output) for _, output in block]


@pytest.mark.parametrize("block", BLOCKS_OF_MNIST, ids=[block[0][0] for block in BLOCKS_OF_MNIST])
def test_commands_on_mnist_print_what_is_shown(
    block: Block, local: Local, clone: Path, mnist_root: Path
) -> None:
    test_commands_print_what_is_shown(block, local, clone)


def test_the_python_example_prints_what_is_shown(
    local: Local, clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = re.search(r"```python\n(.*?)```\n```\n(.*?)```", README, re.DOTALL)
    assert found and "redis://127.0.0.1:6379/0" in found[1]
    monkeypatch.chdir(clone)
    exec(found[1].replace("redis://127.0.0.1:6379/0", local.url), {})
    assert mask(capsys.readouterr().out) == mask(found[2])


def test_the_examples_are_those_that_the_script_draws(tmp_path: Path) -> None:
    """They have the same bytes, unless another Pillow or processor rounds or compresses them."""
    is_pinned = f"pillow=={PIL.__version__}" in (ROOT / "constraints.txt").read_text().split()
    has_equal_bytes = is_pinned and platform.machine() == "x86_64"
    draw_all(tmp_path)
    for folder in ("digits", "numbers", "forms", "forms/pages"):
        drawn, kept = (
            sorted(path for path in (root / folder).iterdir() if path.is_file())
            for root in (tmp_path, ROOT / "examples")
        )
        assert [path.name for path in drawn] == [path.name for path in kept]
        for new, old in zip(drawn, kept, strict=True):
            if has_equal_bytes or old.suffix in {".txt", ".toml"} or not old.stat().st_size:
                assert new.read_bytes() == old.read_bytes()
            else:
                pictures = [np.asarray(PIL.Image.open(path).convert("L")) for path in (new, old)]
                assert likeness(*pictures) > 0.99
