"""`digitq form edit`: a page on which a person draws the parts of a form, and names them."""

import asyncio
import io
import json
import os
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile, TemporaryDirectory
from threading import Lock
from typing import Any

from digitq.form_rows import read_form_file
from digitq.producer.sinks.sink import output_errors, replacing
from digitq.protocol.asked.form_file import (
    Folder,
    measure_blank,
    parse_form_file,
    telling,
    validate_form,
)
from digitq.protocol.asked.known import read_text
from digitq.protocol.errors import DigitqError, UsageError
from digitq.protocol.formats.drawer import render_page
from digitq.protocol.formats.pdf import PDF
from digitq.protocol.settings import settings
from digitq.protocol.text import in_one_line, plural
from digitq.review.template import fill_template
from digitq.serving.form_text import Part, change_parts, join_parts, list_parts
from digitq.serving.server import Guarded, ServedPage, bind, hold, serve
from digitq.terminal import echo_err

OWN_COMMANDS = [sys.executable, "-P", "-m", "digitq.worker"]  # those of the worker
WORKERS = ThreadPoolExecutor(4)  # asyncio would wait for its own threads at the end
Answer = dict[str, Any]


class Editor:
    """A form's file while a person edits it. Raises `UsageError` if it can't be edited."""

    def __init__(self, source: Path, out: Path | None) -> None:
        """Open a form's file, or begin that of a blank with what is ruled there."""
        is_blank = source.suffix.lower() != ".toml"
        self.path = (out or source.with_suffix(".toml")) if is_blank else source
        is_new = is_blank and not os.path.lexists(self.path)
        self.folder = Folder(self.path.parent, is_closed=True, given=source if is_blank else None)
        blank = source if is_new else self.find_blank()
        if is_blank and os.path.realpath(blank) != os.path.realpath(source):
            raise UsageError(f"{self.path} is a form of {blank}: name another file with -o")
        self.content, self.size = measure_blank(blank)
        self.earlier: list[str] = []  # the texts that undo brings back
        self.placed: list[Any] = []  # the keys of tables and choices whose cells are in `places`
        self.places: list[Any] = []
        self.misfit = ""  # how the form differs from the print on its blank
        self.lock = Lock()
        self.held: int | None = None
        if is_new:
            self.begin(blank)
        list_parts(self.read(), self.path)

    def begin(self, blank: Path) -> None:
        """Write what is ruled on a blank. Raises `UsageError`."""
        status, found, error = run_worker("ruled", str(blank))
        if status:
            raise UsageError(error.strip().removeprefix("digitq: "))
        parts: list[Part] = [
            {"kind": f"{kind}s", "name": name, "was": None, "keys": keys}
            for kind, name, keys in json.loads(found)
        ]
        name = os.path.relpath(os.path.realpath(blank), os.path.realpath(self.path.parent))
        head = f'blank = {json.dumps(name, ensure_ascii=False)}\nalign = "page"\n'
        try:
            self.write(change_parts(head, parts))
        except UnicodeEncodeError:
            raise UsageError(f"the name of {blank} is not in UTF-8: rename it") from None
        found = plural(len(parts), "part")
        echo_err(f"{self.path} has {found}, as {blank.name} shows: name or draw them")

    def find_blank(self) -> Path:
        """The blank that the file names. Raises `UsageError`."""
        blank = parse_form_file(self.path).blank
        if blank is None:
            raise UsageError(f"{self.path} has no blank: the editor shows the boxes on one")
        with telling(f"{self.path}: blank"):
            return self.folder.find(blank)

    def read(self) -> str:
        """What the file says. Raises `UsageError`."""
        return read_text(self.path)

    def write(self, text: str) -> None:
        with replacing(self.path) as written:
            written.write_bytes(text.encode())
        if self.held is not None:
            self.hold()  # it is another file now

    def hold(self) -> None:
        """Lock the file until the process ends. Raises `UsageError` if another editor has it."""
        before, self.held = self.held, hold(self.path)
        if before is not None:
            os.close(before)

    def check(self, text: str) -> str:
        """The mistake in a text of the file, with its key; "" if there is none.

        It is read in the folder of the file, as named: the blank and lists are found from there.
        """
        with output_errors(self.path), NamedTemporaryFile(dir=self.path.parent) as draft:
            draft.write(text.encode())
            draft.flush()
            try:
                read_form_file(draft.name, self.folder)
            except UsageError as error:
                return error.for_others.removeprefix(f"{draft.name}: ")
        return ""

    def show(self) -> Answer:
        """What the page shows of the file."""
        text = self.read()
        return self.describe(text, self.check(text))

    def describe(self, text: str, problem: str) -> Answer:
        """What the page shows of a text that the file has, and where its cells and bubbles are."""
        parts = list_parts(text, self.path)
        placed = [one["keys"] for one in parts if one["kind"] in ("tables", "choices")]
        if not problem and placed != self.placed:
            status, places, error = run_worker("ruled", str(self.path))
            self.placed, self.places = placed, [] if status else json.loads(places)
            self.misfit = error.strip().removeprefix("digitq: ") if status else ""
            for box, _, wrong in reversed(self.places):
                if wrong:
                    self.misfit = f"{name_of(parts, box)}: {wrong}"
        return {
            "version": text,
            "parts": parts,
            "problem": problem or self.misfit,
            "places": self.places,
            "size": self.size,
            "undo": len(self.earlier),
            "max_bytes": settings().image_bytes,
        }

    def change(self, version: str, parts: list[Part] | None) -> Answer:
        """Write the file with these parts, or as it was before the last change if there are none.

        If another program has changed the file since this version, undo brings back its text.
        """
        with self.lock:
            there = self.read()
            is_others = there != version
            if parts is not None:
                list_parts(there, self.path)  # raises if it is wrong
                validate_form(join_parts(parts))  # before what takes long for many parts
                text = change_parts(there, parts)
            else:
                text = self.earlier.pop() if self.earlier else there
            problem = self.check(text)
            if problem and parts is not None:
                return {"problem": problem}
            if text != there:
                self.write(text)
                if parts is not None or is_others:
                    self.earlier.append(there)
            return self.describe(text, problem) | {"others": is_others}

    def see(self, content: bytes) -> Answer:
        """What is read on a page, and where: a text, and the picture."""
        if problem := self.check(self.read()):
            return {"text": problem, "picture": ""}
        with TemporaryDirectory() as folder:
            page, out = Path(folder, "photo"), Path(folder, "fields.png")
            page.write_bytes(content)
            paths = {"form": str(self.path), "page": str(page), "out": str(out)}
            task = paths | {"answers": True}
            _, text, error = run_worker("form", json.dumps(task))
            picture = out.read_bytes() if out.exists() else b""
        return {"text": text or error, "picture": b64encode(picture).decode()}


class FormHandler(Guarded):
    """Answers the page in JSON, where `problem` is a mistake."""

    def initialize(self, editor: Editor) -> None:
        self.editor = editor

    async def answer(self, call: Callable[..., Answer], *arguments: Any, **named: Any) -> None:
        try:
            work = partial(call, *arguments, **named)
            self.finish(await asyncio.get_running_loop().run_in_executor(WORKERS, work))
        except DigitqError as error:
            self.finish({"problem": in_one_line(error.for_others)})

    async def get(self, what: str) -> None:
        await self.answer(self.editor.show)

    async def post(self, what: str) -> None:
        if what == "photo":
            await self.answer(self.editor.see, self.received)
        else:
            await self.answer(self.editor.change, **json.loads(self.received))


def serve_editor(source: Path, out: Path | None, host: str, port: int | None) -> None:
    """Serve the editor until it is ended. Raises `UsageError`."""
    what = f"the editor of {out or source}"
    bind(host, port, what).close()  # raises before a file is written
    editor = Editor(source, out)
    editor.hold()
    blank = encode_blank(editor.content)
    path = in_one_line(str(editor.path))
    page = fill_template("form.html", name=in_one_line(editor.path.name), path=path, blank=blank)
    routes = [
        ("/", ServedPage, {"read": lambda: page}),
        ("/(form|photo)", FormHandler, {"editor": editor}),
    ]
    serve(routes, host, port, what, lambda: None)


def name_of(parts: list[Part], box: list[float]) -> str:
    """The key of the questions in this box, or around whose bubbles it is."""
    for one in parts:
        boxes = one["keys"].get("boxes") or [one["keys"].get("box")]
        if one["kind"] == "choices" and all(boxes):
            if box in boxes:
                return f"choices.{one['name']}"
            sides = [*zip(*boxes, strict=True)]
            if [*map(min, sides[:2]), *map(max, sides[2:])] == box:
                return f"choices.{one['name']}"
    return "choices"


def run_worker(command: str, argument: str) -> tuple[int, str, str]:
    """The exit status, the output and the messages of one of the worker's own commands."""
    done = subprocess.run([*OWN_COMMANDS, command, argument], capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


def encode_blank(content: bytes) -> str:
    """The blank as a picture within the page. Raises `PageError`."""
    if content.startswith(PDF):
        file = io.BytesIO()
        render_page(content).save(file, "png")
        content = file.getvalue()
    kind = "jpeg" if content.startswith(b"\xff") else "png"
    return f"data:image/{kind};base64,{b64encode(content).decode()}"
