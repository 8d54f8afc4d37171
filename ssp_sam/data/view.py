"""A scene as one who describes it sees it: which names fit which of its things, and which fit none."""

from collections.abc import Collection, Sequence

import numpy as np

from ssp_sam.data.names import Name, usable_names
from ssp_sam.data.things import Thing
from ssp_sam.data.wording import pick


class SceneView:
    """A scene sorted by the names that fit it.

    Args:
        things: at least one, all of one scene.
        rng: decides every choice.
        vocabulary: the nouns that absent names are drawn from; all if empty.
    """

    def __init__(self, things: Sequence[Thing], rng: np.random.Generator, vocabulary: Collection[str] = ()) -> None:
        self.rng = rng
        height, width = things[0].mask.shape
        self.size_wh_px = width, height
        self.side_px = max(self.size_wh_px)  # lengths are compared with it
        present = frozenset(thing.noun for thing in things)
        self.named: list[tuple[Name, list[Thing]]] = []
        self.absent: list[Name] = []
        for name in usable_names(present):
            if name.members & present:
                self.named.append((name, [thing for thing in things if thing.noun in name.members]))
            elif not vocabulary or not name.members.isdisjoint(vocabulary):
                self.absent.append(name)
        if not self.absent:  # all that a small vocabulary has is there, or doubtful
            self.absent = [name for name in usable_names(present) if not name.members & present]

    def candidates(self, at_least: int, at_most: int = 99, groups: bool = True) -> list[tuple[Name, list[Thing]]]:
        """Names of so many things, in random order; nouns tend to come before groups.

        What has many names comes no earlier than what has one.
        """
        fitting = [
            (name, members)
            for name, members in self.named
            if at_least <= len(members) <= at_most and (groups or not name.is_group)
        ]
        turn = {name.members: self.rng.random() + 0.6 * name.is_group for name, _ in fitting}
        order = sorted(range(len(fitting)), key=lambda i: (turn[fitting[i][0].members], self.rng.random()))
        return [fitting[i] for i in order]

    def absent_name(self, groups: bool = False) -> Name:
        """A name of nothing in the scene; half of the time something of the same group as what is there."""
        # With a small vocabulary there may be no such group.
        fitting = [name for name in self.absent if name.is_group == groups] or self.absent
        if not groups and self.rng.random() < 0.5:
            present_groups = [name for name, _ in self.named if name.is_group]
            if present_groups:
                group = pick(present_groups, self.rng)
                fitting = [name for name in fitting if name.members <= group.members] or fitting
        return pick(fitting, self.rng)
