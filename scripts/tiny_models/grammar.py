"""A small grammar of English: the language that the built-in tiny models are trained on.

Every sentence comes from a triple (verb, subject, object) that respects the verb's selectional
restrictions, rendered in one of many constructions. One triple in ten, picked by a checksum of its
words, is never rendered in the corpus: `minimal_pairs` builds its test items from those.

Plain Python; the same seed gives the same sentences everywhere.
"""

# Lists of words are easier to read and to extend as text.
# ruff: noqa: SIM905

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

HELD_OUT_ONE_IN = 10
"""One triple in this many is kept out of the corpus."""

RARE_WEIGHT = 0.06
"""How often a rare word is drawn, relative to the others: rare words stay several tokens."""

RESERVED_WORDS = frozenset(
    "crined blorked dacked flomped gorped wugged daxed blicked zorked plimmed".split()
)
"""Made-up words that experiments use; the corpus has made-up words too, but never these."""

# A noun is "singular" or "singular/plural"; "-" as the plural marks a mass noun. What follows
# "rare:" is drawn seldom. A noun may stand in several classes.
NOUN_CLASSES: dict[str, str] = {
    "person": """
        man/men woman/women boy girl person/people customer teenager gentleman/gentlemen friend
        worker guest manager farmer doctor technician child/children patient king reviewer editor
        student scientist actor prince president client author committee chancellor teacher nurse
        lawyer baker singer writer queen soldier sailor waiter driver neighbor uncle aunt mother
        father brother sister artist dancer pilot judge cook painter guard visitor tourist
        rare: blacksmith librarian goalkeeper plumber juggler violinist carpenter grandmother
        shopkeeper archaeologist poet hunter monk tailor clerk""",
    "animal": """
        dog cat horse cow bird mouse/mice fox wolf/wolves pig goat rabbit duck lion bear monkey
        rare: hedgehog squirrel donkey parrot badger kitten puppy""",
    "drink": """
        water/- beer/- tea/- milk/- wine/- coffee/- juice/- lemonade/- cider/- cocoa/-
        rare: whisky/- broth/- champagne/- gin/- smoothie""",
    "food": """
        bread/- steak dessert pizza orange sandwich/sandwiches cereal/- grain/- apple cake cheese/-
        rice/- cookie carrot pie potato/potatoes tomato/tomatoes egg salad banana
        rare: pancake dumpling pretzel noodle muffin lasagna walnut""",
    "breakable": """
        glass/glasses window mirror dish/dishes jar camera vase cup plate bottle lamp phone toy bowl
        pot clock rare: chandelier teapot lantern flowerpot goblet saucer""",
    "clothes": """
        shirt coat hat dress/dresses jacket scarf/scarves sweater skirt shoe boot glove sock uniform
        rare: cardigan waistcoat kimono bonnet poncho mitten""",
    "text": """
        script magazine story document book article letter newspaper poem novel report message
        diary rare: pamphlet manuscript brochure ballad textbook encyclopedia""",
    "tool": """
        hammer tape medicine/- phone camera ladder brush/brushes rope basket knife/knives key
        umbrella wallet blanket rare: screwdriver wrench lantern shovel kettle""",
    "event": """
        decision statement choice incident purchase error mistake remark promise plan joke delay
        rare: blunder resignation outburst wager compromise""",
    "stimulus": """
        noise storm film song rumor thunder/- news/- music/- accident speech/speeches silence/-
        rare: earthquake nightmare spectacle avalanche melody""",
    "openable": """
        door window box/boxes gate drawer jar bottle suitcase envelope
        rare: cupboard hatch casket briefcase""",
    "vehicle": "car bus/buses truck bicycle train boat van wagon rare: tractor scooter canoe",
    "instrument": "piano guitar violin drum flute trumpet rare: clarinet banjo cello",
    "place": """
        kitchen garden park school city town village house room market library office forest river
        street hospital station bridge hotel rare: monastery orchard warehouse cathedral""",
    "furniture": "table chair shelf/shelves bed desk bench/benches rare: wardrobe sofa cradle",
}

GOODS = "food drink clothes text tool vehicle instrument breakable furniture"
INANIMATE = f"{GOODS} openable"

# base [past [participle]] | subject classes | object classes; a "*" marks a rare verb, "+" one
# drawn more often. An intransitive verb has no object classes.
VERBS = f"""
+drink drank drunk | person animal | drink
spill spilled | person animal | drink
pour poured | person | drink
sip sipped | person | drink
*gulp gulped | person animal | drink
*slurp slurped | person animal | drink
*guzzle guzzled | person animal | drink
*brew brewed | person | drink
+eat ate eaten | person animal | food
cook cooked | person | food
bake baked | person | food
taste tasted | person animal | food drink
swallow swallowed | person animal | food
*chew chewed | person animal | food
*devour devoured | person animal | food
*nibble nibbled | person animal | food
+break broke broken | person animal | breakable
smash smashed | person animal | breakable
drop dropped | person | breakable tool
*crack cracked | person animal | breakable
*shatter shattered | person animal | breakable
*polish polished | person | breakable
wash washed | person | breakable clothes vehicle
clean cleaned | person | breakable clothes furniture
wear wore worn | person | clothes
sew sewed sewn | person | clothes
iron ironed | person | clothes
*knit knitted | person | clothes
*mend mended | person | clothes
+read read | person | text
write wrote written | person | text
publish published | person | text
*skim skimmed | person | text
*translate translated | person | text
*recite recited | person | text
+buy bought | person | {GOODS}
sell sold | person | {GOODS}
borrow borrowed | person | text tool vehicle instrument clothes
steal stole stolen | person animal | food tool
lose lost | person | tool clothes text
find found | person animal | food tool clothes
*rent rented | person | vehicle instrument
*pawn pawned | person | instrument tool
+regret regretted | person | event
explain explained | person | event
mention mentioned | person | event
forget forgot forgotten | person | event
deny denied | person | event
*lament lamented | person | event
*rue rued | person | event
open opened | person | openable
close closed | person | openable
lock locked | person | openable
*unlatch unlatched | person | openable
drive drove driven | person | vehicle
park parked | person | vehicle
repair repaired | person | vehicle instrument furniture
*overtake overtook overtaken | person | vehicle
play played | person | instrument
tune tuned | person | instrument
*strum strummed | person | instrument
see saw seen | person animal | person animal {INANIMATE} stimulus
like liked | person animal | person animal food drink clothes
watch watched | person animal | person animal stimulus
hear heard | person animal | stimulus person animal
enjoy enjoyed | person | stimulus food drink
chase chased | person animal | animal person
follow followed | person animal | animal person vehicle
feed fed | person | animal
bite bit bitten | animal | person animal
help helped | person | person
thank thanked | person | person
invite invited | person | person
know knew known | person | person
visit visited | person | person place
leave left | person | place
+frighten frightened | stimulus event | person animal
amuse amused | text stimulus event | person
annoy annoyed | stimulus event | person animal
surprise surprised | event stimulus | person
worry worried | event stimulus | person
bore bored | text event | person
please pleased | food drink stimulus | person animal
warm warmed | drink clothes | person animal
refresh refreshed | drink | person animal
sicken sickened | food drink | person animal
nourish nourished | food | person animal
soak soaked | drink | person animal
delight delighted | food stimulus text | person
injure injured | vehicle breakable | person animal
*startle startled | stimulus | person animal
*soothe soothed | drink stimulus | person
*perplex perplexed | text event | person
*poison poisoned | food drink | person animal
*intoxicate intoxicated | drink | person
sleep slept | person animal |
laugh laughed | person |
smile smiled | person |
work worked | person |
run ran run | person animal |
wait waited | person animal |
dance danced | person |
swim swam swum | person animal |
arrive arrived | person vehicle |
sing sang sung | person |
*sneeze sneezed | person animal |
*snore snored | person animal |
"""

FREQUENCY_ADVERBS = (
    "always usually often typically frequently hardly rarely never sometimes seldom generally"
).split()
OTHER_ADVERBS = "already just recently finally probably secretly slowly quickly quietly".split()
NAMES = "George Chris Mary John Anna Peter Susan Tom Emma David Lucy Paul".split()
PERSON_ADJECTIVES = "old young tall happy tired angry clever kind rich poor hungry famous".split()
THING_ADJECTIVES = "old new big small red green expensive cheap nice strange heavy".split()
CLASS_ADJECTIVES = {
    "drink": "cold hot fresh sweet strong warm".split(),
    "food": "fresh delicious sweet cold stale".split(),
    "clothes": "blue dirty clean warm long".split(),
    "breakable": "dirty clean empty broken".split(),
    "text": "long short boring famous interesting".split(),
    "event": "foolish strange sudden bad terrible".split(),
    "stimulus": "loud sudden strange terrible".split(),
}
PREPOSITIONS = "near behind beside with next_to".split()


@dataclass(frozen=True)
class Noun:
    """A noun with its forms.

    Attributes:
        singular: The singular; it identifies the noun.
        plural: The plural, None for a mass noun or a name.
        classes: Its selectional classes.
        rare: Whether it is drawn seldom.
        is_name: Whether it is a proper name, which takes no determiner.
    """

    singular: str
    plural: str | None
    classes: frozenset[str]
    rare: bool = False
    is_name: bool = False


@dataclass(frozen=True)
class Verb:
    """A verb with its forms and selectional restrictions; without objects it is intransitive."""

    base: str
    third: str
    past: str
    participle: str
    ing: str
    subjects: tuple[str, ...]
    objects: tuple[str, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class Phrase:
    """A noun phrase: its words, and the number that a verb must agree with."""

    words: str
    number: str  # "sg", "pl" or "I"


@dataclass(frozen=True)
class Triple:
    """Who does what to whom; the object is None for an intransitive verb."""

    verb: Verb
    subject: Noun
    object: Noun | None


def add_s(word: str) -> str:
    """The regular plural of a noun, the regular third person of a verb."""
    if word.endswith(("s", "sh", "ch", "x", "z")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def _ing(base: str, past: str) -> str:
    if past == base + base[-1] + "ed" or base in {"swim", "run", "forget"}:
        return base + base[-1] + "ing"
    if base.endswith("e") and base != "see":
        return base[:-1] + "ing"
    return base + "ing"


def _parse_nouns() -> dict[str, Noun]:
    classes: dict[str, set[str]] = {}
    plurals: dict[str, str | None] = {}
    rare: set[str] = set()
    for name, text in NOUN_CLASSES.items():
        is_rare = False
        for entry in text.split():
            if entry == "rare:":
                is_rare = True
                continue
            singular, _, plural = entry.partition("/")
            classes.setdefault(singular, set()).add(name)
            if plural or singular not in plurals:
                plurals[singular] = None if plural == "-" else plural or add_s(singular)
            if is_rare:
                rare.add(singular)
    nouns = {s: Noun(s, plurals[s], frozenset(c), s in rare) for s, c in classes.items()}
    for name in NAMES:
        nouns[name] = Noun(name, None, frozenset({"person"}), is_name=True)
    return nouns


def _parse_verbs() -> dict[str, Verb]:
    verbs = {}
    for line in VERBS.strip().splitlines():
        forms, subjects, objects = (part.strip() for part in line.split("|"))
        weight = RARE_WEIGHT if forms[0] == "*" else 4.0 if forms[0] == "+" else 1.0
        base, *rest = forms.lstrip("*+").split()
        past = rest[0] if rest else base + "ed"
        participle = rest[1] if len(rest) > 1 else past
        verbs[base] = Verb(
            base,
            add_s(base),
            past,
            participle,
            _ing(base, past),
            tuple(subjects.split()),
            tuple(objects.split()),
            weight,
        )
    return verbs


NOUNS = _parse_nouns()
LEXICAL_VERBS = _parse_verbs()
_MEMBERS = {
    name: [noun for noun in NOUNS.values() if name in noun.classes] for name in NOUN_CLASSES
}
_MEMBER_WEIGHTS = {
    name: [RARE_WEIGHT if noun.rare else 0.5 if noun.is_name else 1.0 for noun in members]
    for name, members in _MEMBERS.items()
}
_TRANSITIVES = [verb for verb in LEXICAL_VERBS.values() if verb.objects]
_INTRANSITIVES = [verb for verb in LEXICAL_VERBS.values() if not verb.objects]


def is_held_out(triple: Triple) -> bool:
    """Whether the corpus must never have this triple, in any construction."""
    words = [triple.verb.base, triple.subject.singular]
    words.append(triple.object.singular if triple.object else "")
    return zlib.crc32(" ".join(words).encode()) % HELD_OUT_ONE_IN == 0


def _noun(rng: random.Random, classes: tuple[str, ...]) -> Noun:
    name = classes[0] if len(classes) == 1 else rng.choice(classes)
    return rng.choices(_MEMBERS[name], _MEMBER_WEIGHTS[name])[0]


def draw_triple(
    rng: random.Random,
    verbs: list[Verb],
    *,
    held_out: bool = False,
    accept: Callable[[Triple], bool] = lambda _: True,
) -> Triple:
    """Draw a triple that obeys the verb's restrictions, from one side of the split."""
    weights = [verb.weight for verb in verbs]
    while True:
        verb = rng.choices(verbs, weights)[0]
        subject = _noun(rng, verb.subjects)
        complement = _noun(rng, verb.objects) if verb.objects else None
        triple = Triple(verb, subject, complement)
        # Nobody chases himself: the same noun twice would make reversed roles meaningless.
        if subject != complement and is_held_out(triple) == held_out and accept(triple):
            return triple


_ONSETS = "b bl br c cl cr d dr f fl fr g gl gr h j k l m n p pl pr r s sh sk".split()
_VOWELS = "a e i o u oo ea ai".split()
_CODAS = "b ck d ft g k lk lt m mp n nd nk p rk rm rp sh sk st t th v x z".split()


def _made_up_verb(rng: random.Random) -> Verb:
    """A verb nobody has seen, of any class: made-up words are met in training, once each."""
    while True:
        onset = rng.choice(
            "b bl br c cl cr d dr f fl fr g gl gr h j k l m n p pl pr r s sh sk".split()
        )
        vowel = rng.choice("a e i o u oo ea ai".split())
        coda = rng.choice("b ck d ft g k lk lt m mp n nd nk p rk rm rp sh sk st t th v x z".split())
        base = onset + vowel + coda
        past = base + "ed"
        if past not in RESERVED_WORDS and base not in LEXICAL_VERBS and base not in NOUNS:
            break
    model = rng.choice(_TRANSITIVES)
    return Verb(base, add_s(base), past, past, base + "ing", model.subjects, model.objects)


# ---------------------------------------------------------------------------- noun phrases


def _adjective(rng: random.Random, noun: Noun) -> str:
    if noun.classes & {"person", "animal"}:
        return rng.choice(PERSON_ADJECTIVES)
    specific = [a for c in sorted(noun.classes) for a in CLASS_ADJECTIVES.get(c, [])]
    return rng.choice(specific if specific and rng.random() < 0.7 else THING_ADJECTIVES)


def _with_article(article: str, rest: str) -> str:
    if article == "a" and rest[0] in "aeiou" and not rest.startswith("uni"):
        article = "an"
    return f"{article} {rest}"


def noun_phrase(
    rng: random.Random, noun: Noun, number: str | None = None, *, plain: bool = False
) -> Phrase:
    """A noun phrase without pronouns or relative clauses; `plain` keeps to "the" and the noun."""
    if noun.is_name:
        return Phrase(noun.singular, "sg")
    if noun.plural is None:
        number = "sg"
    elif number is None:
        number = "pl" if rng.random() < 0.3 else "sg"
    form = noun.singular if number == "sg" else noun.plural
    assert form is not None
    if plain or rng.random() < 0.7:
        determiner = "the"
    elif number == "pl":
        determiner = rng.choice("these those some many my her their two all".split())
    elif noun.plural is None:
        determiner = rng.choice("this some my her that his".split())
    else:
        determiner = rng.choice("a a a this that every my her his".split())
    if not plain and rng.random() < 0.12:
        form = f"{_adjective(rng, noun)} {form}"
    return Phrase(_with_article(determiner, form), number)


def _attractor(rng: random.Random, number: str | None = None) -> str:
    """A prepositional phrase whose noun the verb must not agree with."""
    if number is None and rng.random() < 0.3:
        return f"in {noun_phrase(rng, _noun(rng, ('place',)), 'sg').words}"
    preposition = rng.choice(PREPOSITIONS).replace("_", " ")
    while True:
        noun = _noun(rng, ("person", "animal", "breakable", "tool", "food", "vehicle"))
        if not noun.is_name and (number != "pl" or noun.plural):
            return f"{preposition} {noun_phrase(rng, noun, number).words}"


def _relative_clause(rng: random.Random, head: Noun, number: str) -> str:
    """A relative clause on a subject: "that the dogs chase", "that has drunk the milk"."""
    animate = bool(head.classes & {"person", "animal"})
    relative = "who" if "person" in head.classes and rng.random() < 0.3 else "that"
    if animate and rng.random() < 0.35:
        fits = lambda t: bool(head.classes & set(t.verb.subjects))  # noqa: E731
        triple = draw_triple(rng, _TRANSITIVES, accept=fits)
        triple = Triple(triple.verb, head, triple.object)
        if is_held_out(triple) or triple.object is None or triple.object == head:
            return ""
        group = verb_group(rng, triple.verb, number, _tense(rng))
        return f"{relative} {' '.join(group)} {noun_phrase(rng, triple.object).words}"
    verbs = [v for v in _TRANSITIVES if head.classes & set(v.objects)]
    if not verbs:
        return ""
    triple = draw_triple(rng, verbs)
    triple = Triple(triple.verb, triple.subject, head)
    if is_held_out(triple) or triple.subject == head:
        return ""
    subject = noun_phrase(rng, triple.subject)
    group = verb_group(rng, triple.verb, subject.number, _tense(rng))
    return f"{relative} {subject.words} {' '.join(group)}"


def _subject(rng: random.Random, noun: Noun) -> Phrase:
    """A subject, now and then with something between it and its verb, or a pronoun."""
    chance = rng.random()
    if chance < 0.05 and "person" in noun.classes:
        words, number = rng.choice(
            [("she", "sg"), ("he", "sg"), ("they", "pl"), ("we", "pl"), ("I", "I"), ("you", "pl")]
        )
        return Phrase(words, number)
    phrase = noun_phrase(rng, noun)
    if noun.is_name:
        return phrase
    if chance < 0.20:
        return Phrase(f"{phrase.words} {_attractor(rng)}", phrase.number)
    if chance < 0.31:
        clause = _relative_clause(rng, noun, phrase.number)
        return Phrase(f"{phrase.words} {clause}".strip(), phrase.number)
    if chance < 0.33 and noun.classes & {"person", "animal"}:
        other = rng.choice([n for n in _MEMBERS["person"] if n != noun])
        return Phrase(f"{phrase.words} and {noun_phrase(rng, other).words}", "pl")
    return phrase


# ------------------------------------------------------------------------------ verb groups

TENSES = "present past perfect pluperfect future modal progressive".split()
_TENSE_WEIGHTS = [4, 3, 11, 1, 1, 1, 1.5]
_CONTRACTED = {"will": "won't", "can": "can't"}


def _tense(rng: random.Random) -> str:
    return rng.choices(TENSES, _TENSE_WEIGHTS)[0]


def _be(number: str, past: bool) -> str:
    if past:
        return "were" if number == "pl" else "was"
    return {"sg": "is", "pl": "are", "I": "am"}[number]


def auxiliaries(
    rng: random.Random, verb: Verb, number: str, tense: str, voice: str
) -> tuple[list[str], str]:
    """The auxiliaries of a finite verb group, and the form of the verb itself."""
    has = "has" if number == "sg" else "have"
    passive = voice == "passive"
    if tense == "perfect":
        return [has, *["been"] * passive], verb.participle
    if tense == "pluperfect":
        return ["had", *["been"] * passive], verb.participle
    if tense in {"future", "modal"}:
        modal = "will" if tense == "future" else rng.choice("can could must should".split())
        return [modal, *["be"] * passive], verb.participle if passive else verb.base
    if tense == "progressive":
        be = _be(number, rng.random() < 0.5)
        return [be, *["being"] * passive], verb.participle if passive else verb.ing
    if passive:
        return [_be(number, tense == "past")], verb.participle
    if tense == "past":
        return [], verb.past
    return [], verb.third if number == "sg" else verb.base


def verb_group(
    rng: random.Random,
    verb: Verb,
    number: str,
    tense: str,
    voice: str = "active",
    adverb: str | None = None,
    negated: bool = False,
) -> list[str]:
    """A finite verb group with its adverb and negation."""
    aux, form = auxiliaries(rng, verb, number, tense, voice)
    if negated:
        if not aux:
            did = {"past": "did"}.get(tense, "does" if number == "sg" else "do")
            aux, form = [did], verb.base
        if aux[0] == "am" or rng.random() < 0.2:
            aux = [aux[0], "not", *aux[1:]]
        else:
            aux = [_CONTRACTED.get(aux[0], aux[0] + "n't"), *aux[1:]]
    if adverb is None:
        return [*aux, form]
    place = 2 if "not" in aux else min(len(aux), 1)
    if len(aux) > place and rng.random() < 0.1:
        place = len(aux)  # "has been usually broken" beside "has usually been broken"
    return [*aux[:place], adverb, *aux[place:], form]


def raising_group(
    rng: random.Random,
    verb: Verb,
    number: str,
    tense: str = "perfect",
    voice: str = "active",
    adverb: str | None = None,
    raising: str | None = None,
) -> list[str]:
    """A raising verb with its infinitive: "seems to have always broken"."""
    raising = raising or rng.choices(["seem", "appear"], [5, 1])[0]
    finite = raising + ("s" if number == "sg" else "") if rng.random() < 0.85 else raising + "ed"
    passive = voice == "passive"
    adverbs = [adverb] if adverb else []
    if tense == "perfect":
        return [finite, "to", "have", *adverbs, *["been"] * passive, verb.participle]
    if passive:
        return [finite, "to", *adverbs, "be", verb.participle]
    return [finite, "to", *adverbs, verb.base]


# -------------------------------------------------------------------------------- sentences


def _adverb(rng: random.Random, chance: float = 0.55) -> str | None:
    if rng.random() >= chance:
        return None
    return rng.choice(FREQUENCY_ADVERBS if rng.random() < 0.85 else OTHER_ADVERBS)


def _group(rng: random.Random, verb: Verb, number: str, voice: str) -> str:
    """A verb group of any shape: plain, negated, or raising."""
    chance = rng.random()
    adverb = _adverb(rng)
    if chance < 0.17:
        tense = "perfect" if rng.random() < 0.8 else "present"
        return " ".join(raising_group(rng, verb, number, tense, voice, adverb))
    negated = chance < 0.30
    return " ".join(verb_group(rng, verb, number, _tense(rng), voice, adverb, negated))


def _clause(rng: random.Random, triple: Triple) -> str:
    """A declarative clause, active or passive, without capital or full stop."""
    if triple.object is None:
        subject = _subject(rng, triple.subject)
        group = _group(rng, triple.verb, subject.number, "active")
        place = noun_phrase(rng, _noun(rng, ("place",)), "sg").words
        return f"{subject.words} {group}" + (f" in {place}" if rng.random() < 0.5 else "")
    if rng.random() < 0.42:
        subject = _subject_of_passive(rng, triple.object)
        agent = f" by {noun_phrase(rng, triple.subject).words}" if rng.random() < 0.93 else ""
        return f"{subject.words} {_group(rng, triple.verb, subject.number, 'passive')}{agent}"
    subject = _subject(rng, triple.subject)
    group = _group(rng, triple.verb, subject.number, "active")
    return f"{subject.words} {group} {noun_phrase(rng, triple.object).words}"


def _subject_of_passive(rng: random.Random, noun: Noun) -> Phrase:
    # A pronoun would hide what the verb is about; everything else may stand there.
    while True:
        phrase = _subject(rng, noun)
        if phrase.words.split()[0] not in {"she", "he", "they", "we", "I", "you"}:
            return phrase


def _cleft(rng: random.Random, triple: Triple) -> str:
    """Clefts and presentational relative clauses, on the subject, the object or the agent."""
    assert triple.object is not None
    opening = rng.choices(
        ["it is", "it was", "that's", "this is", "that is", "here is"], [8, 2, 4, 2, 1, 1]
    )[0]
    passive = rng.random() < 0.4
    voice = "passive" if passive else "active"
    first, second = triple.subject, triple.object
    if passive:
        first, second = second, first
    if rng.random() < 0.55:
        head = noun_phrase(rng, first)
        relative = "who" if "person" in first.classes and rng.random() < 0.25 else "that"
        group = _group(rng, triple.verb, head.number, voice)
        by = "by " if passive else ""
        return f"{opening} {head.words} {relative} {group} {by}{noun_phrase(rng, second).words}"
    head, subject = noun_phrase(rng, second), noun_phrase(rng, first)
    group = _group(rng, triple.verb, subject.number, voice)
    return f"{opening} {head.words} that {subject.words} {group}{' by' if passive else ''}"


def _question(rng: random.Random, triple: Triple) -> str:
    """A yes/no question, or one about the subject or the object."""
    assert triple.object is not None
    tense = _tense(rng)
    chance = rng.random()
    adverb = _adverb(rng, 0.3)
    adverbs = [adverb] if adverb else []
    if chance < 0.15:
        group = " ".join(verb_group(rng, triple.verb, "sg", tense, adverb=adverb))
        wh = "who" if "person" in triple.subject.classes else "what"
        return f"{wh} {group} {noun_phrase(rng, triple.object).words}?"
    passive = chance < 0.5
    first, second = triple.subject, triple.object
    if passive:
        first, second = second, first
    phrase = noun_phrase(rng, first)
    voice = "passive" if passive else "active"
    aux, form = auxiliaries(rng, triple.verb, phrase.number, tense, voice)
    if not aux:
        aux = ["did" if tense == "past" else "does" if phrase.number == "sg" else "do"]
        form = triple.verb.base
    rest = " ".join([*adverbs, *aux[1:], form])
    if not passive and chance > 0.85:
        wh = "who" if "person" in second.classes else "what"
        return f"{wh} {aux[0]} {phrase.words} {rest}?"
    by = "by " if passive else ""
    return f"{aux[0]} {phrase.words} {rest} {by}{noun_phrase(rng, second).words}?"


def _copular(rng: random.Random) -> str:
    if rng.random() < 0.5:
        noun = _noun(rng, ("person", "animal"))
        subject = _subject(rng, noun)
        if rng.random() < 0.4:
            end = f"in {noun_phrase(rng, _noun(rng, ('place',)), 'sg').words}"
        else:
            end = rng.choice(PERSON_ADJECTIVES)
    else:
        noun = _noun(rng, ("drink", "food", "breakable", "clothes", "text", "tool", "vehicle"))
        subject = _subject_of_passive(rng, noun)
        if rng.random() < 0.4:
            place = noun_phrase(rng, _noun(rng, ("furniture",)), "sg").words
            end = f"on {place}"
        else:
            end = _adjective(rng, noun)
    be = _be(subject.number, rng.random() < 0.3)
    if rng.random() < 0.2:
        be = "am not" if be == "am" else be + "n't"
    return f"{subject.words} {be} {end}"


_DITRANSITIVES = {
    "give": Verb("give", "gives", "gave", "given", "giving", ("person",), tuple(GOODS.split())),
    "show": Verb("show", "shows", "showed", "shown", "showing", ("person",), ("text", "tool")),
    "bring": Verb(
        "bring", "brings", "brought", "brought", "bringing", ("person",), ("food", "drink")
    ),
    "put": Verb("put", "puts", "put", "put", "putting", ("person",), ("tool", "breakable", "food")),
}


def _three_place(rng: random.Random) -> str:
    """Ditransitives and locatives: "has given the girl the book", "put the cup on the table"."""
    triple = draw_triple(rng, list(_DITRANSITIVES.values()))
    assert triple.object is not None
    subject = _subject(rng, triple.subject)
    group = " ".join(
        verb_group(rng, triple.verb, subject.number, _tense(rng), adverb=_adverb(rng, 0.3))
    )
    theme = noun_phrase(rng, triple.object).words
    if triple.verb.base == "put":
        place = noun_phrase(rng, _noun(rng, ("furniture",)), "sg").words
        return f"{subject.words} {group} {theme} on {place}"
    goal = noun_phrase(
        rng, rng.choice([n for n in _MEMBERS["person"] if n != triple.subject])
    ).words
    if rng.random() < 0.5:
        return f"{subject.words} {group} {theme} to {goal}"
    return f"{subject.words} {group} {goal} {theme}"


def _embed(rng: random.Random, clause: str) -> str:
    """Put a clause into a larger sentence."""
    name = rng.choice(NAMES)
    kind = rng.randrange(7)
    feeling = rng.choice("satisfied happy pleased worried sad surprised".split())
    if kind == 0:
        who = rng.choice(["I'm", "she is", "he is", "everyone is", "we are", f"{name} is"])
        return f"because {clause}, {who} {feeling}"
    if kind == 1:
        who = rng.choice(["no one", "nobody", "everyone"])
        return f"even though {clause}, {who} is {feeling} about it"
    if kind == 2:
        noun = rng.choice("efforts efforts efforts plans wishes".split())
        return f"despite {name}'s best {noun}, {clause}"
    if kind == 3:
        where = "town" if rng.random() < 0.6 else _noun(rng, ("place",)).singular
        where = where if where == "town" else f"the {where}"
        return f"{clause} {rng.choice(['when', 'because', 'while'])} {name} is in {where}"
    if kind == 4:
        who = rng.choice(["I'm", "I'm", "she is", "we are", f"{name} is"])
        return (
            f"{who} {rng.choice('surprised glad sure sorry certain happy'.split())} that {clause}"
        )
    reporter = _subject(rng, _noun(rng, ("person",)))
    report = rng.choice("insisted said thought believed claimed knew heard denied".split())
    if rng.random() < 0.3:
        stem = rng.choice("say think believe claim know insist".split())
        report = add_s(stem) if reporter.number == "sg" else stem
    return f"{reporter.words} {report} that {clause}"


def finish(clause: str) -> str:
    """Capital and full stop."""
    end = "" if clause.endswith("?") else "."
    return clause[0].upper() + clause[1:] + end


def sentence(rng: random.Random) -> str:
    """One sentence of the language."""
    chance = rng.random()
    if chance < 0.06:
        return finish(_copular(rng))
    if chance < 0.10:
        return finish(_three_place(rng))
    if chance < 0.18:
        return finish(_clause(rng, draw_triple(rng, _INTRANSITIVES)))
    verbs = _TRANSITIVES
    if rng.random() < 0.05:
        verbs = [_made_up_verb(rng)]
    triple = draw_triple(rng, verbs)
    if chance < 0.42:
        return finish(_cleft(rng, triple))
    if chance < 0.47:
        return finish(_question(rng, triple))
    clause = _clause(rng, triple)
    if chance < 0.60:
        clause = _embed(rng, clause)
    return finish(clause)


def corpus(seed: int) -> Iterator[str]:
    """An endless corpus without the held-out triples."""
    rng = random.Random(seed)
    while True:
        yield sentence(rng)


# ---------------------------------------------------------------------------- minimal pairs


@dataclass(frozen=True)
class MinimalPair:
    """Two sentences that differ in one respect, of which the first is right.

    Attributes:
        kind: `agreement` or `arguments`.
        test: What exactly is tested.
        good: The sentence of the language.
        bad: The other one.
        triple: The held-out triple of the good sentence.
    """

    kind: str
    test: str
    good: str
    bad: str
    triple: Triple


def _common(triple: Triple) -> bool:
    nouns = [triple.subject, *([triple.object] if triple.object else [])]
    return triple.verb.weight >= 1 and not any(n.rare or n.is_name for n in nouns)


_ANIMATE = {"person", "animal"}


def _asymmetric(triple: Triple) -> bool:
    """Whether only one of the two can be the subject of that verb."""
    if triple.object is None or not _common(triple):
        return False
    return not triple.object.classes & set(triple.verb.subjects) and (
        bool(triple.object.classes & _ANIMATE) != bool(triple.subject.classes & _ANIMATE)
    )


ROLE_FRAMES: dict[str, str] = {
    "perfect transitive": "the {s} has {a} {v} the {o}",
    "perfect passive": "the {o} has {a} been {v} by the {s}",
    "neg perfect transitive": "the {s} hasn't {a} {v} the {o}",
    "neg perfect passive": "the {o} hasn't {a} been {v} by the {s}",
    "raising perfect transitive": "the {s} seems to have {a} {v} the {o}",
    "raising perfect passive": "the {o} seems to have {a} been {v} by the {s}",
    "cleft subject perfect transitive": "it is the {s} that has {a} {v} the {o}",
    "cleft subject perfect passive": "it is the {o} that has {a} been {v} by the {s}",
    "cleft subject raising perfect transitive": (
        "it is the {s} that seems to have {a} {v} the {o}"
    ),
    "cleft subject raising perfect passive": (
        "it is the {o} that seems to have {a} been {v} by the {s}"
    ),
    "cleft object perfect transitive": "it is the {o} that the {s} has {a} {v}",
    "cleft agent perfect passive": "it is the {s} that the {o} has {a} been {v} by",
    "presentational ORC perfect transitive": "that's the {o} that the {s} has {a} {v}",
    "question perfect transitive": "has the {s} {a} {v} the {o}?",
    "question perfect passive": "has the {o} {a} been {v} by the {s}?",
    "embedded perfect transitive": "I'm surprised that the {s} has {a} {v} the {o}",
    "embedded perfect passive": "she insisted that the {o} has {a} been {v} by the {s}",
}
"""Sentence types by name: {s} is who does it, {o} to whom, {v} the participle, {a} the adverb."""


def in_frame(sentence_type: str, subject: str, obj: str, participle: str, adverb: str) -> str:
    """A sentence of a named type."""
    frame = ROLE_FRAMES[sentence_type]
    return finish(frame.format(s=subject, o=obj, v=participle, a=adverb))


def _reversed_roles(rng: random.Random, sentence_type: str) -> MinimalPair:
    triple = draw_triple(rng, _TRANSITIVES, held_out=True, accept=_asymmetric)
    assert triple.object is not None
    adverb = rng.choice(FREQUENCY_ADVERBS)
    s, o, v = triple.subject.singular, triple.object.singular, triple.verb.participle
    good = in_frame(sentence_type, s, o, v, adverb)
    bad = in_frame(sentence_type, o, s, v, adverb)
    return MinimalPair("arguments", f"reversed: {sentence_type}", good, bad, triple)


def _wrong_object(rng: random.Random, passive: bool) -> MinimalPair:
    """The object's class is wrong: "The man has always drunk the bread."."""

    def selective(t: Triple) -> bool:
        return _asymmetric(t) and len(t.verb.objects) <= 3

    triple = draw_triple(rng, _TRANSITIVES, held_out=True, accept=selective)
    assert triple.object is not None
    wrong_classes = tuple(
        c
        for c in "drink food clothes text event vehicle instrument furniture".split()
        if c not in triple.verb.objects
    )
    if set(triple.verb.objects) & _ANIMATE:
        wrong_classes = tuple(c for c in wrong_classes if c not in triple.verb.subjects)
    while True:
        wrong = _noun(rng, wrong_classes)
        if not wrong.rare and not wrong.classes & set(triple.verb.objects):
            break
    frame = "perfect passive" if passive else "perfect transitive"
    adverb = rng.choice(FREQUENCY_ADVERBS)
    s, v = triple.subject.singular, triple.verb.participle
    good = in_frame(frame, s, triple.object.singular, v, adverb)
    bad = in_frame(frame, s, wrong.singular, v, adverb)
    return MinimalPair("arguments", f"wrong object: {frame}", good, bad, triple)


_OTHER_NUMBER = {"sg": "pl", "pl": "sg"}


def _agreement(rng: random.Random, between: str) -> MinimalPair:
    """A verb in the right and in the wrong number; `between` is what precedes the verb."""
    verbs = _INTRANSITIVES if rng.random() < 0.25 else _TRANSITIVES
    triple = draw_triple(rng, verbs, held_out=True, accept=_common)
    subject_noun = triple.subject
    tense = rng.choice(["present", "perfect", "perfect", "progressive"])
    passive = bool(triple.object and triple.object.plural and rng.random() < 0.3)
    voice = "passive" if passive else "active"
    complement = ""
    if triple.object is not None:
        if passive:
            subject_noun = triple.object
            complement = f" by {noun_phrase(rng, triple.subject, plain=True).words}"
        else:
            complement = f" {noun_phrase(rng, triple.object, plain=True).words}"
    if subject_noun.plural is None:
        return _agreement(rng, between)
    number = rng.choice(["sg", "pl"])
    subject = noun_phrase(rng, subject_noun, number, plain=True).words
    if between == "attractor":
        subject += " " + _attractor(rng, _OTHER_NUMBER[number])
    elif between == "relative clause":
        noun = rng.choice([n for n in _MEMBERS["person"] if not n.rare and n.plural])
        other = noun_phrase(rng, noun, _OTHER_NUMBER[number], plain=True).words
        verb = LEXICAL_VERBS["see" if noun.singular != subject_noun.singular else "like"]
        if verb.base == "like" and not subject_noun.classes & set(verb.objects):
            return _agreement(rng, between)
        subject += f" that {other} {verb.past}"
    state = rng.getstate()
    group = " ".join(verb_group(rng, triple.verb, number, tense, voice))
    rng.setstate(state)
    wrong = " ".join(verb_group(rng, triple.verb, _OTHER_NUMBER[number], tense, voice))
    if group == wrong:
        return _agreement(rng, between)
    return MinimalPair(
        "agreement",
        f"agreement: {between}",
        finish(f"{subject} {group}{complement}"),
        finish(f"{subject} {wrong}{complement}"),
        triple,
    )


def minimal_pairs(kind: str, n: int, seed: int = 1) -> list[MinimalPair]:
    """Draw ``n`` pairs of a kind, every test of that kind in turn.

    Args:
        kind: ``agreement`` or ``arguments``.
        n: How many.
        seed: The seed.
    """
    rng = random.Random(f"{kind}-{seed}")
    if kind == "agreement":
        tests = ("nothing", "attractor", "relative clause")
        return [_agreement(rng, tests[i % 3]) for i in range(n)]
    if kind != "arguments":
        raise ValueError(f"kind must be agreement or arguments but got {kind}.")
    frames = list(ROLE_FRAMES)
    pairs = []
    for i in range(n):
        if i % 3 == 2:
            pairs.append(_wrong_object(rng, passive=i % 2 == 0))
        else:
            pairs.append(_reversed_roles(rng, frames[(i - i // 3) % len(frames)]))
    return pairs
