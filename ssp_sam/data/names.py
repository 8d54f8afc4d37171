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


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(word.split()) for word in text.split(","))


ONE_FORM = frozenset(
    _words(
        """bacon, blueberries, bread, broccoli, cherries, clothing, fire, food, french fries, fries, fruit, furniture,
        garlic, glasses, gloves, grapes, jeans, maracas, pancakes, popcorn, scissors, shorts, soap, socks, spaghetti,
        sunglasses, sushi"""
    )
)

IRREGULAR_PLURALS = {
    "deer": "deer",
    "ear of corn": "ears of corn",
    "fish": "fish",
    "game die": "game dice",
    "glass of milk": "glasses of milk",
    "kitchen knife": "kitchen knives",
    "knife": "knives",
    "maple leaf": "maple leaves",
    "mouse": "mice",
    "potato": "potatoes",
    "sheep": "sheep",
    "shrimp": "shrimp",
    "squid": "squid",
    "tomato": "tomatoes",
    "tooth": "teeth",
    "wolf": "wolves",
}

# Other words for one noun.
SYNONYMS = {
    "airplane": "plane",
    "american football": "football",
    "baby chick": "chick",
    "baguette bread": "baguette",
    "billed cap": "cap",
    "bicycle": "bike",
    "cheese wedge": "cheese",
    "delivery truck": "truck",
    "deciduous tree": "oak tree",
    "doughnut": "donut",
    "ear of corn": "corn",
    "evergreen tree": "pine tree",
    "ewe": "sheep",
    "french fries": "fries",
    "game die": "die",
    "gem stone": "diamond",
    "glass of milk": "milk",
    "hamburger": "burger",
    "hippopotamus": "hippo",
    "honeybee": "bee",
    "jack-o-lantern": "pumpkin",
    "kitchen knife": "knife",
    "kiwi fruit": "kiwi",
    "lady beetle": "ladybug",
    "locomotive": "train",
    "mobile phone": "cell phone",
    "motorcycle": "motorbike",
    "musical keyboard": "piano keys",
    "necktie": "tie",
    "poultry leg": "chicken leg",
    "rhinoceros": "rhino",
    "rooster": "chicken",
    "running shoe": "sneaker",
    "shopping cart": "trolley",
    "tangerine": "orange",
    "television": "tv",
    "wrapped gift": "present",
    "carpentry saw": "saw",
}

_BIRDS = "baby chick, duck, eagle, flamingo, owl, parrot, peacock, penguin, rooster, swan, turkey"
_INSECTS = "butterfly, honeybee, lady beetle"
_FRUIT = """banana, blueberries, cherries, grapes, green apple, kiwi fruit, lemon, mango, melon, peach, pear, pineapple,
    red apple, strawberry, tangerine, watermelon"""
_VEGETABLES = "bell pepper, broccoli, carrot, cucumber, ear of corn, eggplant, garlic, hot pepper, onion, potato"
_DRINKS = "beer mug, beverage box, cocktail glass, glass of milk, tropical drink, wine glass"
_SWEETS = """birthday cake, candy, chocolate bar, cookie, cupcake, doughnut, ice cream, lollipop, pie, shortcake,
    soft ice cream"""
_CARS = "automobile, police car, racing car, taxi"

# Words for several nouns: word -> (members, doubtful).
GROUPS = {
    "animal": (
        f"""{_BIRDS}, {_INSECTS}, bat, bear, beaver, camel, cat, cow, crab, crocodile, deer, dog, dolphin, elephant,
        ewe, fish, fox, frog, giraffe, goat, gorilla, hedgehog, hippopotamus, horse, kangaroo, koala, leopard, lion,
        lizard, llama, lobster, monkey, mouse, octopus, otter, panda, pig, rabbit, raccoon, rhinoceros, scorpion,
        seal, shark, shrimp, skunk, sloth, snail, snake, spider, squid, tiger, turtle, unicorn, whale, wolf, worm,
        zebra""",
        "dragon, sauropod, t-rex, teddy bear",
    ),
    "bird": (_BIRDS, ""),
    "insect": (_INSECTS, "scorpion, snail, spider, worm"),
    "dinosaur": ("sauropod, t-rex", "crocodile, dragon, lizard"),
    "fruit": (_FRUIT, "avocado, coconut, eggplant, tomato, jack-o-lantern, bell pepper, hot pepper, cucumber"),
    "vegetable": (_VEGETABLES, "avocado, jack-o-lantern, mushroom, tomato"),
    "food": (
        f"""{_FRUIT}, {_VEGETABLES}, {_SWEETS}, avocado, bacon, bagel, baguette bread, bread, burrito, cheese wedge,
        coconut, croissant, egg, french fries, hamburger, hot dog, mushroom, pancakes, pizza, popcorn, poultry leg,
        pretzel, sandwich, spaghetti, sushi, taco, tomato, waffle""",
        f"{_DRINKS}, crab, fish, honey pot, jack-o-lantern, lobster, shrimp, squid, turkey",
    ),
    "drink": (_DRINKS, "teapot"),
    "sweet": (_SWEETS, "honey pot, pancakes, waffle"),
    "apple": ("red apple, green apple", ""),
    "cake": ("birthday cake, shortcake", "cupcake, pancakes, pie"),
    "vehicle": (
        f"""{_CARS}, airplane, ambulance, bicycle, bus, canoe, delivery truck, fire engine, helicopter, locomotive,
        motor scooter, motorcycle, rocket, sailboat, ship, tractor""",
        "kick scooter, parachute, shopping cart, skateboard, sled",
    ),
    "car": (_CARS, "ambulance, bus, delivery truck, fire engine, locomotive, tractor"),
    "boat": ("canoe, sailboat, ship", ""),
    "instrument": (
        "accordion, banjo, drum, flute, guitar, maracas, musical keyboard, saxophone, trumpet, violin",
        "bell, compass, microscope, telescope, thermometer",
    ),
    "tool": (
        "axe, carpentry saw, hammer, screwdriver, wrench",
        """broom, bucket, compass, kitchen knife, ladder, magnet, microscope, paintbrush, plunger,
        scissors, sponge, telescope, thermometer, toolbox""",
    ),
    "clothing": (
        "bikini, coat, dress, jeans, kimono, necktie, scarf, shorts, socks, t-shirt",
        """backpack, billed cap, boxing glove, crown, glasses, gloves, handbag, high-heeled shoe, hiking boot, running
        shoe, sunglasses, top hat, watch""",
    ),
    "shoe": ("high-heeled shoe, hiking boot, running shoe", "socks"),
    "hat": ("billed cap, top hat", "crown"),
    "furniture": ("bed, chair", "bathtub, door, ladder, mirror, toilet, window"),
    "ball": ("american football, baseball, basketball, soccer ball, volleyball", "yo-yo"),
    "flower": ("hibiscus, rose, sunflower, tulip", "four leaf clover, potted plant"),
    "tree": ("christmas tree, deciduous tree, evergreen tree, palm tree", "cactus, potted plant"),
    "building": ("castle, house", "tent"),
    "book": ("closed book, open book", "newspaper"),
}

# A noun whose plain word might also be said of these.
_DOUBTFUL = {
    "automobile": "taxi, police car, racing car",
    "bear": "panda, teddy bear, koala",
    "cheese wedge": "pizza",
    "cloud": "rainbow",
    "candy": "chocolate bar, lollipop",
    "american football": "soccer ball",
    "cocktail glass": "tropical drink, wine glass",
    "evergreen tree": "christmas tree",
    "fish": "dolphin, shark, whale",
    "glasses": "sunglasses",
    "ice cream": "soft ice cream",
    "necktie": "t-shirt",
    "rooster": "baby chick, turkey, poultry leg",
    "delivery truck": "fire engine, ambulance",
    "locomotive": "tractor",
    "motorcycle": "motor scooter",
    "tangerine": "lemon, mango, peach",
    "potted plant": "cactus, sunflower, four leaf clover",
    "bicycle": "motorcycle, motor scooter",
    "bread": "baguette bread, croissant, bagel",
    "melon": "watermelon",
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
        for singular in (noun, SYNONYMS.get(noun)):
            if singular is not None:
                result.append(Name(singular, plural_of(singular), frozenset([noun]), doubtful))
    for word, (members, doubts) in GROUPS.items():
        doubtful = frozenset(_words(doubts)) if doubts else frozenset()
        result.append(Name(word, plural_of(word), frozenset(_words(members)), doubtful, is_group=True))
    return tuple(result)


def usable_names(present: Iterable[str]) -> tuple[Name, ...]:
    """Return the names that can be used of a scene with these nouns: none is doubtful for the name."""
    present_set = frozenset(present)
    return tuple(name for name in names() if not name.doubtful & present_set)
