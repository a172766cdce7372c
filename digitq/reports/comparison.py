"""Two result files of the same images: which answers differ, and whether by more than chance."""

from collections.abc import Iterator
from math import exp, fsum, lgamma, log

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from digitq.reports.scores import SHARE_HEAD, Figures, describe_share, share
from protocol.errors import UsageError
from protocol.text import in_one_line, plural

PLACES = ("first", "second")  # of the two files
MAX_SHOWN_CHANGES = 20
MAX_CHANCE = 0.05  # what chance makes less often than this is said to be more than chance
MIN_SHOWN_CHANCE = 0.001  # a smaller probability is not written as a percentage


def compare(first: pa.Table, second: pa.Table) -> Figures:
    """How the answers in two tables of `id`, `answer` and `truth`, all text, differ.

    Accuracies are of the images that have a truth, and an answer in both. Raises `UsageError` if an
    id is in one table twice, or has different truths in the two.
    """
    for table, place in zip((first, second), PLACES, strict=True):
        if pc.count_distinct(table.column("id")).as_py() < len(table):
            raise UsageError(f"the {place} file has two rows with the same id")
    examples = [find_other_id(first, second), find_other_id(second, first)]
    numbered = first.append_column("place", pa.array(np.arange(len(first))))
    both = numbered.join(second, "id", join_type="inner", right_suffix="_2").sort_by("place")
    ids, answer, other, truth, other_truth = (
        both.column(name) for name in ("id", "answer", "answer_2", "truth", "truth_2")
    )
    if len(odd := ids.filter(pc.not_equal(truth, other_truth))):
        raise UsageError(f"the files have different right answers for {odd[0]}: use --truth")
    truth = pc.coalesce(truth, other_truth)
    changed = pc.not_equal(answer.fill_null(""), other.fill_null(""))  # "" is an error's row
    right, other_right = (pc.equal(truth, column) for column in (answer, other))
    is_judged = pc.and_(right.is_valid(), other_right.is_valid())
    right, other_right = right.filter(is_judged), other_right.filter(is_judged)
    only_right = [
        count(pc.and_not(right, other_right)),
        count(pc.and_not(other_right, right)),
    ]
    rows = pa.table([ids, truth, answer, other], names=["id", "truth", *PLACES])
    return {
        "images": len(both),
        "only_in": [len(table) - len(both) for table in (first, second)],
        "only_in_example": examples,
        "without_truth": truth.null_count,
        "accuracy": [share(count(column), len(column)) for column in (right, other_right)],
        "only_right_in": only_right,
        "p": mcnemar(*only_right) if len(right) else None,
        "changed": rows.filter(changed).to_pylist(),
    }


def find_other_id(table: pa.Table, other: pa.Table) -> str | None:
    """The first id that the other table lacks; None if it has all of them."""
    ids = table.column("id")
    place = pc.index(pc.is_in(ids, other.column("id")), False).as_py()
    return None if place < 0 else ids[place].as_py()


def count(column: pa.ChunkedArray) -> int:
    """How many are true."""
    return pc.sum(column).as_py() or 0


def mcnemar(first: int, second: int) -> float:
    """The p value of McNemar's exact test, from how many images only one of two got right.

    If both are equally good, each of these images is a toss of a coin: this is the probability of
    a split that is at least as uneven. https://en.wikipedia.org/wiki/McNemar%27s_test
    """
    tosses = first + second
    whole = lgamma(tosses + 1) - tosses * log(2)
    heads = range(min(first, second) + 1)
    return min(1.0, 2 * fsum(exp(whole - lgamma(n + 1) - lgamma(tosses - n + 1)) for n in heads))


def describe_comparison(figures: Figures, no_truth: str = "") -> Iterator[str]:
    """Lines that say what differs, how good both files are, and whether by more than chance.
    `no_truth` says why, if no image has a right answer."""
    first, second = map(in_one_line, figures["files"])
    yield f"{plural(figures['images'], 'image')} in both {first} (first) and {second} (second)"
    found = zip(PLACES, figures["only_in"], figures["only_in_example"], strict=True)
    for place, images, id in found:
        if images:
            example = in_one_line(id)
            yield f"{plural(images, 'image')} in the {place} file only, left out, such as {example}"
    yield f"{plural(len(figures['changed']), 'image')} with another answer in the second file"
    yield from tabulate_changes(figures["changed"])
    if figures["p"] is None:
        if not figures["images"]:
            no_truth = "no image is in both files"
        elif figures["without_truth"] < figures["images"]:
            no_truth = "no image with a right answer has an answer in both files"
        yield f"no accuracy: {no_truth}"
        return
    yield f"\n{SHARE_HEAD}"
    for place, accuracy in zip(PLACES, figures["accuracy"], strict=True):
        yield describe_share(f"accuracy, {place} file", accuracy)
    yield ""
    yield from describe_chance(figures["only_right_in"], figures["p"])


def tabulate_changes(changed: list[dict[str, str | None]]) -> Iterator[str]:
    """The first images with another answer, one on each line: truth, both answers, id."""
    if not changed:
        return
    columns = ("truth", *PLACES)
    shown = [[row[name] or "-" for name in columns] for row in changed[:MAX_SHOWN_CHANGES]]
    width = max(len(text) for texts in [columns, *shown] for text in texts)
    ids = ["id", *(in_one_line(str(row["id"])) for row in changed)]
    for texts, id in zip([columns, *shown], ids, strict=False):
        yield "  ".join([*(f"{text:>{width}}" for text in texts), id])
    if left := len(changed) - len(shown):
        yield f"and {left:,} more, which --json lists"


def describe_chance(only_right_in: list[int], p: float) -> Iterator[str]:
    """McNemar's test in words."""
    first, second = only_right_in
    yield f"right in the first file only: {first:,}, in the second only: {second:,}"
    if not first + second:
        return
    often = f"{p:.1%}" if p >= MIN_SHOWN_CHANCE else f"less than {MIN_SHOWN_CHANCE:.1%}"
    verdict = "the difference may be chance"
    if p < MAX_CHANCE:
        verdict = f"the {PLACES[second > first]} file is better, by more than chance"
    yield f"If both were equally good, chance would make so uneven a split in {often} of cases"
    yield f"(McNemar's exact test, p = {p:.2g}): {verdict}"
