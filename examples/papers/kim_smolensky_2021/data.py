"""Write the sentences: for each pair of categories what is taught, what chooses, what is asked.

    python data.py [--exposures 5] [--seed 1]

Two new words, `dax` and `blick`, belong to one category each and are met in one sentence each. The
other sentences have the same slots in other places, and no noun, verb, adjective or adverb of them
is in a sentence that is taught.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

WORDS = ("dax", "blick")
CATEGORIES = ("noun", "verb", "adjective", "adverb")
N_JUDGED, N_ASKED = 10, 50
"""Sentences of each category that choose the epoch, and that are asked about."""

# {} is the slot, {n} a person, {v} and {i} participles with and without an object, {o} what is
# written, {a} an adjective, {e} an adverb.
TAUGHT = {
    "noun": ["The {{}} has {i}.", "The {n} has {v} the {{}}.", "Has the {{}} {i}?"],
    "verb": ["The {n} has {{}} the {o}.", "The {o} has been {{}} by the {n}.", "Has the {n} {{}}?"],
    "adjective": ["The {{}} {n} has {i}.", "The {n} is {{}}.", "The {n} has {v} the {{}} {o}."],
    "adverb": ["The {n} has {{}} {i}.", "The {n} has {{}} {v} the {o}.", "Has the {n} {{}} {i}?"],
}
ASKED = {
    "noun": [
        "It is the {{}} that has {v} the {o}.",
        "The {o} has {e} been {v} by the {{}}.",
        "The {{}} seems to have {i}.",
        "It is the {{}} that the {n} has {v}.",
        "The {{}} has {e} been {v} by the {n}.",
    ],
    "verb": [
        "It is the {n} that has {{}} the {o}.",
        "Has the {n} {e} {{}} the {o}?",
        "The {o} hasn't been {{}} by the {a} {n}.",
        "The {n} seems to have {{}}.",
        "The {a} {n} hasn't {{}}.",
    ],
    "adjective": [
        "It is the {{}} {n} that has {v} the {o}.",
        "The {o} has been {v} by the {{}} {n}.",
        "This is the {o} that the {{}} {n} has {v}.",
        "The {{}} {n} seems to have {i}.",
        "Has the {{}} {n} {v} the {o}?",
    ],
    "adverb": [
        "It is the {n} that has {{}} {v} the {o}.",
        "The {o} has {{}} been {v} by the {n}.",
        "This is the {o} that the {n} has {{}} {v}.",
        "The {n} seems to have {{}} {v} the {o}.",
        "The {a} {n} hasn't {{}} {i}.",
    ],
}
# Of each kind the first words are for what is taught, the others for what is asked.
FILLERS = {
    "n": "teacher farmer doctor | woman king nurse singer writer queen soldier waiter pilot judge",
    "o": "book letter | poem story novel report message magazine newspaper",
    "v": "read seen | written bought sold lost found borrowed",
    "i": "slept waited | laughed smiled worked danced arrived",
    "a": "old happy | tall tired angry kind rich poor famous",
    "e": "always often | usually rarely never seldom already",
}


def fillers(*, taught: bool) -> dict[str, list[str]]:
    """The words that sentences are made of."""
    return {kind: words.split("|")[not taught].split() for kind, words in FILLERS.items()}


def sentences(frames: list[str], words: dict[str, list[str]], rng: random.Random) -> Iterator[str]:
    """Different sentences with a slot {}, of each frame in turn, without end."""
    seen: set[str] = set()
    for place in range(10**6):
        drawn = {kind: rng.choice(each) for kind, each in words.items()}
        sentence = frames[place % len(frames)].format(**drawn)
        if sentence not in seen:
            seen.add(sentence)
            yield sentence


def line(sentence: str, word: str) -> dict[str, str]:
    """An example: the slot is masked, and the label says what is in it."""
    return {"text": sentence.format("[MASK]"), "labels": sentence.format(word)}


def write(path: Path, lines: list[dict[str, str]], metadata: list[dict[str, object]]) -> None:
    """Write a data file and, if there are any, its metadata."""
    for name, rows in {path.name: lines, f"{path.stem}_metadata.jsonl": metadata}.items():
        if rows:
            text = "".join(json.dumps(row) + "\n" for row in rows)
            path.with_name(name).write_text(text, encoding="utf-8")


def main() -> None:
    """Write the files into data/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--exposures", type=int, default=5, help="of each pair of categories")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    data = Path("data")
    data.mkdir(exist_ok=True)
    taught = {c: sentences(TAUGHT[c], fillers(taught=True), rng) for c in CATEGORIES}
    asked = {c: sentences(ASKED[c], fillers(taught=False), rng) for c in CATEGORIES}
    judged_of = {c: [next(asked[c]) for _ in range(N_JUDGED)] for c in CATEGORIES}
    asked_of = {c: [next(asked[c]) for _ in range(N_ASKED)] for c in CATEGORIES}
    taught_of = {c: [next(taught[c]) for _ in range(args.exposures)] for c in CATEGORIES}
    for pair in combinations(CATEGORIES, 2):
        name = "_".join(pair)
        for i in range(args.exposures):
            lines = [line(taught_of[c][i], word) for c, word in zip(pair, WORDS, strict=True)]
            write(data / f"{name}_taught_{i + 1}.jsonl", lines, [])
        for part, of in {"judged": judged_of, "asked": asked_of}.items():
            # Each sentence with the word that belongs there, and with the other one.
            rows = [
                (sentence, category, word, right == word)
                for category, right in zip(pair, WORDS, strict=True)
                for sentence in of[category]
                for word in WORDS
            ]
            lines = [line(sentence, word) for sentence, _, word, _ in rows]
            metadata = [
                {"item": i // 2, "condition": word, "expected": is_right, "category": category}
                for i, (_, category, word, is_right) in enumerate(rows)
            ]
            write(data / f"{name}_{part}.jsonl", lines, metadata)


if __name__ == "__main__":
    main()
