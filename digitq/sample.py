"""The few rows of a job that a notebook shows, with thumbnails of their pictures."""

from html import escape
from typing import Any

import numpy as np
import pyarrow as pa

from digitq.reports.pictures import make_thumbnail
from producer.pictures import as_picture
from producer.sinks.encoders import LISTS
from protocol.chunk import Chunk, kind_of
from protocol.text import in_one_line

FEW_ROWS = 20  # no more rows are shown; if there are no more, all are
SAMPLE_FIRST, SAMPLE_UNSURE, SAMPLE_FAILED = (
    5,
    10,
    5,
)  # of more rows, so many of each kind are shown
MAX_KEPT_BYTES = 1 << 20  # of a larger image only the thumbnail is kept
COLUMNS = ("picture", "id", "answer", "confidence", "note")
Row = dict[str, Any]


class Sample:
    """Takes a job's chunks in order, and keeps the rows to show, with no more than 35 images."""

    def __init__(self) -> None:
        self.rows: list[Row] = []  # in the order of the source, each with its place and image
        self._total = 0

    def add(self, chunk: Chunk, results: pa.RecordBatch) -> None:
        """Look at the images and the results of one more chunk."""
        confidence = results.column("confidence").to_numpy(zero_copy_only=False)  # NaN: an error
        doubt = confidence + ~results.column("review").to_numpy(zero_copy_only=False)
        places = {
            *range(min(len(doubt), max(0, FEW_ROWS - chunk.first_row))),
            *np.argsort(doubt, kind="stable")[:SAMPLE_UNSURE].tolist(),  # NaN is last
            *np.flatnonzero(np.isnan(doubt))[:SAMPLE_FAILED].tolist(),
        }
        self._total += len(doubt)
        names = [name for name in results.schema.names if name not in LISTS]
        rows = results.select(names).take(pa.array(sorted(places), pa.int64())).to_pylist()
        kind = kind_of(chunk.batch)
        images = chunk.batch.column(kind)
        for place, row in zip(sorted(places), rows, strict=True):
            self.rows.append(row | {"place": chunk.first_row + place, "image": images[place]})
        kept = {row["place"]: row for rows in self.parts().values() for row in rows}
        self.rows = [kept[place] for place in sorted(kept)]
        for row in self.rows:
            if isinstance(row["image"], pa.Scalar):  # which would hold the whole chunk
                image = as_picture(row["id"], row["image"].as_py(), kind).content or b""
                row["image"] = image if len(image) <= MAX_KEPT_BYTES else make_thumbnail(image)

    def parts(self) -> dict[str, list[Row]]:
        """The rows to show, by what they are."""
        answered = [row for row in self.rows if row["error"] is None]
        answered.sort(key=lambda row: (not row["review"], row["confidence"]))
        return {
            "with an error": [row for row in self.rows if row["error"] is not None][:SAMPLE_FAILED],
            "least sure": answered[:SAMPLE_UNSURE],
            "first": [row for row in self.rows if row["place"] < FEW_ROWS],
        }

    def html(self) -> str:
        """A table with all rows if they are few; else one for each part."""
        parts = self.parts()
        if 0 < self._total <= FEW_ROWS:
            return tabulate(parts["first"], "all")
        parts["first"] = parts["first"][:SAMPLE_FIRST]
        return "".join(tabulate(rows, name) for name, rows in parts.items() if rows)


def tabulate(rows: list[Row], caption: str) -> str:
    """Rows as a table of HTML, whose texts can't become markup."""
    lines = [
        f"<table><caption>{caption}</caption>",
        f"<tr>{''.join(f'<th>{name}</th>' for name in COLUMNS)}</tr>",
    ]
    for row in rows:
        answer = row["number"] if "number" in row else row["label"]
        confidence = "" if row["confidence"] is None else f"{row['confidence']:.2%}"
        note = row["error"] or row["reason"] or ""
        if answer is not None and row.get("truth") not in (None, answer):
            note = f"not {row['truth']}"
        texts = row["id"], "" if answer is None else str(answer), confidence, note
        cells = "".join(
            f'<td style="text-align:left;overflow-wrap:anywhere">{escape(in_one_line(text))}</td>'
            for text in texts
        )
        lines.append(f"<tr><td>{show_image(row)}</td>{cells}</tr>")
    return "\n".join([*lines, "</table>"])


def show_image(row: Row) -> str:
    """The thumbnail of a row's image as HTML, or words if it has none."""
    image = row["image"]
    thumbnail = make_thumbnail(image) if isinstance(image, bytes) else image
    if not thumbnail:
        return "no picture"
    scaling = "pixelated" if thumbnail.is_tiny else "auto"
    alt = escape(f"the picture of {in_one_line(row['id'])}")
    style = f"height:4em;max-width:16em;object-fit:contain;image-rendering:{scaling}"
    return f'<img src="{thumbnail.uri}" alt="{alt}" style="{style}">'
