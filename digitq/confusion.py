"""The confusion matrix: counted, as a table, and as a picture."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from producer.sinks.files import Sink
from protocol.chunk import CLASSES
from protocol.errors import OutputError

Confusion = NDArray[np.int64]  # (10, 10): a row for each true digit, a column for each answer


class ConfusionSink(Sink):
    """A sink that counts the confusion matrix and keeps no rows."""

    def __init__(self) -> None:
        self.confusion: Confusion = np.zeros((CLASSES, CLASSES), np.int64)
        self.error: str | None = None  # the first error in any row

    def write(self, batch: pa.RecordBatch) -> None:
        """Count the rows of a batch that have both a truth and an answer."""
        truth, label = (batch.column(name).fill_null(-1).to_numpy() for name in ("truth", "label"))
        labelled = (truth >= 0) & (label >= 0)
        np.add.at(self.confusion, (truth[labelled], label[labelled]), 1)
        errors = batch.column("error").drop_null()
        if self.error is None and len(errors):
            self.error = errors[0].as_py()
        self.checkpoint = self.checkpoint.add(batch)


def tabulate_confusion(confusion: Confusion) -> str:
    """The matrix with the recall and precision of each class, and the accuracy."""
    correct, labelled = confusion.diagonal(), int(confusion.sum())
    recall = correct / np.maximum(confusion.sum(axis=1), 1)
    precision = correct / np.maximum(confusion.sum(axis=0), 1)
    head = "".join(f"{digit:5}" for digit in range(CLASSES))
    lines = [f"{'answer':>11}", f"truth{head}   recall  precision"]
    for digit, counts in enumerate(confusion):
        row = "".join(f"{count:5}" for count in counts)
        lines.append(f"{digit:>5}{row}  {recall[digit]:7.2%}  {precision[digit]:9.2%}")
    lines.append(f"accuracy {correct.sum() / max(labelled, 1):.2%} of {labelled:,}")
    return "\n".join(lines)


def plot_confusion(confusion: Confusion, title: str, path: Path) -> None:
    """Draw the matrix into a picture file. Raises `OutputError`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6.4), layout="constrained")
    axes = figure.add_subplot()
    shares = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    errors = np.where(np.eye(CLASSES, dtype=bool), np.nan, shares)
    image = axes.imshow(errors, cmap="Reds", vmin=0)
    for truth, label in np.argwhere(confusion):
        dark = truth != label and errors[truth, label] > np.nanmax(errors) / 2
        weight, colour = "bold" if truth == label else "normal", "white" if dark else "black"
        count = f"{confusion[truth, label]:,}"
        axes.text(label, truth, count, ha="center", va="center", weight=weight, color=colour)
    axes.set(xticks=range(CLASSES), yticks=range(CLASSES), xlabel="answer", ylabel="truth")
    axes.set_title(title)
    figure.colorbar(image, label="% of the digit's images with this wrong answer", shrink=0.8)
    kind = path.suffix[1:].lower()
    path = Path(os.path.realpath(path))  # if it is a link, its target is replaced
    partial = path.with_name(path.name + ".partial")
    try:
        figure.savefig(partial, dpi=120, format=kind)
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise OutputError(f"can't write {path}: {error.strerror or error}") from None
