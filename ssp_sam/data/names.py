"""What things are called: the nouns that have a picture, everyday synonyms, and words for groups.

A `Name` stands for a set of nouns. "dog" names only dogs, "apple" names red and green apples, "animal" every animal, so
one rule decides what each of them refers to. Some nouns a name neither clearly covers nor clearly excludes (is a tomato
a fruit?); such a name is not used in a scene that holds one of those.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources

from ssp_sam.data.things import COLOURS


@dataclass(frozen=True)
class Name:
    """A word for things: how it is written, what it covers and what it may or may not cover."""

    singular: str
    plural: str
    members: frozenset[str]
    doubtful: frozenset[str] = frozenset()
    is_group: bool = False

    @property
    def countable(self) -> bool:
        """Whether "a X" and "two Xs" can be said; "the grapes" and "the bread" have one form for one and for many."""
        return self.singular not in ONE_FORM

    def form(self, count: int) -> str:
        """Return the word for so many things."""
        return self.singular if count == 1 else self.plural


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(word.split()) for word in text.split(","))


ONE_FORM = frozenset(
    _words(
        """bread, broccoli, cherries, clothing, food, french fries, fries, fruit, furniture, gloves, grapes, jeans,
        pancakes, popcorn, scissors, socks, sunglasses"""
    )
)

IRREGULAR_PLURALS = {
    "cactus": "cacti",
    "ear of corn": "ears of corn",
    "fish": "fish",
    "glass of milk": "glasses of milk",
    "kitchen knife": "kitchen knives",
    "knife": "knives",
    "mouse": "mice",
    "piece of clothing": "clothes",
    "piece of fruit": "pieces of fruit",
    "potato": "potatoes",
    "scarf": "scarves",
    "sheep": "sheep",
    "tomato": "tomatoes",
}

# Other words for one noun or group.
SYNONYMS = {
    "airplane": "plane",
    "american football": "football",
    "billed cap": "cap",
    "bicycle": "bike",
    "birthday cake": "cake",
    "cheese wedge": "cheese",
    "closed book": "book",
    "clothing": "piece of clothing",
    "delivery truck": "truck",
    "deciduous tree": "oak tree",
    "doughnut": "donut",
    "ear of corn": "corn",
    "evergreen tree": "pine tree",
    "ewe": "sheep",
    "french fries": "fries",
    "fruit": "piece of fruit",
    "glass of milk": "milk",
    "hamburger": "burger",
    "honeybee": "bee",
    "instrument": "musical instrument",
    "jack-o-lantern": "pumpkin",
    "kitchen knife": "knife",
    "kiwi fruit": "kiwi",
    "lady beetle": "ladybug",
    "locomotive": "train",
    "mobile phone": "cell phone",
    "motorcycle": "motorbike",
    "musical keyboard": "piano keys",
    "necktie": "tie",
    "rhinoceros": "rhino",
    "rooster": "chicken",
    "running shoe": "sneaker",
    "tangerine": "orange",
    "television": "tv",
    "watermelon": "melon",
    "wrapped gift": "present",
    "carpentry saw": "saw",
}

_BIRDS = "duck, eagle, flamingo, owl, parrot, penguin, rooster, swan"
_INSECTS = "butterfly, honeybee, lady beetle"
_FRUIT = """banana, cherries, grapes, green apple, kiwi fruit, lemon, pear, pineapple, red apple, strawberry, tangerine,
    watermelon"""
_VEGETABLES = "broccoli, carrot, cucumber, ear of corn, eggplant, hot pepper, onion, potato"
_DRINKS = "beer mug, cocktail glass, glass of milk, wine glass"
_SWEETS = "birthday cake, cookie, cupcake, doughnut, ice cream, lollipop"
_CARS = "automobile, police car, racing car, taxi"

# Words for several nouns: word -> (members, doubtful).
GROUPS = {
    "animal": (
        f"""{_BIRDS}, {_INSECTS}, bear, camel, cat, cow, crab, crocodile, dog, dolphin, elephant, ewe, fish, fox, frog,
        giraffe, horse, kangaroo, koala, lion, monkey, mouse, octopus, panda, pig, rabbit, rhinoceros, shark, snail,
        snake, spider, tiger, turtle, whale, zebra""",
        "teddy bear",
    ),
    "bird": (_BIRDS, ""),
    "insect": (_INSECTS, "snail, spider"),
    "fruit": (_FRUIT, "avocado, eggplant, tomato, jack-o-lantern, hot pepper, cucumber"),
    "vegetable": (_VEGETABLES, "avocado, jack-o-lantern, mushroom, tomato"),
    "food": (
        f"""{_FRUIT}, {_VEGETABLES}, {_SWEETS}, avocado, bread, cheese wedge, croissant, egg, french fries, hamburger,
        hot dog, mushroom, pancakes, pizza, popcorn, pretzel, sandwich, taco, tomato""",
        f"{_DRINKS}, crab, fish, jack-o-lantern",
    ),
    "drink": (_DRINKS, "teapot"),
    "sweet": (_SWEETS, "pancakes"),
    "apple": ("red apple, green apple", ""),
    "vehicle": (
        f"""{_CARS}, airplane, ambulance, bicycle, bus, canoe, delivery truck, fire engine, helicopter, locomotive,
        motorcycle, rocket, sailboat, ship, tractor""",
        "skateboard",
    ),
    "car": (_CARS, "ambulance, bus, delivery truck, fire engine, locomotive, tractor"),
    "boat": ("canoe, sailboat, ship", ""),
    "instrument": (
        "accordion, drum, guitar, musical keyboard, saxophone, trumpet, violin",
        "bell",
    ),
    "tool": (
        "axe, carpentry saw, hammer, screwdriver, wrench",
        "broom, bucket, kitchen knife, ladder, scissors",
    ),
    "clothing": (
        "coat, dress, jeans, necktie, scarf, socks, t-shirt",
        """backpack, billed cap, crown, gloves, handbag, high-heeled shoe, hiking boot, running shoe, sunglasses,
        top hat, watch""",
    ),
    "shoe": ("high-heeled shoe, hiking boot, running shoe", "socks"),
    "furniture": ("bed, chair", "bathtub, ladder"),
    "ball": ("american football, basketball, soccer ball", ""),
    "flower": ("rose, sunflower, tulip", ""),
    "tree": ("christmas tree, deciduous tree, evergreen tree, palm tree", "cactus"),
    "building": ("castle, house", "tent"),
}

# A noun whose plain word might also be said of these.
_DOUBTFUL = {
    "automobile": "taxi, police car, racing car",
    "bear": "panda, teddy bear, koala",
    "birthday cake": "cupcake, pancakes",
    "cheese wedge": "pizza",
    "american football": "soccer ball",
    "cocktail glass": "wine glass",
    "evergreen tree": "christmas tree",
    "fish": "dolphin, shark, whale",
    "necktie": "t-shirt",
    "delivery truck": "fire engine, ambulance",
    "locomotive": "tractor",
    "tangerine": "lemon",
    "bicycle": "motorcycle",
    "bread": "croissant",
}


def names_a_colour(word: str) -> bool:
    """Whether a colour is part of the word, as in "red apple"; nothing can be said of its colour then."""
    return not set(COLOURS).isdisjoint(word.split())


def without_colour(word: str) -> str:
    """Return a word without the colours that are part of it: "apple" of "red apple"."""
    return " ".join(part for part in word.split() if part not in COLOURS)


def plural_of(singular: str) -> str:
    """Return the plural of a name; names of one form are returned as they are."""
    if singular in ONE_FORM:
        return singular
    if singular in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[singular]
    if singular.endswith(("s", "x", "ch", "sh")):
        return singular + "es"
    if singular.endswith("y") and singular[-2] not in "aeiou":
        return singular[:-1] + "ies"
    return singular + "s"


@cache
def nouns() -> tuple[str, ...]:
    """Return every noun that has a picture, in alphabetical order."""
    text = resources.files("ssp_sam.data").joinpath("nouns.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def words_of(group: str) -> tuple[str, ...]:
    """Return the nouns of a group, in the order of `GROUPS`."""
    return _words(GROUPS[group][0])


@cache
def names() -> tuple[Name, ...]:
    """Return every name: one a noun, the synonyms, the groups."""
    result = []
    for noun in nouns():
        doubtful = frozenset(_words(_DOUBTFUL[noun])) if noun in _DOUBTFUL else frozenset()
        result += [Name(word, plural_of(word), frozenset([noun]), doubtful) for word in _with_synonym(noun)]
    for group, (members, doubts) in GROUPS.items():
        doubtful = frozenset(_words(doubts)) if doubts else frozenset()
        covered = frozenset(_words(members))
        result += [Name(word, plural_of(word), covered, doubtful, is_group=True) for word in _with_synonym(group)]
    return tuple(result)


def _with_synonym(word: str) -> tuple[str, ...]:
    return (word, SYNONYMS[word]) if word in SYNONYMS else (word,)


def usable_names(present: Iterable[str]) -> tuple[Name, ...]:
    """Return the names that can be used of a scene with these nouns: none is doubtful for the name."""
    present_set = frozenset(present)
    return tuple(name for name in names() if not name.doubtful & present_set)
