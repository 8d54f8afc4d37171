import numpy as np

from ssp_sam.data import SceneGenerator, Thing
from ssp_sam.data.standing import NO, TRAITS, UNSAID, YES, relations_of, traits_of
from ssp_sam.data.things import COLOURS, box_of
from ssp_sam.data.wording import RELATIONS


def thing(noun: str, left: int, top: int, side: int, **shares: float) -> Thing:
    mask = np.zeros((100, 100), dtype=bool)
    mask[top : top + side, left : left + side] = True
    colours = tuple(shares.get(colour, 0.0) for colour in COLOURS)
    return Thing(noun, mask, box_of(mask), side * side, side * side, colours, colours)


def test_things_stand_among_those_of_their_noun_and_group() -> None:
    things = [
        thing("dog", 0, 40, 10, red=0.9),
        thing("dog", 30, 40, 20, red=0.4),
        thing("cat", 50, 40, 40),
        thing("guitar", 0, 0, 5),
    ]
    small, large, cat, guitar = (dict(zip(TRAITS, row.tolist(), strict=True)) for row in traits_of(things, side_px=100))
    assert (small["red"], large["red"], cat["red"]) == (YES, UNSAID, NO)
    assert (small["several of its noun"], cat["several of its noun"]) == (YES, NO)
    assert (small["smallest of its noun"], large["smallest of its noun"]) == (YES, NO)
    assert (small["largest of its noun"], large["largest of its noun"]) == (NO, YES)
    assert (large["largest of its group"], cat["largest of its group"]) == (NO, YES)
    assert (small["left of its noun"], large["right of its noun"]) == (YES, YES)
    assert {large[f"number {rank} from left of its noun"] for rank in (1, 3, 4, 5)} == {NO}
    assert large["number 2 from left of its noun"] == YES
    assert large["number 2 from left of its group"] == YES
    assert small["number 3 from right of its group"] == YES
    assert cat["largest of its noun"] == UNSAID, "there is only one"
    assert small["top of its noun"] == UNSAID, "neither is clearly higher"
    assert guitar["several of its group"] == NO, "the only instrument"


def test_relations_are_said_of_the_one_thing_of_a_noun() -> None:
    things = [thing("dog", 0, 40, 10), thing("cat", 70, 60, 20), thing("cat", 30, 40, 10), thing("guitar", 1, 0, 6)]
    said = relations_of(things, side_px=100)
    assert set(said) == {"dog", "cat", "guitar"}
    assert (said["cat"] == UNSAID).all(), "there are two"
    assert (said["dog"][0] == UNSAID).all(), "itself"
    of_cat, of_guitar = (dict(zip(RELATIONS, said["dog"][row].tolist(), strict=True)) for row in (1, 3))
    assert of_cat == {"left of": NO, "right of": YES, "above": NO, "below": UNSAID, "next to": NO}
    assert of_guitar == {"left of": UNSAID, "right of": NO, "above": YES, "below": NO, "next to": NO}
    assert said["guitar"][0, RELATIONS.index("below")] == YES


def test_relations_agree_with_those_of_centres() -> None:
    generator = SceneGenerator(side_px=128, seed=12)
    said = 0
    for number in range(60):
        things = generator.scene(number).things
        for noun, relations in relations_of(things, 128).items():
            called_so = [each for each in things if each.noun == noun]
            if len(called_so) > 1:
                assert (relations == UNSAID).all()
                continue
            (x, y), (left, top, right, bottom) = _centre(called_so[0]), box_of(called_so[0].mask)
            for own, row in zip(things, relations, strict=True):
                a, b = _centre(own)
                further = {"left of": x - a, "right of": a - x, "above": y - b, "below": b - y}
                for relation, by_px in further.items():
                    value = row[RELATIONS.index(relation)]
                    assert value in {UNSAID, YES if by_px > 0 else NO}
                    said += value != UNSAID
                if row[RELATIONS.index("next to")] == YES:
                    own_left, own_top, own_right, own_bottom = box_of(own.mask)
                    assert max(left - own_right, own_left - right, top - own_bottom, own_top - bottom) <= 0.06 * 128
    assert said > 1000


def _centre(of: Thing) -> tuple[float, float]:
    left, top, right, bottom = box_of(of.mask)
    return (left + right) / 2, (top + bottom) / 2


def test_what_is_said_holds_for_whoever_sorts_slowly() -> None:
    generator = SceneGenerator(side_px=128, seed=11)
    said = 0
    for number in range(60):
        things = generator.scene(number).things
        for row, own in zip(traits_of(things, 128), things, strict=True):
            alike = [other for other in things if other.noun == own.noun]
            by_area = sorted(alike, key=lambda each: each.mask.sum())
            by_x = sorted(alike, key=lambda each: sum(box_of(each.mask)[::2]))
            by_y = sorted(alike, key=lambda each: sum(box_of(each.mask)[1::2]))
            rows = {"left": by_x, "right": by_x[::-1], "top": by_y, "bottom": by_y[::-1]}
            holds = {"several": len(alike) > 1, "largest": by_area[-1] is own, "smallest": by_area[0] is own}
            holds |= {side: rows[side][0] is own for side in rows}
            for side, order in rows.items():
                holds |= {f"number {k + 1} from {side}": k < len(order) and order[k] is own for k in range(5)}
            for name, truth in holds.items():
                value = row[TRAITS.index(f"{name} of its noun")]
                assert value in {UNSAID, YES if truth else NO}, (number, own.noun, name)
                said += value != UNSAID
    assert said > 1000
