"""From results of samples to figures, and both into files and onto the screen."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssp_sam.evaluation.journal import Record
from ssp_sam.evaluation.metrics import summarize
from ssp_sam.evaluation.release import summarize_as_release

METRICS = ("field", "release", "both")
"""Whose definitions of the figures: the field's, those of the authors' release, or both."""

Figures = Mapping[str, float | int | None]
"""Figures by the names of `Metrics.to_json`."""

_CSV_COLUMNS = (
    "id",
    "phrase",
    "kind",
    "iou",
    "intersection_px",
    "union_px",
    "truth_px",
    "predicted_px",
    "score",
    "no_target",
    "release_intersection_px512",
    "release_truth_px512",
    "release_predicted_px512",
    "refused",
)


def figures(records: Sequence[Record], metrics: str, *, strict_precision: bool) -> dict[str, Figures]:
    """Return the figures of each definition that `metrics`, one of `METRICS`, asks for.

    strict_precision: the field's Pr@t asks for an IoU above t, not of at least t.
    """
    result: dict[str, Figures] = {}
    if metrics != "release":
        result["field"] = summarize((record.overlap for record in records), strict=strict_precision).to_json()
    if metrics != "field":
        result["release"] = summarize_as_release(
            record.release_overlap for record in records if record.release_overlap is not None
        ).to_json()
    return result


def figures_by_kind(records: Sequence[Record], *, strict_precision: bool) -> dict[str, Figures]:
    """Return the field's figures of each kind of phrase, in the order of the kinds' names; {} where there are none."""
    kinds = sorted({record.kind for record in records if record.kind is not None})
    return {
        kind: summarize((r.overlap for r in records if r.kind == kind), strict=strict_precision).to_json()
        for kind in kinds
    }


def table(rows: Mapping[str, Figures], names: Sequence[str]) -> str:
    """Return lines of text: a row of figures in per cent for each entry, under a line of headings."""
    heads = ("", "phrases", *names)
    cells = [
        heads,
        *((title, str(row["samples"]), *(percent(row[name]) for name in names)) for title, row in rows.items()),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in cells
    )


def percent(figure: float | None) -> str:
    """Return a figure of 0..1 as per cent with two decimals, "-" where it does not exist."""
    return "-" if figure is None else f"{100 * figure:.2f}"


def write_csv(path: Path, records: Iterable[Record]) -> None:
    """Write one row a sample."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, _CSV_COLUMNS)
        writer.writeheader()
        writer.writerows(map(_row, records))


def _row(record: Record) -> dict[str, Any]:
    overlap, in_square = record.overlap, record.release_overlap
    row = {
        "id": record.id,
        "phrase": record.phrase,
        "kind": record.kind,
        "iou": f"{overlap.iou:.6f}",
        "intersection_px": overlap.shared_px,
        "union_px": overlap.union_px,
        "truth_px": overlap.truth_px,
        "predicted_px": overlap.predicted_px,
        "score": record.score,
        "no_target": int(record.no_target),
        "refused": record.refused,
    }
    if in_square is not None:
        row |= {
            "release_intersection_px512": in_square.shared_px,
            "release_truth_px512": in_square.truth_px,
            "release_predicted_px512": in_square.predicted_px,
        }
    return row
