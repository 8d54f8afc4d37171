"""What a run does: a TOML file, read once into frozen values. Anything unknown or out of range is a `ConfigError`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ssp_sam.config import CONTEXT_LENGTH, PRESETS
from ssp_sam.training.objectives import OBJECTIVES
from ssp_sam.training.trainee import MODULES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class ConfigError(ValueError):
    """The configuration of a run is wrong; the message says where, what came and what is allowed."""


@dataclass(frozen=True)
class PhaseConfig:
    """One part of a run: what is trained, on what, how long.

    objective: one of `OBJECTIVES`.
    train: module -> its share of the learning rate; modules that are not named are frozen.
    loss_weights: loss of the objective -> weight; losses that are not named are not counted.
    absent_weight: how much more a phrase without target counts in the cross entropies.
    text_positions: text is cut to that many positions, to save time. Only padding may be cut, which nothing but the
        backward direction of the GRU ever sees; validation works on all positions.
    """

    name: str
    objective: str
    steps: int
    images_per_step: int
    expressions_per_image: int
    learning_rate: float
    train: Mapping[str, float]
    loss_weights: Mapping[str, float]
    warmup_steps: int = 0
    final_learning_rate_share: float = 0.01
    weight_decay: float = 0.0
    gradient_clip: float = 1.0
    absent_weight: float = 1.0
    text_positions: int = CONTEXT_LENGTH

    def __post_init__(self) -> None:
        _one_of("objective", self.objective, OBJECTIVES)
        for name in ("steps", "images_per_step", "expressions_per_image"):
            _in_range(name, getattr(self, name), at_least=1)
        for name in ("learning_rate", "gradient_clip"):
            _in_range(name, getattr(self, name), above=0)
        for name in ("warmup_steps", "weight_decay", "absent_weight", "final_learning_rate_share"):
            _in_range(name, getattr(self, name), at_least=0)
        _in_range("text_positions", self.text_positions, at_least=2, at_most=CONTEXT_LENGTH)
        for name, table, allowed in (
            ("train", self.train, MODULES),
            ("loss_weights", self.loss_weights, OBJECTIVES[self.objective].losses),
        ):
            if not table:
                raise ConfigError(f"{name} is empty; allowed are {', '.join(allowed)}")
            for key, value in table.items():
                _one_of(f"a name in {name}", key, allowed)
                _in_range(f"{name}.{key}", value, above=0)


@dataclass(frozen=True)
class DataConfig:
    """Scenes, made on the fly.

    stretched_share: of the images, are stretched to another ratio of width to height, so that padding is not news.
    """

    side_px: int = 256
    seed: int = 0
    workers: int = 1
    stretched_share: float = 0.0

    def __post_init__(self) -> None:
        _in_range("side_px", self.side_px, at_least=64)
        _in_range("seed", self.seed, at_least=0)
        _in_range("workers", self.workers, at_least=0)
        _in_range("stretched_share", self.stretched_share, at_least=0, at_most=1)


@dataclass(frozen=True)
class ValidationConfig:
    """How often, and on how many scenes of the split `val`, the averaged weights are measured."""

    every_minutes: float = 4.0
    scenes: int = 64

    def __post_init__(self) -> None:
        _in_range("every_minutes", self.every_minutes, above=0)
        _in_range("scenes", self.scenes, at_least=1)


@dataclass(frozen=True)
class RunConfig:
    """A whole run.

    name: also that of its folder. initial_weights: a safetensors file with all stages; if empty, weights are drawn.
    threads: torch's, in each process. precision: "fp32", or "bf16" for autocast.
    """

    name: str
    preset: str
    phases: tuple[PhaseConfig, ...]
    data: DataConfig = field(default_factory=DataConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    initial_weights: str = ""
    seed: int = 0
    threads: int = 1
    precision: str = "fp32"
    ema_decay: float = 0.999
    save_every_minutes: float = 4.0
    log_every_seconds: float = 20.0

    def __post_init__(self) -> None:
        _one_of("preset", self.preset, PRESETS)
        _one_of("precision", self.precision, ("fp32", "bf16"))
        _in_range("seed", self.seed, at_least=0)
        _in_range("threads", self.threads, at_least=1)
        _in_range("ema_decay", self.ema_decay, at_least=0, at_most=1)
        _in_range("save_every_minutes", self.save_every_minutes, above=0)
        _in_range("log_every_seconds", self.log_every_seconds, at_least=0)
        if not self.phases:
            raise ConfigError("there is no [[phases]]; at least one is needed")
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            raise ConfigError(f"the names of phases must differ; got {', '.join(names)}")


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
    config: RunConfig = _build(RunConfig, table, source)
    return config


def _build(cls: type[Any], table: Any, where: str) -> Any:
    """Make a dataclass of a table, its fields by their declared types."""
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: must be a table; got {table!r}")
    fields = {item.name: item for item in dataclasses.fields(cls)}
    unknown = sorted(table.keys() - fields.keys())
    if unknown:
        raise ConfigError(f"{where}: unknown {', '.join(unknown)}; allowed are {', '.join(fields)}")
    required = {
        name
        for name, item in fields.items()
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    }
    missing = sorted(required - table.keys())
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}")
    values = {name: _READERS[str(fields[name].type)](value, f"{where}: {name}") for name, value in table.items()}
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ConfigError(f"{where} must be a number; got {value!r}")
    return float(value)


def _integer(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{where} must be a whole number; got {value!r}")
    return value


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{where} must be a text; got {value!r}")
    return value


def _numbers(value: Any, where: str) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} must be a table of numbers; got {value!r}")
    return {key: _number(number, f"{where}.{key}") for key, number in value.items()}


def _phases(value: Any, where: str) -> tuple[PhaseConfig, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{where} must be a list of tables, [[phases]]; got {value!r}")
    return tuple(_build(PhaseConfig, table, f"{where}[{index}]") for index, table in enumerate(value))


# By the declared type of a field.
_READERS: dict[str, Callable[[Any, str], Any]] = {
    "float": _number,
    "int": _integer,
    "str": _text,
    "Mapping[str, float]": _numbers,
    "tuple[PhaseConfig, ...]": _phases,
    "DataConfig": lambda value, where: _build(DataConfig, value, where),
    "ValidationConfig": lambda value, where: _build(ValidationConfig, value, where),
}


def _one_of(what: str, value: str, allowed: Any) -> None:
    if value not in allowed:
        raise ConfigError(f"{what} {value!r} is unknown; allowed are {', '.join(allowed)}")


def _in_range(
    what: str,
    value: float,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> None:
    if above is not None and not value > above:
        raise ConfigError(f"{what} is {value}; must be above {above}")
    if at_least is not None and not value >= at_least:
        raise ConfigError(f"{what} is {value}; must be at least {at_least}")
    if at_most is not None and not value <= at_most:
        raise ConfigError(f"{what} is {value}; must be at most {at_most}")
