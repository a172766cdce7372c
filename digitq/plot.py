"""Draws how well digits or numbers are read: the confusion matrix and the reliability diagram."""

from pathlib import Path
from typing import Any

import numpy as np

from digitq.outfile import check_outfile, replacing
from digitq.reports.scores import Figures
from digitq.terminal import require
from protocol.chunk import CLASSES
from protocol.text import in_one_line

PLOT_SUFFIXES = (".png", ".svg", ".pdf")


def check_plot(path: Path, overwrite: bool) -> None:
    """Raises `UsageError` if nothing can be drawn into this file."""
    check_outfile(path, f"--plot {path}", PLOT_SUFFIXES, overwrite)
    require("plot")


def plot_scores(figures: Figures, title: str, path: Path) -> None:
    """Draw the matrix, if digits were read, beside the diagram. Raises `OutputError`."""
    from matplotlib.figure import Figure

    has_matrix = "confusion" in figures
    figure = Figure(figsize=(14 if has_matrix else 7, 6.4), layout="constrained")
    *matrix, diagram = figure.subplots(1, 1 + has_matrix, squeeze=False)[0]
    figure.suptitle(in_one_line(title), parse_math=False)
    if has_matrix:
        draw_confusion(matrix[0], np.array(figures["confusion"]))
    draw_shares(diagram, figures)
    draw_reliability(diagram, figures)
    diagram.set_aspect("equal")
    diagram.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3)
    kind = path.suffix[1:].lower()
    with replacing(path) as partial:
        figure.savefig(partial, dpi=120, format=kind)


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


def draw_reliability(axes: Any, figures: Figures, line: str = "grey", dots: str = "C0") -> None:
    """Accuracy by mean confidence, with 95 % intervals, in two colours."""
    points = figures["calibration"]
    shares = [point["accuracy"] for point in points]
    axes.plot([0, 1], [0, 1], "--", color=line, label="perfect calibration")
    axes.errorbar(
        [point["confidence"] for point in points],
        [share["share"] for share in shares],
        [
            [share["share"] - share["interval"][0] for share in shares],
            [share["interval"][1] - share["share"] for share in shares],
        ],
        fmt="o",
        color=dots,
        capsize=3,
        label="answers, 95 % interval",
    )
    axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xlabel="mean confidence", ylabel="right answers")


def draw_shares(axes: Any, figures: Figures) -> None:
    """Bars of how many answers have which confidence."""
    points = figures["calibration"]
    answers = [point["accuracy"]["of"] / max(1, figures["accuracy"]["of"]) for point in points]
    confidences = [point["confidence"] for point in points]
    axes.bar(confidences, answers, 0.03, color="lightgrey", label="share of the answers")
