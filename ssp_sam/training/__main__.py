"""Train a preset: `python -m ssp_sam.training --config configs/tiny/01_basics.toml`.

The same command continues a run that was stopped.
To share the work among processes, each on a GPU of its own where there are GPUs:
`torchrun --nproc-per-node 2 -m ssp_sam.training --config configs/tiny/01_basics.toml`.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from ssp_sam.data import DataError
from ssp_sam.errors import InvalidArgumentError, SegmentationError
from ssp_sam.evaluation.datasets import DatasetError
from ssp_sam.training.config import ConfigError, load_config
from ssp_sam.training.learner import TrainingError
from ssp_sam.training.ranks import Ranks
from ssp_sam.training.run import Run

EXIT_FAILED, EXIT_USAGE, EXIT_STOPPED = 1, 2, 128 + signal.SIGTERM


def main(argv: list[str] | None = None) -> int:
    """Run the command line; return 0 when the run is finished, 143 when a signal stopped it with its state saved."""
    parser = argparse.ArgumentParser(prog="python -m ssp_sam.training", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="TOML file of the run")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept (default: %(default)s)")
    arguments = parser.parse_args(argv)
    try:
        config = load_config(arguments.config)
        ranks = Ranks.join(config.device)
    except (ConfigError, InvalidArgumentError) as error:
        print(error, file=sys.stderr)
        return EXIT_USAGE

    signals: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: signals.append(received))
    folder = arguments.runs / config.name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        finished = Run(config, folder, ranks, should_stop=lambda: bool(signals)).work()
    except (ConfigError, TrainingError, DataError, DatasetError, SegmentationError) as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED
    finally:
        ranks.leave()
    return 0 if finished else EXIT_STOPPED


if __name__ == "__main__":
    sys.exit(main())
