"""The confusion matrix: counted, as a table and as a picture."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from producer.checkpoint import Checkpoint
from protocol.chunk import CLASSES
from protocol.errors import OutputError, UsageError

Confusion = NDArray[np.int64]  # (10, 10): rows are the truth, columns the answers


class ConfusionSink:
    """A sink that keeps the confusion matrix and nothing else."""

    def __init__(self) -> None:
        self.checkpoint = Checkpoint()
        self.confusion: Confusion = np.zeros((CLASSES, CLASSES), np.int64)
        self.error: str | None = None  # the first

    def write(self, batch: pa.RecordBatch) -> None:
        """Count a batch's rows; those without truth or answer count nowhere."""
        truth, label = (batch.column(name).fill_null(-1).to_numpy() for name in ("truth", "label"))
        labelled = (truth >= 0) & (label >= 0)
        np.add.at(self.confusion, (truth[labelled], label[labelled]), 1)
        errors = batch.column("error").drop_null()
        if self.error is None and len(errors):
            self.error = errors[0].as_py()
        self.checkpoint = self.checkpoint.add(batch)

    def finish(self) -> None:
        """All rows are counted."""

    def close(self) -> None:
        """Nothing is open."""


def tabulate_confusion(confusion: Confusion) -> str:
    """Per-class recall and precision beside the matrix."""
    correct = confusion.diagonal()
    recall = correct / np.maximum(confusion.sum(axis=1), 1)
    precision = correct / np.maximum(confusion.sum(axis=0), 1)
    head = "".join(f"{digit:5}" for digit in range(CLASSES))
    lines = [f"{'answer':>11}", f"truth{head}   recall  precision"]
    for digit in range(CLASSES):
        counts = "".join(f"{count:5}" for count in confusion[digit])
        lines.append(f"{digit:>5}{counts}  {recall[digit]:7.2%}  {precision[digit]:9.2%}")
    labelled = int(confusion.sum())
    lines.append(f"accuracy {correct.sum() / max(labelled, 1):.2%} of {labelled:,}")
    return "\n".join(lines)


def plot_confusion(confusion: Confusion, title: str, path: Path) -> None:
    """The matrix as a picture. Raises `UsageError` where the format is none that matplotlib
    writes, `OutputError` where the file can't be written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 6.4), layout="constrained")
    axes = figure.add_subplot()
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    errors = np.where(np.eye(CLASSES, dtype=bool), np.nan, shares * 100)
    picture = axes.imshow(errors, cmap="Reds", vmin=0)
    for truth, label in np.ndindex(confusion.shape):
        if count := confusion[truth, label]:
            dark = truth != label and errors[truth, label] > np.nanmax(errors) / 2
            weight = "bold" if truth == label else "normal"
            axes.text(
                label,
                truth,
                f"{count:,}",
                ha="center",
                va="center",
                fontsize=9,
                color="white" if dark else "black",
                fontweight=weight,
            )
    axes.set(xticks=range(CLASSES), yticks=range(CLASSES), xlabel="answer", ylabel="truth")
    axes.set_title(title)
    figure.colorbar(picture, label="% of the digit's images taken for another", shrink=0.8)
    kind = path.suffix[1:].lower()
    path = Path(os.path.realpath(path))  # of a link, the file that it leads to, whatever its name
    partial = path.with_name(path.name + ".partial")
    try:
        figure.savefig(partial, dpi=120, format=kind)
        os.replace(partial, path)
    except ValueError as error:
        raise UsageError(f"can't write {path}: {error}") from None
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise OutputError(f"can't write {path}: {error.strerror or error}") from None
