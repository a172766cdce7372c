"""The progress bar of a command, or of a cell of a notebook."""

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

NARROW_COLUMNS = 60  # a narrower terminal shows neither the speed nor the time that remains
NOTEBOOK_SECONDS = 0.2  # time between two pictures of a notebook's bar
PACED_RESULTS = 8  # the time between so many results says how long one takes
T = TypeVar("T")


class Pace:
    """How fast the results of chunks come. All chunks take workers about the same time, few large
    photos as thousands of small arrays: so results are counted, and not images."""

    def __init__(self) -> None:
        self._times = deque([time.monotonic()], PACED_RESULTS + 1)

    def end_of(self, left: int, rows: int) -> float:
        """When `left` images will be done, by `time.monotonic`; a result of `rows` came now."""
        self._times.append(time.monotonic())
        seconds = (self._times[-1] - self._times[0]) / (len(self._times) - 1)
        return self._times[-1] + seconds * left / max(1, rows)


def progress_bar(hidden: bool = False) -> Progress:
    """A bar on stderr that vanishes at the end, and is not shown if stderr is no terminal. In a
    notebook it is an output of the cell, and stays."""
    console = Console(stderr=True)
    columns: list[ProgressColumn] = [
        BarColumn(complete_style="cyan", finished_style="green"),
        TaskProgressColumn(),
        TextColumn("{task.fields[done]}", "progress.download"),
        TextColumn("{task.fields[rate]}"),
        _TimeLeft(table_column=Column(no_wrap=True)),
    ]
    bar = _NotebookProgress if console.is_jupyter else _NotedProgress
    return bar(
        *(columns[:3] if console.width < NARROW_COLUMNS else columns),
        console=console,
        disable=hidden or not (console.is_jupyter or sys.stderr.isatty()),
        transient=True,
    )


def show_progress(items: Iterable[T], total: int) -> Iterator[T]:
    """Yield the items unchanged, with a bar that shows how many of them are done."""
    with progress_bar() as progress:
        bar = progress.add_task("", total=total, done="", rate="", waiting="", flaws=[])
        for number, item in enumerate(items, start=1):
            yield item
            progress.update(bar, completed=number, done=f"{number:,}/{total:,}")


class _TimeLeft(TimeRemainingColumn):
    """The time until `ends`, if the bar has it."""

    def render(self, task: Task) -> Text:
        ends = task.fields.get("ends")
        if ends is None or task.total is None:
            return super().render(task)
        left = timedelta(seconds=round(max(0, ends - time.monotonic())))
        return Text(str(left), "progress.remaining")


class _NotedProgress(Progress):
    """A bar with a second line, where needed: what is waited for, and how many images failed."""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        for task in self.tasks:
            if notes := ", ".join(filter(None, [*task.fields["flaws"], task.fields["waiting"]])):
                yield Text(notes, "yellow", no_wrap=True, overflow="ellipsis")


class _NotebookProgress(_NotedProgress):
    """A progress bar below a cell of a notebook. The one of rich would need ipywidgets."""

    def start(self) -> None:
        from IPython.display import display

        self._output, self._shown = display(self, display_id=True), 0.0

    def update(self, *arguments: Any, **fields: Any) -> None:
        super().update(*arguments, **fields)
        if time.monotonic() > self._shown + NOTEBOOK_SECONDS:
            self.refresh()

    def refresh(self) -> None:
        self._output.update(self)
        self._shown = time.monotonic()

    def stop(self) -> None:
        self.refresh()
