"""Every tokenizer class of transformers that files made here are enough for.

They are found by looking through the package, so that a class which comes with a new version is
tested too. What a class is made from it says by the arguments of its ``__init__``.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import json
import pkgutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers import PreTrainedTokenizerBase

from families import bert_tokenizer, gpt2_tokenizer, llama_tokenizer, t5_tokenizer
from tokenizer_kinds import tokenizer_of_kind

SPECIAL = {
    "vocab.txt": [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "<pad>",
        "<unk>",
        "<s>",
        "</s>",
        "<|endoftext|>",
        "<|startoftext|>",
        "<SP>",
    ],
    "vocab.json": [
        "<pad>",
        "<unk>",
        "<s>",
        "</s>",
        "[UNK]",
        "[STOP]",
        "<|endoftext|>",
        "[GO]",
        "__unk__",
    ],
}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHARACTERS = [*LETTERS, *LETTERS.upper(), *"0123456789.,:;?!'-…“”½éñßüя책을中文", "ﬁ"]

NEEDS = {
    "BertJapaneseTokenizer": "fugashi",
    "CpmTokenizer": "jieba",
    "CpmTokenizerFast": "jieba",
    "CpmAntTokenizer": "rjieba",
    "FastSpeech2ConformerTokenizer": "g2p_en",
    "RoFormerTokenizer": "rjieba",
    "FlaubertTokenizer": "sacremoses",
    "FSMTTokenizer": "sacremoses",
    "BioGptTokenizer": "sacremoses",
    "XLMTokenizer": "sacremoses",
    "Wav2Vec2PhonemeCTCTokenizer": "phonemizer",
    "Pop2PianoTokenizer": "pretty_midi",
}
"""Classes that need a package which is no part of the test environment."""

NOT_FOR_TEXT = {
    "DPRReaderTokenizer": "takes questions with passages",
    "DPRReaderTokenizerFast": "takes questions with passages",
    "DiaTokenizer": "is for what is to be spoken",
    "LasrTokenizer": "is for what is heard",
    "ParakeetTokenizer": "is for what is heard",
    "LayoutLMv2Tokenizer": "takes words with boxes",
    "LayoutLMv3Tokenizer": "takes words with boxes",
    "LayoutXLMTokenizer": "takes words with boxes",
    "MarkupLMTokenizer": "takes the nodes of web pages",
    "MgpstrTokenizer": "is for what is read off pictures",
    "EsmTokenizer": "is for proteins",
    "EsmcTokenizer": "is for proteins",
    "TapasTokenizer": "takes tables",
    "UdopTokenizer": "takes words with boxes",
    "VitsTokenizer": "turns text into sounds",
    "Wav2Vec2CTCTokenizer": "is for what is heard",
    "RagTokenizer": "is two tokenizers",
}


def _classes() -> Iterator[type[Any]]:
    """The classes of transformers, by name."""
    root = Path(transformers.__file__).parent / "models"
    found = {}
    for package in pkgutil.iter_modules([str(root)]):
        for file in (root / package.name).glob("tokenization_*.py"):
            try:
                module = importlib.import_module(f"transformers.models.{package.name}.{file.stem}")
            except (ImportError, NameError):  # of a package that is not here
                continue
            for _, each in inspect.getmembers(module, inspect.isclass):
                if issubclass(each, PreTrainedTokenizerBase) and each.__module__ == module.__name__:
                    found[each.__name__] = each
    return iter(found[name] for name in sorted(found))


@functools.cache
def _directory() -> Path:
    """Vocabularies of all kinds, made once."""
    directory = Path(tempfile.mkdtemp(prefix="tokenizer-classes-"))
    pieces = [*CHARACTERS, *("##" + c for c in CHARACTERS), *("▁" + c for c in CHARACTERS), " "]
    (directory / "vocab.txt").write_text("\n".join([*SPECIAL["vocab.txt"], *pieces]), "utf-8")
    entries = [*SPECIAL["vocab.json"], *CHARACTERS]
    entries += [c + end for c in CHARACTERS for end in ("</w>", "@@")]
    (directory / "vocab.json").write_text(
        json.dumps({entry: number for number, entry in enumerate(entries)}), "utf-8"
    )
    (directory / "merges.txt").write_text("#version: 0.2\nq z\n", "utf-8")
    parts = [*CHARACTERS, *("▁" + c for c in CHARACTERS), *(c + "@@" for c in CHARACTERS), "▁"]
    (directory / "dict.txt").write_text("".join(f"{part} 1\n" for part in parts), "utf-8")
    (directory / "byte_maps.json").write_text(
        json.dumps({"decompose_map": {}, "merge_map": {}}), "utf-8"
    )
    (directory / "emoji.json").write_text(json.dumps({"emoji": {}, "emoji_inv": {}}), "utf-8")
    shapes = dict.fromkeys([*SPECIAL["vocab.txt"], *pieces], 0)
    (directory / "shapes.json").write_text(json.dumps(shapes), "utf-8")
    return directory


TEXTS = [
    "The man has always broken the glass. She said: so what? It's 12 o'clock; very good!",
    "책을 읽었다 . Я читаю книгу . 中文 . Der Bär aß süße Früchte . … “ ” ½ é ñ",
    "A naïve café owner opened the old windows again, and nobody came.",
    *(" ".join(pair) for pair in itertools.product(CHARACTERS, LETTERS)),
]


@functools.cache
def sentencepiece_file(normalizer: str = "nmt_nfkc", size: int = 160) -> str:
    """A SentencePiece model of all the characters above."""
    sentencepiece = pytest.importorskip("sentencepiece")
    path = _directory() / f"{normalizer}.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS),
            model_writer=file,
            vocab_size=size,
            model_type="unigram",
            hard_vocab_limit=False,
            normalization_rule_name=normalizer,
            minloglevel=2,
            character_coverage=1.0,
            num_threads=1,
        )
    return str(path)


@functools.cache
def _pieces_vocab() -> str:
    """The pieces of the SentencePiece model as a JSON vocabulary."""
    sentencepiece = pytest.importorskip("sentencepiece")
    processor = sentencepiece.SentencePieceProcessor(model_file=sentencepiece_file())
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    names = list(dict.fromkeys(["<s>", "<pad>", "</s>", "<unk>", *pieces]))
    path = _directory() / "pieces.json"
    path.write_text(json.dumps({name: i for i, name in enumerate(names)}), "utf-8")
    return str(path)


def _model(tokenizer: Any) -> dict[str, Any]:
    return dict(json.loads(tokenizer.backend_tokenizer.to_str())["model"])


def _vocab_of(kind: str) -> dict[str, Any]:
    if kind == "pieces":
        vocab = dict(map(tuple, _model(t5_tokenizer())["vocab"]))
        return {"vocab": list((dict.fromkeys(CHARACTERS, -20.0) | vocab).items())}
    if kind == "words":
        vocab = dict(_model(bert_tokenizer())["vocab"])
        more = ["<unk>", *CHARACTERS, *("##" + c for c in CHARACTERS)]
        for name in more:
            vocab.setdefault(name, len(vocab))
        return {"vocab": vocab}
    if kind == "albert":
        pieces = map(tuple, _model(tokenizer_of_kind("albert-class"))["vocab"])
        return {"vocab": [*pieces, *((c, -20.0) for c in CHARACTERS)]}
    if kind == "ends":  # the end of a word is marked, not its beginning
        names = [*SPECIAL["vocab.json"], *CHARACTERS, *(c + "</w>" for c in CHARACTERS)]
        return {"vocab": {name: i for i, name in enumerate(names)}, "merges": []}
    model = _model(gpt2_tokenizer() if kind == "bytes" else llama_tokenizer())
    return {"vocab": model["vocab"], "merges": [tuple(merge) for merge in model["merges"]]}


def _candidates(cls: type[Any]) -> Iterator[dict[str, Any]]:
    """What the class could be made from, the likeliest first."""
    at = _directory()
    parameters = inspect.signature(cls.__init__).parameters
    required = {
        name
        for name, p in parameters.items()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and name != "self"
    }
    fixed: dict[str, Any] = {
        "monolingual_vocab_file": str(at / "dict.txt"),
        "word_shape_file": str(at / "shapes.json"),
        "word_pronunciation_file": str(at / "shapes.json"),
        "emoji_file": str(at / "emoji.json"),
    }
    more = {name: value for name, value in fixed.items() if name in required}
    if cls.__name__ == "MyT5Tokenizer":
        yield {"vocab_file": str(at / "byte_maps.json")}
    elif "source_spm" in required:
        spm = sentencepiece_file()
        yield {"source_spm": spm, "target_spm": spm, "vocab": _pieces_vocab()}
    elif "spm_file" in required:
        yield {"vocab_file": _pieces_vocab(), "spm_file": sentencepiece_file()}
    elif "merges_file" in required:
        txt, merges = str(at / "dict.txt"), str(at / "merges.txt")
        yield {"vocab_file": str(at / "vocab.json"), "merges_file": merges}
        yield {"vocab_file": txt, "merges_file": merges}
    elif issubclass(cls, transformers.TokenizersBackend):
        kinds = ["words", "pieces", "albert"]
        if "merges" in parameters:
            kinds = ["bytes", "metaspace", "ends"]
        for kind in kinds:
            yield {**_vocab_of(kind)}
    elif "vocab_file" in required:
        if any("SentencePiece" in base.__name__ for base in cls.__mro__):
            yield {"vocab_file": sentencepiece_file(), **more}
        yield {"vocab_file": str(at / "vocab.txt"), **more}
        yield {"vocab_file": str(at / "vocab.json"), **more}
    elif not required:
        yield {}


@functools.cache
def _build(cls: type[Any]) -> tuple[Any, dict[str, Any]]:
    """A tokenizer of a class, and what it is made from.

    Raises:
        ValueError: If it can be made from none of the files.
    """
    problems: list[str] = []
    made = []
    for files in _candidates(cls):
        try:
            tokenizer = cls(**files)
            made.append((_n_read(tokenizer), -len(made), tokenizer, files))
        except Exception as error:
            problems.append(f"{type(error).__name__}: {error}")
    best = max(made, default=None)
    if best is None or not best[0]:
        raise ValueError(f"{cls.__name__}: {problems}")
    return best[2:]


def _n_read(tokenizer: Any) -> int:
    """How well the vocabulary is one for the class: how much of a text decodes to itself."""
    text = "the man has always"
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    known = [i for i in ids if i != tokenizer.unk_token_id]
    decoded = tokenizer.decode(known, clean_up_tokenization_spaces=False).lower()
    n_words = sum(word in decoded for word in text.split())
    return n_words + len(text) * (decoded.strip() == text)


CLASSES = {
    cls.__name__: cls
    for cls in _classes()
    if cls.__name__ not in NEEDS and cls.__name__ not in NOT_FOR_TEXT
}
BUILT = list(CLASSES)
"""The names of all that can be built."""


def build(name: str) -> Any:
    """A tokenizer of a class. It must not be changed."""
    return _build(CLASSES[name])[0]


def build_with(name: str, **kwargs: Any) -> Any:
    """A new tokenizer of a class, with more arguments."""
    cls = CLASSES[name]
    return cls(**{**_build(cls)[1], **kwargs})
