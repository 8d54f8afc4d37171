"""What is known of the nouns, and how phrases are worded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Nouns that have a name in common.

    one: that name for a single thing. sure: who belongs to it. doubtful: who might; of a scene that has one of these,
    nothing is said about the group.
    """

    one: str
    sure: frozenset[str]
    doubtful: frozenset[str]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split(","))


SINGLE = _names(
    "bread,broccoli,cherries,french fries,gloves,grapes,jeans,pancakes,popcorn,scissors,socks,sunglasses,fish,"
    "headphone,ice cream"
)
"""Nouns that are plural or uncountable in themselves: at most one to a scene, no "a" and no plural."""

PLURALS: Mapping[str, str] = {
    "mouse": "mice",
    "glass of milk": "glasses of milk",
    "ear of corn": "ears of corn",
    "cactus": "cacti",
    "kitchen knife": "kitchen knives",
    "scarf": "scarves",
    "potato": "potatoes",
    "tomato": "tomatoes",
    "snowman": "snowmen",
}

CLASHES: Sequence[frozenset[str]] = (
    _names("automobile,taxi,police car,racing car"),
    _names("delivery truck,fire engine,ambulance,bus,automobile"),
    _names("telephone,mobile phone"),
    _names("ship,sailboat,canoe"),
    _names("fish,shark,dolphin,whale"),
    _names("bear,panda,koala,teddy bear"),
    _names("cat,tiger,lion"),
    _names("dog,fox"),
    _names("rabbit,mouse,kangaroo"),
    _names("swan,duck,flamingo"),
    _names("eagle,owl,parrot,rooster"),
    _names("wine glass,cocktail glass,beer mug,glass of milk"),
    _names("tree,deciduous tree,evergreen tree,christmas tree,palm tree"),
    _names("birthday cake,cupcake,candle,ice cream"),
    _names("bread,sandwich,hamburger,hot dog,taco,cheese wedge"),
    _names("tomato,red apple,sandwich,hamburger,taco,green apple"),
    _names("tangerine,lemon,red apple"),
    _names("guitar,violin"),
    _names("hiking boot,running shoe,high-heeled shoe"),
    _names("coat,t-shirt,necktie,dress"),
    _names("alarm clock,watch"),
    _names("rose,tulip"),
    _names("trumpet,saxophone"),
    _names("laptop,television,mobile phone"),
    _names("backpack,handbag"),
    _names("hammer,axe"),
    _names("snowman,top hat"),
    _names("top hat,billed cap"),
    _names("fire engine,ladder"),
    _names("castle,house"),
    _names("bell,trophy"),
    _names("hot pepper,carrot"),
    _names("horse,zebra"),
    _names("light bulb,candle"),
    _names("cucumber,eggplant"),
    _names("crocodile,snake,turtle"),
    _names("socks,gloves"),
    _names("bicycle,motorcycle"),
    _names("cookie,doughnut,pretzel,pancakes"),
    _names("potato,egg,onion"),
    _names("avocado,pear"),
    _names("drum,musical keyboard"),
    _names("basketball,american football,soccer ball"),
    _names("house,deciduous tree"),
    _names("cow,ewe"),
    _names("birthday cake,strawberry"),
    _names("popcorn,bucket,ear of corn"),
)
"""Nouns that look or mean nearly the same, or of which one's picture shows another.

No scene has two of a line, and of a scene that has one, none of the others is said to be absent.
"""

GROUPS: Mapping[str, Group] = {
    "animals": Group(
        "animal",
        _names(
            "bear,camel,cat,cow,crab,crocodile,dog,dolphin,duck,eagle,elephant,ewe,fish,flamingo,fox,frog,giraffe,"
            "horse,kangaroo,koala,lion,monkey,mouse,octopus,owl,panda,parrot,penguin,pig,rabbit,rhinoceros,rooster,"
            "shark,snake,swan,tiger,turtle,whale,zebra"
        ),
        _names("butterfly,honeybee,lady beetle,spider,snail,teddy bear,snowman"),
    ),
    "birds": Group(
        "bird",
        _names("duck,eagle,flamingo,owl,parrot,penguin,rooster,swan"),
        _names("honeybee,butterfly,airplane"),
    ),
    "fruit": Group(
        "piece of fruit",
        _names(
            "banana,cherries,grapes,green apple,kiwi fruit,lemon,pear,pineapple,red apple,strawberry,tangerine,"
            "watermelon"
        ),
        _names(
            "avocado,tomato,eggplant,cucumber,hot pepper,jack-o-lantern,ear of corn,birthday cake,ice cream,cupcake,"
            "cocktail glass"
        ),
    ),
    "vegetables": Group(
        "vegetable",
        _names("broccoli,carrot,onion"),
        _names(
            "cucumber,eggplant,potato,tomato,avocado,mushroom,hot pepper,ear of corn,french fries,jack-o-lantern,"
            "hamburger,sandwich,taco,pizza,hot dog"
        ),
    ),
    "vehicles": Group(
        "vehicle",
        _names("ambulance,automobile,bus,delivery truck,fire engine,motorcycle,police car,racing car,taxi,tractor"),
        _names("airplane,bicycle,canoe,helicopter,locomotive,rocket,sailboat,ship,skateboard"),
    ),
    "musical instruments": Group(
        "musical instrument",
        _names("accordion,drum,guitar,musical keyboard,saxophone,trumpet,violin"),
        _names("microphone,bell,headphone"),
    ),
    "tools": Group(
        "tool",
        _names("carpentry saw,hammer,screwdriver,wrench"),
        _names("axe,broom,ladder,scissors,kitchen knife,pencil,bucket,key,tractor"),
    ),
    "clothes": Group(
        "piece of clothing",
        _names("coat,dress,jeans,t-shirt"),
        _names(
            "scarf,gloves,socks,necktie,billed cap,top hat,hiking boot,running shoe,high-heeled shoe,crown,handbag,"
            "backpack,sunglasses,watch"
        ),
    ),
    "shoes": Group("shoe", _names("high-heeled shoe,running shoe"), _names("hiking boot,skateboard,socks")),
    "flowers": Group("flower", _names("rose,sunflower,tulip"), _names("cactus,palm tree,deciduous tree")),
}

ORDINALS = ("first", "second", "third")

WAYS: Mapping[str, Sequence[str]] = {
    "left": ("left of", "to the left of", "on the left of"),
    "right": ("right of", "to the right of", "on the right of"),
    "above": ("above",),
    "below": ("below", "beneath", "under"),
    "beside": ("next to", "beside"),
}
"""How one thing may stand to another, and the words for it."""

OF_TWO: Mapping[str, Sequence[str]] = {
    "left": ("the {} on the left", "the left {}", "left {}", "the {} on the left side"),
    "right": ("the {} on the right", "the right {}", "right-hand {}", "the {} on the right side"),
    "top": ("the {} at the top", "the upper {}", "upper {}", "the higher {}"),
    "bottom": ("the {} at the bottom", "the lower {}", "lower {}", "the bottom {}"),
}
"""The one of two that is nearer to a side of the picture; "{}" is the noun."""

OF_MANY: Mapping[str, Sequence[str]] = {
    "left": ("the leftmost {}", "the {} furthest to the left", "the {} on the far left", "leftmost {}"),
    "right": ("the rightmost {}", "the {} furthest to the right", "the {} on the far right", "rightmost {}"),
    "top": ("the topmost {}", "the highest {}", "the {} nearest the top"),
    "bottom": ("the lowest {}", "the bottommost {}", "the {} nearest the bottom"),
}
"""The same of three and more."""


def plural(noun: str) -> str:
    """Return the plural of a noun that is not one of `SINGLE`."""
    if noun in PLURALS:
        return PLURALS[noun]
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + ("es" if re.search(r"(s|x|ch|sh)$", noun) else "s")


def counted(noun: str, count: int) -> str:
    """Return the noun as it is for one thing, or its plural for more."""
    return noun if count == 1 else plural(noun)


def clash(one: str, other: str) -> bool:
    """Say whether one could be taken for the other."""
    return one == other or any(one in family and other in family for family in CLASHES)


def ways_to_name(noun: str) -> list[str]:
    """Return the phrases for the only thing of its noun."""
    article = "an" if noun[0] in "aeiou" and not noun.startswith("ewe") else "a"
    return [f"the {noun}", noun, *([] if noun in SINGLE else [f"{article} {noun}"])]


def ways_to_name_all(noun: str, count: int | None) -> list[str]:
    """Return the phrases for all things of a noun. count: how many they are, from 2 to 6, if that may be said."""
    many = plural(noun)
    words = [f"all the {many}", f"all {many}", many, f"the {many}", f"every {noun}"]
    if count == 2:
        words += [f"both {many}", f"the two {many}"]
    elif count:
        words.append(f"the {('three', 'four', 'five', 'six')[count - 3]} {many}")
    return words


def ways_to_name_group(name: str) -> list[str]:
    """Return the phrases for all things of a group."""
    return [f"the {name}", f"all the {name}", f"all {name}", name, f"every {GROUPS[name].one}"]


def ways_to_place(templates: Sequence[str], noun: str) -> list[str]:
    """Return those of the templates, of `OF_TWO` or `OF_MANY`, that sound right with the noun."""
    return [template for template in templates if not (noun == "top hat" and "top" in template)]
