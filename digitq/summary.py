"""The result file of a command, and what a person reads about a run or a job."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from digitq.protocol.errors import (
    BrokerError,
    DigitqError,
    OutputError,
    UnknownJobError,
    UsageError,
)
from digitq.protocol.settings import What
from digitq.protocol.text import in_one_line, plural
from digitq.terminal import echo_err

if TYPE_CHECKING:
    from digitq.producer.counts import Counts
    from digitq.producer.sinks.sink import Sink
    from digitq.producer.sources.source import TruthGaps
    from digitq.protocol.records import JobRecord

FEW_IMAGES = 100  # if there are fewer, the seconds say more than images per second


def open_sink(out: str | None, run: dict[str, Any], overwrite: bool) -> "Sink":
    """The sink for `--out`; `run` identifies the run that an interrupted file belongs to."""
    from digitq.producer.sinks.encoders import encode_csv, encode_lines
    from digitq.producer.sinks.resumable import FileSink
    from digitq.producer.sinks.sink import StreamSink
    from digitq.producer.sinks.stored import StoreSink
    from digitq.protocol.formats.stores import is_stored

    if out is not None and is_stored(out):
        return StoreSink(out, run, overwrite)
    if out is not None and out != "-":
        return FileSink(Path(out), run, overwrite)
    if not sys.stdout:  # the shell has closed it, for `>&-`
        raise UsageError("stdout is closed: name a file with -o")
    for_people = out is None and sys.stdout.isatty()
    return StreamSink(sys.stdout.buffer, encode_lines if for_people else encode_csv)


@contextmanager
def report_interruption(
    sink: "Sink", overwrite: bool, collected: str | None = None
) -> Iterator[None]:
    """If the run in this context is interrupted, tell which rows are written and how to go on.

    `collected` is the id of the job that is collected, if the run has no job of its own. Redis knew
    it at the start, so `UnknownJobError` becomes `BrokerError`.
    """
    from digitq.producer.sinks.resumable import FileSink

    try:
        yield
    except BaseException as error:
        lost = collected and isinstance(error, UnknownJobError)
        failed = isinstance(error, DigitqError) and not isinstance(error, BrokerError | OutputError)
        rows = sink.counts.images if lost or not isinstance(error, UsageError) else 0
        if isinstance(sink, FileSink) and rows and sink.partial.exists():
            # An existing result is replaced only with --overwrite, which starts from the beginning
            can_continue = not (collected and failed or sink.exists())
            same = "the same command without --overwrite" if overwrite else "the same command"
            advice = f": {same} continues from there" if can_continue else ""
            echo_err(f"{plural(rows, 'row')} in {sink.partial}{advice}")
        elif collected and isinstance(error, KeyboardInterrupt):
            echo_err(f"job {collected} is unchanged: the same command collects it")
        if lost:
            raise BrokerError(f"Redis no longer has job {collected}") from None
        raise


def report_rows(
    sink: "Sink", skipped: str = "", has_speed: bool = True, what: str = "image"
) -> None:
    """Tell what is written and where, how fast it was, and whether workers were at odds."""
    from digitq.producer.provenance import all_fingerprints, all_weights
    from digitq.producer.sinks.resumable import FileSink

    speed = ""
    if has_speed:
        part = sink.parts[-1]
        speed = f", {part.seconds:,.1f} s"
        if part.images >= FEW_IMAGES:
            speed = f", {part.images_per_second:,.0f} {what}s/s"
    echo_err(f"{summarise(sink.counts, skipped, what)}{speed}")
    report_zeros(sink.counts.other_zeros)
    if isinstance(sink, FileSink):
        echo_err(f"the rows are in {sink.name}")
    if len(weights := all_weights(sink.parts)) > 1:
        echo_err(f"the rows are a mixture: {len(weights)} networks answered ({', '.join(weights)})")
    if mixture := describe_mixture(all_fingerprints(sink.parts)):
        echo_err(mixture)


def report_risk(
    sink: "Sink", risk: float | None, like: str | os.PathLike[str] | None, has_form: bool
) -> None:
    """Tell what is promised of the answers that are not marked, if anything is, and whether they
    are harder than those by which that was measured. With a form, ticks are no part of it."""
    from digitq.producer.provenance import all_thresholds, join_likeness
    from digitq.protocol.asked.sample import show_bound

    if risk is None:
        return
    what, others = ("numbers", "the other numbers") if has_form else ("answers", "the others")
    measured = f"the images of {like}" if like else "handwriting of other people"
    likeness = join_likeness(sink.parts)
    promise = f": at most {show_bound(risk)} of {others} are wrong, as measured on {measured}"
    for below in all_thresholds(sink.parts):
        is_promised = not likeness.is_harder
        echo_err(f"{what} below a confidence of {below:.2%} are marked{promise * is_promised}")
    if likeness.is_harder:
        share = likeness.unsure / likeness.compared
        echo_err(
            f"a risk of {show_bound(risk)} can't be promised: these images are harder than "
            f"{measured}, as {share:.0%} of the {what} are no surer than the least sure "
            f"{likeness.usual:.0%} there. Look at a random sample (`digitq report --sample 600`, "
            "`digitq correct`), and name it with --like"
        )


def report_zeros(count: int) -> None:
    """Tell if whole numbers differ from the right ones in leading zeros only."""
    if count:
        answers = plural(count, "answer")
        echo_err(
            f"only the leading zeros of {answers} are wrong: a spreadsheet may have removed some"
        )


def describe_mixture(fingerprints: Sequence[str], did: str = "answered") -> str:
    """Says that workers that may give different answers have answered; empty if none have."""
    if len(fingerprints) < 2:
        return ""
    kinds = f"workers of {len(fingerprints)} kinds {did} ({', '.join(fingerprints)})"
    return f"{kinds}: their versions, weights or processors differ; `digitq doctor` says which"


def summarise(counts: "Counts", skipped: str = "", what: str = "image") -> str:
    """One line of counts and the accuracy; `skipped` is the text of `SkippedFiles.describe`, and
    `what` a row is of."""
    parts = [plural(counts.images, what), *describe_flaws(counts)]
    if skipped:
        parts.append(f"{skipped} skipped")
    if counts.labelled:
        accuracy = counts.correct / counts.labelled
        parts.append(f"accuracy {accuracy:.2%} of {counts.labelled:,}")
    return ", ".join(parts)


def report_truth(
    counts: "Counts", read: What, truth: str | None, gaps: "TruthGaps | None" = None
) -> None:
    """Tell how many images have no right answer, and how many answers of a table no image.

    `truth` is the value of `--truth`; `gaps` are those of the source, if it was read here.
    """
    from digitq.producer.sources.source import TruthGaps
    from digitq.protocol.asked.values import is_written

    gaps = gaps or TruthGaps()
    if counts.unlabelled:
        where = "" if truth in (None, "parent") else f" in {truth}"
        example = f"such as `{gaps.invalid_label}`"
        why = f"; the label of {gaps.invalid:,} is no {read}, {example}" if gaps.invalid else ""
        if truth == "parent":
            why = f": their folders{f', {example},' * bool(gaps.invalid)} are not named by a {read}"
        if read == "digit" and gaps.invalid_label and is_written(gaps.invalid_label):
            why += "; with `--read number`, digitq reads whole numbers"
        echo_err(
            f"no right answer{where} for {counts.unlabelled:,} of {counts.images:,} images{why}"
        )
    if gaps.unused:
        unused = plural(len(gaps.unused), "right answer")
        example = in_one_line(next(iter(gaps.unused)))
        image = f"; an image without one is {in_one_line(gaps.missing_id)}" if gaps.missing else ""
        echo_err(f"no image for {unused} in {truth}, such as {example}{image}")


def describe_flaws(counted: "Counts | JobRecord") -> list[str]:
    """How many images failed, and how many a person should look at, without those that are 0."""
    flaws = [f"{counted.failed:,} with an error"] if counted.failed else []
    if counted.review:
        flaws.append(f"{counted.review:,} {'more ' * bool(flaws)}to review")
    return flaws
