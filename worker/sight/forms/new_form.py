"""Writes the file of a new form: what its blank shows, as far as a form may have it."""

import json
import os
import shlex
import sys
from collections import Counter
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory

from digitq.protocol.asked.form import Form, read_form
from digitq.protocol.errors import OutputError, UsageError
from digitq.protocol.text import in_one_line, plural
from digitq.worker.picture import ImageError
from digitq.worker.sight.decoding.any_file import read_picture
from digitq.worker.sight.decoding.scales import scale_to_file
from digitq.worker.sight.forms.bubbles import check_places, find_bubbles
from digitq.worker.sight.forms.cutting import MIN_BLANK_SIDE, cut_cells, scale_choice
from digitq.worker.sight.forms.proposal import Proposed, list_proposed
from digitq.worker.sight.normalisation.colours import to_grey

Parts = list[tuple[str, str, Proposed]]  # a `field`, `choice` or `table`, its name and its keys


def write_proposal(blank: Path, out: Path, may_be_empty: bool | None = None) -> None:
    """Write a form's file for a blank, and say what was found.

    If it is not given whether a question may stay empty, a person at a terminal is asked; without
    one, it may. Raises `UsageError`, `OutputError`.
    """
    name = os.path.relpath(os.path.realpath(blank), os.path.realpath(out.parent))
    parts = list_accepted(blank)
    if not parts:
        raise UsageError(
            f"no empty ruled boxes and no bubbles are found in {blank}: write its form by hand"
        )
    has_questions = any(kind == "choice" for kind, *_ in parts)
    if has_questions and may_be_empty is None:
        may_be_empty = ask_whether_empty()
    for kind, _, part in parts:
        if kind == "choice":
            part["optional"] = may_be_empty
    try:
        out.write_bytes(to_toml(name, parts).encode())
    except UnicodeEncodeError:
        raise UsageError(f"the name of {blank} is not in UTF-8: rename it") from None
    except OSError as error:
        raise OutputError(f"can't write {out}: {error.strerror or error}") from None
    counts = Counter(kind for kind, *_ in parts)
    kinds = [plural(counts[kind], kind) for kind in ("field", "choice", "table") if counts[kind]]
    found = f"{out} has {', '.join(kinds)}"
    command = f"digitq form edit {shlex.quote(str(out))}"
    what = "give them names, delete what is not to be read, and see them on a photo"
    print(in_one_line(f"{found}: with `{command}`, {what}"), file=sys.stderr)
    if has_questions:
        then = "is an answer" if may_be_empty else "is to be reviewed"
        print(f"a question without a mark {then}: `optional` says so", file=sys.stderr)


def to_toml(blank: str, parts: Parts) -> str:
    """The text of a form's file."""
    text = f'blank = {json.dumps(blank, ensure_ascii=False)}\nalign = "page"\n'
    for kind, name, part in parts:
        text += f"\n[{kind}s.{name}]\n"
        text += "".join(f"{key} = {json.dumps(value)}\n" for key, value in part.items())
    return text


def ask_whether_empty() -> bool:
    """What a person says at the terminal, if there is one."""
    if not sys.stdin.isatty():
        return True
    print("may a question stay without a mark? [Y/n] ", end="", file=sys.stderr, flush=True)
    return not sys.stdin.readline().strip().lower().startswith("n")


def list_accepted(blank: Path) -> Parts:
    """What is found on a blank and read from it; says what else is found there. Raises
    `UsageError`, also if the blank is not found on itself."""
    parts = drop_overlapping(list_proposed(blank))
    with TemporaryDirectory() as folder:
        draft = Path(folder, "form.toml")
        while parts:
            draft.write_text(to_toml(os.path.realpath(blank), parts), encoding="utf-8")
            faults = find_faults(draft)
            if not faults:
                break
            accepted = [part for part in parts if f"{part[0]}s.{part[1]}" not in faults]
            if len(accepted) == len(parts):  # it is the blank
                raise UsageError(f"{blank} can't be the blank of a form: {[*faults.values()][0]}")
            parts = accepted
            for key, reason in faults.items():
                say_left_out(key.partition(".")[2], reason)
    return parts


def find_faults(draft: Path) -> dict[str, str]:
    """Why a part of a new form, by its key, is refused, or is not where its blank has it."""
    try:
        form = read_form(draft)
    except UsageError as error:
        kind, name, reason = f"{error}..".removeprefix(f"{draft}: ").split(".", 2)
        return {f"{kind}.{name.partition(':')[0]}": reason.strip(". ") or str(error)}
    try:
        return find_misplaced(form)
    except ImageError as error:
        return {"": str(error)}


def find_misplaced(form: Form) -> dict[str, str]:
    """Which parts are not where the blank has them. Raises `ImageError` if it is not found."""
    content = form.blank or b""
    grey = to_grey(read_picture(content, MIN_BLANK_SIDE))
    scale, bubbles = scale_to_file(content, grey.shape), find_bubbles(grey)
    keys = [f"fields.{one.name}" for one in form.fields]
    faults = dict[str, str]()
    for choice in form.choices:
        key = "choices." + choice.names[0].removesuffix("1" * (len(choice.names) > 1))
        keys += repeat(key, len(choice.names))
        if wrong := check_places(scale_choice(choice, scale), bubbles)[1]:
            faults[key] = wrong
    if faults:
        return faults
    keys += [f"tables.{cell.table}" for cell in form.cells[len(keys) :]]
    for key, cut in zip(keys, cut_cells(form, grey), strict=True):
        if isinstance(cut, ImageError):
            faults[key] = str(cut)
    return faults


def say_left_out(name: str, reason: str) -> None:
    text = f"left out: {name}: {reason}; draw it with `digitq form edit`"
    print(in_one_line(text), file=sys.stderr)


def drop_overlapping(parts: Parts) -> Parts:
    """Those whose boxes overlap no choice before them; says which others there are.

    No form may have bubbles that are read in two places.
    """
    kept = Parts()
    for part in sorted(parts, key=lambda part: part[0] != "choice"):
        left, top, right, bottom = part[2]["box"]
        for name, other in ((name, one) for kind, name, one in kept if kind == "choice"):
            x, y, x_end, y_end = other["box"]
            if left < x_end and x < right and top < y_end and y < bottom:
                say_left_out(part[1], f"it overlaps {name}")
                break
        else:
            kept.append(part)
    return [part for part in parts if part in kept]
