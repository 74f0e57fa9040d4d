"""Train the built-in tiny models from scratch, on the CPU, in minutes.

``python scripts/tiny_models/train.py [--only tiny-lm] [--out DIR]`` generates the corpus, trains a
tokenizer and a model of each kind, and writes them where `finetune_lm` looks for them. The same
machine and library versions give the same files.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    T5Config,
    T5ForConditionalGeneration,
    T5Tokenizer,
)

sys.path.insert(0, str(Path(__file__).parent))
import grammar
from evaluate import AUTO_CLASSES, BUILTIN, WORDS, table

SEED = 20
TOKENIZER_SENTENCES = 40_000
VOCABULARY = {"tiny-lm": 1700, "tiny-mlm": 1400, "tiny-seq2seq": 1600}
MAX_LENGTH = 128
N_SENTINELS = 100
PRINTABLE = [chr(c) for c in range(33, 127)]
STEPS = {"tiny-lm": 2000, "tiny-mlm": 5000, "tiny-seq2seq": 6500}
BATCH_SIZE = 64
PEAK_LR = {"tiny-lm": 3e-3, "tiny-mlm": 2e-3, "tiny-seq2seq": 2e-3}

COUNTED_SENTENCES = 100_000
START_STD = {"tiny-mlm": 0.08, "tiny-seq2seq": 1.0}

Batch = dict[str, torch.Tensor]


# -------------------------------------------------------------------------------- tokenizers


def gpt2_tokenizer(sentences: list[str]) -> GPT2Tokenizer:
    """Byte-level BPE: every text has an encoding, nothing is unknown."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY["tiny-lm"],
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(sentences, trainer)
    trained = json.loads(raw.to_str())["model"]
    merges = [tuple(merge) for merge in trained["merges"]]
    return GPT2Tokenizer(vocab=trained["vocab"], merges=merges, model_max_length=MAX_LENGTH)


def bert_tokenizer(sentences: list[str]) -> BertTokenizer:
    """Uncased WordPiece, with every printable ASCII character on its own and inside words."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    empty = BertTokenizer()._tokenizer
    raw.normalizer, raw.pre_tokenizer = empty.normalizer, empty.pre_tokenizer
    characters = [c for c in PRINTABLE if not c.isupper()]
    pieces = [*characters, *(f"##{c}" for c in characters if c.isalnum())]
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY["tiny-mlm"],
        special_tokens=special,
        initial_alphabet=characters,
        show_progress=False,
    )
    raw.train_from_iterator(sentences, trainer)
    learned = sorted(raw.get_vocab().items(), key=lambda item: item[1])
    tokens = list(dict.fromkeys([*special, *pieces, *(token for token, _ in learned)]))
    vocab = {token: i for i, token in enumerate(tokens[: VOCABULARY["tiny-mlm"]])}
    return BertTokenizer(vocab=vocab, model_max_length=MAX_LENGTH)


def t5_tokenizer(sentences: list[str]) -> T5Tokenizer:
    """Unigram with T5's ids: <pad> 0, </s> 1, <unk> 2, and the sentinels last, in reverse."""
    # Trainers of unigram models look for candidates among distinct words, however frequent each
    # is, and so cut up a word like "always" that is part of no other. Here the candidates are
    # those of BPE, and a few rounds of hard EM give them their probabilities.
    special = ["<pad>", "</s>", "<unk>"]
    pre_tokenizer = T5Tokenizer()._tokenizer.pre_tokenizer
    raw = Tokenizer(models.BPE())
    # No piece of several characters may have a full stop in it.
    raw.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizer, pre_tokenizers.Punctuation()])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY["tiny-seq2seq"] - N_SENTINELS - len(special),
        initial_alphabet=["▁", *PRINTABLE],
        show_progress=False,
    )
    raw.train_from_iterator(sentences, trainer)
    pieces = sorted(raw.get_vocab(), key=raw.get_vocab().__getitem__)
    scores = dict.fromkeys(pieces, -8.0)
    for _ in range(3):
        vocab = [(token, 0.0) for token in special] + list(scores.items())
        raw = Tokenizer(models.Unigram(vocab, unk_id=2))
        raw.pre_tokenizer = pre_tokenizer
        counts = Counter(t for e in raw.encode_batch(sentences) for t in e.tokens)
        total = math.log(counts.total() + 0.5 * len(pieces))
        scores = {piece: math.log(counts[piece] + 0.5) - total for piece in pieces}
    vocab = [(token, 0.0) for token in special] + list(scores.items())
    vocab += [(f"<extra_id_{i}>", 0.0) for i in reversed(range(N_SENTINELS))]
    return T5Tokenizer(vocab=vocab, extra_ids=N_SENTINELS, model_max_length=512)


# ------------------------------------------------------------------------------------ models


def gpt2_model(tokenizer: Any) -> GPT2LMHeadModel:
    """A GPT-2 of 0.6M parameters."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=MAX_LENGTH,
        n_embd=96,
        n_layer=4,
        n_head=4,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        resid_pdrop=0.1,
        embd_pdrop=0.1,
        attn_pdrop=0.1,
    )
    return GPT2LMHeadModel(config)


def bert_model(tokenizer: Any) -> BertForMaskedLM:
    """A BERT of 0.6M parameters."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=384,
        max_position_embeddings=MAX_LENGTH,
        hidden_dropout_prob=0.0,  # no sentence comes twice: there is nothing to overfit
        attention_probs_dropout_prob=0.0,
        initializer_range=0.08,  # 0.02 suits widths of 768; here attention would start out flat
        pad_token_id=tokenizer.pad_token_id,
    )
    return BertForMaskedLM(config)


def t5_model(tokenizer: Any) -> T5ForConditionalGeneration:
    """A T5 (version 1.0: ReLU, tied embeddings) of 0.7M parameters."""
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=96,
        d_kv=24,
        d_ff=256,
        num_layers=3,
        num_decoder_layers=3,
        num_heads=4,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        dropout_rate=0.0,
        tie_word_embeddings=True,
    )
    model = T5ForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".o.weight", ".wo.weight")):
                parameter.mul_(0.3)  # which word it is should not drown in what is added to it
    return model


def distributional_embeddings(tokenizer: Any, dim: int) -> torch.Tensor:
    """Embeddings from what each token occurs with: the main axes of its associations.

    An MLM and a seq2seq model are asked about a quarter of the tokens or fewer, and would need
    several times the steps of an LM to find out which words belong together. Counting is quicker.
    """
    size = len(tokenizer)
    sentences = list(islice(grammar.corpus(SEED + 2), COUNTED_SENTENCES))
    rows = [torch.tensor(ids) for ids in tokenizer(sentences)["input_ids"]]
    stream = torch.cat([torch.cat([row, torch.full((10,), -1)]) for row in rows])
    blocks = []
    for distances in ([-1], [1], [-2], [2], range(-8, -2), range(3, 9)):
        counts = torch.zeros(size * size)
        for d in distances:
            other = stream.roll(-d)
            both = (stream >= 0) & (other >= 0)
            pairs = stream[both] * size + other[both]
            counts += torch.bincount(pairs, minlength=size * size).float()
        table = counts.view(size, size)
        expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
        blocks.append(torch.log(table / expected.clamp(min=1e-9)).clamp(min=0.0).nan_to_num(0.0))
    associations = torch.cat(blocks, dim=1)
    values, vectors = torch.linalg.eigh(associations @ associations.T)
    # eigh sorts upwards; the square root of the singular values keeps small axes visible.
    axes = vectors[:, -dim:] * values[-dim:].clamp(min=0.0) ** 0.25
    axes = axes / axes.std()
    uncounted = associations.sum(1) == 0  # sentinels must differ for the decoder to find them
    axes[uncounted] = torch.randn(axes.shape)[uncounted]
    return axes


# --------------------------------------------------------------------------------- objectives


def _padded(rows: list[list[int]], fill: int) -> torch.Tensor:
    width = max(map(len, rows))
    return torch.tensor([row + [fill] * (width - len(row)) for row in rows])


def _mask(rows: list[list[int]]) -> torch.Tensor:
    return _padded([[1] * len(row) for row in rows], 0)


def lm_batch(sentences: list[str], tokenizer: Any, rng: random.Random) -> Batch:
    """One sentence a row, between start and end tokens."""
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    rows = [[bos, *ids, eos] for ids in tokenizer(sentences)["input_ids"]]
    return {
        "input_ids": _padded(rows, eos),
        "attention_mask": _mask(rows),
        "labels": _padded(rows, -100),
    }


def mlm_batch(sentences: list[str], tokenizer: Any, rng: random.Random) -> Batch:
    """BERT's objective: of the tokens chosen, 80% masked, 10% replaced, 10% left as they are.

    The share chosen varies around a quarter: sentences are short, and a model that is later
    asked about one or two positions at a time must have seen sentences with so few masked.
    """
    n_special = len(tokenizer.all_special_ids)
    inputs, labels = [], []
    for ids in tokenizer(sentences)["input_ids"]:
        row, targets = list(ids), [-100] * len(ids)
        share = rng.choice([0.1, 0.2, 0.3, 0.4, 0.5])
        inner = range(1, len(ids) - 1)
        for i in rng.sample(inner, max(1, round(share * len(inner)))):
            targets[i] = ids[i]
            chance = rng.random()
            if chance < 0.8:
                row[i] = tokenizer.mask_token_id
            elif chance < 0.9:
                row[i] = rng.randrange(n_special, len(tokenizer))
        inputs.append(row)
        labels.append(targets)
    return {
        "input_ids": _padded(inputs, tokenizer.pad_token_id),
        "attention_mask": _mask(inputs),
        "labels": _padded(labels, -100),
    }


def _spans(n: int, rng: random.Random) -> list[tuple[int, int]]:
    """The spans to corrupt: one time in ten a long one, else one to four short ones.

    Short spans, which never touch, are what the model will be asked about; long ones teach its
    decoder to write the language at all.
    """
    if rng.random() < 0.1:
        start = rng.randrange(max(1, n // 2))
        return [(start, min(n, start + rng.randrange(n // 2, n)))]
    wanted = rng.choice([1, 2, 2, 3, 3, 4])
    taken: list[tuple[int, int]] = []
    for _ in range(wanted):
        start = rng.randrange(n)
        end = min(n, start + rng.choices([1, 2, 3], [5, 2, 1])[0])
        if all(end < a or b < start for a, b in taken) and end - start < n:
            taken.append((start, end))
    return sorted(taken)


def t5_batch(sentences: list[str], tokenizer: Any, rng: random.Random) -> Batch:
    """T5's span corruption, half of the time on tokens, half of the time on words of the text.

    The two differ in how what follows a sentinel is tokenized, and data files have the latter.
    """
    ids_of = [tokenizer.convert_tokens_to_ids(f"<extra_id_{i}>") for i in range(N_SENTINELS)]
    inputs, labels = [], []
    for sentence, ids in zip(sentences, tokenizer(sentences)["input_ids"], strict=True):
        if rng.random() < 0.5:
            spans = _spans(len(ids) - 1, rng)
            row, target, done = [], [], 0
            for i, (start, end) in enumerate(spans):
                row += [*ids[done:start], ids_of[i]]
                target += [ids_of[i], *ids[start:end]]
                done = end
            inputs.append([*row, *ids[done:]])
            labels.append([*target, ids_of[len(spans)], tokenizer.eos_token_id])
            continue
        words = [match.span() for match in WORDS.finditer(sentence)]
        spans = [(words[a][0], words[b - 1][1]) for a, b in _spans(len(words), rng)]
        text, wanted, done = "", "", 0
        for i, (start, end) in enumerate(spans):
            text += f"{sentence[done:start]}<extra_id_{i}>"
            wanted += f"<extra_id_{i}> {sentence[start:end]} "
            done = end
        inputs.append(tokenizer(text + sentence[done:])["input_ids"])
        labels.append(tokenizer(f"{wanted}<extra_id_{len(spans)}>")["input_ids"])
    return {
        "input_ids": _padded(inputs, tokenizer.pad_token_id),
        "attention_mask": _mask(inputs),
        "labels": _padded(labels, -100),
    }


def encoder_loss(model: Any, batch: Batch, outputs: Any) -> torch.Tensor:
    """How badly the encoder alone names the first token behind each sentinel.

    Through the decoder the encoder learns slowly what to make of a gap. Asked directly, as an MLM
    would be, it learns that much sooner.
    """
    first_sentinel = model.config.vocab_size - N_SENTINELS
    labels = batch["labels"]
    # The final sentinel stands for no gap, and </s> follows it.
    opens = (labels[:, :-1] >= first_sentinel) & (labels[:, 1:] != model.config.eos_token_id)
    gaps = outputs.encoder_last_hidden_state[batch["input_ids"] >= first_sentinel]
    logits = gaps @ model.shared.weight.T * model.config.d_model**-0.5
    return torch.nn.functional.cross_entropy(logits, labels[:, 1:][opens])


RECIPES = {
    "tiny-lm": (gpt2_tokenizer, gpt2_model, lm_batch),
    "tiny-mlm": (bert_tokenizer, bert_model, mlm_batch),
    "tiny-seq2seq": (t5_tokenizer, t5_model, t5_batch),
}


# ----------------------------------------------------------------------------------- training


def batches(seed: int) -> Iterator[list[str]]:
    """Endless batches of sentences of about the same length, so that little is padding."""
    rng = random.Random(seed)
    stream = grammar.corpus(seed)
    while True:
        chunk = sorted(islice(stream, 16 * BATCH_SIZE), key=len)
        grouped = [chunk[i : i + BATCH_SIZE] for i in range(0, len(chunk), BATCH_SIZE)]
        rng.shuffle(grouped)
        yield from grouped


def train(name: str, steps: int) -> tuple[Any, Any]:
    """Train one model and its tokenizer; no sentence is seen twice by design."""
    make_tokenizer, make_model, make_batch = RECIPES[name]
    tokenizer = make_tokenizer(list(islice(grammar.corpus(SEED), TOKENIZER_SENTENCES)))
    torch.manual_seed(SEED)
    model = make_model(tokenizer)
    if name in START_STD:
        start = distributional_embeddings(tokenizer, model.config.hidden_size)
        with torch.no_grad():
            model.get_input_embeddings().weight.copy_(start * START_STD[name])
    n_params = sum(p.numel() for p in model.parameters())
    print(f"{name}: {n_params:,} parameters, {len(tokenizer)} tokens, {steps} steps", flush=True)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}],
        lr=PEAK_LR[name],
        betas=(0.9, 0.98),
    )
    warmup = min(200, steps // 10 + 1)

    def schedule(step: int) -> float:
        done = (step - warmup) / max(1, steps - warmup)
        return min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * max(0.0, done))) + 0.005)

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    rng = random.Random(SEED)
    model.train()
    began, recent = time.monotonic(), 0.0
    for step, sentences in enumerate(islice(batches(SEED + 1), steps)):
        batch = make_batch(sentences, tokenizer, rng)
        outputs = model(**batch)
        loss = outputs.loss
        if name == "tiny-seq2seq":
            loss = loss + encoder_loss(model, batch, outputs)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        recent += outputs.loss.item()
        if (step + 1) % 250 == 0:
            seconds = time.monotonic() - began
            print(f"{name}: step {step + 1}, loss {recent / 250:.3f}, {seconds:.0f} s", flush=True)
            recent = 0.0
    return model.eval(), tokenizer


def save(model: Any, tokenizer: Any, target: Path) -> None:
    """Write a model beside its place and put it there whole.

    The weights are stored in 16 bits to keep the package small; the configuration says float32, so
    that is what they are loaded as.
    """
    aside = target.with_name(f".{target.name}.new")
    shutil.rmtree(aside, ignore_errors=True)
    model.half().save_pretrained(aside)
    tokenizer.save_pretrained(aside)
    for file in aside.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone, and packages keep the mode
    config = json.loads((aside / "config.json").read_text())
    config["dtype"] = "float32"
    (aside / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    aside.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    """Train, write, and print how good they are."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=list(AUTO_CLASSES), help="one model instead of three")
    parser.add_argument("--out", type=Path, default=BUILTIN, help="where to write them")
    parser.add_argument("--steps", type=int, help="training steps (default: as the README says)")
    args = parser.parse_args()
    # One thread, so that the sums are the same however many cores there are.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    names = [args.only] if args.only else list(AUTO_CLASSES)
    args.out.mkdir(parents=True, exist_ok=True)
    for name in names:
        model, tokenizer = train(name, args.steps or STEPS[name])
        save(model, tokenizer, args.out / name)
    print(table(args.out, names, 300, details=False))


if __name__ == "__main__":
    main()
