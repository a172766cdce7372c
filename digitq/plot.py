"""Draws how well digits or numbers are read: the confusion matrix and the reliability diagram."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from digitq.scores import Figures
from digitq.terminal import require
from protocol.chunk import CLASSES
from protocol.errors import OutputError, UsageError
from protocol.text import in_one_line

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def check_plot(path: Path, overwrite: bool) -> None:
    """Raises `UsageError` if nothing can be drawn into this file."""
    if not path.absolute().parent.is_dir():
        raise UsageError(f"can't write {path}: no such folder")
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(f"--plot {path} must end in {' or '.join(PLOT_SUFFIXES)}")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists: --overwrite replaces it")
    require("matplotlib", "plot")


def plot_scores(figures: Figures, title: str, path: Path) -> None:
    """Draw the matrix, if digits were read, beside the diagram. Raises `OutputError`."""
    from matplotlib.figure import Figure

    has_matrix = "confusion" in figures
    figure = Figure(figsize=(14 if has_matrix else 7, 6.4), layout="constrained")
    *matrix, diagram = figure.subplots(1, 1 + has_matrix, squeeze=False)[0]
    figure.suptitle(in_one_line(title), parse_math=False)
    if has_matrix:
        draw_confusion(matrix[0], np.array(figures["confusion"]))
    draw_reliability(diagram, figures)
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


def draw_confusion(axes: Any, confusion: np.ndarray) -> None:
    """The matrix, (10, 10), whose wrong answers are the redder the more there are of a digit."""
    shares = 100 * confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    errors = np.where(np.eye(CLASSES, dtype=bool), np.nan, shares)
    image = axes.imshow(errors, cmap="Reds", vmin=0)
    for truth, label in np.argwhere(confusion):
        dark = truth != label and errors[truth, label] > np.nanmax(errors) / 2
        weight, colour = "bold" if truth == label else "normal", "white" if dark else "black"
        count = f"{confusion[truth, label]:,}"
        axes.text(label, truth, count, ha="center", va="center", weight=weight, color=colour)
    axes.set(xticks=range(CLASSES), yticks=range(CLASSES), xlabel="answer", ylabel="truth")
    text = "% of the digit's images with this wrong answer"
    axes.figure.colorbar(image, ax=axes, label=text, shrink=0.8)


def draw_reliability(axes: Any, figures: Figures) -> None:
    """Accuracy by confidence, with 95 % intervals, above bars of how many answers there are."""
    points = figures["calibration"]
    confidences = [point["confidence"] for point in points]
    shares = [point["accuracy"] for point in points]
    accuracies = [share["share"] for share in shares]
    spreads = [
        [share["share"] - share["interval"][0] for share in shares],
        [share["interval"][1] - share["share"] for share in shares],
    ]
    answers = [share["of"] / max(1, figures["accuracy"]["of"]) for share in shares]
    axes.bar(confidences, answers, 0.03, color="lightgrey", label="share of the answers")
    axes.plot([0, 1], [0, 1], "--", color="grey", label="perfect calibration")
    axes.errorbar(
        confidences, accuracies, spreads, fmt="o", capsize=3, label="answers, 95 % interval"
    )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence", ylabel="accuracy", aspect="equal")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3)
