"""`form new`, `sheet`, `edit` and `show`: make the file of a form, and see whether it fits."""

import json
from pathlib import Path

import click

from digitq import options
from digitq.commands.run import exec_module
from digitq.protocol.errors import UsageError
from digitq.protocol.host.folders import check_folder
from digitq.protocol.settings import INSPECT_SUFFIX
from digitq.protocol.text import in_one_line, plural
from digitq.terminal import echo_err, require

MAX_SHEET_DIGITS = 8  # of a number, beside the name


@click.group()
def form() -> None:
    """Make the file of a form, and see whether it fits."""


@form.command()
@click.argument("blank", type=click.Path())
@click.option("-o", "--out", type=click.Path(), required=True, help="form's file to write, a .toml")
@click.option(
    "--may-be-empty/--must-be-answered",
    default=None,
    help="whether a question may stay without a mark [you are asked; without a terminal, it may]",
)
@click.option("--overwrite", is_flag=True, help="replace OUT")
def new(blank: str, out: str, may_be_empty: bool | None, overwrite: bool) -> None:
    """Propose the fields and tables of an empty form.

    BLANK is a PNG, a JPEG or the first page of a PDF. An empty ruled box becomes a field, a row of
    boxes for one digit each too, and equal rows of wider boxes become a table.
    """
    if not out.endswith(".toml"):
        raise UsageError(f"{out} must end in .toml")
    options.check_new(Path(out), overwrite)
    require("worker")
    task = {"blank": blank, "out": out, "may_be_empty": may_be_empty}
    exec_module(None, "digitq.worker", "form", json.dumps(task))


@form.command()
@click.option("--questions", type=click.IntRange(min=1), required=True, help="how many questions")
@click.option("--options", "letters", default="A-E", show_default=True, help="letters to choose")
@click.option(
    "--number",
    "digits",
    type=click.IntRange(1, MAX_SHEET_DIGITS),
    default=5,
    show_default=True,
    help="digits of a person's number",
)
@click.option("--list", "listed", type=click.Path(path_type=Path), help="CSV with id and name")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="a .pdf to write")
@click.option("--overwrite", is_flag=True, help="replace OUT and what is beside it")
def sheet(
    questions: int, letters: str, digits: int, listed: Path | None, out: Path, overwrite: bool
) -> None:
    """Write answer sheets to print, and the form's file that reads them.

    With a list there is a page for each person, with the name and the number, else one empty sheet.
    Beside OUT are the form's file, a .toml, and the empty sheet that it needs, a .png.
    """
    from digitq.answer_sheets import AnswerSheet, read_options, write_sheets

    if out.suffix != ".pdf":
        raise UsageError(f"{out} must end in .pdf")
    for suffix in (".pdf", ".toml", ".png"):
        options.check_new(out.with_suffix(suffix), overwrite)
    sheet = AnswerSheet(questions, read_options(letters), digits)
    if incomplete := write_sheets(out, sheet, listed):
        echo_err(
            f"no font here has all letters of {plural(len(incomplete), 'name')}, such as "
            f"{in_one_line(incomplete[0])}: a box is printed for each that is missing"
        )
    click.echo(f"print {out}; {out.with_suffix('.toml')} reads it")


@form.command()
@click.argument("form", metavar="FORM.toml", type=click.Path())
@click.argument("page", required=False, type=click.Path())
@click.option(
    "-o",
    "--out",
    type=click.Path(dir_okay=False),
    help=f"picture to write, a .png [the name of PAGE or FORM with {INSPECT_SUFFIX}, here]",
)
def show(**task: str | None) -> None:
    """Draw the fields of a form on its blank, or where they are on PAGE.

    Exit status: 0, 1 if a field is not on the page, 2 for bad usage, 3 if the picture can't be
    written.
    """
    require("worker")
    exec_module(None, "digitq.worker", "form", json.dumps(task))


@form.command()
@click.argument("source", metavar="FORM.toml|BLANK", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path),
    help="form's file of BLANK, a .toml [the name of BLANK with .toml]",
)
@options.served
def edit(source: Path, out: Path | None, host: str, port: int | None) -> None:
    """Draw, name and change the fields of a form in a browser.

    BLANK is a PNG, a JPEG or the first page of a PDF. If it has no form's file yet, it begins with
    what `digitq form new` proposes. Each change is saved at once, and comments in the file stay.
    """
    require("review")
    from digitq.serving.editor import serve_editor

    if out and (source.suffix == ".toml" or out.suffix != ".toml"):
        raise UsageError("-o is for a BLANK, and ends in .toml: a FORM.toml is edited in place")
    require("worker")
    if out:
        check_folder(out)
    serve_editor(source, out, host, port)
