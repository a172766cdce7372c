"""The charts of a page, drawn by matplotlib as SVG whose colours are those of the page."""

import io
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from markupsafe import Markup

from digitq.plot import draw_reliability
from digitq.reports.scores import Figures, percent
from digitq.reports.survey import CONFIDENCE_BINS, Survey
from protocol.chunk import CLASSES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that matplotlib writes, and what the page has in their place, for light and dark
COLOURS = {
    "#010101": "var(--soft)",
    "#020202": "var(--line)",
    "#030303": "var(--bar)",
    "#040404": "var(--review)",
    "#050505": "var(--accent)",
}
INK, RULE, BAR, REVIEW, ACCENT = COLOURS
CHART_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text, in the font of the page
    "svg.hashsalt": "digitq",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
}
CHART_INCHES = (4.4, 2.9)


class Chart(NamedTuple):
    """A chart, and what it shows in words."""

    title: str
    svg: Markup
    text: str
    note: str


def draw_charts(survey: Survey, figures: Figures) -> list[Chart]:
    """The histograms, and with truths the reliability diagram."""
    import matplotlib

    with matplotlib.rc_context(CHART_STYLE):
        charts = []
        if survey.answers.any():
            reads_numbers = figures["read"] == "number"
            charts = [draw_answers(survey, reads_numbers)]
        if (survey.sure + survey.unsure).any():
            charts.append(draw_confidences(survey))
        if figures["calibration"]:
            charts.append(draw_calibration(figures))
    return charts


def begin(xlabel: str = "", ylabel: str = "") -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=CHART_INCHES, layout="constrained")
    figure.patch.set_visible(False)
    axes = figure.add_subplot(facecolor="none", xlabel=xlabel, ylabel=ylabel)
    axes.yaxis.set_major_formatter(show_count)
    return figure, axes


def show_count(value: float, _: float) -> str:
    """The label of a tick; none between whole numbers."""
    return f"{value:,.0f}" if value == round(value) else ""


def finish(figure: "Figure", name: str) -> Markup:
    """The figure as an SVG element, with ids that no other figure of the page has."""
    file = io.StringIO()
    figure.savefig(
        file, format="svg", metadata=dict.fromkeys(["Date", "Creator", "Format", "Type"])
    )
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\b(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = svg.replace("'DejaVu Sans'", "inherit").replace("sans-serif", "inherit")
    for written, shown in COLOURS.items():
        svg = svg.replace(written, shown)
    return Markup(svg)  # of numbers and fixed words only


def draw_answers(survey: Survey, reads_numbers: bool) -> Chart:
    counts = survey.answers if reads_numbers else survey.answers[:CLASSES]
    last = int(np.flatnonzero(counts).max()) if reads_numbers else CLASSES - 1
    places = range(1 if reads_numbers else 0, last + 1)
    heights = [int(counts[place]) for place in places]
    figure, axes = begin("digits of the number" if reads_numbers else "answer", "images")
    axes.bar(places, heights, color=BAR, width=0.75)
    axes.set_xticks([*places])
    what = "of {} digits" if reads_numbers else "read as {}"
    text = ", ".join(
        f"{count:,} {what.format(place)}" for place, count in zip(places, heights, strict=True)
    )
    return Chart("Answers", finish(figure, "answers"), f"Bar chart: {text}", "")


def draw_confidences(survey: Survey) -> Chart:
    figure, axes = begin("confidence", "images (logarithmic)")
    edges = np.arange(CONFIDENCE_BINS) / CONFIDENCE_BINS
    width = 1 / CONFIDENCE_BINS
    style: dict[str, Any] = {"width": width * 0.88, "align": "edge"}
    axes.bar(edges, survey.unsure + survey.sure, color=BAR, label="no review needed", **style)
    axes.bar(edges, survey.unsure, color=REVIEW, label="to review", **style)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(show_count)  # the scale has set its own
    axes.set_ylim(bottom=0.8)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.minorticks_off()
    if survey.unsure.any():
        axes.legend(loc="upper left", fontsize=9)
    text = ", ".join(
        f"{sure + unsure:,} from {edge:.0%} to {edge + width:.0%}"
        for edge, sure, unsure in zip(edges, survey.sure, survey.unsure, strict=True)
        if sure + unsure
    )
    return Chart("Confidences", finish(figure, "confidences"), f"Histogram: {text}", "")


def draw_calibration(figures: Figures) -> Chart:
    figure, axes = begin()
    draw_reliability(axes, figures, INK, ACCENT)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.0%}")
    text = ", ".join(
        f"{point['accuracy']['share']:.1%} right of {point['accuracy']['of']:,} "
        f"at {point['confidence']:.1%}"
        for point in figures["calibration"]
    )
    note = (
        "On the dashed line, confidence is the share of right answers. Vertical lines are 95% "
        f"intervals. The calibration error is {percent(figures['calibration_error'])}."
    )
    return Chart("Reliability", finish(figure, "reliability"), f"Reliability: {text}", note)
