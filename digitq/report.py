"""What a person reads about a run or a job."""

from collections.abc import Sequence

from producer.checkpoint import Checkpoint
from protocol.ledger import JobRecord
from protocol.text import in_one_line, plural

FEW_IMAGES = 100  # for fewer, the seconds say more than images per second


def summarise(checkpoint: Checkpoint, skipped: str = "") -> str:
    """One line of counts and the accuracy; `skipped` is the text of `SkippedFiles.describe`."""
    parts = [plural(checkpoint.rows, "image"), *describe_flaws(checkpoint)]
    if skipped:
        parts.append(f"{skipped} skipped")
    if checkpoint.labelled:
        parts.append(
            f"accuracy {checkpoint.correct / checkpoint.labelled:.2%} of {checkpoint.labelled:,}"
        )
    return ", ".join(parts)


def describe_flaws(checkpoint: Checkpoint) -> list[str]:
    """How many images failed, and how many a person should look at, without those that are 0."""
    flaws = [f"{checkpoint.failed:,} with an error"] if checkpoint.failed else []
    if checkpoint.review:
        flaws.append(f"{checkpoint.review:,} {'more ' * bool(flaws)}to review")
    return flaws


def describe_speed(images: int, seconds: float) -> str:
    """The speed of a run in words."""
    if images < FEW_IMAGES:
        return f"{seconds:,.1f} s"
    return f"{images / seconds:,.0f} images/s"


def describe_job(record: JobRecord) -> str:
    """Three lines about one job."""
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
    """A table with one line per job."""
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
    """The share of a job that is done; empty if its size is not known."""
    if record.state in ("feeding", "abandoned"):
        return ""
    return f"{record.done_images / record.images if record.images else 0:.0%}"
