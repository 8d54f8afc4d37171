"""Measure everything: `make bench`, or `python -m benchmarks --only phrases serving`. The machine should be idle."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from benchmarks.figures import Figure, at_least, table, write_json

ROOT = Path(__file__).resolve().parents[1]
IMAGE = ROOT / "docs" / "demo.png"
REPOSITORY = ROOT / "model_repository"
FULL_SIZE_PRESET = "b224_vit_b"
SCENES = 8
"""On which runtimes are compared; `scripts/compare_runtimes.py` by itself takes more."""


def main() -> int:
    """Return the exit code: 0 all targets met, 1 some missed (as the table says)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to run (default: all)")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="default: %(default)s")
    options = parser.parse_args()
    write_json(figures := [], options.out / "bench.json")  # in place of an earlier run's
    for name in options.only:
        print(f"{name}: {PARTS[name].__doc__}", flush=True)
        start_s = time.monotonic()
        for figure in PARTS[name](options.out):
            figures.append(figure)
            write_json(figures, options.out / "bench.json")  # what is measured is kept when the next one fails
        print(f"  {time.monotonic() - start_s:.0f} s", flush=True)
    print("\n" + table(figures))
    print(f"\n{options.out / 'bench.json'} says how each was taken")
    return 1 if any(figure.is_met is False for figure in figures) else 0


def _encoders(out: Path) -> Iterator[Figure]:
    """SAM's image encoders at full size"""
    from benchmarks import encoders

    yield from encoders.measure()


def _runtimes(out: Path) -> Iterator[Figure]:
    """every runtime of every stage, with tiny's trained weights"""
    script = ROOT / "scripts" / "compare_runtimes.py"
    file = out / "runtimes.json"
    # A process of its own: other runtimes bring threads of their own, which would stay.
    command = [sys.executable, str(script), "--repository", str(REPOSITORY), "--out", str(file)]
    command += ["--scenes", str(SCENES), "--repeats", "5"]
    file.unlink(missing_ok=True)  # of an earlier run
    done = subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if not file.exists():  # it has said why; where a runtime is outside its bounds, the file is there
        raise SystemExit(f"{script.name} failed with status {done.returncode}")
    for line in json.loads(file.read_text(encoding="utf-8")):
        if line["chosen"]:
            how = f"{SCENES} test scenes, 4 phrases each, {line['runtime']} against float32; all are in runtimes.json"
            yield Figure(f"{line['stage']}: mask IoU", line["iou_mean"], "", how, at_least(0.99))
            yield Figure(f"{line['stage']}: cosine", line["cosine"], "", how, at_least(0.999))


def _phrases(out: Path) -> Iterator[Figure]:
    """phrases on a known image"""
    from benchmarks import phrases

    yield from phrases.measure(REPOSITORY, IMAGE)


def _serving(out: Path) -> Iterator[Figure]:
    """what the server adds, needs, and how it grows"""
    from benchmarks import plots, serving

    yield from serving.measure(REPOSITORY, IMAGE, out)
    plots.draw(json.loads((out / "sweeps.json").read_text(encoding="utf-8")), out)


def _versus(out: Path) -> Iterator[Figure]:
    """against what users might have built instead"""
    from benchmarks import versus
    from benchmarks.traffic import Load

    yield from versus.measure(REPOSITORY, IMAGE, out, what="tiny", load=Load(requests=120), turns=2, bound=2)


def _full_size(out: Path) -> Iterator[Figure]:
    """the same with an image encoder of full size (SAM ViT-B at 1024), random weights"""
    from benchmarks import serving, versus
    from benchmarks.traffic import Load
    from ssp_sam.serving.contract import SEGMENT_ENSEMBLE
    from ssp_sam.serving.repository import write_configurations

    repository = out / FULL_SIZE_PRESET
    if not (repository / "manifest.json").exists():
        script = ROOT / "scripts" / "build_repository.py"
        options = ["--preset", FULL_SIZE_PRESET, "--random-weights", "0", "--out", str(repository)]
        subprocess.run([sys.executable, str(script), *options], check=True)
    write_configurations(repository)  # of an earlier version, perhaps; its weights are the same
    yield from serving.measure_encoding(repository, IMAGE, out)
    load = Load(requests=10, recent_images=3)  # 10 encodings of seconds for those who keep nothing
    without = (SEGMENT_ENSEMBLE,)  # it keeps nothing either, and was as fast as LitServe
    yield from versus.measure(repository, IMAGE, out, what="full size", load=load, turns=1, bound=4, without=without)


PARTS: Mapping[str, Callable[[Path], Iterator[Figure]]] = {
    "encoders": _encoders,
    "runtimes": _runtimes,
    "phrases": _phrases,
    "serving": _serving,
    "versus": _versus,
    "full-size": _full_size,
}

if __name__ == "__main__":
    sys.exit(main())
