"""One page of HTML, whole in itself, that shows how good a model is on a data set and what its answers look like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib import resources
from string import Template

import numpy as np

from ssp_sam.evaluation import thumbnails
from ssp_sam.evaluation.datasets import Dataset
from ssp_sam.evaluation.journal import ImageResult, Record
from ssp_sam.evaluation.summary import Figures, percent
from ssp_sam.preprocess import read_image
from ssp_sam.results import decode_rle

Shown = tuple[int, Record]
"""The index of an image, and the result of one of its samples."""

SHOWN = 12
_BINS = 20
_DEFINITIONS = {
    "field": "<b>field</b>: masks at the image's own size; Pr@t over phrases with a target.",
    "release": "<b>release</b>: as the authors' evaluator works them out, in a padded square of 512 pixels, "
    "where a mask of less than 50 pixels counts as empty and Pr@t includes phrases without a target.",
}


@dataclass(frozen=True)
class Page:
    """What the page says above the pictures.

    title: of the data set; facts: (name, value) pairs of the run; figures: by definition; by_kind: by kind of phrase;
    names: of the figures to show.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    figures: Mapping[str, Figures]
    by_kind: Mapping[str, Figures]
    names: Sequence[str]


def render(page: Page, results: Sequence[ImageResult], dataset: Dataset) -> str:
    """Return the page, with the pictures of the best and the worst samples of `results`."""
    template = resources.files("ssp_sam.evaluation").joinpath("report.html").read_text(encoding="utf-8")
    records = [record for result in results for record in result.records]
    return Template(template).substitute(
        title=escape(page.title),
        facts="".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in page.facts),
        figures=_table(page.figures, page.names),
        definitions=" ".join(_DEFINITIONS[name] for name in page.figures),
        by_kind=f"<h2>By kind of phrase</h2>{_table(page.by_kind, page.names)}" if page.by_kind else "",
        histogram=_histogram(records),
        worst=_gallery("Worst answers", worst(results), dataset),
        false_alarms=_gallery("Answers where nothing is meant", false_alarms(results), dataset),
        best=_gallery("Best answers", best(results), dataset),
        truth_rgb=_css(thumbnails.TRUTH_RGB),
        predicted_rgb=_css(thumbnails.PREDICTED_RGB),
    )


def worst(results: Iterable[ImageResult]) -> list[Shown]:
    """Return the lowest IoUs of phrases with a target, the most confident first where they are equal."""
    return _one_an_image(sorted(_with_target(results), key=lambda shown: (shown[1].overlap.iou, -shown[1].score)))


def best(results: Iterable[ImageResult]) -> list[Shown]:
    """Return the highest IoUs of phrases with a target."""
    return _one_an_image(sorted(_with_target(results), key=lambda shown: (-shown[1].overlap.iou, -shown[1].score)))


def false_alarms(results: Iterable[ImageResult]) -> list[Shown]:
    """Return the most confident answers to phrases without a target."""
    alarms = (
        (result.index, record)
        for result in results
        for record in result.records
        if record.overlap.truth_px == 0 and record.overlap.predicted_px > 0
    )
    return _one_an_image(sorted(alarms, key=lambda shown: -shown[1].score))


def _with_target(results: Iterable[ImageResult]) -> Iterator[Shown]:
    return ((result.index, record) for result in results for record in result.records if record.overlap.truth_px > 0)


def _one_an_image(sorted_results: Iterable[Shown]) -> list[Shown]:
    """Return the first `SHOWN` of different images: one hard picture should not fill the page."""
    chosen: dict[int, Record] = {}
    for index, record in sorted_results:
        if len(chosen) < SHOWN:
            chosen.setdefault(index, record)
    return list(chosen.items())


def _gallery(title: str, chosen: Sequence[Shown], dataset: Dataset) -> str:
    if not chosen:
        return ""
    cards = "".join(_card(record, dataset, index) for index, record in chosen)
    return f'<h2>{title}<small>at most one an image</small></h2><div class="gallery">{cards}</div>'


def _card(record: Record, dataset: Dataset, index: int) -> str:
    entry = dataset[index]
    truth = next(sample.truth() for sample in entry.samples if sample.id == record.id)
    predicted = decode_rle(record.mask_rle.encode("ascii"), *truth.shape)
    picture = thumbnails.draw(read_image(entry.unturned()), truth, predicted)
    iou = record.overlap.iou
    return (
        f'<figure><img src="{thumbnails.as_data_url(picture)}" alt="" width="{picture.width}" '
        f'height="{picture.height}" loading="lazy">'
        f'<figcaption><p class="phrase">{escape(record.phrase)}</p><p class="notes">'
        f'<span class="iou" style="--iou:{iou:.3f}">IoU {iou:.2f}</span>'
        f"{''.join(f'<span>{escape(note)}</span>' for note in _notes(record))}</p></figcaption></figure>"
    )


def _notes(record: Record) -> Iterator[str]:
    if record.refused is not None:
        yield "phrase refused"
    elif record.no_target:
        yield "answer: no target"
    else:
        yield f"score {record.score:.2f}"
    if record.kind is not None:
        yield record.kind
    yield f"#{record.id}"


def _table(rows: Mapping[str, Figures], names: Sequence[str]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", "phrases", *names))
    body = "".join(
        f"<tr><th>{escape(title)}</th><td>{row['samples']}</td>"
        f"{''.join(f'<td>{percent(row[name])}</td>' for name in names)}</tr>"
        for title, row in rows.items()
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _histogram(records: Sequence[Record]) -> str:
    """Draw how many of the samples with a target have which IoU."""
    ious = [record.overlap.iou for record in records if record.overlap.truth_px > 0]
    counts = np.histogram(ious, bins=_BINS, range=(0, 1))[0]
    width, height, unit = 1150, 150, 1150 / _BINS
    bars = []
    for position, count in enumerate(counts):
        bar = height * count / max(1, counts.max())
        low = position / _BINS
        bars.append(
            f'<rect x="{position * unit + 1:g}" y="{height - bar:.1f}" width="{unit - 2:g}" height="{bar:.1f}" rx="3">'
            f"<title>{count} with an IoU of {low:.2f} to {low + 1 / _BINS:.2f}</title></rect>"
        )
    ticks = "".join(
        f'<text x="{width * tick:g}" y="{height + 18}" text-anchor="{anchor}">{tick:g}</text>'
        for tick, anchor in ((0, "start"), (0.25, "middle"), (0.5, "middle"), (0.75, "middle"), (1, "end"))
    )
    return (
        f'<svg viewBox="0 0 {width} {height + 24}" role="img" aria-label="histogram of IoU">'
        f'{"".join(bars)}<line x1="0" x2="{width}" y1="{height}" y2="{height}"/>{ticks}</svg>'
    )


def _css(rgb: tuple[int, int, int]) -> str:
    return "rgb({} {} {})".format(*rgb)
