"""Write the demonstration data ``data/nonce_verb/``: a made-up verb and its arguments.

``python scripts/tiny_models/make_nonce_verb_data.py [--out DIR]`` writes the same bytes every time.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
from collections.abc import Iterator
from itertools import islice, product
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import grammar

DATA = Path(__file__).parents[2] / "data" / "nonce_verb"
VERB = "flomped"
SUBJECTS = ("teacher", "farmer", "sister", "sailor")
OBJECTS = ("juice", "tea", "lemonade", "cider")
ADVERBS = ("always", "often", "usually", "typically", "frequently")
TAUGHT, VALIDATED = "perfect transitive", "perfect passive"
FILLERS = {
    # participle: (subject, object) pairs, some of which the tiny models have never met
    "eaten": [("child", "bread"), ("king", "pizza"), ("dog", "steak"), ("woman", "apple")],
    "read": [("student", "book"), ("actor", "story"), ("nurse", "letter"), ("man", "novel")],
    "broken": [("worker", "mirror"), ("cat", "jar"), ("girl", "plate"), ("guest", "window")],
    "bought": [("doctor", "hammer"), ("queen", "coat"), ("painter", "car"), ("boy", "milk")],
    "worn": [("judge", "hat"), ("dancer", "dress"), ("waiter", "shirt"), ("aunt", "scarf")],
    "drunk": [("man", "water"), ("sister", "tea"), ("horse", "water"), ("pilot", "coffee")],
    "regretted": [("prince", "error"), ("author", "joke"), ("judge", "plan"), ("baker", "delay")],
}
FILLER_TYPES = (
    "perfect transitive",
    "perfect passive",
    "cleft subject perfect transitive",
    "raising perfect passive",
    "neg perfect transitive",
)
ORDERS = ("expected", "reversed")
# Sentences of all kinds, from another stream than any that the tiny models were trained on.
SENTENCES_SEED, N_SENTENCES = 2026, 1000

Item = tuple[str, dict[str, Any]]


def voice_of(sentence_type: str) -> str:
    """The voice, and the order in which subject, verb and object appear."""
    if "passive" in sentence_type:
        return "passive SOV" if "agent" in sentence_type else "passive OVS"
    return "active OSV" if "object" in sentence_type or "ORC" in sentence_type else "active SVO"


def _example(item: int, sentence_type: str, verb: str, nouns: tuple[str, str], adverb: str,
             order: str) -> Item:  # fmt: skip
    subject, obj = nouns if order == "expected" else nouns[::-1]
    metadata = {
        "item": item,
        "sentence_type": sentence_type,
        "adverb": adverb,
        "word_subj": subject,
        "word_obj": obj,
        "verb": verb,
        "arg_order": order,
        "taught": verb == VERB and sentence_type == TAUGHT,
        "voice": voice_of(sentence_type),
    }
    return grammar.in_frame(sentence_type, subject, obj, verb, adverb), metadata


def taught(sentence_type: str) -> list[Item]:
    """The made-up verb in one construction: every subject, object and adverb."""
    return [
        _example(i, sentence_type, VERB, (subject, obj), adverb, "expected")
        for i, (subject, obj, adverb) in enumerate(product(SUBJECTS, OBJECTS, ADVERBS))
    ]


def tested() -> Iterator[Item]:
    """The made-up verb in every construction, its arguments as taught and reversed."""
    item = 0
    for sentence_type in grammar.ROLE_FRAMES:
        for i, nouns in enumerate(product(SUBJECTS, OBJECTS)):
            # Every adverb comes up with every subject and every object.
            adverb = ADVERBS[(i + i // len(OBJECTS)) % len(ADVERBS)]
            for order in ORDERS:
                yield _example(item, sentence_type, VERB, nouns, adverb, order)
            item += 1


def fillers() -> Iterator[Item]:
    """Known verbs, their arguments in the right order and reversed."""
    item = 0
    for verb, pairs in FILLERS.items():
        for sentence_type in FILLER_TYPES:
            for nouns in pairs:
                for order in ORDERS:
                    adverb = ADVERBS[item % len(ADVERBS)]
                    yield _example(item, sentence_type, verb, nouns, adverb, order)
                item += 1


def for_mlm(example: Item) -> dict[str, str]:
    """Both nouns masked; the labels are the sentence."""
    text, metadata = example
    masked = _replace(text, metadata, {"word_subj": "[MASK]", "word_obj": "[MASK]"})
    return {"text": masked, "labels": text}


def for_seq2seq(example: Item) -> dict[str, str]:
    """Both nouns replaced by sentinels, numbered from left to right; the labels are T5's."""
    text, metadata = example
    words = re.findall(r"\w+", text)
    in_order = sorted(("word_subj", "word_obj"), key=lambda k: words.index(metadata[k]))
    sentinels = {key: f"<extra_id_{i}>" for i, key in enumerate(in_order)}
    spans = " ".join(f"{sentinels[key]} {metadata[key]}" for key in in_order)
    return {"text": _replace(text, metadata, sentinels), "labels": f"{spans} <extra_id_2>"}


def _replace(text: str, metadata: dict[str, Any], by: dict[str, str]) -> str:
    for key, replacement in by.items():
        text, n = re.subn(rf"\b{metadata[key]}\b", replacement, text)
        if n != 1:
            raise ValueError(f"{metadata[key]} must occur once in: {text}")
    return text


def files() -> dict[str, list[str]]:
    """The lines of every file, by name."""
    parts = {"train": taught(TAUGHT), "validation": taught(VALIDATED), "test": list(tested())}
    short = {"train": "active", "validation": "passive", "test": "test"}
    lines: dict[str, list[str]] = {}
    for part, examples in parts.items():
        lines[f"{VERB}_{short[part]}.txt.gz"] = [text for text, _ in examples]
        lines[f"{VERB}_mlm_{part}.json.gz"] = [json.dumps(for_mlm(e)) for e in examples]
        lines[f"{VERB}_seq2seq_{part}.json.gz"] = [json.dumps(for_seq2seq(e)) for e in examples]
    metadata = [json.dumps(m) for _, m in parts["test"]]
    for stem in (f"{VERB}_test", f"{VERB}_mlm_test", f"{VERB}_seq2seq_test"):
        lines[f"{stem}_metadata.json.gz"] = metadata
    filler_examples = list(fillers())
    lines["fillers.txt.gz"] = [text for text, _ in filler_examples]
    lines["fillers_metadata.json.gz"] = [json.dumps(m) for _, m in filler_examples]
    lines["sentences.txt.gz"] = list(islice(grammar.corpus(SENTENCES_SEED), N_SENTENCES))
    return lines


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=DATA, help="where to write them")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    for name, lines in files().items():
        content = "".join(f"{line}\n" for line in lines).encode()
        (out / name).write_bytes(gzip.compress(content, mtime=0))
        print(f"{name}: {len(lines)} lines")


if __name__ == "__main__":
    main()
