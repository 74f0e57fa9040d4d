"""What is to be known of a tokenizer's entries, found out once for each entry."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from types import BuiltinMethodType
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune_lm.errors import UserError

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

SENTINEL = "<extra_id_{}>"
"""How span-denoising models name the tokens that stand for a span."""

SPACE = "▁"
"""How SentencePiece writes the space before a word."""

JOINER = "\N{WORD JOINER}"
"""A character that nobody sees and no vocabulary has. It marks words that were added to a tokenizer
in what that makes of a text (`finetune_lm.model_modifiers.add_new_tokens`)."""

GOES_ON = "@@"
"""How some tokenizers (BERTweet, PhoBERT, CTRL) mark a token whose word goes on behind it."""

ENDS = "</w>"
"""How others (OpenAI GPT, CLIP, Herbert, XLM) mark a token that is the end of its word."""

CONTINUES = "##"
"""How WordPiece marks a token that goes on with a word."""

_UNDECODABLE = "\N{REPLACEMENT CHARACTER}"


class Vocabulary:
    """Texts of tokens, which of them begin a word, which are special.

    Entries are decoded when first met and kept, so that no token is decoded once per epoch.

    Args:
        tokenizer: A transformers tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        entries = tokenizer.get_vocab()
        size = max(entries.values(), default=-1) + 1
        # Models often have a few more rows than the tokenizer has tokens; those decode to nothing.
        self._texts: npt.NDArray[np.object_] = np.empty(size, dtype=object)
        self._begins_word = np.zeros(size, dtype=bool)
        self._begins_inside = np.zeros(size, dtype=bool)
        self._ends_inside = np.zeros(size, dtype=bool)
        self._goes_on = np.zeros(size, dtype=bool)
        self._is_space = np.zeros(size, dtype=bool)
        self._is_blank = np.zeros(size, dtype=bool)
        self._is_cut = np.zeros(size, dtype=bool)
        self._cut: dict[tuple[int, ...], tuple[bool, bool]] = {}
        self._known = np.zeros(size, dtype=bool)
        anchor = tokenizer("a", add_special_tokens=False, verbose=False)["input_ids"]
        self._anchor: list[int] = list(anchor[-1:])
        self._anchor_text = self._decode([self._anchor])[0]
        self._marks_ends = _marks_ends(tokenizer)
        # A word that was added to a vocabulary of another kind may be spelled like this as well.
        own = entries.keys() - tokenizer.get_added_vocab().keys()
        continuing = [entry for entry in entries if entry.startswith(CONTINUES) and entry[2:]]
        self.continuing_ids: IntArray | None = None
        """Where tokens are marked that go on with a word, as in WordPiece, ids of these."""
        if example := next((entry for entry in continuing if entry in own), None):
            [decoded] = self._decode([[*self._anchor, entries[example]]])
            if decoded == self._anchor_text + example.removeprefix(CONTINUES):
                self.continuing_ids = np.array([entries[entry] for entry in continuing])

        self.mask_id: int | None = tokenizer.mask_token_id
        """The token that masks a position, if there is one."""
        sentinels: list[int] = []
        while (name := SENTINEL.format(len(sentinels))) in entries:
            sentinels.append(entries[name])
        self.sentinel_ids: IntArray = np.array(sentinels, dtype=np.int64)
        """``<extra_id_0>``, ``<extra_id_1>`` and so on, as many as there are."""
        frame = {
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
            tokenizer.cls_token_id,
            tokenizer.sep_token_id,
        }
        # Where unknown tokens serve as padding, they stand for words all the same.
        padding = {tokenizer.pad_token_id} - {tokenizer.unk_token_id}
        self.structural_ids: set[int] = (frame | padding) - {None}
        """Ids of tokens that frame a text. Masks, sentinels and unknown tokens stand for words."""
        self.filler = next(iter(self.structural_ids), 0)
        """An id to stand where there is no token."""
        named = {*tokenizer.all_special_ids, *sentinels}
        self._standalone_ids = named - self.structural_ids
        self.special_ids: set[int] = self.structural_ids | (named - {tokenizer.unk_token_id})
        """Ids of tokens that are never masked. An unknown token is a token of the text."""
        unknown = {tokenizer.unk_token_id} - self.special_ids - {None}
        self._unknown_id: int | None = next(iter(unknown), None)
        ordinary = np.zeros(size, dtype=bool)
        ordinary[list(entries.values())] = True
        ordinary[[i for i in (*named, *self.structural_ids) if 0 <= i < size]] = False
        self.ordinary_ids: IntArray = np.flatnonzero(ordinary)
        """Ids of all tokens that are not special, nor the unknown token."""
        self.spellings: dict[str, list[tuple[int, ...]]] = {}
        """For those who look words up: the ids that spell each, kept for the next time."""

    @property
    def size(self) -> int:
        """How many ids there are, from 0."""
        return len(self._known)

    @property
    def marks_ends(self) -> bool:
        """Whether tokens tell that they end a word, or that it goes on behind them."""
        return self._marks_ends is not None

    def texts(self, ids: IntArray) -> npt.NDArray[np.object_]:
        """The decoded text of each token: an object array shaped like ``ids``."""
        return self._learned(ids, self._texts)

    def begins_word(self, ids: IntArray) -> BoolArray:
        """Whether each token is spelled as the beginning of a word: shaped like ``ids``.

        Where a vocabulary marks the ends of words, that is behind each token that has the mark.
        """
        begins = self._learned(ids, self._begins_word)
        if self._marks_ends:
            begins[..., 1:] = ~self._learned(ids, self._goes_on)[..., :-1]
        return begins

    def goes_on(self, ids: IntArray) -> BoolArray:
        """Whether the word of each token goes on behind it, where `marks_ends`: as ``ids``."""
        return self._learned(ids, self._goes_on)

    def is_blank(self, ids: IntArray) -> BoolArray:
        """Whether each token's text is nothing but white space, or nothing: as ``ids``."""
        return self._learned(ids, self._is_blank)

    def begins_inside(self, ids: IntArray) -> BoolArray:
        """Whether each token begins with a letter or digit and without a space before it."""
        return self._learned(ids, self._begins_inside)

    def ends_inside(self, ids: IntArray) -> BoolArray:
        """Whether each token ends with a letter or digit, so that its word may go on."""
        return self._learned(ids, self._ends_inside)

    def continues(self, ids: IntArray, *, after_space: bool = False) -> BoolArray:
        """Whether each token goes on with the letters of the one before it.

        Spaces, punctuation and special tokens come between words: "water" and "." are two.

        Args:
            ids: Rows of tokens, (n, length).
            after_space: Whether a token that is nothing but a space is the beginning of the word
                behind it.

        Returns:
            Booleans, (n, length).
        """
        special = self.is_special(ids)
        continues, before = self._inside(ids)
        continues &= ~special
        if after_space:
            before |= self._learned(ids, self._is_space)
        continues[:, 1:] &= (before & ~special)[:, :-1]
        continues[:, :1] = False
        return continues

    def _inside(self, ids: IntArray) -> tuple[BoolArray, BoolArray]:
        """Whether each token begins and ends within a word.

        Some characters are several tokens of a byte-level tokenizer, among them curly quotation
        marks. Only these are looked at together.
        """
        begins, ends = self.begins_inside(ids), self.ends_inside(ids)
        is_cut = np.pad(self._learned(ids, self._is_cut), ((0, 0), (1, 1))).astype(np.int8)
        edges = np.diff(is_cut, axis=1)
        for row, first, last in zip(
            *np.nonzero(edges == 1), np.nonzero(edges == -1)[1], strict=True
        ):
            run = tuple(ids[row, first:last].tolist())
            if run not in self._cut:
                text = self._decode([[*self._anchor, *run]])[0][len(self._anchor_text) :]
                text = text.strip() if self._marks_ends else text
                self._cut[run] = _is_of_word(text[:1]), _is_of_word(text[-1:])
            begins[row, first], ends[row, last - 1] = self._cut[run]
        if self._marks_ends:
            ends &= self._learned(ids, self._goes_on)
        return begins, ends

    def is_structural(self, ids: IntArray) -> BoolArray:
        """Whether each token frames a text: shaped like ``ids``."""
        return np.isin(ids, list(self.structural_ids))

    def is_standalone(self, ids: IntArray) -> BoolArray:
        """Whether each token is a word of its own whatever stands beside it (a sentinel)."""
        return np.isin(ids, list(self._standalone_ids))

    def is_special(self, ids: IntArray) -> BoolArray:
        """Whether each token is none of the text's own: shaped like ``ids``."""
        return np.isin(ids, list(self.special_ids))

    def is_unknown(self, ids: IntArray) -> BoolArray:
        """Whether each token stands for what the vocabulary lacks: shaped like ``ids``.

        Some tokenizers call the token that ends a text unknown as well. That is none.
        """
        return np.isin(ids, [] if self._unknown_id is None else [self._unknown_id])

    def joined(self, rows: list[list[int]]) -> list[str]:
        """The text of the tokens of each row together, without space around it."""
        return [text.strip() for text in self._decode(rows)]

    def _learned(self, ids: IntArray, table: npt.NDArray[Any]) -> npt.NDArray[Any]:
        size = len(self._known)
        inside = np.where((ids >= 0) & (ids < size), ids, 0)
        new = np.unique(inside[~self._known[inside]])
        if len(new):
            alone = self._decode([[int(i)] for i in new])
            behind = self._decode([[*self._anchor, int(i)] for i in new])
            rests = [text[len(self._anchor_text) :] for text in behind]
            # At the beginning of a text many decoders leave out the space of the first token.
            entries = self._tokenizer.convert_ids_to_tokens(new.tolist())
            with_space = [str(entry).startswith(SPACE) for entry in entries]
            self._texts[new] = _printable(list(np.where(with_space, rests, alone)))
            # Some decoders leave out a space that nothing follows.
            self._begins_word[new] = [
                rest[:1].isspace() or (not rest and set(str(entry)) == {SPACE})
                for rest, entry in zip(rests, entries, strict=True)
            ]
            insides = rests
            if self._marks_ends:
                # Behind the anchor, which is all of a word, there is a space that they do not have.
                insides = [text.strip().removesuffix(GOES_ON) for text in alone]
                self._goes_on[new] = [_goes_on(str(entry), self._marks_ends) for entry in entries]
                # A special token's word is itself.
                self._goes_on[np.intersect1d(new, [*self.special_ids, *self._standalone_ids])] = 0
            self._begins_inside[new] = [_is_of_word(text[:1]) for text in insides]
            self._ends_inside[new] = [_is_of_word(text[-1:]) for text in insides]
            self._is_cut[new] = [_UNDECODABLE in rest for rest in rests]
            self._is_blank[new] = [not text.strip() for text in self._texts[new]]
            self._is_space[new] = [rest != "" and rest.isspace() for rest in rests]
            self._known[new] = True
        values = table[inside]
        if (ids >= size).any():
            values[ids >= size] = "" if table is self._texts else False
        return values

    def _decode(self, rows: list[list[int]]) -> list[str]:
        tokenizer = self._tokenizer
        if decodes_as_its_backend(tokenizer):
            # What `batch_decode` does row by row, in a fifteenth of the time.
            return list(tokenizer.backend_tokenizer.decode_batch(rows, skip_special_tokens=False))
        try:
            return list(tokenizer.batch_decode(rows, clean_up_tokenization_spaces=False))
        except Exception:
            # Vocabularies may have entries that their own class cannot decode. They have no text.
            if len(rows) == 1:
                return [""]
        middle = len(rows) // 2
        return self._decode(rows[:middle]) + self._decode(rows[middle:])


def decodes_as_its_backend(tokenizer: Any) -> bool:
    """Whether a tokenizer's class adds nothing to what the tokenizers library makes of ids."""
    import transformers

    plain, own = transformers.TokenizersBackend, type(tokenizer)
    names = ("batch_decode", "decode", "_decode")
    return (
        isinstance(tokenizer, plain)
        and all(getattr(own, name) is getattr(plain, name) for name in names)
        # Some put a function of their own in its place.
        and isinstance(tokenizer.backend_tokenizer.decode, BuiltinMethodType)
    )


def vocabulary_of(tokenizer: Any) -> Vocabulary:
    """The vocabulary of a tokenizer: the one made last time, unless tokens were added since."""
    return _vocabulary(tokenizer, (len(tokenizer), *tokenizer.all_special_ids))


@lru_cache(maxsize=4)
def _vocabulary(tokenizer: Any, state: tuple[int, ...]) -> Vocabulary:
    return Vocabulary(tokenizer)


def spelled(tokenizer: Any, ids: Iterable[int]) -> list[str]:
    """Tokens as the vocabulary spells them, for people to read."""
    return [str(t).replace(JOINER, "") for t in tokenizer.convert_ids_to_tokens(list(ids))]


def padding_id(tokenizer: Any) -> int:
    """What padding holds. It is masked and never a label, so EOS, or anything, will do."""
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(i) for i in ids if i is not None)


def _marks_ends(tokenizer: Any) -> str | None:
    """The mark by which a vocabulary tells ends of words, or that they go on; None if it has none.

    A word that no vocabulary has shows it; one entry that happens to look so does not count.
    """
    ids = tokenizer("kxjvwpkxjvw", add_special_tokens=False, verbose=False)["input_ids"]
    *others, last = map(str, tokenizer.convert_ids_to_tokens(ids)) if ids else [""]
    for mark in (ENDS, GOES_ON):
        if not _goes_on(last, mark) and others and all(_goes_on(e, mark) for e in others):
            return mark
    return None


def _goes_on(entry: str, mark: str) -> bool:
    """Whether the word of a token goes on behind it."""
    return entry.endswith(mark) if mark == GOES_ON else not entry.endswith(mark)


def _is_of_word(character: str) -> bool:
    """Whether a character is within a word; a token that is part of a character decodes to none."""
    if character in ("", _UNDECODABLE):
        return True
    kind = unicodedata.category(character)
    # Format characters such as joiners and soft hyphens are not seen, and separate nothing.
    return character.isalnum() or character == "_" or kind[0] == "M" or kind == "Cf"


def _printable(texts: list[str]) -> list[str]:
    """Byte-level tokenizers have a token for byte 0, which no reader of CSV files takes."""
    return [text.replace("\0", "\\x00") for text in texts]


def n_embeddings(model: Any) -> int | None:
    """How many token ids a model has, padding of its embeddings included; None if unknown."""
    find = getattr(model, "get_input_embeddings", None)
    n: int | None = getattr(find() if find is not None else None, "num_embeddings", None)
    return n


def embeddings_of(model: Any) -> Any:
    """The parameter of a model with a row for each token that it reads.

    Where PEFT's trainable tokens take its place, what they call their weight is computed.
    """
    module = model.get_input_embeddings()
    return getattr(module, "token_adapter", module).weight


def added_ids(tokenizer: Any, baseline_tokenizer: Any) -> set[int]:
    """The ids of tokens that the model has and its baseline has not.

    Raises:
        UserError: If a token that both have is not the same in both.
    """
    now, before = tokenizer.get_vocab(), baseline_tokenizer.get_vocab()
    for token, i in before.items():
        if now.get(token) != i:
            raise UserError(
                "a model that is compared with its baseline must keep the tokens of the "
                f"baseline, but {token!r} has the id {now.get(token)} and had {i}."
            )
    return set(now.values()) - set(before.values())
