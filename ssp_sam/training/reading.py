"""From a table, as TOML gives it, to frozen dataclasses by the declared types of their fields."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Built = TypeVar("Built")

_SCALARS: Mapping[Any, str] = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


class ConfigError(ValueError):
    """The configuration of a run is wrong; the message says where, what came and what is allowed."""


def build(cls: type[Built], table: Any, where: str) -> Built:
    """Make a dataclass of a table; fields without a default must be there, others may, and no more.

    Fields may be bool, int, float, str, a dataclass, a tuple of one kind or a Mapping from names to one kind. `where`
    is what errors call the table. Raises ConfigError, also for one that the dataclass itself raises.
    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where}: must be a table; got {table!r}")
    fields = {item.name: item for item in dataclasses.fields(cls)}  # type: ignore[arg-type]
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
    kinds = get_type_hints(cls)
    values = {name: _read(kinds[name], value, f"{where}: {name}") for name, value in table.items()}
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _read(kind: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)  # type: ignore[arg-type]
    if get_origin(kind) is tuple:
        element = get_args(kind)[0]
        if not isinstance(value, list):
            what = "a list of tables, [[...]]" if dataclasses.is_dataclass(element) else "a list, [...]"
            raise ConfigError(f"{where} must be {what}; got {value!r}")
        return tuple(_read(element, entry, f"{where}[{index}]") for index, entry in enumerate(value))
    if get_origin(kind) is not None:  # a Mapping
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a table; got {value!r}")
        return {key: _read(get_args(kind)[1], entry, f"{where}.{key}") for key, entry in value.items()}
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{where} must be {_SCALARS[kind]}; got {value!r}")
    return kind(value)


def check_one_of(what: str, value: str, allowed: Iterable[str]) -> None:
    """Raise ConfigError unless `value` is one of those allowed."""
    if value not in allowed:
        raise ConfigError(f"{what} {value!r} is unknown; allowed are {', '.join(allowed)}")


def check_range(
    what: str,
    value: float,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
) -> None:
    """Raise ConfigError unless `value` is in the range."""
    if above is not None and not value > above:
        raise ConfigError(f"{what} is {value}; must be above {above}")
    if at_least is not None and not value >= at_least:
        raise ConfigError(f"{what} is {value}; must be at least {at_least}")
    if at_most is not None and not value <= at_most:
        raise ConfigError(f"{what} is {value}; must be at most {at_most}")
    if below is not None and not value < below:
        raise ConfigError(f"{what} is {value}; must be below {below}")
