"""README, `--help` and the settings say the same."""

import re
import shlex
from pathlib import Path

import click
import pytest

from digitq.cli import digitq
from protocol.settings import Settings

README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = [
    line[2:]
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ digitq")
] + re.findall(r"`(digitq [^`]+)`", README)


def settings_table() -> str:
    """The README's table of settings, from the settings themselves."""
    lines = ["| variable | default | what it is |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        lines.append(f"| `DIGITQ_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(lines)


def test_the_settings_table_is_the_settings() -> None:
    assert settings_table() in README


@pytest.mark.parametrize("name", sorted(digitq.commands))
def test_every_command_is_shown(name: str) -> None:
    assert any(shlex.split(command)[1] == name for command in COMMANDS)


@pytest.mark.parametrize("command", sorted(set(COMMANDS)))
def test_what_is_shown_exists(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    found = digitq.commands[name]
    known = {option for parameter in found.params for option in parameter.opts}
    takes_any = any(parameter.type is click.UNPROCESSED for parameter in found.params)
    for argument in arguments:
        if argument.startswith("--") and not takes_any:
            assert argument.partition("=")[0] in known, command


@pytest.mark.parametrize("option", [p for p in digitq.commands["classify"].params])
def test_every_option_of_classify_is_explained(option: click.Parameter) -> None:
    if isinstance(option, click.Option):
        assert f"| `{option.opts[0]}" in README


def test_every_make_target_exists() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)`", README)):
        assert f"\n{target}:" in makefile


def test_every_help_fits_a_line() -> None:
    for command in digitq.commands.values():
        assert command.help and not command.get_short_help_str(limit=60).endswith("...")
