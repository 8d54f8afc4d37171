"""How phrases are worded. A wording knows names only, so what is absent reads like what is there."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from benchmarks.third_scenes.names import Name, with_article

WAYS: Mapping[str, Sequence[str]] = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above", "higher than", "up above"),
    "below": ("below", "underneath", "beneath", "lower than"),
    "next": ("next to", "beside", "right beside", "close to", "by"),
}
"""How one thing may stand to another, and the words for it."""

_ENDS: Mapping[str, Sequence[str]] = {
    "left": ("the leftmost {}", "leftmost {}", "the {} furthest to the left", "the {} farthest left"),
    "right": ("the rightmost {}", "rightmost {}", "the {} furthest to the right", "the {} farthest right"),
    "top": ("the topmost {}", "the highest {}", "the uppermost {}", "{} nearest the top"),
    "bottom": ("the bottommost {}", "the lowest {}", "the {} lowest down", "{} nearest the bottom"),
}
_ENDS_OF_TWO: Mapping[str, Sequence[str]] = {
    "left": ("the left {}", "left {}", "the left hand {}", "the {} that is further left"),
    "right": ("the right {}", "right {}", "the right hand {}", "the {} that is further right"),
    "top": ("the top {}", "top {}", "the upper {}", "the {} that is higher up"),
    "bottom": ("the bottom {}", "bottom {}", "the lower {}", "the {} that is lower down"),
}
_ENDS_IN_HALVES: Mapping[str, Sequence[str]] = {
    "left": ("the {} on the left", "{} on the left", "the {} on the left side of the picture", "{} at left"),
    "right": ("the {} on the right", "{} on the right", "the {} on the right side of the picture", "{} at right"),
    "top": ("the {} at the top", "{} at the top", "the {} up top"),
    "bottom": ("the {} at the bottom", "{} at the bottom", "the {} down at the bottom"),
}
_ORDINALS = ("first", "second", "third")
_NUMBERS = ("three", "four", "five", "six")
_PAIRS = (
    *("the {} and the {}", "the {} and the {}", "{} and {}", "both the {} and the {}", "the {} as well as the {}"),
    *("the {} together with the {}", "the {} plus the {}", "the {} and also the {}"),
)


def of_one(rng: random.Random, name: Name) -> str:
    """Word the only thing of its noun."""
    text = name.text
    options = [f"the {text}", f"the {text}", text, text]
    if name.is_counted:
        options += [with_article(text), with_article(text), f"the only {text}", f"a single {text}"]
    options += [f"the {text} in the picture", f"the {text} in this image", f"the {text} shown here"]
    return rng.choice(options)


def of_end(rng: random.Random, name: Name, side: str, *, is_pair: bool, is_split: bool) -> str:
    """Word the one nearest to a side. is_pair: of two; is_split: it is in that half, the others in the other."""
    options = [*_ENDS[side], *(_ENDS_OF_TWO[side] if is_pair else ()), *(_ENDS_IN_HALVES[side] if is_split else ())]
    return rng.choice(options).format(name.text)


def of_middle(rng: random.Random, name: Name) -> str:
    """Word the middle one of three."""
    text = name.text
    options = [
        f"the middle {text}",
        f"middle {text}",
        f"the {text} in the middle of the three",
        f"the {text} between the other two",
        f"the central {text} of the three",
        f"the {text} between the other two {name.many}",
    ]
    return rng.choice(options)


def of_corner(rng: random.Random, name: Name, row: str, column: str) -> str:
    """Word the one in a corner."""
    # Both rows' words are drawn, though one is used: another number of draws would give other scenes.
    words = {"top": rng.choice(["top", "upper"]), "bottom": rng.choice(["bottom", "lower"])}
    corner, text = f"{words[row]} {column}", name.text
    options = [
        f"the {text} in the {corner}",
        f"the {corner} {text}",
        f"{text} in the {corner} corner",
        f"the {text} towards the {corner}",
    ]
    return rng.choice(options)


def of_largest(rng: random.Random, name: Name, *, is_pair: bool) -> str:
    """Word the largest one."""
    text, many = name.text, name.many
    options = [f"the largest {text}", f"the biggest {text}", f"largest {text}", f"biggest {text}"]
    options += [f"the biggest of the {many}", f"the {text} that looks biggest"]
    if is_pair:
        options += [f"the bigger {text}", f"the larger {text}", f"the larger of the two {many}"]
        options += [f"bigger {text}", f"the big {text}"]
    return rng.choice(options)


def of_smallest(rng: random.Random, name: Name, *, is_pair: bool) -> str:
    """Word the smallest one."""
    text, many = name.text, name.many
    options = [f"the smallest {text}", f"smallest {text}", f"the tiniest {text}", f"the smallest of the {many}"]
    options += [f"the {text} that looks smallest"]
    if is_pair:
        options += [f"the smaller {text}", f"smaller {text}", f"the smaller of the two {many}"]
        options += [f"the little {text}", f"the small {text}"]
    return rng.choice(options)


def of_order(rng: random.Random, name: Name, index: int, side: str) -> str:
    """Word the one that is first, second or third from a side. index: from 0."""
    ordinal, text = _ORDINALS[index], name.text
    options = [
        f"the {ordinal} {text} from the {side}",
        f"the {ordinal} {text} from the {side}",
        f"{ordinal} {text} from the {side}",
        f"{ordinal} {text} from {side}",
        f"the {text} that is {ordinal} from the {side}",
        f"the {ordinal} {text} counting from the {side}",
        f"the {ordinal} of the {name.many} from the {side}",
        f"starting from the {side} the {ordinal} {text}",
    ]
    return rng.choice(options)


def of_relation(rng: random.Random, name: Name, way: str, anchor: Name, anchor_colour: str | None = None) -> str:
    """Word how a thing stands to another. anchor_colour: which one of several the other is."""
    words = rng.choice(WAYS[way])
    text, other = name.text, f"{anchor_colour} {anchor.text}" if anchor_colour else anchor.text
    be = "are" if name.form == "plural" else "is"
    may_have_articles = name.is_counted and anchor.is_counted and not anchor_colour
    forms = (
        (0.4, f"the {text} {words} the {other}"),
        (0.52, f"{text} {words} {other}"),
        (0.64, f"the {text} that {be} {words} the {other}"),
        (0.74 if may_have_articles else 0, f"{with_article(text)} {words} {with_article(other)}"),
        (0.82, f"{text} {words} the {other}"),
        (0.94 if way != "next" else 0, f"the {text} with the {other} {_seen_from(name, way)}"),
        (1, f"the {text} which {be} {words} the {other}"),
    )
    share = rng.random()
    return next(form for bound, form in forms if share < bound)


def of_colour(rng: random.Random, name: Name, colour: str, *, are_many: bool) -> str:
    """Word the things of a colour."""
    if colour == "gray":
        colour = rng.choice(["gray", "grey"])
    text, many = name.text, name.many
    if are_many and name.is_counted:
        options = [f"the {colour} {many}", f"{colour} {many}", f"all the {colour} {many}"]
        options += [f"the {many} that are {colour}", f"every {colour} {text}"]
        return rng.choice(options)
    be = "are" if name.form == "plural" else "is"
    options = [f"the {colour} {text}", f"the {colour} {text}", f"{colour} {text}", f"the {text} that {be} {colour}"]
    if name.is_counted:
        options += [with_article(f"{colour} {text}"), f"the {text} coloured {colour}"]
    return rng.choice(options)


def of_both(rng: random.Random, one: Name, two: Name) -> str:
    """Word two things."""
    return rng.choice(_PAIRS).format(one.text, two.text)


def of_three(rng: random.Random, names: Sequence[Name]) -> str:
    """Word three things."""
    template = rng.choice(["the {} and the {} and the {}", "{} and {} and {}"])
    return template.format(*(name.text for name in names))


def of_all_and_one(rng: random.Random, name: Name, other: Name) -> str:
    """Word all things of a noun, and one of another."""
    many, one = name.many, other.text
    last = f"the {one} and every {name.text}" if name.is_counted else f"the {one} and all the {many}"
    return rng.choice([f"the {many} and the {one}", f"all the {many} and the {one}", last])


def of_all(rng: random.Random, name: Name, count: int) -> str:
    """Word all things of a noun. count: how many they are."""
    text, many = name.text, name.many
    if name.form == "uncounted":
        return rng.choice([f"all the {many}", f"all of the {many}", f"every bit of {many}"])
    options = [f"all the {many}", f"all {many}", f"all of the {many}", f"the {many}", many, many]
    options += [f"all the {many} in the picture", f"any {many} you can see"]
    if name.is_counted:
        options += [f"every {text}", f"each {text}", f"every single {text}", f"each of the {many}"]
        if count == 2:
            pair = f"both {many}" if text.startswith("pair") else f"the pair of {many}"
            options += [f"both {many}", f"the two {many}", f"both of the {many}", pair]
        elif count > 2:
            number = _NUMBERS[count - 3]
            options += [f"the {number} {many}", f"all {number} {many}"]
    return rng.choice(options)


def of_group(rng: random.Random, name: str) -> str:
    """Word all things of a group."""
    if name == "clothes":  # of which nobody says "every one"
        options = ["the clothes", "all the clothes", "clothes", "all of the clothes"]
        return rng.choice([*options, "the clothes in the picture", "any clothes"])
    options = [f"the {name}", f"the {name}", f"all the {name}", f"all {name}", name, f"all of the {name}"]
    options += [f"every one of the {name}", f"the {name} in the picture", f"any {name}", f"all the {name} here"]
    return rng.choice(options)


def _seen_from(name: Name, way: str) -> str:
    """Return where the other thing is when a thing stands to it in a way; nothing for "next"."""
    its, it = ("their", "them") if name.form == "plural" else ("its", "it")
    words = {"left": f"on {its} right", "right": f"on {its} left", "above": f"below {it}", "below": f"above {it}"}
    return words.get(way, "")
