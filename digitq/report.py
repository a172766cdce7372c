"""What a person reads at the end: summaries, job lines, and the confusion matrix."""

from collections.abc import Sequence

from producer.checkpoint import Checkpoint
from protocol.ledger import JobRecord
from protocol.text import in_one_line, plural


def summarise(checkpoint: Checkpoint, skipped: str = "") -> str:
    """One line: how many images, how many failed, how many a person should look at, what else was
    `skipped` (as `SkippedFiles.describe` has it), and how many were right."""
    parts = [plural(checkpoint.rows, "image")]
    if checkpoint.failed:
        parts.append(f"{checkpoint.failed:,} with an error")
    if checkpoint.review:
        parts.append(f"{checkpoint.review:,} {'more ' * bool(checkpoint.failed)}to review")
    if skipped:
        parts.append(f"{skipped} skipped")
    if checkpoint.labelled:
        parts.append(
            f"accuracy {checkpoint.correct / checkpoint.labelled:.2%} of {checkpoint.labelled:,}"
        )
    return ", ".join(parts)


def describe_job(record: JobRecord) -> str:
    """Three lines on one job."""
    share = _share(record)
    more = f"({share})" if share else "that are in Redis so far"
    job = f"job {record.id}: {record.state}, model {record.model}, {record.source}"
    return (
        f"{in_one_line(job)}\n"
        f"  {record.done_images:,} of {plural(record.images, 'image')} {more}, "
        f"{record.failed:,} with an error, {record.done_chunks:,} of "
        f"{plural(record.chunks, 'chunk')}\n"
        f"  {record.seconds:,.1f} s since {record.created:%Y-%m-%d %H:%M:%S} UTC"
    )


def list_jobs(records: Sequence[JobRecord]) -> str:
    """A table, a line a job."""
    lines = [
        f"{'JOB':13}{'STATE':9}{'IMAGES':>12}{'DONE':>5}{'ERRORS':>8}  {'CREATED (UTC)':18}SOURCE"
    ]
    for record in records:
        line = (
            f"{record.id:13}{record.state:9}{record.images:12,}{_share(record):>5}"
            f"{record.failed:8,}  {record.created:%Y-%m-%d %H:%M}  {record.source}"
        )
        lines.append(in_one_line(line))
    return "\n".join(lines)


def _share(record: JobRecord) -> str:
    """How much of a job is done, where it is known how much that is."""
    if record.state in ("feeding", "abandoned"):
        return ""
    return f"{record.done_images / record.images if record.images else 0:.0%}"
