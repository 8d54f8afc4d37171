"""A measured figure with its target, and how figures are written down."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median


@dataclass(frozen=True)
class Target:
    """What a figure should be: at least, or at most, a bound."""

    bound: float
    at_least: bool

    def is_met(self, figure: float) -> bool:
        """Say whether a figure is as it should be."""
        return figure >= self.bound if self.at_least else figure <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


def at_least(bound: float) -> Target:
    """A figure that should be this or more."""
    return Target(bound, at_least=True)


def at_most(bound: float) -> Target:
    """A figure that should be this or less."""
    return Target(bound, at_least=False)


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    name: what was measured; figure: the median; spread: the least and the greatest of what the median is of.
    how: it was taken: warm-up, repeats, what stood beside it.
    """

    name: str
    figure: float
    unit: str
    how: str
    target: Target | None = None
    spread: tuple[float, float] | None = None

    @property
    def is_met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        return None if self.target is None else self.target.is_met(self.figure)


def ratio(
    name: str, numerator: Sequence[float], denominator: Sequence[float], how: str, target: Target | None = None
) -> Figure:
    """Return how many times as long the numerator takes; each ratio is that of a pair timed next to each other."""
    ratios = [above / below for above, below in zip(numerator, denominator, strict=True)]
    return Figure(name, median(ratios), "x", how, target, (min(ratios), max(ratios)))


def write_json(figures: Sequence[Figure], path: Path) -> None:
    """Write the figures as a list of objects."""
    rows = []
    for figure in figures:
        row = asdict(figure) | {"target": str(figure.target) if figure.target else None, "met": figure.is_met}
        rows.append(row)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def table(figures: Sequence[Figure]) -> str:
    """Return the figures as aligned text, one a line."""
    verdicts = {True: "met", False: "missed", None: ""}
    rows = [("figure", "", "unit", "spread", "target", "")]
    for each in figures:
        spread = f"{each.spread[0]:.3g} .. {each.spread[1]:.3g}" if each.spread else ""
        target = str(each.target) if each.target else ""
        rows.append((each.name, f"{each.figure:.3g}", each.unit, spread, target, verdicts[each.is_met]))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
