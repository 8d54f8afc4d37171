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

    def is_plural(self, count: int) -> bool:
        """Whether verbs and pronouns for so many things are those of several: "the gloves that are red"."""
        return count > 1 or self.singular in PLURAL_ONLY

    def form(self, count: int) -> str:
        """Return the word for so many things."""
        return self.singular if count == 1 else self.plural


def _words(text: str) -> tuple[str, ...]:
    return tuple(" ".join(word.split()) for word in text.split(","))


ONE_FORM = frozenset(
    _words(
        """aircraft, beer, bread, broccoli, cherries, clothing, corn, fast food, food, footwear, french fries, fries,
        fruit, furniture, gloves, grapes, headphones, jeans, milk, pancakes, piano keys, popcorn, scissors, socks,
        sunglasses, wine"""
    )
)

# Those that are plural even of one thing.
PLURAL_ONLY = frozenset(
    _words(
        """cherries, french fries, fries, gloves, grapes, headphones, jeans, pancakes, piano keys, scissors, socks,
        sunglasses"""
    )
)

IRREGULAR_PLURALS = {
    "cactus": "cacti",
    "fish": "fish",
    "kitchen knife": "kitchen knives",
    "knife": "knives",
    "loaf": "loaves",
    "mouse": "mice",
    "piece of clothing": "clothes",
    "potato": "potatoes",
    "scarf": "scarves",
    "sheep": "sheep",
    "snowman": "snowmen",
    "thing to eat": "things to eat",
    "tomato": "tomatoes",
}

# Other words for one noun or group.
SYNONYMS = {
    "airplane": "plane, aeroplane",
    "alarm clock": "clock",
    "american football": "football",
    "animal": "creature",
    "backpack": "rucksack",
    "bathtub": "bath, tub",
    "beer mug": "beer, mug of beer, glass of beer",
    "bicycle": "bike",
    "billed cap": "cap, baseball cap",
    "birthday cake": "cake",
    "bread": "loaf of bread",
    "broccoli": "head of broccoli",
    "carpentry saw": "saw, handsaw",
    "cheese wedge": "cheese, wedge of cheese, piece of cheese",
    "cherries": "bunch of cherries, pair of cherries",
    "closed book": "book",
    "clothing": "piece of clothing, item of clothing, garment",
    "coat": "jacket",
    "cocktail glass": "cocktail",
    "cookie": "biscuit",
    "deciduous tree": "oak tree, leafy tree",
    "delivery truck": "truck, lorry",
    "device": "electronic device, gadget",
    "doughnut": "donut",
    "drink": "beverage",
    "ear of corn": "corn, corn cob",
    "eggplant": "aubergine",
    "evergreen tree": "pine tree, fir tree",
    "ewe": "sheep",
    "fire engine": "fire truck",
    "food": "food item, thing to eat, edible thing",
    "french fries": "fries, box of fries",
    "fruit": "piece of fruit",
    "furniture": "piece of furniture",
    "glass of milk": "milk",
    "gloves": "pair of gloves",
    "grapes": "bunch of grapes",
    "hamburger": "burger",
    "handbag": "purse",
    "headphone": "headphones, pair of headphones",
    "high-heeled shoe": "high heel",
    "hiking boot": "boot",
    "honeybee": "bee",
    "hot pepper": "chili pepper, chili",
    "instrument": "musical instrument",
    "jack-o-lantern": "pumpkin, carved pumpkin",
    "jeans": "pair of jeans",
    "kitchen knife": "knife",
    "kiwi fruit": "kiwi",
    "lady beetle": "ladybug, ladybird",
    "laptop": "computer",
    "light bulb": "lightbulb, bulb",
    "locomotive": "train, steam engine",
    "microphone": "mic",
    "mobile phone": "cell phone, smartphone",
    "motorcycle": "motorbike",
    "musical keyboard": "piano keys, keyboard, piano keyboard",
    "necktie": "tie",
    "pancakes": "stack of pancakes",
    "pizza": "slice of pizza",
    "popcorn": "box of popcorn",
    "racing car": "race car",
    "rhinoceros": "rhino",
    "rooster": "chicken",
    "running shoe": "sneaker, trainer",
    "sailboat": "sailing boat",
    "saxophone": "sax",
    "scissors": "pair of scissors",
    "sea animal": "sea creature",
    "shoe": "footwear, piece of footwear",
    "socks": "pair of socks",
    "sunglasses": "pair of sunglasses",
    "sweet": "sweet treat, dessert",
    "t-shirt": "shirt, tee shirt",
    "tangerine": "orange, mandarin",
    "taxi": "cab",
    "teddy bear": "teddy",
    "television": "tv",
    "vegetable": "veggie",
    "watch": "wristwatch",
    "watermelon": "melon, slice of watermelon",
    "wine glass": "glass of wine, wine",
    "wrapped gift": "present, gift",
}

_BIRDS = "duck, eagle, flamingo, owl, parrot, penguin, rooster, swan"
_INSECTS = "butterfly, honeybee, lady beetle"
_FRUIT = """banana, cherries, grapes, green apple, kiwi fruit, lemon, pear, pineapple, red apple, strawberry, tangerine,
    watermelon"""
_VEGETABLES = "broccoli, carrot, cucumber, ear of corn, eggplant, hot pepper, onion, potato"
_DRINKS = "beer mug, cocktail glass, glass of milk, wine glass"
_SWEETS = "birthday cake, cookie, cupcake, doughnut, ice cream, lollipop"
_FLOWERS = "rose, sunflower, tulip"
_CARS = "automobile, police car, racing car, taxi"

# Words for several nouns: word -> (members, doubtful).
GROUPS = {
    "animal": (
        f"""{_BIRDS}, bear, camel, cat, cow, crab, crocodile, dog, dolphin, elephant, ewe, fish, fox, frog, giraffe,
        horse, kangaroo, koala, lion, monkey, mouse, octopus, panda, pig, rabbit, rhinoceros, shark, snake, tiger,
        turtle, whale, zebra""",
        f"{_INSECTS}, snail, spider, teddy bear",
    ),
    "bird": (_BIRDS, ""),
    "reptile": ("crocodile, snake, turtle", "frog, snail"),
    "sea animal": (
        "crab, dolphin, fish, octopus, shark, whale",
        "crocodile, duck, frog, penguin, snail, swan, turtle",
    ),
    "insect": (_INSECTS, "snail, spider"),
    "fruit": (_FRUIT, "avocado, eggplant, tomato, jack-o-lantern, hot pepper, cucumber"),
    "vegetable": (_VEGETABLES, "avocado, jack-o-lantern, mushroom, tomato"),
    "food": (
        f"""{_FRUIT}, {_VEGETABLES}, {_SWEETS}, avocado, bread, cheese wedge, croissant, egg, french fries, hamburger,
        hot dog, pancakes, pizza, popcorn, pretzel, sandwich, taco, tomato""",
        f"{_DRINKS}, crab, fish, jack-o-lantern, mushroom",
    ),
    "fast food": (
        "french fries, hamburger, hot dog, pizza, taco",
        f"{_SWEETS}, bread, cheese wedge, croissant, egg, pancakes, popcorn, pretzel, sandwich",
    ),
    "drink": (_DRINKS, "teapot"),
    "sweet": (_SWEETS, "pancakes"),
    "apple": ("red apple, green apple", ""),
    "vehicle": (
        f"""{_CARS}, airplane, ambulance, bicycle, bus, delivery truck, fire engine, helicopter, locomotive,
        motorcycle, tractor""",
        "canoe, rocket, sailboat, ship, skateboard",
    ),
    "car": (_CARS, "ambulance, bus, delivery truck, fire engine, locomotive, tractor"),
    "aircraft": ("airplane, helicopter", "rocket, balloon"),
    "boat": ("canoe, sailboat, ship", ""),
    "instrument": (
        "accordion, drum, guitar, musical keyboard, saxophone, trumpet, violin",
        "bell",
    ),
    "tool": (
        "axe, carpentry saw, hammer, screwdriver, wrench",
        "broom, bucket, key, kitchen knife, ladder, pencil, scissors",
    ),
    "clothing": (
        "coat, dress, jeans, necktie, scarf, socks, t-shirt",
        """backpack, billed cap, crown, gloves, handbag, high-heeled shoe, hiking boot, running shoe, sunglasses,
        top hat, watch""",
    ),
    "shoe": ("high-heeled shoe, hiking boot, running shoe", "socks"),
    "hat": ("billed cap, top hat", "crown, snowman"),
    "bag": ("backpack, handbag", "popcorn, wrapped gift"),
    "furniture": ("bed, chair", "bathtub, ladder"),
    "ball": ("basketball, soccer ball", "american football, balloon"),
    "flower": (_FLOWERS, "cactus"),
    "tree": ("christmas tree, deciduous tree, evergreen tree, palm tree", "cactus"),
    "plant": (
        f"{_FLOWERS}, cactus, deciduous tree, evergreen tree, palm tree",
        f"{_FRUIT}, {_VEGETABLES}, avocado, christmas tree, jack-o-lantern, mushroom, tomato",
    ),
    "device": (
        "camera, laptop, mobile phone, television",
        "alarm clock, headphone, light bulb, microphone, musical keyboard, robot, rocket, telephone, watch",
    ),
    "phone": ("mobile phone, telephone", ""),
    "building": ("castle, house", "tent"),
}

# A noun whose plain word, or another word for it, might also be said of these, or of a part of their pictures.
_DOUBTFUL = {
    "alarm clock": "watch",
    "automobile": "taxi, police car, racing car",
    "bear": "panda, teddy bear, koala",
    "beer mug": "cocktail glass, wine glass",
    "billed cap": "top hat",
    "birthday cake": "cupcake, pancakes",
    "carrot": "snowman",
    "cheese wedge": "pizza",
    "american football": "soccer ball",
    "cocktail glass": "wine glass",
    "evergreen tree": "christmas tree",
    "fish": "dolphin, shark, whale",
    "ladder": "fire engine",
    "musical keyboard": "laptop, accordion",
    "necktie": "t-shirt",
    "delivery truck": "fire engine, ambulance",
    "locomotive": "tractor",
    "t-shirt": "necktie",
    "tangerine": "lemon",
    "bicycle": "motorcycle",
    "bread": "croissant",
    "candle": "birthday cake",
    "scarf": "snowman",
    "strawberry": "birthday cake",
    "telephone": "mobile phone",
    "top hat": "snowman",
}


def names_a_colour(word: str) -> bool:
    """Whether a colour is part of the word, as in "red apple"; nothing can be said of its colour then."""
    return not set(COLOURS).isdisjoint(word.split())


def plural_of(singular: str) -> str:
    """Return the plural of a name; names of one form are returned as they are."""
    if singular in ONE_FORM:
        return singular
    if singular in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[singular]
    if " of " in singular:  # "pairs of gloves"
        head, of, rest = singular.partition(" of ")
        return plural_of(head) + of + rest
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
        doubtful = doubtful_for(noun)
        result += [Name(word, plural_of(word), frozenset([noun]), doubtful) for word in _with_synonyms(noun)]
    for group, (members, doubts) in GROUPS.items():
        doubtful = frozenset(_words(doubts)) if doubts else frozenset()
        covered = frozenset(_words(members))
        result += [Name(word, plural_of(word), covered, doubtful, is_group=True) for word in _with_synonyms(group)]
    return tuple(result)


@cache
def doubtful_for(noun: str) -> frozenset[str]:
    """Return the nouns whose pictures might also be called so, or show such a thing."""
    return frozenset(_words(_DOUBTFUL[noun])) if noun in _DOUBTFUL else frozenset()


def _with_synonyms(word: str) -> tuple[str, ...]:
    return (word, *_words(SYNONYMS[word])) if word in SYNONYMS else (word,)


def usable_names(present: Iterable[str]) -> tuple[Name, ...]:
    """Return the names that can be used of a scene with these nouns: none is doubtful for the name."""
    present_set = frozenset(present)
    return tuple(name for name in names() if not name.doubtful & present_set)
