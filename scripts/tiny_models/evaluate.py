"""How well the tiny models know the grammar: accuracy on held-out minimal pairs.

Run ``python scripts/tiny_models/evaluate.py`` to print the table that the README shows.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy, pad

sys.path.insert(0, str(Path(__file__).parent))
import grammar

BUILTIN = Path(__file__).parents[2] / "src" / "finetune_lm" / "models" / "builtin"
AUTO_CLASSES = {
    "tiny-lm": "AutoModelForCausalLM",
    "tiny-mlm": "AutoModelForMaskedLM",
    "tiny-seq2seq": "AutoModelForSeq2SeqLM",
}
BATCH_SIZE = 256
WORDS = re.compile(r"[\w']+|[^\w\s]")


def load(name: str, directory: Path = BUILTIN) -> tuple[Any, Any]:
    """A tiny model in evaluation mode, and its tokenizer."""
    import transformers

    path = directory / name
    model = getattr(transformers, AUTO_CLASSES[name]).from_pretrained(path, dtype=torch.float32)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(path)


def _stack(rows: list[list[int]], fill: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.stack([pad(torch.tensor(r), (0, width - len(r)), value=fill) for r in rows])


def _losses(model: Any, inputs: list[list[int]], labels: list[list[int]], fill: int) -> list[float]:
    """The summed negative log-likelihood, in nats, of each row's labels that are not -100."""
    sums: list[float] = []
    with torch.inference_mode():
        for start in range(0, len(inputs), BATCH_SIZE):
            rows = inputs[start : start + BATCH_SIZE]
            ids, targets = _stack(rows, fill), _stack(labels[start : start + BATCH_SIZE], -100)
            mask = (torch.arange(ids.shape[1]) < torch.tensor([[len(r)] for r in rows])).long()
            if model.config.is_encoder_decoder:
                logits = model(input_ids=ids, attention_mask=mask, labels=targets).logits
            else:
                logits = model(input_ids=ids, attention_mask=mask).logits
            loss = cross_entropy(logits.transpose(1, 2), targets, reduction="none")
            sums += loss.sum(1).tolist()
    return sums


def sentence_costs(name: str, model: Any, tokenizer: Any, sentences: list[str]) -> list[float]:
    """What each sentence costs a model, in nats, scored in the way natural to its kind.

    The LM reads it from left to right. The MLM sees it with one token masked at a time. The
    seq2seq model sees it with one word at a time replaced by a sentinel, and is asked for it.
    """
    inputs, labels, owner = [], [], []
    fill = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    for number, sentence in enumerate(sentences):
        ids = tokenizer(sentence)["input_ids"]
        if name == "tiny-lm":
            inputs.append([tokenizer.bos_token_id, *ids])
            labels.append([*ids, -100])
            owner.append(number)
        elif name == "tiny-mlm":
            for i in range(1, len(ids) - 1):
                inputs.append([*ids[:i], tokenizer.mask_token_id, *ids[i + 1 :]])
                labels.append([-100] * i + [ids[i]] + [-100] * (len(ids) - i - 1))
                owner.append(number)
        else:
            for word in WORDS.finditer(sentence):
                start, end = word.span()
                masked = f"{sentence[:start]}<extra_id_0>{sentence[end:]}"
                target = tokenizer(f"<extra_id_0> {word.group()} <extra_id_1>")["input_ids"]
                inputs.append(tokenizer(masked)["input_ids"])
                labels.append(
                    target
                )  # whole: the decoder reads it too, the first sentinel above all
                owner.append(number)
    costs = [0.0] * len(sentences)
    for number, loss in zip(owner, _losses(model, inputs, labels, fill), strict=True):
        costs[number] += loss
    return costs


def accuracy(
    name: str, model: Any, tokenizer: Any, kind: str, n: int, seed: int = 1
) -> tuple[float, dict[str, float]]:
    """The share of minimal pairs whose right sentence costs less: in all, and by test."""
    pairs = grammar.minimal_pairs(kind, n, seed)
    sentences = [text for pair in pairs for text in (pair.good, pair.bad)]
    costs = sentence_costs(name, model, tokenizer, sentences)
    hits = defaultdict(list)
    for pair, good, bad in zip(pairs, costs[::2], costs[1::2], strict=True):
        hits[pair.test].append(good < bad)
    by_test = {test: sum(h) / len(h) for test, h in hits.items()}
    return sum(map(sum, hits.values())) / n, by_test


def table(directory: Path, names: list[str], n: int, details: bool) -> str:
    """The accuracies as a Markdown table."""
    columns: dict[str, dict[str, float]] = {}
    for name in names:
        model, tokenizer = load(name, directory)
        columns[name] = {}
        for kind in ("agreement", "arguments"):
            total, by_test = accuracy(name, model, tokenizer, kind, n)
            columns[name][f"**{kind}, all**"] = total
            groups = defaultdict(list)
            for test, value in by_test.items():
                groups[test if details else _group_name(test)].append(value)
            for group, values in groups.items():
                columns[name][group] = sum(values) / len(values)
    lines = ["| test | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for test in columns[names[0]]:
        cells = " | ".join(f"{100 * columns[name][test]:.1f}" for name in names)
        lines.append(f"| {test} | {cells} |")
    return "\n".join(lines)


def _group_name(test: str) -> str:
    if not test.startswith("reversed"):
        return test.split(": perfect")[0]
    return "reversed: passives" if "passive" in test else "reversed: actives"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dir", type=Path, default=BUILTIN, help="where the models are")
    parser.add_argument("--only", choices=list(AUTO_CLASSES), help="one model instead of three")
    parser.add_argument("--pairs", type=int, default=1000, help="pairs of each kind")
    parser.add_argument("--details", action="store_true", help="one row for every sentence type")
    args = parser.parse_args()
    torch.set_num_threads(1)
    names = [args.only] if args.only else list(AUTO_CLASSES)
    print(table(args.dir, names, args.pairs, args.details))


if __name__ == "__main__":
    main()
