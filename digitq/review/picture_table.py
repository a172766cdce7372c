"""A result file as an Excel file with a picture in each row."""

from base64 import b64decode
from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path

from digitq.producer.results import ResultFile
from digitq.producer.sinks.sink import replacing
from digitq.producer.sinks.workbook import write_workbook
from digitq.protocol.text import plural
from digitq.review.page import PageImage, add_pictures
from digitq.review.wide import look_up

MAX_PICTURES = 10_000  # Excel is slow with more pictures, and they are in memory until the end


def write_sheet(results: ResultFile, sources: Sequence[str], out: Path) -> list[str]:
    """Write the rows, the first `MAX_PICTURES` with pictures; gives lines about what is in it.

    Raises `UsageError` if the rows can't be read, or one of `sources` can't, and `OutputError`.
    """
    rows = chain.from_iterable(batch.to_pylist() for batch in results.places())
    numbered = enumerate(islice(rows, MAX_PICTURES))
    images = [PageImage(row, number, {"answers"}) for number, row in numbered]
    form, _, notes = look_up(results)
    notes += add_pictures(images, results, sources, form)
    shown = {
        image.number: b64decode(image.picture.uri.partition(",")[2])
        for image in images
        if image.picture
    }
    with replacing(out) as partial:
        count = write_workbook(results.batches(), str(partial), shown)
    return [f"{plural(count, results.row)}, {plural(len(shown), 'picture')}", *notes]
