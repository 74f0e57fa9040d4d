"""Write what a series of checkpoints needs here: sentences, and a model that has learned nothing.

    python data.py [--sentences 60000] [--seed 1]

In the sentences some nouns are met often and others seldom; the metadata of those that are asked
about say how often. The model has the tokenizer of `tiny-lm` and random weights. With checkpoints
that are published, only what is asked about is needed.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import finetune_lm

# Nouns with the verbs that they are the object of, from the most frequent to the least.
CLASSES = {
    "eaten tasted bought": "bread cake apple cheese egg pie rice salad".split(),
    "read written found": "book letter story poem novel report diary script".split(),
    "worn washed lost": "shirt coat hat dress jacket sweater skirt scarf".split(),
    "opened closed locked": "door window box gate drawer jar bottle suitcase".split(),
}
SUBJECTS = "man woman boy girl teacher farmer doctor king nurse singer".split()
ADVERBS = "always often never usually just already".split()
FRAMES = [
    "The {s} has {a} {v} the {o}.",
    "The {o} has {a} been {v} by the {s}.",
    "It is the {o} that the {s} has {a} {v}.",
    "Has the {s} {a} {v} the {o}?",
]
N_ASKED = 12
"""Sentences for each noun."""


def share(rank: int) -> float:
    """How often a noun is met: each in its class 0.55 times as often as the one before."""
    return 0.55**rank


def sentence(rng: random.Random, verbs: str, noun: str) -> str:
    """A sentence with a noun."""
    return rng.choice(FRAMES).format(
        s=rng.choice(SUBJECTS), a=rng.choice(ADVERBS), v=rng.choice(verbs.split()), o=noun
    )


def drawn(rng: random.Random) -> str:
    """A sentence of the training."""
    verbs = rng.choice(list(CLASSES))
    nouns = CLASSES[verbs]
    [noun] = rng.choices(nouns, [share(rank) for rank in range(len(nouns))])
    return sentence(rng, verbs, noun)


def asked(rng: random.Random) -> list[tuple[str, dict[str, object]]]:
    """Sentences that are asked about, with what they are about."""
    total = sum(share(rank) for rank in range(len(CLASSES["read written found"]))) * len(CLASSES)
    found: list[tuple[str, dict[str, object]]] = []
    for verbs, nouns in CLASSES.items():
        for rank, noun in enumerate(nouns):
            for text in (sentence(rng, verbs, noun) for _ in range(N_ASKED)):
                start = text.index(f" {noun}") + 1
                region = ["noun", start, start + len(noun)]
                about = {"noun": noun, "share": share(rank) / total, "regions": [region]}
                found.append((text, about))
    return found


def untaught(directory: Path, seed: int) -> None:
    """Save a small GPT-2 with random weights."""
    there = Path(finetune_lm.__file__).parent / "models" / "builtin" / "tiny-lm"
    config = AutoConfig.from_pretrained(there)
    config.n_layer = 2
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(config).float().save_pretrained(directory)
    AutoTokenizer.from_pretrained(there).save_pretrained(directory)


def main() -> None:
    """Write the files into data/ and the model into untaught/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sentences", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    data = Path("data")
    data.mkdir(exist_ok=True)
    for name, n in {"training": args.sentences, "validation": 200}.items():
        texts = "".join(f"{drawn(rng)}\n" for _ in range(n))
        (data / f"{name}.txt").write_text(texts, encoding="utf-8")
    rows = asked(rng)
    (data / "asked.txt").write_text("".join(f"{text}\n" for text, _ in rows), encoding="utf-8")
    metadata = "".join(json.dumps(about) + "\n" for _, about in rows)
    (data / "asked_metadata.jsonl").write_text(metadata, encoding="utf-8")
    untaught(Path("untaught"), args.seed)


if __name__ == "__main__":
    main()
