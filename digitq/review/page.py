"""The page of a result file: one HTML file that loads nothing."""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from itertools import groupby
from math import floor
from operator import attrgetter, itemgetter
from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, NamedTuple

import numpy as np

from digitq.producer.counts import Counts
from digitq.producer.found_images import FoundImage, find_images
from digitq.producer.provenance import all_fingerprints, all_weights
from digitq.producer.readers import DIFFER, MACHINE, READINGS, parse_readings
from digitq.producer.results import ResultFile
from digitq.producer.sinks.sink import replacing
from digitq.progress import show_progress
from digitq.protocol.asked.form import Form, name_place
from digitq.protocol.asked.known import Known
from digitq.protocol.asked.own_network import MIN_OWN_IMAGES
from digitq.protocol.asked.sample import show_bound
from digitq.protocol.asked.values import ILLEGIBLE, MAX_CHARACTERS
from digitq.protocol.chunk import CLASSES, CORRECTED
from digitq.protocol.text import in_one_line, plural
from digitq.review.agreement import count_readers
from digitq.review.corrections import CHECK_FAILED, checksum, suggest_training
from digitq.review.page_fields import Told, find_form, find_place, tell_rules
from digitq.review.people import OCCURS_TWICE, mark_repeated
from digitq.review.points import Tally
from digitq.review.scores import percent
from digitq.review.survey import CONFIDENCE_BINS, MAX_BESIDE, Group, Survey, choose_rows, read_lines
from digitq.review.template import fill_template
from digitq.review.thumbnails import SURE_SIDES, THUMBNAIL_SIDES, Eyes, Thumbnail, make_thumbnail
from digitq.review.wide import look_up, read_pages
from digitq.summary import summarise

MAX_LISTED = 10  # this many reasons, errors and problems are listed: the most frequent ones
MAX_PROBLEM_CHARACTERS = 300  # a longer reason why a picture is not shown is cut
MEANINGS: dict[str, str] = {  # what each reason to review means
    "no digit": "does not look like a digit",
    "pages": "the file has more pages; one was read",
    "empty": "nothing is written in the picture",
    "ink, but no digit": "something is written or drawn, such as a dash or a tick",
    "several lines": "there is another line or number",
    OCCURS_TWICE: "the person is on another page, too",
    DIFFER: "another reader has read something else",
    "two marks": "more than one option is marked, or one stroke goes through two boxes",
    "beside the box": "nothing is in a box, and ink beside or around one may be the mark",
    "erased?": "a mark is faint, or there are remains of one",
    "half filled": "only a part of a bubble is filled",
    "crossed out?": "a filled bubble may be crossed out",
    "read otherwise before": "the network read it otherwise before it learned from this batch",
    "check failed": "the rules of the form do not hold for what is written",
    "other signs": "letters, something crossed out, a fraction, or a 1 that may be a slash",
    "not allowed": "no number that was allowed is plausible",
    "several digits": "another shape may be a digit, too",
    "too solid": "the ink is too solid for strokes",
    "unsure": "the confidence is lower than that of most right answers",
    "unsure at first": "other views of the image made the network sure, the first did not",
}


@dataclass
class PageImage:
    """One image of the page."""

    row: dict[str, Any]
    number: int  # the number of the row in the file, from 0
    groups: set[Group] = field(default_factory=set)  # why it is shown
    picture: Thumbnail | None = None
    seen: Thumbnail | None = None  # the 28×28 px that the network saw
    problem: str | None = None  # why there is no picture, or how it may be wrong
    rules: Sequence[Told] = ()  # those of the form that fail here
    known: Known = Known()
    keys: Literal["numeric", "decimal"] = "decimal"  # the keypad of a phone for its number
    drawn: int = 0  # its place in the sample, from 1; 0 if it is not in it

    def __post_init__(self) -> None:
        row, answer, truth = self.row, self.row.get("number"), self.row.get("truth")
        answer = row.get("label") if answer is None else answer
        self.id, self.page = str(row["id"]), row.get("page")
        self.place = find_place(row) if self.page else None
        self.cell = name_place(self.place) if self.place else ""
        self.name = in_one_line(self.cell or self.id)
        # The row of a table, such as `marks/4`
        self.line = f"{row['table']}/{row['row']}" if row.get("row") else ""
        self.answer, self.truth = (None if one is None else str(one) for one in (answer, truth))
        self.is_corrected = bool(row.get(CORRECTED.name))
        is_of_network = row.get("confidence") is not None and not self.is_corrected
        self.confidence = percent(row["confidence"]) if is_of_network else ""
        read = parse_readings(row.get(READINGS.name))
        # What others have read, by their names
        self.readings = {one: read[one] for one in read if one != MACHINE or self.is_corrected}
        self.reason = in_one_line(row.get("error") or row.get("reason") or "")

    @property
    def is_sure(self) -> bool:
        """Whether it is only shown among all answers."""
        return self.groups == {"answers"}

    @property
    def is_alone(self) -> bool:
        """Whether nothing but itself is to be looked at, also in the row of a table."""
        return self.groups <= {"answers", "sample"}

    @property
    def boxes(self) -> list[Sequence[float]]:
        """What is framed in the picture, in its px: the field, or else the digits."""
        if self.picture and self.picture.box:
            return [self.picture.box]
        sides = itemgetter("left", "top", "right", "bottom")
        return [sides(digit) for digit in self.row.get("digits") or ()]

    @property
    def zoom(self) -> float:
        """How much larger the picture is where others are beside it, and its surroundings hide."""
        if not (self.picture and self.picture.box):
            return 1
        left, top, right, bottom = self.picture.box
        width, height, around = right - left, bottom - top, (bottom - top) / 2
        return min(self.picture.width / (width + around), self.picture.height / (height + around))


class Tab(NamedTuple):
    """A group of images that the page can show."""

    group: Group
    title: str
    images: int  # how many the whole file has
    note: str


class Bar(NamedTuple):
    """One bar of a chart: what its images have in common, and how many they are."""

    label: str
    images: int
    length: float  # % of the chart's width
    review: int = 0  # how many of the images are to review
    review_length: float = 0


class ReviewPage(NamedTuple):
    """A page, and what it shows."""

    text: str
    images: Sequence[PageImage]
    lines: list[str]  # what is there, and notes


def write_page(
    results: ResultFile, sources: Sequence[str], out: Path, sample: int = 0
) -> list[str]:
    """Write the page as a file; gives lines about what is there. Raises as `make_page`, and
    `OutputError`."""
    page = make_page(results, sources, sample)
    with replacing(out) as partial:
        partial.write_text(page.text, encoding="utf-8")
    return page.lines


def make_page(
    results: ResultFile, sources: Sequence[str], sample: int = 0, saved_in: str = ""
) -> ReviewPage:
    """Make the page, with so many unmarked rows at random. A server saves its answers in the file
    of that name, or the page itself does.

    Raises `UsageError` if the rows can't be read, or one of `sources` can't.
    """
    form, tally, notes = look_up(results)
    survey = Survey(results.read, mark_repeated(results, form), sample, results.has_form)
    images = list_images(survey)
    if results.has_form:
        told = tell_broken_rules(images, results, form) if form else {}
        images, left_out = complete_lines(images, results, told)
        if left_out:
            notes.append(
                f"{plural(left_out, 'row')} of tables without the cells that need no review"
            )
        for image in images:
            image.rules = told.get(image.id, ())
    choose_keys(images, results)
    notes += add_pictures(images, results, sources, form)
    if results.reads_numbers and results.path.suffix.lower() == ".csv":
        notes.append(
            "boxes around digits and alternatives are missing: only .jsonl and .parquet have them"
        )
    refused = count_refused(images, results)
    text = render(results, survey, images, refused, notes, saved_in, tally)
    return ReviewPage(text, images, [summarise(survey.counts, what=results.row), *notes])


def make_blind_page(
    results: ResultFile, sources: Sequence[str], sample: int, has_all: bool
) -> ReviewPage:
    """Make the page of a person who sees no answer: of the rows to review, of all, or of so many at
    random. Rows and pages have numbers in place of their names. Raises as `make_page`."""
    form, notes = find_form(results.record) if results.has_form else (None, [])
    rows, count = choose_rows(mark_repeated(results, form), sample, has_all)
    images = [PageImage(row, number, {"review"}) for number, row in rows]
    choose_keys(images, results)
    notes += add_pictures(images, results, sources, form)
    pages = dict.fromkeys(image.page for image in images)
    numbers = {page: f"page {number}" for number, page in enumerate(pages, 1) if page}
    for number, image in enumerate(images, 1):
        image.page, image.id, image.seen = numbers.get(image.page), f"{number}", None
        image.name = image.name if image.page else image.id
        image.problem = None if image.picture else "it can't be shown"
    survey = Survey(results.read)
    survey.scores.counts = Counts(len(images), review=len(images))
    saved_in = f"{results.path.stem}.blind-INITIALS.csv"
    text = render(results, survey, images, {}, [], saved_in, None, "blind.html")
    what = f"{len(images):,} of {plural(count, results.row)} to read"
    return ReviewPage(text, images, [what, *notes])


def list_images(survey: Survey) -> list[PageImage]:
    """The images that are shown: first those to review, the least sure one first. The fields of a
    page are together, in the order of the file."""
    images: dict[int, PageImage] = {}
    for group, rows in survey.groups().items():
        for place, (number, row) in enumerate(rows, 1):
            image = images.setdefault(number, PageImage(row, number))
            image.groups |= {group, "review" if group == "failed" else "answers"}
            if group == "sample":
                image.drawn = place
            if None not in (image.truth, image.answer) and image.truth != image.answer:
                image.groups.add("wrong")
    return sort_pages(images.values())


def sort_pages(images: Iterable[PageImage]) -> list[PageImage]:
    """The fields of a page together, in the order of the file; other images as they are."""
    images = [*images]
    pages = dict.fromkeys(image.page for image in images)
    if [*pages] == [None]:
        return images
    places = {page: place for place, page in enumerate(pages)}
    return sorted(images, key=lambda image: (places[image.page], image.number))


def complete_lines(
    images: Sequence[PageImage], results: ResultFile, bound: Collection[str]
) -> tuple[list[PageImage], int]:
    """These fields, and beside those to look at the other cells of their tables' rows, and the
    fields that a broken rule binds; and for how many rows there is no room."""
    whole = {image.number: image for image in images}
    lines: dict[str, list[PageImage]] = {
        f"{image.page}/{image.line}": [] for image in images if image.line and not image.is_alone
    }
    for number, row in read_lines(results.places(), lines, bound):
        if number not in whole:
            cell = PageImage(row, number, {"answers"})
            lines.setdefault(f"{cell.page}/{cell.line}", []).append(cell)
    left_out = 0
    for cells in lines.values():
        if len(whole) + len(cells) <= len(images) + MAX_BESIDE:
            whole |= {cell.number: cell for cell in cells}
        else:
            left_out += 1
    return sort_pages(whole.values()), left_out


def tell_broken_rules(
    images: Sequence[PageImage], results: ResultFile, form: Form
) -> dict[str, list[Told]]:
    """What is told of broken rules, by the ids of all fields that they bind."""
    pages = {image.page for image in images if image.reason == CHECK_FAILED}
    told = dict[str, list[Told]]()
    for page in read_pages(results) if pages else ():
        if page[0]["page"] in pages:
            told |= tell_rules(form, page)
    return told


def count_refused(images: Sequence[PageImage], results: ResultFile) -> dict[str, int]:
    """How many fields the pages have all of whose fields have the same error, by their names."""
    failed = {image.page for image in images if image.page and image.row["error"]}
    errors: defaultdict[str, Counter[str | None]] = defaultdict(Counter)
    for batch in results.places() if failed else ():
        pages, found = (batch.column(name).to_pylist() for name in ("page", "error"))
        for page, error in zip(pages, found, strict=True):
            errors[page][error] += 1
    counts = ((page, [*errors[page].values()]) for page in sorted(filter(None, failed)))
    return {page: count[0] for page, count in counts if len(count) == 1 < count[0]}


def choose_keys(images: Sequence[PageImage], results: ResultFile) -> None:
    """Give the images what is known of them, and a keypad without signs where there are none."""
    of_all = results.known_of("")  # without a form
    for image in images:
        image.known = (results.known_of(image.row["id"]) if image.place else of_all) or Known()
        if not image.known.automaton.signs:
            image.keys = "numeric"


def add_pictures(
    images: Sequence[PageImage], results: ResultFile, sources: Sequence[str], form: Form | None
) -> Iterator[str]:
    """Give the images their pictures, and what the network saw; yields notes for the page.

    Raises `UsageError` if one of `sources` can't be read.
    """
    by_id: defaultdict[str, list[PageImage]] = defaultdict(list)  # by the id of an image or a page
    for image in images:
        by_id[image.page or image.id].append(image)
    problems: defaultdict[str, list[str]] = defaultdict(list)
    with closing(Eyes(form, len(by_id))) as eyes:
        all_found = (
            one._replace(content=results.again[one.id].picture) if one.id in results.again else one
            for one in find_images(results.record, sources, [*by_id])
        )
        choose = partial(list_cells, by_id, form, results.reads_numbers)
        for found, looks in show_progress(eyes.look_at(all_found, choose), len(by_id)):
            shown = by_id[found.id]
            strips = looks if form and looks else [None] * len(shown)
            (seen,) = looks if looks and not form else [None]
            picture = None if all(strips) else show_whole(found, shown)
            is_shown = picture or all(strips)
            if problem := found.problem or (None if is_shown else "can't be shown"):
                problem = shorten(in_one_line(problem), MAX_PROBLEM_CHARACTERS, placeholder=" …")
                # The error of a row already says that its file has no picture
                if found.problem or not all(image.row["error"] for image in shown):
                    problems[problem].append(found.id)
            for image, strip in zip(shown, strips, strict=True):
                image.picture, image.seen, image.problem = strip or picture, seen, problem
    commonest = sorted(problems.items(), key=lambda found: -len(found[1]))
    for problem, ids in commonest[:MAX_LISTED]:
        what = in_one_line(ids[0]) if len(ids) == 1 else plural(len(ids), "picture")
        yield f"{what}: {problem}"
    if not eyes.are_there and (form or not results.reads_numbers):
        what = "fields are not shown where they are" if form else "what a network saw is not shown"
        yield f"{what}, as the extra `worker` is not installed"


def list_cells(
    images: Mapping[str, Sequence[PageImage]],
    form: Form | None,
    reads_numbers: bool,
    of: FoundImage,
) -> list[str]:
    """What `Eye.show` is to show of an image that was found; nothing if its picture is enough."""
    if not of.content:
        return []
    shown = images[of.id]
    if form:
        return [image.cell for image in shown]
    # The network sees an array as it is, and a whole number not as 28×28 px
    is_enough = of.is_array or reads_numbers or all(image.is_sure for image in shown)
    return [] if is_enough else [""]


def show_whole(found: FoundImage, images: Sequence[PageImage]) -> Thumbnail | None:
    """All of an image as a small picture."""
    is_sure = all(image.is_sure for image in images)
    return make_thumbnail(found.content or b"", SURE_SIDES if is_sure else THUMBNAIL_SIDES)


def list_tabs(survey: Survey, images: Sequence[PageImage]) -> Iterator[Tab]:
    """The groups of images, each with a line that says which of them are on the page."""
    counts = survey.counts
    wrong = counts.labelled - counts.correct
    answered = counts.images - counts.failed
    some_wrong = "some of each kind" if survey.scores.read == "digit" else "a random sample"
    least_sure = "those to review, and the least sure others"
    has_pages = any(image.page for image in images)
    first = "The page with the least sure first." if has_pages else "The least sure first."
    shown = Counter(group for image in images for group in image.groups)
    drawn = (
        f"Drawn at random among the {survey.unmarked:,} that are not marked. Give each its answer, "
        "in this order: digitq correct then says how many of all of them may be wrong."
    )
    groups = [  # name, title, images in the file, which of them are shown, a note
        ("review", "To review", counts.to_review, "the least sure", first),
        ("sample", "Sample", shown["sample"], "", drawn),
        ("failed", "Failed", counts.failed, "the first", ""),
        ("wrong", "Wrong", wrong, some_wrong, "Their answer differs from the truth."),
        ("answers", "By answer", answered, least_sure, "A wrong one stands out. Tap on it."),
    ]
    for group, title, count, which, note in groups:
        if shown[group] < count:
            note = f"This page has {shown[group]:,} of {count:,}: {which}. {note}"
        if shown[group]:
            yield Tab(group, title, count, note)


def list_facts(results: ResultFile) -> list[tuple[str, str]]:
    """What made the rows, as far as it is on record."""
    record = results.record
    reads = "whole numbers" if results.reads_numbers else "single digits"
    if not record:
        return [("read", reads), ("record", "none beside this file")]
    of_numbers = " of the numbers that are not marked" * results.has_form
    facts = [
        ("model", reads if results.reads_numbers else record.model),
        ("weights", ", ".join(all_weights(record.parts))),
        ("adapted to", plural(record.adapted, results.row) if record.adapted else ""),
        ("images from", ", ".join(map(in_one_line, record.sources))),
        ("truth", in_one_line(record.truth or "")),
        ("pattern", record.pattern or ""),
        ("risk", f"{show_bound(record.risk)}{of_numbers}" if record.risk else ""),
        ("like", in_one_line(record.like or "")),
        ("second reader", "yes" if record.second_reader else ""),
        ("allowed", f"{record.allowed:,} numbers" if record.allowed else ""),
        ("took", f"{sum(part.seconds for part in record.parts):,.1f} s"),
        ("job", ", ".join(dict.fromkeys(part.job for part in record.parts))),
        ("workers' fingerprint", ", ".join(all_fingerprints(record.parts))),
        ("digitq", record.digitq),
    ]
    return [(name, value) for name, value in facts if value]


def render(
    results: ResultFile,
    survey: Survey,
    images: Sequence[PageImage],
    refused: Mapping[str, int],
    notes: Sequence[str],
    saved_in: str,
    tally: Tally | None,
    template: str = "page.html",
) -> str:
    """The text of the page. Text from files is escaped; only digitq's own text is markup."""
    figures = survey.scores.figures()
    wrong = np.array(figures.get("confusion", 0)) * ~np.eye(CLASSES, dtype=bool)
    record = results.record
    finished = record and datetime.fromisoformat(record.finished)
    return fill_template(
        template,
        name=in_one_line(results.path.name),
        checksum=checksum(results.path),
        readers=count_readers(results),
        training=suggest_training(results.record, "final.csv"),
        enough=MIN_OWN_IMAGES,
        results=results,
        illegible=ILLEGIBLE,
        nothing="nothing written" if results.reads_numbers else "no digit",
        max_characters=MAX_CHARACTERS,
        finished=f"{finished:%Y-%m-%d %H:%M} UTC" if finished else "",
        survey=survey,
        counts=survey.counts,
        figures=figures,
        percent=percent,
        plural=plural,
        reasons=survey.reasons.most_common(MAX_LISTED),
        meanings=MEANINGS,
        errors=[(in_one_line(text), n) for text, n in survey.errors.most_common(MAX_LISTED)],
        facts=list_facts(results),
        tabs=[*list_tabs(survey, images)],
        in_one_line=in_one_line,
        has_lines=any(image.line for image in images),
        has_questions=any(image.known.options for image in images),
        has_rules=any(image.rules for image in images),
        sheets=[
            (
                page and in_one_line(page),
                [(line, [*shown]) for line, shown in groupby(fields, attrgetter("line"))],
            )
            for page, fields in groupby(images, attrgetter("page"))
        ],
        refused=refused,
        notes=notes,
        saved_in=saved_in,
        answers=chart_answers(survey),
        confidences=chart_confidences(survey),
        tally=tally,
        points=chart_points(tally) if tally else (),
        worst=max(int(wrong.max()), 1),  # images in the largest wrong cell of the matrix
        shown=Counter((image.truth, image.answer) for image in images),
    )


def chart_answers(survey: Survey) -> list[Bar]:
    """How often each digit is the answer, or how many whole numbers have each length."""
    counts = survey.answers
    if not counts.any():
        return []
    is_number = survey.scores.read == "number"
    end = np.flatnonzero(counts)[-1] + 1 if is_number else CLASSES
    shown = range(int(is_number and not counts[0]), end)
    return [Bar(str(one), int(counts[one]), 100 * counts[one] / counts.max()) for one in shown]


def chart_points(tally: Tally) -> list[Bar]:
    """How many pages have how many whole points; those that are undecided are to review."""
    pages = Counter(map(floor, tally.decided + tally.open))
    undecided, scale = Counter(map(floor, tally.open)), 100 / max(pages.values(), default=1)
    bars = ((at, pages[at], undecided[at]) for at in sorted(pages))
    return [Bar(f"{at:,}", all, scale * all, some, scale * some) for at, all, some in bars]


def chart_confidences(survey: Survey) -> list[Bar]:
    """How many answers have which confidence, from the least sure on. Lengths are logarithmic:
    almost all answers are sure, and the few others matter."""
    counts, width = np.stack([survey.sure + survey.unsure, survey.unsure]), 100 // CONFIDENCE_BINS
    lengths = 100 * np.log1p(counts) / np.log1p(max(1, int(counts.max())))
    bars = zip(*counts.tolist(), *lengths.tolist(), strict=True)
    return [
        Bar(f"{part * width} to {(part + 1) * width}%", count, length, review, review_length)
        for part, (count, review, length, review_length) in enumerate(bars)
        if counts[0, : part + 1].any()
    ]
