"""What a run does: a TOML file, read once into frozen values. Anything unknown or out of range is a `ConfigError`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

from ssp_sam.config import PRESETS
from ssp_sam.data.glyphs import STYLES
from ssp_sam.data.names import nouns
from ssp_sam.data.phrases import KINDS
from ssp_sam.evaluation.datasets import BENCHMARKS, FORMATS
from ssp_sam.modeling.ssp_sam import STAGES
from ssp_sam.training.objectives import OBJECTIVES, PATCH_LOSSES
from ssp_sam.training.reading import ConfigError, build, check_one_of, check_range
from ssp_sam.training.targets import CELLS, MASK_GRIDS
from ssp_sam.training.trainee import MODULES, module_of

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OPTIMIZERS = ("adamw", "muon")

__all__ = [
    "ConfigError",
    "DataConfig",
    "PhaseConfig",
    "RunConfig",
    "SetConfig",
    "ValidationConfig",
    "load_config",
    "parse_config",
]


@dataclass(frozen=True)
class PhaseConfig:
    """One part of a run: what is trained, on what, how long.

    objective: one of `OBJECTIVES`.
    images_per_step: of all processes together.
    learned_per_image: how many of the expressions of an image, in the mean, a step learns, half of them those that are
        answered worst; 0 is all. Only "masks" chooses.
    train: module, or a part of one such as "clip_image_encoder.blocks.15" -> its share of the learning rate; what is
        not named is frozen.
    loss_weights: loss of the objective -> weight; losses that are not named are not counted.
    steps, epochs: one of the two. Steps warm up linearly over `warmup_steps`, then follow half a cosine down to
        `final_learning_rate_share`. Epochs keep one rate each: from `lowest_learning_rate` up over `warmup_epochs`,
        then on half a cosine, which began with the first epoch, back down to it.
    train_from_epoch: module of `train` -> the epoch, counted from 0, before which it is frozen.
    emphasis: kind of phrase -> how many times as often scenes have it as held-out scenes do.
    smallness: how much more often small things come than in held-out scenes; see `SceneGenerator`.
    sets: names of the run's data sets that are united; if empty, scenes are drawn.
    random_offset: place CLIP's image anywhere on its square instead of in the middle.
    compare_masks_on: one of `MASK_GRIDS`: the logits' own cells, SAM's square, or the square at half its side, as the
        release does; to both squares logits are enlarged.
    absent_weight: how much more a phrase without target counts in the cross entropies.
    optimizer: of `OPTIMIZERS`: AdamW for everything, or Muon for matrices and AdamW for the rest.
    decay_all: let the weights decay of vectors and tables of embeddings too.
    """

    name: str
    objective: str
    images_per_step: int
    expressions_per_image: int
    learning_rate: float
    train: Mapping[str, float]
    loss_weights: Mapping[str, float]
    learned_per_image: int = 0
    steps: int = 0
    epochs: int = 0
    warmup_steps: int = 0
    warmup_epochs: int = 0
    final_learning_rate_share: float = 0.01
    lowest_learning_rate: float = 0.0
    train_from_epoch: Mapping[str, int] = field(default_factory=dict)
    emphasis: Mapping[str, float] = field(default_factory=dict)
    smallness: float = 1.0
    sets: tuple[str, ...] = ()
    weight_decay: float = 0.0
    decay_all: bool = False
    optimizer: str = "adamw"
    adam_beta2: float = 0.99
    gradient_clip: float = 1.0
    absent_weight: float = 1.0
    random_offset: bool = False
    compare_masks_on: str = CELLS

    def __post_init__(self) -> None:
        check_one_of("objective", self.objective, OBJECTIVES)
        check_one_of("optimizer", self.optimizer, OPTIMIZERS)
        check_one_of("compare_masks_on", self.compare_masks_on, MASK_GRIDS)
        for name in ("images_per_step", "expressions_per_image"):
            check_range(name, getattr(self, name), at_least=1)
        for name in ("learning_rate", "gradient_clip"):
            check_range(name, getattr(self, name), above=0)
        for name in ("steps", "epochs", "warmup_steps", "warmup_epochs", "weight_decay", "absent_weight"):
            check_range(name, getattr(self, name), at_least=0)
        check_range("lowest_learning_rate", self.lowest_learning_rate, at_least=0)
        check_range("final_learning_rate_share", self.final_learning_rate_share, at_least=0, at_most=1)
        check_range("smallness", self.smallness, at_least=1)
        check_range("learned_per_image", self.learned_per_image, at_least=0, at_most=self.expressions_per_image)
        check_range("adam_beta2", self.adam_beta2, above=0, below=1)
        objective = OBJECTIVES[self.objective]
        if self.learned_per_image and not objective.chooses:
            raise ConfigError(f"objective {self.objective!r} learns all expressions; learned_per_image must be 0")
        for name, table, allowed in (
            ("train", self.train, MODULES),
            ("loss_weights", self.loss_weights, objective.losses),
            ("emphasis", self.emphasis, KINDS),
        ):
            if not table and name != "emphasis":
                raise ConfigError(f"{name} is empty; allowed are {', '.join(allowed)}")
            for key, value in table.items():
                check_one_of(f"a name in {name}", module_of(key) if name == "train" else key, allowed)
                check_range(f"{name}.{key}", value, above=0)
        self._check_parts()
        self._check_length()
        if self.sets and objective.targets != "phrases":
            raise ConfigError(f"objective {self.objective!r} needs {objective.targets}, which only scenes have")
        for name in PATCH_LOSSES:
            if self.sets and name in self.loss_weights:
                raise ConfigError(f"the loss {name!r} needs to know what patches show, which only scenes tell")
        if self.sets and (self.emphasis or self.smallness != 1):
            raise ConfigError("emphasis and smallness go with scenes; data sets are as they are")

    def _check_parts(self) -> None:
        for part, whole in permutations(self.train, 2):
            if part.startswith(f"{whole}."):
                raise ConfigError(f"train names {part} twice, as itself and as part of {whole}; one of them has to go")

    def _check_length(self) -> None:
        if (self.steps > 0) == (self.epochs > 0):
            raise ConfigError(f"steps is {self.steps} and epochs is {self.epochs}; one of them must be at least 1")
        if self.epochs and not self.sets:
            raise ConfigError("epochs are of data sets, but sets is empty; scenes have no end, give steps")
        if not self.epochs and (self.warmup_epochs or self.lowest_learning_rate or self.train_from_epoch):
            raise ConfigError("warmup_epochs, lowest_learning_rate and train_from_epoch go with epochs")
        if self.epochs and self.warmup_steps:
            raise ConfigError("warmup_steps go with steps; with epochs give warmup_epochs")
        for name, epoch in self.train_from_epoch.items():
            check_one_of("a name in train_from_epoch", name, self.train)
            check_range(f"train_from_epoch.{name}", epoch, at_least=0, at_most=self.epochs - 1)


@dataclass(frozen=True)
class SetConfig:
    """Where a data set lies, as `Benchmark.open` takes it.

    root: its folder; images: that of the image files, if they are not under `root` where the field keeps them; form:
    one of `FORMATS`.
    """

    root: str
    images: str = ""
    form: str = "auto"

    def __post_init__(self) -> None:
        check_one_of("form", self.form, FORMATS)


@dataclass(frozen=True)
class DataConfig:
    """What scenes and data sets have to be made into batches.

    side_px, seed: of scenes, made on the fly.
    workers: that make batches, in each process.
    vocabulary: the nouns that scenes are about; all if empty. styles: in which they are drawn.
    embeddings: folder that keeps what SAM's frozen image encoder makes of the images of data sets, in 16 bits; if
        empty, every step computes it anew.
    """

    side_px: int = 256
    seed: int = 0
    workers: int = 1
    vocabulary: tuple[str, ...] = ()
    styles: tuple[str, ...] = ("noto",)
    embeddings: str = ""

    def __post_init__(self) -> None:
        check_range("side_px", self.side_px, at_least=64)
        check_range("seed", self.seed, at_least=0, below=2**32)
        check_range("workers", self.workers, at_least=0)
        if not self.styles:
            raise ConfigError(f"styles is empty; allowed are {', '.join(STYLES)}")
        for name in self.styles:
            check_one_of("a name in styles", name, STYLES)
        for noun in self.vocabulary:
            check_one_of("a noun in vocabulary", noun, nouns())


@dataclass(frozen=True)
class ValidationConfig:
    """How often, and on what, the averaged weights are measured.

    A phase of steps: every so many minutes. A phase of epochs: every so many epochs. A phase that learns scenes: on the
    first `scenes` of the split "val", or up to 7 more to fill a batch. One that learns data sets: on their split
    `split`, masks at the images' own size.
    """

    every_minutes: float = 4.0
    every_epochs: int = 1
    scenes: int = 64
    split: str = "val"

    def __post_init__(self) -> None:
        check_range("every_minutes", self.every_minutes, above=0)
        check_range("every_epochs", self.every_epochs, at_least=1)
        check_range("scenes", self.scenes, at_least=1)


@dataclass(frozen=True)
class RunConfig:
    """A whole run.

    name: also that of its folder. sets: name in `BENCHMARKS` -> where it lies.
    initial_weights: a safetensors file with all stages, a published `.pth` (then initial_clip may be CLIP's own file),
        or a served model repository; if empty, weights are drawn.
    fresh_stages: are drawn all the same.
    threads: torch's, in each process. device: "cpu", "cuda", or "auto" for a GPU where there is one.
    precision: "fp32", or "bf16" for autocast.
    """

    name: str
    preset: str
    phases: tuple[PhaseConfig, ...]
    sets: Mapping[str, SetConfig] = field(default_factory=dict)
    data: DataConfig = field(default_factory=DataConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    initial_weights: str = ""
    initial_clip: str = ""
    fresh_stages: tuple[str, ...] = ()
    seed: int = 0
    threads: int = 1
    device: str = "auto"
    precision: str = "fp32"
    ema_decay: float = 0.999
    save_every_minutes: float = 4.0
    log_every_seconds: float = 20.0

    def __post_init__(self) -> None:
        check_one_of("preset", self.preset, PRESETS)
        check_one_of("device", self.device, ("auto", "cpu", "cuda"))
        check_one_of("precision", self.precision, ("fp32", "bf16"))
        check_range("seed", self.seed, at_least=0)
        check_range("threads", self.threads, at_least=1)
        check_range("ema_decay", self.ema_decay, at_least=0, at_most=1)
        check_range("save_every_minutes", self.save_every_minutes, above=0)
        check_range("log_every_seconds", self.log_every_seconds, at_least=0)
        if not self.phases:
            raise ConfigError("there is no [[phases]]; at least one is needed")
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ConfigError(f"the names of phases must differ; got {', '.join(names)}")
        if not self.name:
            raise ConfigError("name is empty; it is that of the run's folder")
        if self.initial_clip and not self.initial_weights.endswith(".pth"):
            raise ConfigError(
                f"initial_clip goes with a published .pth as initial_weights; got {self.initial_weights!r}"
            )
        for stage in self.fresh_stages:
            check_one_of("a name in fresh_stages", stage, STAGES)
        for name in self.sets:
            check_one_of("a name in sets", name, BENCHMARKS)
        for phase in self.phases:
            for name in phase.sets:
                check_one_of(f"phase {phase.name}: a name in sets", name, self.sets)
                check_one_of(f"phase {phase.name}: validation.split", self.validation.split, BENCHMARKS[name].splits)
            if phase.sets and self.data.embeddings and "sam_image_encoder" in map(module_of, phase.train):
                raise ConfigError(
                    f"phase {phase.name} trains sam_image_encoder, so what it makes of an image cannot be kept: "
                    "data.embeddings must be empty"
                )


def load_config(path: Path) -> RunConfig:
    """Read a run's TOML file; raise `ConfigError` for whatever is wrong with it."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML: {error}") from error
    return parse_config(table, str(path))


def parse_config(table: Mapping[str, Any], source: str) -> RunConfig:
    """Check a table read from TOML; `source` is what errors call it."""
    return build(RunConfig, table, source)
