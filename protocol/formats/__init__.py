"""Files that both sides open: TIFF, PDF, CSV, Excel, MNIST, and buckets."""


class UnreadableImageError(Exception):
    """Raised by `Entry.read` if there is no image; its text goes into the result row."""
