"""What words cost, from what tokens cost and from where words end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from finetune_lm.measures._measure import Measure
from finetune_lm.models.vocabulary import Vocabulary, vocabulary_of
from finetune_lm.scoring.measuring import LogitRows, Tokens

if TYPE_CHECKING:
    from torch import Tensor

FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

# Scripts whose words are not told apart by spaces: Thai, Lao, Tibetan, Myanmar, Khmer, Tai and
# others of that region, Japanese syllables, Chinese characters.
_WITHOUT_SPACES = re.compile(
    "[\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf"
    "\u3005-\u3007\u3021-\u3029\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uaa60-\uaadf"
    "\uf900-\ufaff\uff66-\uff9f\U0001b000-\U0001b16f\U00020000-\U0003ffff]"
)


class WordBoundary(Measure):
    r"""The column ``surprisal_corrected``, whose sum over a word is the word's surprisal.

    A tokenizer that marks the beginnings of words tells only by the next token that a word is over,
    so the product of a word's token probabilities does not sum to 1 over words. With B the tokens
    that start a word and those that end the text, and P(B | c) the sum of their probabilities,

    .. math::
        \mathrm{corrected}(w) = \mathrm{raw}(w) + \log_2 P(B \mid t_{<i}) - \log_2 P(B \mid t_{\le
        j})

    for a word of the tokens i to j (Pimentel & Meister 2024, https://arxiv.org/abs/2406.14561; Oh &
    Schuler 2024, https://arxiv.org/abs/2406.10851). The first token of a word carries the first
    term and the last one the second, so that values are summed by word as surprisals are. Where a
    text begins with a token that does not start a word by its spelling, the first term is that of
    all tokens of this kind.

    It is missing for all tokens of a word that is not told by the tokens: one that is two units of
    the tokenizer or a part of one (words next to punctuation of BERT-like vocabularies, words that
    metadata cut from others), the last one of a text that was cut, one in a script without spaces,
    one that not all tokens have a row of; for masked models, which have no probability that a word
    is over; and for what a seq2seq model would say. It is the surprisal itself where separators are
    tokens of their own (characters, bytes) and where tokens tell that they end a word.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
    """

    columns = ("surprisal_corrected",)
    over_word = "sum"
    looks_behind = True

    def __init__(self, model: Any, tokenizer: Any) -> None:
        vocabulary = vocabulary_of(tokenizer)
        self._vocabulary = vocabulary
        self._ends_text = np.array(sorted(_ends_of_text(model, tokenizer)), dtype=np.int64)
        self._marks_ends = vocabulary.marks_ends
        self._is_needed = not self._marks_ends and _marks_beginnings(vocabulary)
        self._masks: Tensor | None = None
        self._has_spaces: dict[str | None, bool] = {}

    def of_rows(self, rows: LogitRows, beside: Any = None) -> dict[str, Tensor]:
        """See `Measure.of_rows`: log2 P(B) and log2 of what does not start a word."""
        import torch

        if not self._is_needed:
            nothing = torch.zeros(len(rows.targets), device=rows.targets.device)
            return {"boundary": nothing, "inside": nothing}
        if self._masks is None:
            self._masks = self._made_masks(rows.exponentials)
        if rows.exponentials.device.type == "cpu":
            sums = torch.stack([rows.exponentials.mv(m) for m in self._masks.unbind(1)], dim=1)
        else:
            # Products may be rounded there (TF32), sums are not.
            parts = [(rows.exponentials * mask).sum(dim=-1) for mask in self._masks.unbind(dim=1)]
            sums = torch.stack(parts, dim=1)
        # Below what float32 holds there is no number.
        shares = (sums / rows.total[:, None]).masked_fill(sums == 0, torch.nan).log2()
        shares = rows.of_targets(shares)
        return {"boundary": shares[:, 0], "inside": shares[:, 1]}

    def _made_masks(self, exponentials: Tensor) -> Tensor:
        """What is in B, and what starts no word: (vocabulary, 2) of zeros and ones."""
        import torch

        size = exponentials.shape[-1]
        starts, ends = self._starts(np.arange(size)), self._is_end(np.arange(size))
        masks = torch.from_numpy(np.stack([starts | ends, ~starts])).to(exponentials)
        # Each contiguous, as products with one of them want it.
        return masks.T

    def _starts(self, ids: npt.NDArray[np.int64]) -> BoolArray:
        """Whether each token starts a word, by what it decodes to in the middle of a text."""
        vocabulary = self._vocabulary
        if vocabulary.continuing_ids is not None:
            # Decoders leave out the space before punctuation, which is a unit all the same.
            is_entry = (ids >= 0) & (ids < vocabulary.size)
            begins = ~np.isin(ids, vocabulary.continuing_ids) & is_entry
        else:
            begins = vocabulary.begins_word(ids) | np.isin(ids, vocabulary.sentinel_ids)
        return begins & ~self._is_end(ids)

    def _is_end(self, ids: npt.NDArray[np.int64]) -> BoolArray:
        return np.isin(ids, self._ends_text)

    def finish(
        self,
        measured: Mapping[str, FloatArray],
        behind: Mapping[str, FloatArray],
        tokens: Tokens,
    ) -> dict[str, FloatArray]:
        """See `Measure`."""
        if not tokens.in_order:
            return {"surprisal_corrected": np.full_like(tokens.surprisal, np.nan)}
        corrected = tokens.surprisal
        is_told = self._has_told_text(tokens)
        if self._is_needed or self._marks_ends:
            begins_unit, ends_unit = self._units(tokens)
            is_told &= self._is_one_unit(tokens, begins_unit, ends_unit)
        is_end = self._is_end(tokens.token_id)
        # What frames a text is no word's.
        frames = self._vocabulary.is_structural(tokens.token_id) & ~is_end
        if self._is_needed:
            before = np.where(
                self._starts(tokens.token_id) | is_end, measured["boundary"], measured["inside"]
            )
            corrected = corrected + np.where(begins_unit, before, np.float32(0.0))
            corrected -= np.where(ends_unit & ~is_end, behind["boundary"], np.float32(0.0))
            corrected = np.where(frames, tokens.surprisal, corrected)
        return {"surprisal_corrected": _whole_words(corrected, is_told | frames, tokens.word)}

    def _units(self, tokens: Tokens) -> tuple[BoolArray, BoolArray]:
        """Whether each token begins and ends what is a word to the tokenizer."""
        is_end = self._is_end(tokens.token_id)
        next_ends = (tokens.next_id < 0) | self._is_end(tokens.next_id)
        if self._marks_ends:
            ends = next_ends | ~self._vocabulary.goes_on(tokens.token_id)
            begins = tokens.begins | is_end
            begins[1:] |= ends[:-1]
            return begins, ends
        begins = self._starts(tokens.token_id) | is_end | tokens.begins
        return begins, next_ends | self._starts(tokens.next_id)

    def _has_told_text(self, tokens: Tokens) -> BoolArray:
        """Whether each token's word has all its rows, and a text in which spaces part words."""
        word, number = tokens.word, tokens.num_in_word
        is_first, is_last = np.ones(len(word), dtype=bool), np.ones(len(word), dtype=bool)
        is_first[1:] = word[1:] != word[:-1]
        is_last[:-1] = is_first[1:]
        follows = np.zeros(len(word), dtype=bool)
        follows[1:] = number[1:] == number[:-1] + 1
        is_whole = np.where(is_first, number == 0, follows) & (tokens.ends_word | ~is_last)
        told = (word < 0) | (is_whole & ~tokens.straddles)
        # Whatever may follow it, the last word of a text that was cut is not known to be over.
        at_end = (tokens.next_id < 0) | self._vocabulary.is_structural(tokens.next_id)
        told &= ~(tokens.is_cut & at_end & ~self._vocabulary.is_structural(tokens.token_id))
        has_spaces: BoolArray = np.array([self._parts_words(t) for t in tokens.word_text], bool)
        return told & has_spaces

    def _parts_words(self, text: str | None) -> bool:
        if text not in self._has_spaces:
            self._has_spaces[text] = text is None or not _WITHOUT_SPACES.search(text)
        return self._has_spaces[text]

    def _is_one_unit(
        self, tokens: Tokens, begins_unit: BoolArray, ends_unit: BoolArray
    ) -> BoolArray:
        """Whether each token leaves it possible that its word is one unit of the tokenizer.

        Nothing but blanks may be a unit of its own beside that.
        """
        word, n = tokens.word, len(tokens.word)
        begins_word = np.ones(n, dtype=bool)
        begins_word[1:] = (word[1:] != word[:-1]) | (word[1:] < 0)
        told = (begins_unit | ~begins_word) & (ends_unit | ~tokens.ends_word)
        # Units by number, and which of them are more than blanks.
        unit = np.cumsum(begins_unit | begins_word) - 1
        has_text = np.zeros(unit[-1] + 1 if n else 0, dtype=bool)
        has_text[unit[~self._vocabulary.is_blank(tokens.token_id)]] = True
        of_units = word[begins_unit | begins_word]
        in_words = of_units[has_text & (of_units >= 0)]
        counts = np.bincount(in_words) if len(in_words) else np.zeros(0, dtype=np.int64)
        return told & ~np.isin(word, np.flatnonzero(counts > 1))


def _whole_words(values: FloatArray, is_told: BoolArray, word: npt.NDArray[np.int64]) -> FloatArray:
    """The values, missing for all tokens of a word if they are for one."""
    is_told = is_told & ~np.isnan(values)
    spoiled = np.unique(word[~is_told & (word >= 0)])
    return np.where(is_told & ~np.isin(word, spoiled), values, np.float32(np.nan))


def _ends_of_text(model: Any, tokenizer: Any) -> set[int]:
    """The tokens that end a text, as the model and the tokenizer say."""
    own = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ids = {*own} if isinstance(own, list | tuple) else {own}
    ids.add(tokenizer.eos_token_id)
    if ids == {None}:
        ids.add(tokenizer.sep_token_id)
    return {int(i) for i in ids if i is not None}


def _marks_beginnings(vocabulary: Vocabulary) -> bool:
    """Whether tokens that begin a word have the space before it in them.

    In vocabularies of characters or bytes a space is a token of its own.
    """
    ids = vocabulary.ordinary_ids
    begins = ids[vocabulary.begins_word(ids)]
    return any(text.strip() for text in vocabulary.texts(begins))
