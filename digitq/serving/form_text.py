"""The text of a form's file: its parts for an editor, and the same text with changed parts."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from digitq.protocol.asked.form_file import KINDS_OF_PART
from digitq.protocol.errors import UsageError

# A field, table, rule or such: `kind`, `name`, its `keys`, and as `was` its name in the file, or
# None if it is new. The name of a rule is its number, from 1.
Part = dict[str, Any]


@dataclass(eq=False)
class Section:
    """A header in the file, with the comments above it and the keys below it."""

    kind: str = ""  # "" if it is no part: what is before the first part, and after the last one
    name: str = ""
    above: str = ""
    header: str = ""
    keys: str = ""

    def update(self, part: Part) -> None:
        """Take the name and the keys of a part. What does not change stays as it is written."""
        name, keys = part["name"], part["keys"]
        if not self.header or (self.name != name and self.kind != "checks"):
            inner = f"{self.kind}.{tomlkit.key(name).as_string()}"
            after = "\n"
            if self.header:  # its comment stays
                end = tomlkit.parse(self.header)[self.kind][self.name].trivia
                after = end.comment_ws + end.comment + end.trail
            self.header = ("[[checks]]" if self.kind == "checks" else f"[{inner}]") + after
        document = tomlkit.parse(self.keys)
        for key in {*document} - {*keys}:
            del document[key]
        for key, value in keys.items():
            before = document.get(key)
            if isinstance(value, list) and isinstance(before, list) and len(before) == len(value):
                for at, (old, new) in enumerate(zip(before, value, strict=True)):
                    if old != new:
                        before[at] = new  # comments between the lines of a list stay
            elif before != value:
                if isinstance(value, list):  # of only tables, tomlkit would write `[[columns]]`
                    value = tomlkit.item(["", *value])
                    del value[0]
                document[key] = value
        self.keys = document.as_string()


def list_parts(text: str, path: Path) -> list[Part]:
    """The parts that the file says, in its order. Raises `UsageError` if one has no header."""
    if not is_toml(text):
        raise UsageError(f"{path} is not TOML any more: another program has changed it")
    parts: list[Part] = [
        {"kind": one.kind, "name": one.name, "was": one.name, "keys": tomllib.loads(one.keys)}
        for one in split_sections(text)
        if one.kind
    ]
    whole = tomllib.loads(text)
    for kind in KINDS_OF_PART:
        with_header = [one["keys"] for one in parts if one["kind"] == kind]
        said = whole.get(kind, {})
        if with_header != [*(said.values() if isinstance(said, dict) else said)]:
            header = "[[checks]]" if kind == "checks" else f"[{kind}.NAME]"
            raise UsageError(f"{path}: {kind}: to be edited, each needs a header, {header}")
    return parts


def join_parts(parts: list[Part]) -> dict[str, Any]:
    """What a file with these parts says of them."""
    content: dict[str, Any] = {}
    for part in parts:
        if part["kind"] == "checks":
            content.setdefault("checks", []).append(part["keys"])
        else:
            content.setdefault(part["kind"], {})[part["name"]] = part["keys"]
    return content


def change_parts(text: str, parts: list[Part]) -> str:
    """The text with these parts, where comments stay. Raises `UsageError` for a name used twice."""
    sections = split_sections(text)
    before = {(one.kind, one.name): one for one in sections if one.kind}
    names, last = set[tuple[str, str]](), sections[0]
    for part in parts:
        kind, name = part["kind"], part["name"]
        if (kind, name) in names:
            raise UsageError(f"{kind}.{name}: this name is used twice")
        names.add((kind, name))
        section = before.pop((kind, part["was"]), None)
        if not section:
            section = Section(kind, above="\n")
            sections.insert(sections.index(last) + 1, section)
        section.update(part)
        last = section
    for section in before.values():  # the comments right above a deleted part go with it
        at = sections.index(section)
        kept = re.match(r"(?:.*\n\r?\n)?", section.above, re.DOTALL)
        sections[at + 1].above = (kept[0] if kept else "") + sections[at + 1].above
        del sections[at]
    return "".join(one.above + one.header + one.keys for one in sections)


def split_sections(text: str) -> list[Section]:
    """The text in sections; comments at the end of one belong to the next one."""
    sections, checks = [Section()], 0
    for line in text.splitlines(keepends=True):
        path = read_header(line)
        if path and is_toml(sections[-1].keys):  # else the line is within a list or a text
            kind = path[0] if path[0] in KINDS_OF_PART and path[1:] else ""
            checks += path == ["checks", ""]
            name = str(checks) if kind == "checks" else path[-1]
            sections.append(Section(kind, name, cut_comments(sections[-1]), line))
        else:
            sections[-1].keys += line
    if not sections[-1].keys.endswith("\n"):
        sections[-1].keys += "\n"
    return [*sections, Section(above=cut_comments(sections[-1]))]


def cut_comments(section: Section) -> str:
    """Take the comments and the empty lines at the end of a section from it."""
    lines = section.keys.splitlines(keepends=True)
    has_key = [bool(line.strip()) and not line.lstrip().startswith("#") for line in lines]
    end = max((at + 1 for at, has in enumerate(has_key) if has), default=0)
    section.keys = "".join(lines[:end])
    return "".join(lines[end:])


def read_header(line: str) -> list[str]:
    """The names in a header, such as `[fields.total]`; after that of an array, an empty one."""
    if not (line.lstrip().startswith("[") and is_toml(line)):
        return []
    names, found = list[str](), tomllib.loads(line)
    while found:
        if isinstance(found, list):
            return [*names, ""]
        ((name, found),) = found.items()
        names.append(name)
    return names


def is_toml(text: str) -> bool:
    try:
        tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError):
        return False
    return True
