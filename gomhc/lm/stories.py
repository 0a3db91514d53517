"""Short children's stories whose every next-word probability is known.

A story is written from left to right by a grammar with a memory. At every word the process has a
known distribution given all words before it, so the cross-entropy of a text under the process that
made it is exact: the floor that no model beats on average.

Note [Grammar]
    A template is a line of words. `?animal` draws a word from the table `animal` and remembers it;
    `?friend:name` draws from `name` and remembers it as `friend`; what is remembered from a table
    is not drawn from it again until it is replaced. `$animal` says it again, `$animal.food` another
    column of its row: these have probability 1, for a reader who remembers. `@body` goes on with
    one of the templates of `CHOICES["body"]`. Templates of one choice begin with different words,
    and so do the rows of a table; so the words before any place decide what was drawn, and the
    probability of the next word is that of one draw.

Note [Weights]
    The k-th of n rows or templates has a weight of 1 / (k + 3), k = 1..n, so that some words are
    much more common than others, as in any text.
"""

import functools
import math
import random
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

__all__ = ["BEGIN", "Text", "log_probabilities", "next_word", "sample", "vocabulary"]

BEGIN = "<story>"  # stands before every story

TABLES: dict[str, tuple[str, str]] = {
    # name -> columns, rows
    "time": ("", "morning evening night summer winter spring autumn noon"),
    "size": ("", "little big small tiny young old tall brave clever shy quiet funny"),
    "animal": (
        "sound food home",
        """dog barked bones kennel, cat meowed milk basket, bear growled honey cave,
        rabbit squeaked carrots burrow, mouse whispered cheese hole, duck quacked bread pond,
        frog croaked flies swamp, horse neighed hay stable, cow mooed grass barn,
        sheep bleated clover meadow, pig grunted corn sty, owl hooted beetles tree,
        lion roared meat den, monkey chattered bananas jungle, elephant trumpeted peanuts plain,
        fox yelped berries lair, hen clucked seeds coop, bee buzzed nectar hive,
        wolf howled stew forest, snake hissed eggs rocks, seal honked fish shore,
        parrot squawked crackers cage, donkey brayed oats shed, cricket chirped leaves garden""",
    ),
    "name": (
        "pronoun possessive",
        """Lily she her, Tom he his, Mia she her, Ben he his, Anna she her, Max he his,
        Sue she her, Tim he his, Lucy she her, Sam he his, Ella she her, Jack he his, Rosa she her,
        Leo he his, Nora she her, Finn he his, Ivy she her, Otto he his, Zoe she her, Hugo he his,
        Clara she her, Oscar he his, Ada she her, Paul he his, Emma she her, Noah he his,
        Ruth she her, Karl he his, Vera she her, Emil he his, Dora she her, Felix he his""",
    ),
    "thing": (
        "did use",
        """ball bounced play, kite flew fly, drum boomed march, boat floated sail, lamp glowed read,
        bell rang call, book opened learn, cup shone drink, hat fitted dress, rope swung climb,
        spoon stirred cook, wheel turned ride, mirror sparkled look, box rattled keep,
        whistle tooted signal, shovel dug dig, brush swept paint, clock ticked wake,
        candle flickered see, pillow puffed sleep, bucket splashed carry, hammer banged build,
        needle pricked sew, map unfolded travel, key clicked unlock, coin spun pay,
        flute sang dance, scarf fluttered wrap""",
    ),
    "color": ("", "red blue green yellow white black pink brown golden silver purple orange"),
    "place": (
        "sight",
        """park swings, beach shells, river stones, hill clouds, market apples, school desks,
        farm tractors, castle towers, bridge ships, library shelves, station trains, zoo tigers,
        island palms, mountain eagles, village chimneys, harbor nets, bakery cakes, museum statues,
        theater curtains, mill sacks, well frogs, orchard plums, lighthouse waves, cellar wine""",
    ),
    "weather": (
        "verb wear",
        """rain poured umbrella, snow fell mittens, sun burned cap, wind blew jacket,
        fog rolled lantern, storm raged boots, hail rattled helmet, frost bit coat""",
    ),
    "feeling": (
        "sign cure",
        """sad cried hug, happy laughed song, scared trembled light, angry stamped breath,
        tired yawned nap, hungry sighed meal, lonely moped friend, proud smiled cheer,
        bored groaned game, sick coughed tea, cold shivered blanket, worried frowned plan,
        sleepy blinked bed, curious stared answer, jealous pouted gift, lost wandered guide""",
    ),
    "number": ("", "two three four five six seven eight nine ten twelve"),
    "way": ("", "slowly quickly softly gladly carefully loudly quietly suddenly bravely kindly"),
}

STORY = (
    f"{BEGIN} one ?time , the ?size ?animal named ?name left the $animal.home . "
    "$name had one ?color ?thing to $thing.use with . @body"
)

CHOICES: dict[str, Sequence[str]] = {
    "body": (
        "then $name met ?friend:name , the ?trait:size ?kind:animal . $friend $kind.sound ?way , "
        "@greeting @meeting @more",
        "at the ?place , $name saw $place.sight . $name.pronoun counted ?number of them . "
        "@counting @more",
        "soon the ?weather $weather.verb , so $name needed $name.possessive $weather.wear . "
        "@shelter @more",
        "but $name felt ?feeling and $feeling.sign . all $name.pronoun wanted was a "
        "$feeling.cure . @comfort @more",
        "next $name lost the $color $thing . @search @more",
    ),
    "greeting": (
        "and $name $animal.sound back .",
        "which made $name feel ?feeling .",
    ),
    "meeting": (
        "they shared $animal.food and $kind.food .",
        "now $friend liked the $color $thing , because it $thing.did for $friend.possessive "
        "friend .",
        "both wanted to $thing.use . the $color $thing $thing.did for $name and for $friend .",
    ),
    "counting": (
        "exactly $number $place.sight were enough for one $time .",
        "how many $place.sight ? $number , said the $size $animal .",
        "when $name went home to the $animal.home , all $number $place.sight stayed at the "
        "$place .",
    ),
    "shelter": (
        "under the $weather.wear , $name ate $animal.food until the $weather was gone .",
        "without it the $weather would have spoiled the $color $thing .",
    ),
    "comfort": (
        "after a $feeling.cure , the $size $animal was no longer $feeling .",
        "no one gave a $feeling.cure to $name , so $name.pronoun stayed $feeling and $feeling.sign "
        "again .",
    ),
    "search": (
        "it was in the $animal.home . $name $animal.sound ?way and picked up the $color $thing .",
        "where was it ? the ?trait:size ?finder:animal had it , and $finder.sound . $name gave the "
        "$finder some $finder.food , and the $color $thing $thing.did again .",
    ),
    "more": (
        "@body",
        "finally $name the $size $animal took the $color $thing back to the $animal.home , ate "
        "$animal.food and slept . the end .",
    ),
}

Distribution = Mapping[str, float]  # next word -> its probability; sums to 1
Step = tuple[str, str, str]  # kind, and what it needs


class Text(NamedTuple):
    """Stories one after the other, as word numbers in `vocabulary()`, and what each word cost.

    Attributes:
        tokens: (count,), int64.
        log_probability: (count,), natural logarithm of the probability of each word given all
            words before it; 0 where it was certain.
    """

    tokens: Int[np.ndarray, " count"]
    log_probability: Float[np.ndarray, " count"]


@functools.cache
def _rows(table: str) -> dict[str, tuple[str, ...]]:
    """Rows of a table by their first word."""
    separator = "," if TABLES[table][0] else None
    return {row.split()[0]: tuple(row.split()) for row in TABLES[table][1].split(separator)}


@functools.cache
def _steps(template: str) -> tuple[Step, ...]:
    """A template, word by word."""
    steps = []
    for word in template.split():
        mark, rest = word[0], word[1:]
        if mark == "?" and rest:
            slot, _, table = rest.partition(":")
            steps.append(("draw", slot, table or slot))
        elif mark == "$":
            slot, _, column = rest.partition(".")
            steps.append(("say", slot, column))
        elif mark == "@":
            steps.append(("choose", rest, ""))
        else:
            steps.append(("word", word, ""))
    return tuple(steps)


def _weighted(words: Iterable[str]) -> Distribution:
    weights = {word: 1 / (k + 3) for k, word in enumerate(words, 1)}
    total = math.fsum(weights.values())
    return {word: weight / total for word, weight in weights.items()}


@functools.cache
def _draw(table: str, without: frozenset[str]) -> Distribution:
    return _weighted(word for word in _rows(table) if word not in without)


@functools.cache
def _choice(name: str) -> tuple[Distribution, dict[str, tuple[Step, ...]]]:
    """Distribution of the first word of a choice, and how each goes on.

    A template that begins with another choice is taken apart into that one's.
    """
    branches = {}
    weights = {}
    for template, weight in zip(CHOICES[name], _weighted(CHOICES[name]).values(), strict=True):
        kind, first, _ = _steps(template)[0]
        if kind == "choose":
            inner, rests = _choice(first)
            openings = [(w, weight * p, rests[w] + _steps(template)[1:]) for w, p in inner.items()]
        elif kind == "word":
            openings = [(first, weight, _steps(template)[1:])]
        else:
            raise ValueError(f"expected a template that begins with a word, got {template!r}")
        for word, probability, rest in openings:
            if word in branches:
                raise ValueError(f"expected different first words in {name!r}, got {word!r} twice")
            branches[word], weights[word] = rest, probability
    return weights, branches


def _story() -> Generator[Distribution, str, None]:
    """One story: yields the distribution of each word, and is sent the word."""
    memory: dict[str, tuple[str, tuple[str, ...]]] = {}  # slot -> table, row
    stack: list[Iterator[Step]] = [iter(_steps(STORY))]
    while stack:
        kind, name, more = next(stack[-1], ("end", "", ""))
        if kind == "word":
            yield {name: 1.0}
        elif kind == "say":
            table, row = memory[name]
            columns = ["", *TABLES[table][0].split()]
            yield {row[columns.index(more)]: 1.0}
        elif kind == "draw":
            known = frozenset(row[0] for table, row in memory.values() if table == more)
            word = yield _draw(more, known)
            memory[name] = more, _rows(more)[word]
        elif kind == "choose":
            distribution, branches = _choice(name)
            word = yield distribution
            stack.append(iter(branches[word]))
        else:
            stack.pop()


def _stories() -> Generator[Distribution, str, None]:
    """Stories without end."""
    while True:
        yield from _story()


@functools.cache
def vocabulary() -> tuple[str, ...]:
    """All words that occur, `BEGIN` first, the others in the order of the alphabet."""
    templates = [STORY, *(template for choice in CHOICES.values() for template in choice)]
    words = {name for t in templates for kind, name, _ in _steps(t) if kind == "word"}
    words |= {word for table in TABLES for row in _rows(table).values() for word in row}
    return BEGIN, *sorted(words - {BEGIN})


def sample(count: int, seed: int) -> Text:
    """Write stories.

    Args:
        count: number of words; the last story may be cut off.
        seed: of the draws.

    Returns:
        Text.

    Raises:
        ValueError: if count < 1.
    """
    if count < 1:
        raise ValueError(f"expected count >= 1, got {count}")
    number = {word: k for k, word in enumerate(vocabulary())}
    source = random.Random(seed)
    tokens, cost = np.empty(count, np.int64), np.zeros(count)
    process = _stories()
    distribution = next(process)
    for k in range(count):
        if len(distribution) == 1:
            (word,) = distribution
        else:
            (word,) = source.choices(list(distribution), list(distribution.values()))
            cost[k] = math.log(distribution[word])
        tokens[k] = number[word]
        distribution = process.send(word)
    return Text(tokens, cost)


def _read(words: Iterable[str]) -> Iterator[Distribution]:
    """The distribution of each word, and of the one after the last."""
    process = _stories()
    distribution = next(process)
    for position, word in enumerate(words):
        if word not in distribution:
            some = ", ".join(list(distribution)[:8])
            raise ValueError(
                f"expected one of {len(distribution)} words at position {position} ({some}…), "
                f"got {word!r}"
            )
        yield distribution
        distribution = process.send(word)
    yield distribution


def log_probabilities(words: Sequence[str]) -> Float[np.ndarray, " count"]:
    """How probable each word of some stories is to a reader who knows the process.

    Args:
        words: a list of words, of stories one after the other, from the beginning of one on.

    Returns:
        Natural logarithms of the probabilities.

    Raises:
        ValueError: if the process cannot write this text.
    """
    pairs = zip(words, _read(words), strict=False)
    return np.array([math.log(distribution[word]) for word, distribution in pairs])


def next_word(words: Sequence[str]) -> dict[str, float]:
    """The distribution of the word after these.

    Args:
        words: as in `log_probabilities`; may be empty.

    Returns:
        Word -> probability.

    Raises:
        ValueError: if the process cannot write this text.
    """
    *_, last = _read(words)
    return dict(last)
