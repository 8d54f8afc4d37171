"""Nouns that have a name in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Nouns that have a name in common.

    names: that name, in the plural. sure: who belongs to it. doubtful: who might; of a scene that has one of these,
    nothing is said about the group.
    """

    names: Sequence[str]
    sure: frozenset[str]
    doubtful: frozenset[str]


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split(","))


_BIRDS = _names("duck,eagle,flamingo,owl,parrot,penguin,rooster,swan")
_MAMMALS = _names(
    "bear,camel,cat,cow,dog,elephant,ewe,fox,giraffe,horse,kangaroo,koala,lion,monkey,mouse,panda,pig,"
    "rabbit,rhinoceros,tiger,zebra"
)
_SEA_ANIMALS = _names("crab,dolphin,fish,octopus,shark,whale")
_INSECTS = _names("butterfly,honeybee,lady beetle")
_FRUITS = _names(
    "banana,cherries,grapes,green apple,kiwi fruit,lemon,pear,pineapple,red apple,strawberry,tangerine,watermelon"
)
_VEGETABLES = _names("broccoli,carrot,cucumber,ear of corn,eggplant,onion,potato")
_FRUITS_OR_VEGETABLES = _names("avocado,hot pepper,jack-o-lantern,mushroom,tomato")
_SWEETS = _names("birthday cake,cookie,cupcake,doughnut,ice cream,lollipop")
_FAST_FOOD = _names("french fries,hamburger,hot dog,pizza,taco")
_DRINKS = _names("beer mug,cocktail glass,glass of milk,wine glass")
_ROAD_VEHICLES = _names(
    "ambulance,automobile,bus,delivery truck,fire engine,motorcycle,police car,racing car,taxi,tractor"
)
_BOATS = _names("canoe,sailboat,ship")
_CLOTHES = _names("coat,dress,gloves,jeans,scarf,socks,t-shirt")
_SHOES = _names("high-heeled shoe,hiking boot,running shoe")
_TREES = _names("christmas tree,deciduous tree,evergreen tree,palm tree")
_FLOWERS = _names("rose,sunflower,tulip")


GROUPS: Mapping[str, Group] = {
    "animals": Group(
        ("animals",),
        _MAMMALS | _BIRDS | _SEA_ANIMALS | _names("crocodile,frog,snake,turtle"),
        _INSECTS | _names("spider,snail,teddy bear,snowman,robot"),
    ),
    "birds": Group(("birds",), _BIRDS, _names("airplane")),
    "insects": Group(("insects",), _INSECTS, _names("spider,snail")),
    "sea": Group(
        ("sea animals", "sea creatures"), _SEA_ANIMALS, _names("turtle,penguin,crocodile,duck,swan,frog,snail")
    ),
    "reptiles": Group(("reptiles",), _names("crocodile,snake,turtle"), _names("frog,snail")),
    "fruits": Group(("fruits", "pieces of fruit"), _FRUITS, _VEGETABLES | _FRUITS_OR_VEGETABLES),
    "vegetables": Group(("vegetables", "veggies"), _VEGETABLES, _FRUITS | _FRUITS_OR_VEGETABLES),
    "food": Group(
        ("food items", "things to eat", "edible things"),
        _FRUITS
        | _VEGETABLES
        | _SWEETS
        | _FAST_FOOD
        | _names("avocado,tomato,bread,cheese wedge,croissant,egg,pancakes,popcorn,pretzel,sandwich,hot pepper"),
        _DRINKS | _SEA_ANIMALS | _names("jack-o-lantern,mushroom,teapot"),
    ),
    "sweets": Group(
        ("sweet treats", "sugary treats"),
        _SWEETS,
        _FRUITS | _names("pancakes,croissant,pretzel,popcorn,bread,wrapped gift"),
    ),
    "fast food": Group(
        ("fast food items", "pieces of fast food"),
        _FAST_FOOD,
        _SWEETS | _names("sandwich,popcorn,pretzel,croissant,bread,pancakes,cheese wedge,egg"),
    ),
    "drinks": Group(("drinks", "beverages"), _DRINKS, _names("teapot,ice cream,bucket")),
    "vehicles": Group(
        ("vehicles",),
        _ROAD_VEHICLES | _names("bicycle,locomotive,helicopter,airplane"),
        _BOATS | _names("rocket,skateboard"),
    ),
    "aircraft": Group(("aircraft", "flying machines"), _names("airplane,helicopter"), _names("rocket,balloon")),
    "boats": Group(("boats",), _BOATS, frozenset()),
    "cars": Group(
        ("cars",),
        _names("automobile,taxi,police car,racing car"),
        _ROAD_VEHICLES - _names("automobile,taxi,police car,racing car"),
    ),
    "clothes": Group(
        ("clothes", "pieces of clothing", "garments"),
        _CLOTHES,
        _SHOES | _names("billed cap,top hat,sunglasses,watch,crown,handbag,backpack,snowman"),
    ),
    "shoes": Group(("shoes", "pieces of footwear"), _SHOES, _names("socks,skateboard")),
    "hats": Group(("hats",), _names("billed cap,top hat"), _names("crown,snowman")),
    "bags": Group(("bags",), _names("handbag,backpack"), _names("popcorn,wrapped gift")),
    "instruments": Group(
        ("instruments", "musical instruments"),
        _names("accordion,drum,guitar,musical keyboard,saxophone,trumpet,violin"),
        _names("microphone,bell,headphone"),
    ),
    "tools": Group(
        ("tools",),
        _names("axe,hammer,screwdriver,wrench,carpentry saw"),
        _names("ladder,broom,scissors,kitchen knife,pencil,bucket,key"),
    ),
    "flowers": Group(("flowers",), _FLOWERS, _names("cactus")),
    "trees": Group(("trees",), _TREES, _names("cactus,broccoli")),
    "plants": Group(
        ("plants",),
        _FLOWERS | _TREES - _names("christmas tree") | _names("cactus"),
        _FRUITS | _VEGETABLES | _FRUITS_OR_VEGETABLES | _names("christmas tree"),
    ),
    "buildings": Group(("buildings",), _names("house,castle"), _names("tent")),
    "furniture": Group(("pieces of furniture",), _names("bed,chair"), _names("bathtub,ladder,television")),
    "balls": Group(("balls",), _names("basketball,soccer ball"), _names("american football,balloon")),
    "devices": Group(
        ("electronic devices", "gadgets"),
        _names("laptop,television,mobile phone,camera"),
        _names("telephone,headphone,microphone,robot,light bulb,alarm clock,watch,musical keyboard,rocket"),
    ),
    "apples": Group(("apples",), _names("red apple,green apple"), _names("tomato,pear,pineapple")),
    "phones": Group(("phones", "telephones"), _names("mobile phone,telephone"), frozenset()),
}

NEED_TWO_NOUNS = frozenset({"cars", "apples", "phones", "trees"})
"""Groups whose name is also said of several things of one noun, so that it is used for a mixture only."""
