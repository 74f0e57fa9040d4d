"""How a tokenizer writes words, and with which entries a new one joins them."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, Self

from finetune_lm.models.vocabulary import JOINER

BYTE_SPACE, META_SPACE = "Ġ", "▁"
CONTINUATION = "##"
"""Marks the entry without a space where the plain word has to mean the one with a space, because
that is how a text begins."""


@dataclass(frozen=True)
class Form:
    """One entry of a new word.

    Attributes:
        content: The entry.
        read_as: What the normalizer makes of it, which is what is looked for in texts.
        decoded: What the decoder is to be given for it.
        follows_space: Whether it is the word with the space before it.
    """

    content: str
    read_as: str
    decoded: str
    follows_space: bool


@dataclass(frozen=True)
class Spelling:
    """How a tokenizer writes words and the spaces before them.

    Attributes:
        sign: What its vocabulary has for the space before a word: Ġ where tokens are bytes, ▁ in
            SentencePiece. None where spaces are dropped, as in WordPiece: words then have one form.
        space: What the normalizer leaves of a space.
        starts_spaced: Whether a text begins as if a space stood before it.
        splits_at_spaces: Whether texts are cut at white space before signs are put.
        signs_pieces: Whether a sign is put before every piece of text, so also before a comma that
            follows an added token.
        spaces_pieces: Whether a space is put before every piece of text, which becomes a sign.
    """

    sign: str | None = None
    space: str = " "
    starts_spaced: bool = False
    splits_at_spaces: bool = False
    signs_pieces: bool = False
    spaces_pieces: bool = False

    @classmethod
    def of(cls, tokenizer: Any) -> Self:
        """Find out from the parts of a fast tokenizer."""
        backend = tokenizer.backend_tokenizer
        cutters = parts(backend.pre_tokenizer)
        kinds = [cutter["type"] for cutter in cutters]
        if "ByteLevel" in kinds:
            # Behind another cutter it puts spaces before the pieces of any text, so the pieces
            # behind a new word are no exception.
            first = cutters[0]
            prefixes = first["type"] == "ByteLevel" and first["add_prefix_space"]
            spelling = cls(BYTE_SPACE, spaces_pieces=prefixes)
        elif "Metaspace" in kinds:
            metaspace = cutters[kinds.index("Metaspace")]
            spelling = cls(
                metaspace["replacement"],
                splits_at_spaces="WhitespaceSplit" in kinds,
                signs_pieces=metaspace["prepend_scheme"] == "always",
            )
        elif any(part.get("content") == META_SPACE for part in parts(backend.normalizer)):
            spelling = cls(META_SPACE, space=META_SPACE)
        else:
            return cls()
        begins = backend.encode("a", add_special_tokens=False).tokens[:1]
        return replace(spelling, starts_spaced=any(t.startswith(spelling.sign) for t in begins))

    def normalized(self, tokenizer: Any, word: str) -> str:
        """A word as the tokenizer's normalizer leaves it, for instance in small letters."""
        normalizer = tokenizer.backend_tokenizer.normalizer
        text = word if normalizer is None else str(normalizer.normalize_str(word))
        return text.strip(f" {self.sign or ''}{JOINER}")

    def forms(self, word: str) -> list[Form]:
        """The entries of a word that is as the normalizer leaves it, the most frequent first."""
        if self.sign is None:
            return [Form(word, word, word, follows_space=False)]
        spaced, bare = self._written(" " + word), self._written(word)
        return [
            Form(spaced, JOINER + self.sign + word, spaced, follows_space=True),
            Form(
                CONTINUATION + word if self.starts_spaced else bare,
                word,
                bare,
                follows_space=False,
            ),
        ]

    def _written(self, text: str) -> str:
        """A piece of text as the vocabulary writes it."""
        if self.sign != BYTE_SPACE:
            return text.replace(" ", str(self.sign))
        from tokenizers import pre_tokenizers

        as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return "".join(piece for piece, _ in as_bytes.pre_tokenize_str(text))


def parts(component: Any) -> list[dict[str, Any]]:
    """What a normalizer or a pre-tokenizer is made of, in order, with sequences taken apart."""
    return [] if component is None else _flat(json.loads(component.__getstate__()))


def _flat(state: dict[str, Any]) -> list[dict[str, Any]]:
    if state["type"] != "Sequence":
        return [state]
    inner = [*state.get("pretokenizers", ()), *state.get("normalizers", ())]
    return [part for each in inner for part in _flat(each)]
