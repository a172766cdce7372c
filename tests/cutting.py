"""Chunks of a source's items, as a job has them."""

from collections.abc import Callable, Iterable, Iterator

from digitq.producer.chunking import cut_chunks
from digitq.producer.counts import Counts
from digitq.producer.sources.contents import read_source
from digitq.producer.sources.source import Source, SourceItem, TruthGaps
from digitq.protocol.asked.form import Form
from digitq.protocol.asked.reading import Reading
from digitq.protocol.chunk import Chunk, Kind


def cut_items(
    items: Iterable[SourceItem],
    has_truth: bool | None = False,
    resume: Counts = Counts(),  # noqa: B008 (frozen)
    model: str = "",
    form: Form | None = None,
    ask_pace: Callable[[Kind], float] = lambda kind: 0.0,
    gaps: TruthGaps | None = None,
    truths: dict[str, str] | None = None,
) -> Iterator[Chunk]:
    source = Source("items", items, has_truth, gaps=gaps or TruthGaps(), truths=truths or {})
    reading = Reading("number", form.encode()) if form else Reading(model)
    batches = read_source(source, reading, resume.done, resume.ids)
    return cut_chunks(batches, reading.model, reading.cells, resume.done, ask_pace)
