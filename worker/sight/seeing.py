"""What the network sees of images, without the network: `digitq report` runs this as a process."""

from typing import BinaryIO

import pyarrow as pa

from protocol.chunk import PIXELS, PIXELS_FIELD
from worker.service.limits import Watch
from worker.sight.decoding.pillow import prepare_libraries
from worker.sight.digits import trace_digit

SEEN = pa.schema([PIXELS_FIELD])


def see(content: bytes, watch: Watch) -> bytes | None:
    """The 28×28 pixels of an image file; `None` if it can't be read."""
    watch.forget()
    try:
        with watch.running(), watch.on(0):
            *_, digit = trace_digit(content)
    except Exception:  # its row has the error
        return None
    return digit.image.reshape(PIXELS).tobytes()


def see_images(images: BinaryIO, pixels: BinaryIO) -> None:
    """Answer each batch of an Arrow stream, a column `image` of files, with a batch of `pixels`."""
    prepare_libraries()
    watch = Watch()
    with pa.ipc.open_stream(images) as reader, pa.ipc.new_stream(pixels, SEEN) as writer:
        for batch in reader:
            seen = [see(content, watch) for content in batch.column("image").to_pylist()]
            writer.write_batch(pa.record_batch([pa.array(seen, PIXELS_FIELD.type)], schema=SEEN))
            pixels.flush()
