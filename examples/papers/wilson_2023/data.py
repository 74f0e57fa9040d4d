"""Write the sentences: new arguments of a verb that the model knows, and a new verb.

    python data.py [--seed 1]

In both, what is taught is active (the reference). What is asked has other constructions, some with
the nouns in the same order, some, such as passives, with the order changed about.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path

NEW_NOUNS = ("plim", "zork")
"""The first is always the subject, the second the object."""
TAUGHT_VERB, OTHER_VERBS = "read", ("written", "published")
NEW_VERB = "blorked"
# People all of them, so that nothing but what is taught says who blorks whom.
NOUNS = "teacher farmer doctor king nurse singer writer queen soldier waiter pilot judge".split()

REFERENCE = "The {s} has {a} {v} the {o}."
# By name: whether subject and object come in the order of the reference, and the sentence.
ASKED = {
    "reference": ("same", REFERENCE),
    "negated": ("same", "The {s} hasn't {a} {v} the {o}."),
    "cleft subject": ("same", "It is the {s} that has {a} {v} the {o}."),
    "question": ("same", "Has the {s} {a} {v} the {o}?"),
    "passive": ("changed", "The {o} has {a} been {v} by the {s}."),
    "passive question": ("changed", "Has the {o} {a} been {v} by the {s}?"),
    "cleft passive": ("changed", "It is the {o} that has {a} been {v} by the {s}."),
    "cleft object": ("changed", "It is the {o} that the {s} has {a} {v}."),
}
TAUGHT_ADVERBS, OTHER_ADVERBS = ("always", "often"), ("usually", "rarely", "never")


def line(frame: str, verb: str, adverb: str, nouns: tuple[str, str]) -> dict[str, object]:
    """A sentence with both nouns masked, its labels, and where the two slots are."""
    places = {"s": "{s}", "o": "{o}"}
    text = frame.format(v=verb, a=adverb, **places)
    label, regions = text, []
    for name, key, noun in sorted(
        [("subject", "{s}", nouns[0]), ("object", "{o}", nouns[1])], key=lambda r: text.index(r[1])
    ):
        start = label.index(key)
        label = label.replace(key, noun, 1)
        regions.append([name, start, start + len(noun)])
    masked = text.replace("{s}", "[MASK]").replace("{o}", "[MASK]")
    return {"text": masked, "labels": label, "regions": regions}


def asked(verbs: Iterable[str], nouns: tuple[str, str]) -> list[tuple[dict[str, object], ...]]:
    """Lines and metadata of all constructions."""
    return [
        (line(frame, v, a, nouns), {"sentence_type": name, "order": order, "verb": v, "adverb": a})
        for v in verbs
        for name, (order, frame) in ASKED.items()
        for a in OTHER_ADVERBS
    ]


def write(path: Path, lines: Iterable[dict[str, object]]) -> None:
    """Write a line of JSON for each."""
    path.write_text("".join(json.dumps(each) + "\n" for each in lines), encoding="utf-8")


def main() -> None:
    """Write the files into data/."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1, help="who blorks whom")
    args = parser.parse_args()
    data = Path("data")
    data.mkdir(exist_ok=True)
    taught = [line(REFERENCE, TAUGHT_VERB, a, NEW_NOUNS) for a in TAUGHT_ADVERBS]
    write(data / "arguments_taught.jsonl", taught)
    lines, metadata = zip(*asked([TAUGHT_VERB, *OTHER_VERBS], NEW_NOUNS), strict=True)
    write(data / "arguments_asked.jsonl", lines)
    write(data / "arguments_asked_metadata.jsonl", metadata)

    nouns = random.Random(args.seed).sample(NOUNS, len(NOUNS))
    subjects, objects = nouns[: len(nouns) // 2], nouns[len(nouns) // 2 :]
    pairs = [(s, o) for s in subjects for o in objects]
    write(
        data / "verb_taught.jsonl",
        (line(REFERENCE, NEW_VERB, a, pair) for pair in pairs for a in TAUGHT_ADVERBS[:1]),
    )
    # All nouns are candidates in both slots, so the labels are only one pair of them.
    lines, metadata = zip(*asked([NEW_VERB], pairs[0]), strict=True)
    write(data / "verb_asked.jsonl", lines)
    write(data / "verb_asked_metadata.jsonl", metadata)
    subjects, objects = [NEW_NOUNS[0], *subjects], [NEW_NOUNS[1], *objects]
    roles = {**dict.fromkeys(subjects, "subject"), **dict.fromkeys(objects, "object")}
    (data / "roles.json").write_text(json.dumps(roles, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
