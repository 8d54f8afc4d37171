"""How a thing stands among others: what phrases about order, size, place, colour and relations are decided by.

Training tells each patch of a picture so, which teaches as much at once as a phrase of each kind for each thing.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ssp_sam.data.geometry import counted_from, furthest, holds, most
from ssp_sam.data.names import Name, names
from ssp_sam.data.phrases import COLOUR_SHARE, OTHER_COLOUR_SHARE
from ssp_sam.data.things import COLOURS, Thing
from ssp_sam.data.wording import DIRECTIONS, EXTREMES, RELATIONS, SIDES

COUNT_MAX = 5
SCOPES = ("noun", "group")
_IN_SCOPE = (
    "several",
    *EXTREMES,
    *DIRECTIONS,
    *(f"number {rank + 1} from {side}" for side in SIDES for rank in range(COUNT_MAX)),
)
TRAITS = (*COLOURS, *(f"{trait} of its {scope}" for scope in SCOPES for trait in _IN_SCOPE))
"""What can be said of a thing; a group is the widest one that its noun belongs to."""

YES, NO, UNSAID, NOT_THERE = 1, 0, -1, -2
"""What is said of a thing; the last of relations only, to what is not in the scene."""


def traits_of(things: Sequence[Thing], side_px: int) -> npt.NDArray[np.int8]:
    """Return (things, `TRAITS`): `YES`, `NO`, or `UNSAID` where people would not agree or nothing is compared.

    things: all of one scene; side_px: its longer side.
    """
    shares = np.array([thing.colour_shares for thing in things])
    shares_max = np.array([thing.colour_shares_max for thing in things])
    colours = np.where(shares >= COLOUR_SHARE, YES, np.where(shares_max <= OTHER_COLOUR_SHARE, NO, UNSAID))
    columns = [colours]
    for widest in (_noun_of, _group_of):
        scope = np.full((len(things), len(_IN_SCOPE)), UNSAID)
        called = [widest(thing) for thing in things]
        for name in {own for own in called if own is not None}:
            members = [i for i, own in enumerate(called) if own == name]
            scope[members] = _within([things[i] for i in members], side_px)
        columns.append(scope)
    traits: npt.NDArray[np.int8] = np.concatenate(columns, axis=1).astype(np.int8)
    return traits


def relations_of(things: Sequence[Thing], side_px: int) -> dict[str, npt.NDArray[np.int8]]:
    """Return {noun of the scene: (things, `RELATIONS`)}, whether each thing is in each relation to what is called so.

    `YES`, `NO`, or `UNSAID` where people would not agree, for a thing itself, and where several things are called so.
    things: all of one scene; side_px: its longer side.
    """
    nouns = [thing.noun for thing in things]
    found = {}
    for noun in dict.fromkeys(nouns):
        said = np.full((len(things), len(RELATIONS)), UNSAID, dtype=np.int8)
        if nouns.count(noun) == 1:
            only = nouns.index(noun)
            for row in set(range(len(things))) - {only}:
                held = [holds(relation, things[row], things[only], side_px) for relation in RELATIONS]
                said[row] = [UNSAID if each is None else YES if each else NO for each in held]
        found[noun] = said
    return found


def _noun_of(thing: Thing) -> str:
    return thing.noun


def _group_of(thing: Thing) -> Name | None:
    groups = [name for name in names() if name.is_group and thing.noun in name.members]
    return max(groups, key=lambda name: len(name.members), default=None)


def _within(members: Sequence[Thing], side_px: int) -> npt.NDArray[np.int64]:
    """Return (members, `_IN_SCOPE`) of all the things of one name."""
    count = len(members)
    result = np.full((count, len(_IN_SCOPE)), UNSAID)
    result[:, 0] = YES if count > 1 else NO
    if count == 1:
        return result
    firsts = [most(extreme, members) for extreme in EXTREMES]
    firsts += [furthest(direction, members, side_px) for direction in DIRECTIONS]
    for column, first in enumerate(firsts, start=1):
        if first is not None:
            result[:, column] = np.where(np.arange(count) == first, YES, NO)
    for number, side in enumerate(SIDES):
        order = counted_from(side, members, side_px)
        if order is not None and count <= COUNT_MAX:
            first_column = 1 + len(firsts) + number * COUNT_MAX
            result[order, first_column : first_column + COUNT_MAX] = np.eye(count, COUNT_MAX, dtype=np.int64)
    return result
