"""Write the sentences: what is taught, and three kinds that are asked about.

    python data.py [--seed 1]

A made-up verb has people for its subject and drinks for its object. It is taught in active
sentences; the same in the passive choose the epoch. Asked about are active sentences with adverbs
and nouns in other combinations, other constructions with the verb, and sentences with verbs that
the model knows.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterable
from itertools import cycle, product
from pathlib import Path

VERB = "flomped"
PEOPLE = "teacher farmer doctor waiter".split()
DRINKS = "juice tea milk coffee".split()
ADVERBS = "always often usually rarely never".split()
KNOWN = {
    ("eaten", "baked"): "bread cake pizza cheese".split(),
    ("read", "written"): "book letter poem report".split(),
    ("worn", "washed"): "shirt coat hat scarf".split(),
    ("opened", "closed"): "door window gate drawer".split(),
}

ACTIVE = "The {s} has {a} {v} the {o}."
PASSIVE = "The {o} has {a} been {v} by the {s}."
OTHERS = [
    "It is the {o} that the {s} has {a} {v}.",
    "It is the {s} that has {a} {v} the {o}.",
    "Has the {s} {a} {v} the {o}?",
    "I'm surprised that the {s} has {a} {v} the {o}.",
]
N_TAUGHT, N_KNOWN = 40, 80

Clause = dict[str, str]


def clauses(verbs: Iterable[str], objects: list[str], rng: random.Random) -> list[Clause]:
    """All combinations of words, in an order drawn at random."""
    found = [
        {"s": s, "a": a, "v": v, "o": o} for s, a, v, o in product(PEOPLE, ADVERBS, verbs, objects)
    ]
    rng.shuffle(found)
    return found


def write(name: str, frames: list[str], of: list[Clause]) -> None:
    """Write a sentence for each clause, in each frame in turn."""
    frame = cycle(frames)
    text = "".join(next(frame).format(**clause) + "\n" for clause in of)
    Path("data", f"{name}.txt").write_text(text, encoding="utf-8")


def main() -> None:
    """Write the files into data/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    rng = random.Random(parser.parse_args().seed)
    new = clauses([VERB], DRINKS, rng)
    known = [each for verbs, objects in KNOWN.items() for each in clauses(verbs, objects, rng)]
    rng.shuffle(known)
    Path("data").mkdir(exist_ok=True)
    write("taught", [ACTIVE], new[:N_TAUGHT])
    write("choosing", [PASSIVE], new[:N_TAUGHT])
    write("taught_construction", [ACTIVE], new[N_TAUGHT:])
    write("other_constructions", OTHERS, new[N_TAUGHT:])
    write("known_verbs", [ACTIVE, PASSIVE, *OTHERS], known[:N_KNOWN])


if __name__ == "__main__":
    main()
