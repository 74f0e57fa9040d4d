"""Write the sentences: exposures of one sentence each, what chooses the epoch, what is asked.

    python data.py [--verb plimmed] [--forms definite long pronoun] [--instances 4] [--seed 1]

An exposure is the new verb in one dative, with its recipient and its theme in one form each:
"The nurse has plimmed the king the letter.", "The nurse has plimmed a small letter to the king."
"""

from __future__ import annotations

import argparse
import json
import random
from itertools import product
from pathlib import Path

FRAMES = {
    "double_object": "The {agent} has {verb} {recipient} {theme}.",
    "prepositional": "The {agent} has {verb} {theme} to {recipient}.",
}
# The same with the verb and the word behind it changed about, where no verb can stand.
SCRAMBLED = {
    "double_object": "The {agent} has {recipient} {verb} {theme}.",
    "prepositional": "The {agent} has {theme} {verb} to {recipient}.",
}
FORMS = {"definite": "the {noun}", "long": "a {adjective} {noun}"}
PRONOUNS = {"recipient": "them", "theme": "it"}
# The first words of each kind are for exposures, the others for what is asked and what chooses.
AGENTS = "nurse waiter pilot painter | teacher farmer doctor singer writer queen soldier judge"
RECIPIENTS = "king child friend guest | man woman boy girl student lawyer artist uncle"
THEMES = "letter hammer book ladder | story camera poem rope novel basket report key"
ADJECTIVES = {"recipient": "tired young happy".split(), "theme": "small new nice".split()}
N_ASKED, N_CHOOSING = 40, 12

Arguments = dict[str, str]


def arguments(rng: random.Random, *, taught: bool) -> Arguments:
    """An agent, a recipient and a theme, all different nouns."""
    kinds = {"agent": AGENTS, "recipient": RECIPIENTS, "theme": THEMES}
    return {kind: rng.choice(words.split("|")[not taught].split()) for kind, words in kinds.items()}


def sentence(frame: str, verb: str, nouns: Arguments, forms: Arguments, rng: random.Random) -> str:
    """A sentence with each argument in its form."""
    phrases = {
        role: PRONOUNS[role]
        if form == "pronoun"
        else FORMS[form].format(noun=nouns[role], adjective=rng.choice(ADJECTIVES[role]))
        for role, form in forms.items()
    }
    return frame.format(agent=nouns["agent"], verb=verb, **phrases)


def write(name: str, rows: list[tuple[str, dict[str, object]]]) -> None:
    """Write a data file with its metadata."""
    texts = "".join(f"{text}\n" for text, _ in rows)
    metadata = "".join(json.dumps(about) + "\n" for _, about in rows)
    Path("data", f"{name}.txt").write_text(texts, encoding="utf-8")
    Path("data", f"{name}_metadata.jsonl").write_text(metadata, encoding="utf-8")


def main() -> None:
    """Write the files into data/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--verb", default="plimmed")
    parser.add_argument(
        "--forms", nargs="+", default=["definite", "long"], choices=[*FORMS, "pronoun"]
    )
    parser.add_argument("--instances", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    Path("data").mkdir(exist_ok=True)

    for number in range(1, args.instances + 1):
        nouns = arguments(rng, taught=True)  # the same ones in all forms and both datives
        for dative, recipient, theme in product(FRAMES, args.forms, args.forms):
            forms = {"recipient": recipient, "theme": theme}
            text = sentence(FRAMES[dative], args.verb, nouns, forms, rng)
            path = Path("data", f"{dative}_{recipient}_{theme}_{number}.txt")
            path.write_text(f"{text}\n", encoding="utf-8")

    plain = {"recipient": "definite", "theme": "definite"}
    choosing: dict[str, list[tuple[str, dict[str, object]]]] = {dative: [] for dative in FRAMES}
    for item in range(N_CHOOSING):
        nouns = arguments(rng, taught=False)
        for dative, rows in choosing.items():
            for name, frames in {"verb": FRAMES, "scrambled": SCRAMBLED}.items():
                about = {"item": item, "condition": name, "expected": name == "verb"}
                rows.append((sentence(frames[dative], args.verb, nouns, plain, rng), about))
    for dative, rows in choosing.items():
        write(f"choosing_{dative}", rows)
    asked: list[tuple[str, dict[str, object]]] = []
    for item in range(N_ASKED):
        nouns = arguments(rng, taught=False)
        asked += [
            (sentence(frame, args.verb, nouns, plain, rng), {"item": item, "condition": dative})
            for dative, frame in FRAMES.items()
        ]
    write("asked", asked)


if __name__ == "__main__":
    main()
