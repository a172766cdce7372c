"""`digitq inspect IMAGE...`: each step from an image to its answer, drawn."""

import io
import os
import sys
import textwrap
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count, zip_longest
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import PIL.PngImagePlugin
from numpy.typing import NDArray

from protocol.errors import OutputError, UsageError
from protocol.settings import INSPECT_SUFFIX, settings
from protocol.text import in_one_line
from worker.classify import TTA_BELOW, combine_views, watch
from worker.decoding.pillow import decode_image, to_picture
from worker.limits import limited_memory
from worker.models.model import Model, load_model
from worker.normalisation.steps import SCALES, Step, Views
from worker.pictures import Grey, ImageError, describe
from worker.reading import trace_digit, trace_other_views

PANEL = 168  # px: the side of one step's picture
SPACE, LINE = 16, 26
COLUMNS = 6
CHARACTERS = 17  # of the headline above a column
FONTS = "DejaVuSans.ttf", "Arial Unicode.ttf", "Arial.ttf"
NO_DIGIT = 0.2  # a top probability is about 0.1 where the network sees none
BAR = 40  # characters of a probability of 1 in the terminal
PAPER, INK, MARK = "#ffffff", "#202020", "#2b6cb0"
DRAWN_BY, DRAWN_FROM = ("Software", "digitq inspect"), "Source"  # texts in the PNG file
CLOSER = [*SCALES][1:]
NAMES = {"place": "seen"}  # of steps, where another says more
Panels = list[list[tuple[str, PIL.Image.Image]]]  # by look


@contextmanager
def within_limits() -> Iterator[None]:
    """What is done within has a worker's time and memory for an image."""
    with watch.running(), limited_memory(), watch.on(0):
        yield


def collect_panels(content: bytes, panels: Panels) -> Step:
    """Add the original and the image after each step; the digit that is seen at last.

    Raises `ImageError` where it ends early.
    """
    watch.forget()
    with within_limits():
        original = decode_image(content, PANEL)
    watch.forget()  # no worker draws it
    with warnings.catch_warnings(action="ignore"), PIL.Image.open(io.BytesIO(content)) as file:
        panels.append([(f"original, {file.width} x {file.height}", original)])
    with within_limits():
        for step in trace_digit(content):
            if step.name in CLOSER:
                panels.append([])
            height, width = step.image.shape
            name = NAMES.get(step.name, step.name.replace("_", " "))
            panel = f"{name}, {width} x {height}", PIL.Image.fromarray(step.image)
            panels[-1].append(panel)
    return step


def ask(
    content: bytes, digit: Step, model: Model, panels: Panels
) -> tuple[float, NDArray[np.float32]]:
    """How sure the network is at first, and the ten probabilities in the end, as for a worker.

    Other views that it was shown are added to the panels, and what it says of each.
    """
    first = model.classify(digit.image.reshape(1, -1))[0]
    views: Views = {}
    if first.max() < TTA_BELOW:
        with suppress(Exception), within_limits():  # a worker, too, does without these then
            *_, views = trace_other_views(content)
    if views:
        seen = {"at first": digit.image} | views
        said = model.classify(np.stack([*seen.values()]).reshape(len(seen), -1))
        panels.append(
            [
                (
                    f"{name.replace('_', ' ')}: {answer.argmax()}, {answer.max():.0%}",
                    PIL.Image.fromarray(view),
                )
                for (name, view), answer in zip(seen.items(), said, strict=True)
            ]
        )
    return float(first.max()), combine_views(model, first, views)


def draw_picture(
    panels: Panels, probabilities: NDArray[np.float32] | None, headline: str
) -> PIL.Image.Image:
    """The panels, each look in rows of its own, under them the ten probabilities as bars."""
    font, head = load_font(14), textwrap.fill(headline, COLUMNS * CHARACTERS)
    rows = [
        look[start : start + COLUMNS] for look in panels for start in range(0, len(look), COLUMNS)
    ]
    width = SPACE + COLUMNS * (PANEL + SPACE)
    below = (2 + head.count("\n")) * LINE
    top = below + len(rows) * (PANEL + LINE + SPACE)
    height = top + (0 if probabilities is None else 10 * LINE + SPACE)
    picture = PIL.Image.new("RGB", (width, height), PAPER)
    draw = PIL.ImageDraw.Draw(picture)
    draw.text((SPACE, LINE // 2), head, INK, load_font(18))
    for row, steps in enumerate(rows):
        y = below + row * (PANEL + LINE + SPACE)
        for column, (name, image) in enumerate(steps):
            x = SPACE + column * (PANEL + SPACE)
            draw.text((x, y), name, INK, font)
            fitted = fit(image)
            picture.paste(fitted, (x, y + LINE))
            frame = (x - 1, y + LINE - 1, x + fitted.width, y + LINE + fitted.height)
            draw.rectangle(frame, outline="#bbb")
    for digit, probability in enumerate([] if probabilities is None else probabilities):
        y = top + digit * LINE
        full = width - 160
        draw.text((SPACE, y), str(digit), INK, font)
        draw.rectangle((40, y, 40 + full * float(probability), y + LINE - 8), fill=MARK)
        draw.text((48 + full * float(probability), y), f"{probability:.2%}", INK, font)
    return picture


def load_font(size: int) -> PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont:
    """A font of the system with letters of many languages, or Pillow's own, which has few."""
    for name in FONTS:
        with suppress(OSError):
            return PIL.ImageFont.truetype(name, size)
    return PIL.ImageFont.load_default(size)


def fit(image: PIL.Image.Image) -> PIL.Image.Image:
    """As large as a panel has room for; transparent parts show a grey."""
    if image.mode.startswith(("I", "F")):
        image = PIL.Image.fromarray(to_picture(image))
    if image.has_transparency_data:
        background = PIL.Image.new("RGBA", image.size, "#cccccc")
        background.alpha_composite(image.convert("RGBA"))
        image = background
    factor = PANEL / max(image.size)
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    resampling = PIL.Image.Resampling.NEAREST if factor > 1 else PIL.Image.Resampling.BOX
    return image.convert("RGB").resize(size, resampling)


def draw_blocks(digit: Grey) -> list[str]:
    """28×28 grey values for a terminal: two rows of pixels to a line of half blocks."""
    levels = 232 + digit.astype(int) * 23 // 255  # of the 24 greys of a terminal
    return [
        "".join(f"\033[38;5;{a};48;5;{b}m▀" for a, b in zip(upper, lower, strict=True)) + "\033[0m"
        for upper, lower in zip(levels[::2], levels[1::2], strict=True)
    ]


def list_probabilities(probabilities: NDArray[np.float32], block: str = "█") -> list[str]:
    """Ten lines, a bar each."""
    return [
        f"{digit}  {probability:7.2%}  {block * round(float(probability) * BAR)}".rstrip()
        for digit, probability in enumerate(probabilities)
    ]


def check_out(out: Path) -> None:
    """Raises `UsageError` where the picture would replace anything but one drawn before."""
    if out.suffix.lower() != ".png":
        raise UsageError(f"--out {out} must end in .png")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"can't write {out}: no such folder")
    if out.exists() and drawn_from(out) is None:
        raise UsageError(f"{out} is there, and `inspect` has not made it: name another --out")


def choose_out(path: Path, source: str) -> Path:
    """The first of some names that is free, or has an earlier picture of the same image."""
    names = (
        f"{path.stem}{f'-{number}' if number > 1 else ''}{INSPECT_SUFFIX}" for number in count(1)
    )
    return next(out for out in map(Path, names) if not out.exists() or drawn_from(out) == source)


def drawn_from(path: Path) -> str | None:
    """Of which image a picture is that was drawn here; `None` where it is no such one."""
    key, value = DRAWN_BY
    with suppress(OSError, SyntaxError, ValueError), PIL.Image.open(path) as picture:
        if picture.info.get(key) == value:
            return str(picture.info.get(DRAWN_FROM))
    return None


def describe_review_reason(
    first: float, confidence: float, review_below: float, review_reason: str
) -> str:
    """What makes an answer one to be reviewed, given how sure the network was at first and is in
    the end, and the last step's doubt; nothing where it is none."""
    if confidence < NO_DIGIT:
        return ", to review: it looks like no digit"
    if review_reason:
        return f", to review: {review_reason}"
    if confidence < review_below:
        return f", to review: under {review_below:.2%}"
    return "" if first >= review_below else f", to review: only {first:.2%} sure at first"


def read(path: Path) -> bytes:
    """Raises `UsageError`."""
    limit = settings().image_bytes
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name its images")
    try:
        with open(path, "rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from None
    if len(content) > limit:
        raise UsageError(f"{path} is larger than {limit / 2**20:.0f} MB")
    return content


def shows_colours() -> bool:
    """Whether stdout is a terminal that has them, and whose user wants them."""
    plain = os.environ.get("TERM") == "dumb" or os.environ.get("NO_COLOR")
    return sys.stdout.isatty() and not plain


def inspect_image(path: Path, out: Path | None, name: str) -> int:
    """Draw and print; 1 where the image can't be read. Raises `UsageError`, `OutputError`."""
    if out:
        check_out(out)
    content = read(path)
    source = ascii(os.path.realpath(path))[1:-1]
    out = out or choose_out(path, source)
    title = in_one_line(path.name)
    panels: Panels = []
    probabilities, status = None, 0
    try:
        digit = collect_panels(content, panels)
    except MemoryError:
        headline, status = f"{title}: needs too much memory", 1
    except Exception as error:  # as for a worker: whatever an image does to a step is its error
        reason = describe(error)
        reason = reason if isinstance(error, ImageError) else f"can't be read: {reason}"
        headline, status = f"{title}: {reason}", 1
    else:
        model = load_model(name)
        first, probabilities = ask(content, digit, model, panels)
        confidence = float(probabilities.max())
        review_reason = describe_review_reason(
            first, confidence, model.card.review_below, digit.review_reason
        )
        headline = (
            f"{title}: {probabilities.argmax()}, {confidence:.2%} sure by {name}{review_reason}"
        )
    if panels:
        partial = out.with_name(out.name + ".partial")
        try:
            notes = PIL.PngImagePlugin.PngInfo()
            notes.add_text(*DRAWN_BY)
            notes.add_text(DRAWN_FROM, source)
            draw_picture(panels, probabilities, headline).save(partial, "PNG", pnginfo=notes)
            os.replace(partial, out)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise OutputError(f"can't write {out}: {error.strerror or error}") from None
    print(headline)
    if probabilities is not None:
        is_utf = sys.stdout.encoding.lower().startswith("utf")
        drawn = draw_blocks(digit.image) if is_utf and shows_colours() else []
        bars = list_probabilities(probabilities, "█" if is_utf else "#")
        for line in zip_longest(drawn, bars, fillvalue="") if drawn else zip(bars):
            print(*line, sep="  ")
    if panels:
        print(f"the steps are in {in_one_line(str(out))}", file=sys.stderr)
    return status
