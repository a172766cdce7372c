"""The answers that a person gave in a page, and the table with them."""

import hashlib
import os
import re
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from digitq.producer.counts import differ_in_zeros
from digitq.producer.provenance import Record, all_thresholds
from digitq.producer.read_again import again_path
from digitq.producer.readers import NOTHING_THERE
from digitq.producer.results import ResultFile, find_blind
from digitq.protocol.asked.form import Form
from digitq.protocol.asked.risk import Curve, measure_curve
from digitq.protocol.asked.sample import Sample, bound_count
from digitq.protocol.asked.values import ILLEGIBLE, NO_VALUES, tidy
from digitq.protocol.chunk import CORRECTED, answers, unmarked
from digitq.protocol.errors import UsageError
from digitq.protocol.formats.csv_rows import open_rows
from digitq.protocol.formats.csv_text import plain_text
from digitq.protocol.text import in_one_line, name_some, plural
from digitq.review.page_fields import find_broken_rules
from digitq.review.people import mark_repeated
from digitq.review.wide import read_pages

CHECKSUM_DIGITS = 16  # hexadecimal digits of a file's SHA-256
# Right answers by id, or one of NO_VALUES; None if there is no digit
Corrections = Mapping[str, str | None]
# The ids of fields that are marked because a rule failed, but whose rules hold now; and of fields
# with a rule that held before
Checked = tuple[Collection[str], Collection[str]]
CHECK_FAILED = "check failed"


def checksum(path: Path) -> str:
    """The first digits of the SHA-256 of a file. A browser keeps a page's corrections by it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:CHECKSUM_DIGITS]


def identify(results: ResultFile, corrections: Path) -> dict[str, str]:
    """What differs if `correct` writes other rows."""
    files = {"results": results.path, "corrections": corrections}
    files |= {"again": again_path(results.path)} if results.again else {}
    files |= {f"blind {name}": path for name, path in find_blind(results.path).items()}
    return {name: checksum(path) for name, path in files.items()}


class Given(NamedTuple):
    """What a page has saved."""

    answers: Corrections
    drawn: Mapping[str, int]  # by id: the place of a row in the page's random sample, from 1
    path: Path


def read_corrections(path: Path, results: ResultFile) -> Given:
    """The answers in a table with the columns `id` and `label`, or `id` and `number`, and perhaps
    `sample`.

    Raises `UsageError` if the file can't be read, or if it does not go with these results.
    """
    with open_rows(path) as lines:
        names = lines.fieldnames = [name.strip().lower() for name in lines.fieldnames or []]
        rows = [(lines.line_num, row) for row in lines]
    column = results.answer_column
    if "confidence" in names:
        raise UsageError(f"{path} has the answers of a network, not corrections")
    if not {"id", column} <= {*names}:
        raise UsageError(
            f"the first line of {path} must be id,{column}, as {results.path} has a {column!r}"
        )
    found: dict[str, str | None] = {}
    drawn: dict[str, int] = {}
    for number, row in rows:
        if row["id"] is None or row[column] is None:
            raise UsageError(f"line {number:,} of {path} has too few columns")
        id, answer = plain_text(row["id"]), tidy(plain_text(row[column]))
        if fault := results.find_fault(id, answer):
            raise UsageError(f"line {number:,} of {path} has {fault}")
        right = answer if results.reads_numbers else answer or None
        if found.setdefault(id, right) != right:
            raise UsageError(f"{path} has two answers for {in_one_line(id)}")
        if place := (row.get("sample") or "").strip():
            if not re.fullmatch("[1-9][0-9]{0,8}", place):
                raise UsageError(
                    f"line {number:,} of {path} has the sample {place!r}: it must be the row's "
                    "place in the draw, such as 17, or empty"
                )
            drawn[id] = int(place)
    return Given(found, drawn, path)


def count_learned(corrections: Corrections, form: Form | None) -> int:
    """From how many a network can learn: not from what has no value, is empty or ticked."""
    ids = [id for id, answer in corrections.items() if answer not in (None, "", *NO_VALUES)]
    return sum(form.are_numbers(ids)) if form else len(ids)


def suggest_training(record: Record | None, truth: str) -> str:
    """The command that learns from the right answers in this table, in the folder in which the
    SOURCEs on record were named; empty if the images are not on record."""
    if not record or not record.sources or "-" in record.sources or record.more_sources:
        return ""
    if record.model == "random":
        return ""
    words = [part for source in record.sources for part in ("--data", source)]
    if record.form:
        words += ["--form", os.path.relpath(record.form, record.folder)]
    if record.pattern:
        words += ["--pattern", record.pattern]
    words += ["--truth", os.path.relpath(truth, record.folder), "--out", "mine"]
    command = shlex.join(["digitq", "train", record.model, *words])
    is_here = record.folder in ("", os.getcwd())
    return command if is_here else f"cd {shlex.quote(record.folder)} && {command}"


class Looked(NamedTuple):
    """What a person who looked at a random sample found."""

    sample: Sample | None = None
    curve: Curve = ()  # what may be wrong above which confidence
    unused: int = 0  # answers of the sample that do not count


def list_drawn(results: ResultFile, given: Given) -> list[str]:
    """The ids of the first rows of the draw, up to one without an answer: who skips rows that are
    hard to read would find too few errors. Raises `UsageError` if pages or rows were read again
    after the draw: other rows are unmarked now."""
    later = [*find_blind(results.path).values(), *[again_path(results.path)] * bool(results.again)]
    if any(given.path.stat().st_mtime < path.stat().st_mtime for path in later):
        what = "pages were read again" if results.again else "others read the rows"
        raise UsageError(
            f"the sample in {given.path} was drawn before {what}: other rows are "
            "unmarked now, so draw it anew"
        )
    ids = {place: id for id, place in given.drawn.items()}
    return [ids[place] for place in takewhile(ids.__contains__, count(1))]


def measure_sample(results: ResultFile, given: Given, form: Form | None) -> Looked:
    """What the rows of the random sample say about all unmarked rows, as the page has marked them.
    The curve is of numbers, and not of ticks; there is none if the form can't be read.

    The rows of `list_drawn` count. An illegible row counts as wrong. There is no sample without a
    row that counts. Raises `UsageError` if a row can't be read, and as `list_drawn`.
    """
    drawn = list_drawn(results, given)
    rows = answered = corrected = 0
    found: dict[str, tuple[float, bool, bool]] = {}  # by id: confidence, is wrong, is a number
    for batch in mark_repeated(results, form):
        batch = batch.filter(unmarked(batch))
        rows += batch.num_rows
        old = answers(batch).cast(pa.string()).to_pylist()
        ids, confidences = (batch.column(name).to_pylist() for name in ("id", "confidence"))
        numbers = form.are_numbers(ids) if form else [not results.has_form] * len(ids)
        for id, confidence, answer, is_number in zip(ids, confidences, old, numbers, strict=True):
            if id in given.answers:
                wrong = answer != given.answers[id]
                answered, corrected = answered + 1, corrected + wrong
                found[id] = confidence or 0.0, wrong, is_number
    looked_at = [found[id] for id in drawn if id in found]
    if not looked_at:
        return Looked(unused=len(given.drawn))
    sure, is_wrong, weighed = map(np.array, zip(*looked_at, strict=True))
    wrong = int(is_wrong.sum())
    most = bound_count(wrong, len(looked_at), rows)
    sample = Sample(
        unmarked=rows,
        looked_at=len(looked_at),
        wrong=wrong,
        at_most=most / rows,
        left=rows - answered,
        left_at_most=min(rows - answered, max(0, most - corrected)),
    )
    parts = results.record.parts if results.record else ()
    lowest = max(all_thresholds(parts), default=float(sure.min()))
    curve = measure_curve(sure[weighed], is_wrong[weighed], lowest) if weighed.any() else ()
    return Looked(sample, curve, len(given.drawn) - len(looked_at))


def find_other_zeros(path: Path, corrections: Corrections, results: ResultFile) -> list[str]:
    """The ids of the corrections that differ from the row's answer in leading zeros only.

    Raises `UsageError` if the results lack an id of the corrections in `path`, or if it has none.
    """
    if not corrections:
        raise UsageError(f"{path} has no corrections")
    missing, zeros = dict.fromkeys(corrections), list[str]()
    for batch in results.batches():
        for id in batch.column("id").to_pylist():
            missing.pop(id, None)
        if results.reads_numbers:
            _, right = look_up(batch, corrections)
            zeros += batch.column("id").filter(differ_in_zeros(answers(batch), right)).to_pylist()
    if missing:
        raise UsageError(
            f"{path} is of other results: {results.path} does not have "
            f"{plural(len(missing), 'id')} of it ({name_some(missing)})"
        )
    return zeros


def check_again(results: ResultFile, corrections: Corrections, form: Form) -> Checked:
    """What the corrections change for the rules of the form. If a person can't read a field, its
    number stays what it was. Raises `UsageError` if a row can't be read."""
    settled, broken = set[str](), set[str]()
    for page in read_pages(results):
        if any(row["id"] in corrections for row in page):
            # An empty place that a rule wanted to be filled stays marked until a person has seen it
            settled |= {
                row["id"] for row in page if row["reason"] == CHECK_FAILED and row["number"]
            }
            before = [(one.rule, one.ids) for one in find_broken_rules(form, page)]
            for failed in find_broken_rules(form, page, select_written(page, corrections)):
                settled -= failed.ids
                broken |= failed.ids if (failed.rule, failed.ids) not in before else set()
    return settled, broken


def select_written(page: Sequence[Mapping[str, Any]], corrections: Corrections) -> dict[str, str]:
    """What is written in the rows of a page, as far as a person could read it."""
    answers = {row["id"]: corrections.get(row["id"], ILLEGIBLE) for row in page}
    return {id: one or "" for id, one in answers.items() if one not in NO_VALUES}


def look_up(batch: pa.RecordBatch, corrections: Corrections) -> tuple[pa.Array, pa.Array]:
    """Whether each row has a correction, and the right answer: null if there is no digit."""
    ids = batch.column("id").to_pylist()
    right = [corrections.get(id) for id in ids]
    return pa.array([id in corrections for id in ids], pa.bool_()), pa.array(right, pa.string())


def skip_rows(results: ResultFile, skipped: int) -> Iterator[pa.RecordBatch]:
    """All rows after the first `skipped`."""
    for batch in results.batches():
        if skipped < batch.num_rows:
            yield batch.slice(skipped)
        skipped = max(0, skipped - batch.num_rows)


def correct_batch(
    batch: pa.RecordBatch, corrections: Corrections, checked: Checked = ((), ())
) -> pa.RecordBatch:
    """The rows with a person's answers. The network's confidence and probabilities stay. What
    a person has not seen is marked if a rule is broken now."""
    is_corrected, right = look_up(batch, corrections)
    has_no_value = pc.is_in(right, pa.array(NO_VALUES))
    error = pc.if_else(has_no_value, right, pc.if_else(right.is_null(), NOTHING_THERE, None))
    right = pc.if_else(has_no_value, None, right)
    old = answers(batch)
    if CORRECTED.name not in batch.schema.names:
        batch = batch.append_column(CORRECTED, pa.nulls(batch.num_rows, pa.bool_()))
    corrected = pc.or_(batch.column(CORRECTED.name).fill_null(False), is_corrected)
    holds, fails = (pc.is_in(batch["id"], pa.array([*ids], pa.string())) for ids in checked)
    is_settled = pc.or_(is_corrected, holds)
    fails = pc.and_not(fails, corrected)
    reason = pc.if_else(is_settled, None, batch.column("reason"))
    changed = {
        "number" if "number" in batch.schema.names else "label": pc.if_else(
            is_corrected, right.cast(old.type), old
        ),
        "error": pc.if_else(is_corrected, error, batch.column("error")),
        "review": pc.or_(pc.and_not(batch.column("review"), is_settled), fails),
        "reason": pc.if_else(fails, CHECK_FAILED, reason),
        CORRECTED.name: corrected,
    }
    columns = [changed.get(field.name, batch.column(field.name)) for field in batch.schema]
    return pa.record_batch(columns, schema=batch.schema)
