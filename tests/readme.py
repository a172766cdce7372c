"""The commands in README.md, and what it shows them to print."""

import re
from pathlib import Path

README = (Path(__file__).parents[1] / "README.md").read_text()
MASKS = (  # what differs from run to run, or from machine to machine
    (r"\b[0-9a-f]{12}\b", "JOB"),
    (r"\d+ workers?", "N workers"),
    (r"127\.0\.0\.1:\d+", "HOST"),
    (r"[\d,]+ images/s", "N images/s"),
    (r"\d+\.\d+", "N"),
    (r"█+", "█"),
    (r" +", " "),
)


def mask(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, replacement in MASKS:
        text = re.sub(pattern, replacement, text)
    return text.strip()


def list_blocks() -> list[list[tuple[str, str]]]:
    """The commands of each block in turn, with the output below each."""
    return [
        [
            (command, output)
            for part in block.removeprefix("$ ").split("\n$ ")
            for command, _, output in [part.partition("\n")]
        ]
        for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    ]


def shown_output(command: str) -> str:
    """What a command prints in README.md."""
    return dict(pair for block in list_blocks() for pair in block)[command]
