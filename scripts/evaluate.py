"""Score a model on a benchmark of referring segmentation, in process or through a running server.

    python scripts/evaluate.py --dataset refcoco --split val --root DIR --server localhost:8001
    python scripts/evaluate.py --dataset scenes --split test --repository model_repository

Figures go to stdout. The folder --out gets metrics.json, samples.csv, report.html, and journal.jsonl, with which the
same command goes on where it was interrupted.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssp_sam.client.clients import grpc_target
from ssp_sam.client.exchange import Deadline
from ssp_sam.errors import InvalidArgumentError, SegmentationError
from ssp_sam.evaluation.datasets import BENCHMARKS, FORMATS, Dataset, DatasetError
from ssp_sam.evaluation.datasets.benchmarks import SCENE_FIGURES
from ssp_sam.evaluation.journal import ImageResult, Journal, JournalError
from ssp_sam.evaluation.report import Page, render
from ssp_sam.evaluation.run import run
from ssp_sam.evaluation.segmenters import DEFAULT_TIMEOUT_S, LocalSegmenter, Segmenter, ServedSegmenter
from ssp_sam.evaluation.summary import METRICS, figures, figures_by_kind, table, write_csv

if TYPE_CHECKING:
    from ssp_sam.training.config import DataConfig

SCENES = "scenes"
SCENE_SPLITS = ("val", "test", "calibration", "train")


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0 done, 1 failed or interrupted; argparse itself exits with 2."""
    options = _parse(argv)
    try:
        dataset = _open_dataset(options)
        image_count = min(len(dataset), options.limit or len(dataset))
        with closing(_open_segmenter(options)) as segmenter:
            journal = Journal(options.out / "journal.jsonl", _header(options, dataset, segmenter))
            run(dataset, segmenter, journal, image_count=image_count, with_release=options.metrics != "field")
            results = [result for result in journal if result.index < image_count]
            print(_finish(options, dataset, segmenter, results))
    except (SegmentationError, DatasetError, JournalError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 1
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit codes: 0 done, 1 failed or interrupted, 2 wrong usage.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--server", metavar="URL", help="gRPC address of a running server, such as localhost:8001")
    model.add_argument("--repository", type=Path, metavar="DIR", help="model repository to load into this process")
    parser.add_argument("--dataset", choices=(*BENCHMARKS, SCENES), required=True)
    parser.add_argument("--split", required=True, help="val, test, testA, ... as the data set has them")
    parser.add_argument("--root", type=Path, metavar="DIR", help="folder of the data set's files")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of its images (where the field keeps them)")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="auto",
        help="the data set's own format, or the release's anns/ and masks/ (auto: the own one if it is there)",
    )
    parser.add_argument("--count", type=int, default=2000, help="how many scenes to draw (default: %(default)s)")
    parser.add_argument(
        "--config", type=Path, metavar="TOML", help="of a training, to draw scenes like its (default: all nouns, noto)"
    )
    parser.add_argument("--metrics", choices=METRICS, default="both", help="whose definitions (default: %(default)s)")
    parser.add_argument(
        "--concurrency", type=int, default=8, help="images at once at the server (default: %(default)s)"
    )
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=DEFAULT_TIMEOUT_S,
        help="seconds for one call, its wait behind others included (default: %(default)g)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N images, with all of their phrases")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where results go (default: out/evaluate/DATASET-SPLIT)"
    )
    options = parser.parse_args(argv)
    splits = SCENE_SPLITS if options.dataset == SCENES else BENCHMARKS[options.dataset].splits
    if options.split not in splits:
        parser.error(f"--split is {options.split!r}; {options.dataset} has {', '.join(splits)}")
    if options.dataset != SCENES and options.root is None:
        parser.error(f"--root is needed for {options.dataset}")
    for name in ("count", "concurrency", "limit"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name} is {value}; at least 1")
    try:
        Deadline(options.timeout_s)
        if options.server is not None:
            grpc_target(options.server)
    except InvalidArgumentError as error:
        parser.error(str(error))
    options.out = options.out or Path("out") / "evaluate" / f"{options.dataset}-{options.split}"
    return options


def _open_dataset(options: argparse.Namespace) -> Dataset:
    if options.dataset == SCENES:
        from ssp_sam.evaluation.datasets.scenes import SceneDataset

        data = _training_data(options.config)
        return SceneDataset(options.split, options.count, data.vocabulary, data.styles, data.side_px)
    return BENCHMARKS[options.dataset].open(options.split, options.root, options.images, options.format)


def _training_data(config: Path | None) -> DataConfig:
    """Return what a training says of its scenes, or what it would say by default."""
    from ssp_sam.training.config import ConfigError, DataConfig, load_config

    try:
        return load_config(config).data if config else DataConfig()
    except ConfigError as error:
        raise DatasetError(str(error)) from error


def _open_segmenter(options: argparse.Namespace) -> Segmenter:
    if options.repository is not None:
        return LocalSegmenter.from_repository(options.repository)
    return ServedSegmenter(options.server, concurrency=options.concurrency, timeout_s=options.timeout_s)


def _header(options: argparse.Namespace, dataset: Dataset, segmenter: Segmenter) -> dict[str, Any]:
    """Return what must be the same for a run to go on."""
    return {
        "dataset": options.dataset,
        "split": options.split,
        "metrics": options.metrics,
        "content": dict(dataset.fingerprint),
        "model": dict(segmenter.identity),
    }


def _finish(options: argparse.Namespace, dataset: Dataset, segmenter: Segmenter, results: Sequence[ImageResult]) -> str:
    """Write the files that sum up the results and return the table of figures."""
    benchmark = BENCHMARKS.get(options.dataset)
    title = benchmark.title if benchmark else "Synthetic scenes"
    names = benchmark.figures if benchmark else SCENE_FIGURES
    strict = benchmark is not None and benchmark.strict_precision
    records = [record for result in results for record in result.records]
    overall = figures(records, options.metrics, strict_precision=strict)
    by_kind = figures_by_kind(records, strict_precision=strict)
    refused = [record for record in records if record.refused is not None]
    summary = {
        **_header(options, dataset, segmenter),
        "limit": options.limit,
        "images": len(results),
        "phrases": len(records),
        "refused_phrases": len(refused),
        "figures": overall,
        "by_kind": by_kind,
    }
    (options.out / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    write_csv(options.out / "samples.csv", records)
    page = Page(f"{title}, {options.split}", _facts(options, segmenter, summary), overall, by_kind, names)
    (options.out / "report.html").write_text(render(page, results, dataset), encoding="utf-8")
    if refused:
        print(f"{len(refused)} phrases were refused and count as empty masks: {refused[0].refused}", file=sys.stderr)
    print(f"details: {options.out / 'report.html'}", file=sys.stderr)
    head = f"{title}, {options.split}: {len(records)} phrases, {len(results)} images (per cent)"
    tables = [table(overall, names), *([table(by_kind, names)] if by_kind else [])]
    return "\n\n".join([head, *tables])


def _facts(options: argparse.Namespace, segmenter: Segmenter, summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    model = options.server or str(options.repository)
    manifest = segmenter.identity.get("manifest", {})
    preset = manifest.get("preset") or segmenter.identity.get("parameters", {}).get("segment", {}).get("preset", "?")
    facts = [
        ("phrases", str(summary["phrases"])),
        ("images", str(summary["images"])),
        ("preset", preset),
        ("asked through", f"server {model}" if options.server else f"this process, {model}"),
    ]
    source = manifest.get("source", {})
    return facts + [(f"weights: {name}", value) for name, value in source.items()]


if __name__ == "__main__":
    sys.exit(main())
