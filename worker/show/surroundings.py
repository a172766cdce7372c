"""Shows fields of a page within what is around them, or what the network sees of an image, for
`digitq report`."""

from collections.abc import Sequence
from typing import BinaryIO

import cv2
import numpy as np
import pyarrow as pa

from digitq.protocol.asked.form import Form
from digitq.protocol.asked.form_file import Box
from digitq.worker.picture import Grey
from digitq.worker.sight.decoding.any_file import read_picture
from digitq.worker.sight.decoding.pillow import prepare_libraries
from digitq.worker.sight.digits import see_digit
from digitq.worker.sight.forms.cutting import PAGE_SIDE, Cut, cut_cells
from digitq.worker.sight.forms.perspective import project, to_corners, warp
from digitq.worker.sight.limits import Watch
from digitq.worker.sight.normalisation.colours import to_grey

AROUND = 0.6  # a strip shows this much above and below the field, in heights of the field
MIN_RATIO = 2.2  # a strip is at least this many times as wide as high
SHOWN = pa.struct([("picture", pa.binary()), ("box", pa.list_(pa.float32()))])
# `picture`, a PGM, and the field's `box` in px of it, if it is one of a field
Strip = dict[str, bytes | Box | None]


def show_strip(page: Grey, cut: Cut) -> Strip:
    """The field with the page around it, upright."""
    height, width = cut.picture.shape
    left, top, right, bottom = cut.box
    above = AROUND * (bottom - top)
    high = round(height + 2 * above)
    wide = round(max(width + 2 * above, MIN_RATIO * high))
    beside = (wide - width) / 2
    # A homography of four corners is not exact far away from them: an affine map is
    corners = to_corners((0, 0, width, height))
    known = np.column_stack([corners + (beside, above), np.ones(4)])
    affine, *_ = np.linalg.lstsq(known, project(cut.to_page, corners))
    strip = warp(page, np.vstack([affine.T, (0, 0, 1)]), (wide, high))
    box = left + beside, top + above, right + beside, bottom + above
    return make_strip(strip, box)


def make_strip(picture: Grey, box: Box | None = None) -> Strip:
    # It is not compressed: a PNG costs 0.2 ms more for each field
    return {"picture": cv2.imencode(".pgm", picture)[1].tobytes(), "box": box}


def show_cells(form: Form, content: bytes, ids: Sequence[str], watch: Watch) -> list[Strip | None]:
    """The strips of these cells of a page; `None` where a cell is not found."""
    watch.forget()
    try:
        with watch.running(), watch.on(0):
            page = to_grey(read_picture(content, PAGE_SIDE))
            found = dict(zip((cell.id for cell in form.cells), cut_cells(form, page), strict=True))
            cuts = [found.get(id) for id in ids]
            return [show_strip(page, cut) if isinstance(cut, Cut) else None for cut in cuts]
    except Exception:  # the rows have the error
        return [None] * len(ids)


def show_images(questions: BinaryIO, strips: BinaryIO) -> None:
    """Answer each `image` of an Arrow stream with a batch of `strip`: one for each of its `cells`
    if the stream's metadata has a form, else what the network sees.

    `digitq report` runs this as a process.
    """
    prepare_libraries()
    watch, schema = Watch(), pa.schema([("strip", SHOWN)])
    with pa.ipc.open_stream(questions) as reader, pa.ipc.new_stream(strips, schema) as writer:
        payload = (reader.schema.metadata or {}).get(b"form")
        form = Form.decode(payload) if payload else None
        for batch in reader:
            (one,) = batch.to_pylist()
            if form:
                shown = show_cells(form, one["image"], one["cells"], watch)
            else:
                digit = see_digit(one["image"], watch)
                shown = [None if digit is None else make_strip(digit)]
            writer.write_batch(pa.record_batch([pa.array(shown, SHOWN)], schema=schema))
            strips.flush()
